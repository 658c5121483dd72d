//! Cache for decoding: keeps the states of a sequence's earlier tokens at every step of their walks, and runs a block on new
//! tokens of several sequences, which attend to them.
//!
//! A block that runs at step `s` attends to the states of all earlier tokens at step `s`. So the states of every step are kept.
//! When a token runs a block at a step, keys and values are made from them for all tokens since the last time at once. A token
//! whose walk is over keeps its last state, so its keys and values are made once per block, for all steps that it did not take.

use super::pool::Pool;
use crate::block::attention::Maps;
use crate::block::cache::{Cache, attend};
use crate::block::matrix::add_position;
use crate::ops::attention_spans::AttentionSpans;
use crate::ops::gather::{Parts, RowPlace, some};
use crate::ops::groups::Group;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::collections::BTreeMap;

/// All walks so far of one sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct WalkCache<B: Backend> {
    /// Of every token whose walk is over, how many steps it took.
    n_steps: Vec<usize>,
    /// Of every token its pass, and its row there.
    places: Vec<RowPlace>,
    /// Of every pass that is over what its tokens left with.
    ends: Vec<States<B>>,
    steps: Vec<PastStep<B>>,
    /// Keys and values of last states, by block.
    last: BTreeMap<usize, OfLastStates<B>>,
}

/// Hidden states `[n, d_model]` of the tokens of a pass, and positions as the blocks see them, `[n, d_position]`.
type States<B> = [Tensor<B, 2>; 2];

/// The tokens at one step.
#[derive(Clone, Debug)]
struct PastStep<B: Backend> {
    /// The states with which the tokens of every pass came.
    passes: Vec<States<B>>,
    /// By block.
    blocks: BTreeMap<usize, OfStep<B>>,
}

/// What a block keeps of tokens at a step.
#[derive(Clone, Debug, Default)]
struct OfStep<B: Backend> {
    cache: Cache<B>,
    /// Where the keys and values lie of the tokens that it has read.
    keys: Vec<Key>,
}

/// What a block keeps of the last states of tokens.
#[derive(Clone, Debug, Default)]
struct OfLastStates<B: Backend> {
    cache: Cache<B>,
    /// The row of each token that it has read.
    rows: BTreeMap<usize, usize>,
}

/// A row of one of the caches of a block.
#[derive(Clone, Copy, Debug)]
enum Key {
    /// Of those of the step.
    OfStep(usize),
    /// Of those of last states.
    Last(usize),
}

/// What a block is to read of a sequence at a step, and what it keeps.
pub(crate) struct Unread<B: Backend> {
    /// Of `tokens`, in parts.
    states: [Vec<Tensor<B, 2>>; 2],
    /// Last states come first.
    tokens: Vec<usize>,
    /// How many of the tokens come with their last states.
    n_last: usize,
    /// How many of them, at the end, want an output.
    n_wanted: usize,
    last: OfLastStates<B>,
    of_step: OfStep<B>,
}

impl<B: Backend> WalkCache<B> {
    /// How many tokens have walked.
    pub fn n_tokens(&self) -> usize {
        self.n_steps.len()
    }

    /// Keeps the states with which the tokens of a pass enter a step; `position` is as the blocks see it.
    ///
    /// # Shapes
    /// - `hidden`: `[n_new, d_model]`
    /// - `position`: `[n_new, d_position]`
    pub fn enter(&mut self, step: usize, hidden: Tensor<B, 2>, position: Tensor<B, 2>) {
        if step == 0 {
            let (part, n_rows) = (self.ends.len(), hidden.dims()[0]);
            let place = |row| RowPlace { part, row };
            self.places.extend((0..n_rows).map(place));
        }
        if step == self.steps.len() {
            self.steps.push(PastStep {
                passes: self.ends.clone(),
                blocks: BTreeMap::new(),
            });
        }
        self.steps[step].passes.push([hidden, position]);
    }

    /// Ends a pass; `n_steps` says how many steps each of its tokens took, and the states are those with which they left.
    ///
    /// # Shapes
    /// As [`Self::enter`]
    pub fn end(&mut self, n_steps: &[usize], hidden: Tensor<B, 2>, position: Tensor<B, 2>) {
        self.n_steps.extend(n_steps);
        self.ends.push([hidden, position]);
        let n_passes = self.ends.len();
        for step in &mut self.steps {
            // Nobody came to it, so nobody asks what they came with.
            let ends = self.ends[step.passes.len()..n_passes].iter();
            step.passes.extend(ends.cloned());
        }
    }

    /// Takes out what a block keeps at a step, with the tokens that it has not read, those of the last pass among them.
    /// [`output`] reads them, and [`Self::put_back`] keeps it again.
    pub fn take(&mut self, step: usize, block: usize) -> Unread<B> {
        let n_over = self.n_tokens();
        let is_over = |token: usize| self.n_steps.get(token).is_some_and(|&n| n <= step);
        let PastStep { passes, blocks } = &mut self.steps[step];
        let mut of_step = blocks.remove(&block).unwrap_or_default();
        let mut last = self.last.remove(&block).unwrap_or_default();
        let unread = of_step.keys.len()..self.places.len();
        let (over, own): (Vec<usize>, Vec<usize>) =
            unread.clone().partition(|&token| is_over(token));
        let mut new_last = over.clone();
        new_last.retain(|token| !last.rows.contains_key(token));
        let first = last.cache.n_tokens();
        last.rows.extend(new_last.iter().copied().zip(first..));
        let mut rows = of_step.cache.n_tokens()..;
        let key = |token: usize| match is_over(token) {
            true => Key::Last(last.rows[&token]),
            false => Key::OfStep(rows.next().expect("a row for every token")),
        };
        of_step.keys.extend(unread.map(key));
        let states = [0, 1].map(|part| {
            let mut parts = slices(&self.ends, &self.places, &new_last, part);
            parts.extend(slices(passes, &self.places, &own, part));
            parts
        });
        Unread {
            states,
            n_last: new_last.len(),
            n_wanted: self.places.len() - n_over,
            tokens: new_last.into_iter().chain(own).collect(),
            last,
            of_step,
        }
    }

    /// Keeps what a block keeps at a step.
    pub fn put_back(&mut self, step: usize, block: usize, read: Unread<B>) {
        self.steps[step].blocks.insert(block, read.of_step);
        self.last.insert(block, read.last);
    }
}

/// The states, or the positions, of some tokens: a slice for each run of tokens that follow each other in a pass.
fn slices<B: Backend>(
    passes: &[States<B>],
    places: &[RowPlace],
    tokens: &[usize],
    part: usize,
) -> Vec<Tensor<B, 2>> {
    let follows = |a: &usize, b: &usize| a + 1 == *b && places[*a].part == places[*b].part;
    let runs = tokens.chunk_by(follows);
    let slice = |run: &[usize]| {
        let RowPlace { part: pass, row } = places[run[0]];
        let states = passes[pass][part].clone();
        match run.len() == states.dims()[0] {
            true => states,
            false => states.slice_dim(0, row..row + run.len()),
        }
    };
    runs.map(slice).collect()
}

/// The output of a block for the last pass of some sequences, one behind the other; what it has read is added to what it keeps.
/// The bits of a sequence on the host do not depend on the others.
///
/// # Shapes
/// Returns `[n_new, d_model]` of all last passes
pub(crate) fn output<B: Backend>(
    pool: &Pool<'_, B>,
    block: usize,
    unread: &mut [Unread<B>],
) -> Tensor<B, 2> {
    let ((routed, maps), rotary) = (pool.block(block), pool.rotary);
    let [hidden, position] = [0, 1].map(|part| {
        let states = unread.iter_mut();
        let states = states.flat_map(|of| std::mem::take(&mut of.states[part]));
        Tensor::cat(states.collect(), 0)
    });
    let told = add_position(hidden, routed.adapter.as_ref(), position);
    let places: Vec<usize> = unread.iter().flat_map(|of| of.tokens.clone()).collect();
    let normed_maps = (&routed.block.attention_norm, maps);
    let project = Group::only(normed_maps, &told);
    let keys_values = Maps::keys_values(&project, &told, &rotary.angles(places.clone()));

    let (mut among, mut spans) = (Parts::none(), AttentionSpans::none());
    let (mut first, mut wanted) = (0, Vec::new());
    for of in unread {
        let (second, end) = (first + of.n_last, first + of.tokens.len());
        let slice = |rows| keys_values.clone().slice_dim(0, rows);
        if of.n_last > 0 {
            of.last.cache.append(slice(first..second));
        }
        of.of_step.cache.append(slice(second..end));
        wanted.extend(end - of.n_wanted..end);
        spans.last(of.n_wanted, of.of_step.keys.len());
        let [of_step, last] =
            [&of.of_step.cache, &of.last.cache].map(|cache| cache.lay(&mut among.parts));
        among
            .places
            .extend(of.of_step.keys.iter().map(|key| match *key {
                Key::OfStep(row) => of_step[row],
                Key::Last(row) => last[row],
            }));
        first = end;
    }

    let told = some(told, &wanted);
    let angles = rotary.angles(wanted.iter().map(|&row| places[row]).collect());
    let queries = Maps::queries(&Group::only(normed_maps, &told), &told, &angles);
    attend(&routed.block, told, queries, among, spans, &maps.packed)
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::ops::tests::Host;

    fn column(numbers: &[usize]) -> Tensor<Host, 2> {
        let numbers: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
        Tensor::<Host, 1>::from_floats(&numbers[..], &Default::default()).unsqueeze_dim(1)
    }

    /// What block 0 is to read at a step: states, tokens, how many of these are last states, and how many are asked for. Then it
    /// has read it.
    fn read(walks: &mut WalkCache<Host>, step: usize) -> (Vec<f32>, Vec<usize>, usize, usize) {
        let mut unread = walks.take(step, 0);
        let [states, _] = unread.states.clone();
        let states = Tensor::cat(states, 0);
        let rows = |which| states.clone().slice_dim(0, which);
        if unread.n_last > 0 {
            unread.last.cache.append(rows(0..unread.n_last));
        }
        unread
            .of_step
            .cache
            .append(rows(unread.n_last..unread.tokens.len()));
        let seen = (
            states.into_data().to_vec().unwrap(),
            unread.tokens.clone(),
            unread.n_last,
            unread.n_wanted,
        );
        walks.put_back(step, 0, unread);
        seen
    }

    /// The state of a token at a step is `10 * step + token`, its last state `100 + token`.
    #[test]
    fn the_last_state_of_a_token_is_read_once_for_all_steps_that_it_did_not_take() {
        let mut walks = WalkCache::default();
        let enter = |walks: &mut WalkCache<Host>, step: usize, tokens: &[usize]| {
            let states: Vec<usize> = tokens.iter().map(|token| 10 * step + token).collect();
            walks.enter(step, column(&states), column(&states));
        };
        let end = |walks: &mut WalkCache<Host>, tokens: &[usize], n_steps: &[usize]| {
            let states: Vec<usize> = tokens.iter().map(|token| 100 + token).collect();
            walks.end(n_steps, column(&states), column(&states));
        };
        enter(&mut walks, 0, &[0, 1]);
        assert_eq!(read(&mut walks, 0), (vec![0.0, 1.0], vec![0, 1], 0, 2));
        enter(&mut walks, 1, &[0, 1]);
        end(&mut walks, &[0, 1], &[1, 2]);
        assert_eq!(walks.n_tokens(), 2);

        enter(&mut walks, 0, &[2]);
        assert_eq!(read(&mut walks, 0), (vec![2.0], vec![2], 0, 1));
        enter(&mut walks, 1, &[2]);
        let step_1 = (vec![100.0, 11.0, 12.0], vec![0, 1, 2], 1, 1);
        assert_eq!(read(&mut walks, 1), step_1);
        enter(&mut walks, 2, &[2]);
        // Token 0 was read at the step before.
        assert_eq!(read(&mut walks, 2), (vec![101.0, 22.0], vec![1, 2], 1, 1));
        end(&mut walks, &[2], &[3]);

        // Two tokens that leave at once, while others take steps that nobody has taken.
        enter(&mut walks, 0, &[3, 4]);
        assert_eq!(read(&mut walks, 0), (vec![3.0, 4.0], vec![3, 4], 0, 2));
        end(&mut walks, &[3, 4], &[1, 1]);
        for step in 0..4 {
            enter(&mut walks, step, &[5]);
        }
        let step_3 = (vec![102.0, 103.0, 104.0, 35.0], vec![2, 3, 4, 5], 3, 1);
        assert_eq!(read(&mut walks, 3), step_3);
        assert_eq!(read(&mut walks, 2), (vec![25.0], vec![5], 0, 1));
    }
}

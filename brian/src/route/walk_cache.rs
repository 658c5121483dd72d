//! Cache for decoding: keeps the states of a sequence's earlier tokens at every step of their walks, and runs a block on new
//! tokens of several sequences, which attend to them.
//!
//! A block that runs at step `s` attends to the states of all earlier tokens at step `s`. So the states of every step are kept.
//! When a token runs a block at a step, its columns (see [`attending`](super::attending)) are made from them for all tokens since the
//! last time at once. A token whose walk is over keeps its last state, so its columns are made once per block, for all steps that it did
//! not take. Where blocks attend to those alone that run them too, columns are made of these alone.
//!
//! What tokens write into a memory is kept step by step: a later token sees of an earlier one what was there at its own step, not what
//! came after.

use super::attending::{Attending, Layout};
use super::rules::Attends;
use crate::block::cache::Cache;
use crate::block::matrix::add_position;
use crate::memory::slots::Seen;
use crate::ops::cat::cat;
use crate::ops::gather::{RowPlace, replace, some};
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
    /// Columns of last states, by block.
    last: BTreeMap<usize, OfLastStates<B>>,
    /// What tokens wrote, by step.
    written: Vec<WrittenAt<B>>,
    /// The columns that blocks made of it, by step and block, where every block makes its own.
    read: BTreeMap<(usize, usize), Cache<B>>,
    /// What was written at this step: the block, the tokens of the pass, and a row of each.
    now: Vec<(usize, Vec<usize>, Tensor<B, 2>)>,
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
    /// Where the columns lie of the tokens that it has read.
    keys: Vec<Key>,
}

/// What a block keeps of the last states of tokens.
#[derive(Clone, Debug, Default)]
struct OfLastStates<B: Backend> {
    cache: Cache<B>,
    /// The row of each token that it has read.
    rows: BTreeMap<usize, usize>,
}

/// What tokens wrote at a step.
#[derive(Clone, Debug, Default)]
struct WrittenAt<B: Backend> {
    cache: Cache<B>,
    /// The row of each token that wrote.
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
    last: OfLastStates<B>,
    of_step: OfStep<B>,
    asking: Asking<B>,
    memory: Vec<OfSlot<B>>,
    /// Of every token the rows of the memory that it shows, each in one of the above.
    earlier: Vec<Vec<RowPlace>>,
}

impl<B: Backend> Unread<B> {
    /// The rows, among those of `tokens`, of the tokens that want an output: they are the last ones that the block reads.
    fn own_rows(&self) -> impl Iterator<Item = usize> + '_ {
        let n_keys = self.of_step.keys.len();
        let keys = self.asking.keys.iter();
        keys.map(move |key| self.tokens.len() - (n_keys - key))
    }
}

/// Who wants an output: tokens of the last pass.
struct Asking<B: Backend> {
    /// Counted there.
    tokens: Vec<usize>,
    /// In their sequence.
    places: Vec<usize>,
    /// The keys that are their own.
    keys: Vec<usize>,
    /// Their states, where columns are not made of them.
    states: Option<States<B>>,
    /// Of what they wrote: a row of each.
    written: Option<Tensor<B, 2>>,
}

/// What a block reads of a slot.
struct OfSlot<B: Backend> {
    slot: usize,
    /// Columns.
    cache: Cache<B>,
    /// Written rows of which the block has made no columns yet.
    unread: Option<Tensor<B, 2>>,
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

    /// Takes out what a block keeps at a step, with the tokens that it has not read; `asking` are the tokens of the last pass that run
    /// it, counted there. [`output`] reads them, and [`Self::put_back`] keeps it again.
    pub fn take(
        &mut self,
        attending: &Attending<'_, B>,
        step: usize,
        block: usize,
        asking: &[usize],
    ) -> Unread<B> {
        let n_over = self.n_tokens();
        let owner = attending.owner(block);
        let is_over = |token: usize| self.n_steps.get(token).is_some_and(|&n| n <= step);
        let PastStep { passes, blocks } = &mut self.steps[step];
        let mut of_step = blocks.remove(&owner).unwrap_or_default();
        let mut last = self.last.remove(&owner).unwrap_or_default();
        let running = asking.iter().map(|token| n_over + token);
        let unread: Vec<usize> = match attending.attends {
            Attends::All => (of_step.keys.len()..self.places.len()).collect(),
            Attends::Selected => running.collect(),
        };
        let (over, own): (Vec<usize>, Vec<usize>) =
            unread.iter().partition(|&&token| is_over(token));
        let mut new_last = over.clone();
        new_last.retain(|token| !last.rows.contains_key(token));
        let first = last.cache.n_tokens();
        last.rows.extend(new_last.iter().copied().zip(first..));
        let mut rows = of_step.cache.n_tokens()..;
        let key = |&token: &usize| match is_over(token) {
            true => Key::Last(last.rows[&token]),
            false => Key::OfStep(rows.next().expect("a row for every token")),
        };
        of_step.keys.extend(unread.iter().map(key));
        let n_before = match attending.attends {
            Attends::All => n_over,
            Attends::Selected => of_step.keys.len() - asking.len(),
        };
        let keys = match attending.attends {
            Attends::All => asking.iter().map(|token| n_before + token).collect(),
            Attends::Selected => (n_before..of_step.keys.len()).collect(),
        };
        let states = [0, 1].map(|part| {
            let mut parts = slices(&self.ends, &self.places, &new_last, part);
            parts.extend(slices(passes, &self.places, &own, part));
            parts
        });
        let came = || {
            passes
                .last()
                .expect("a pass that came to this step")
                .clone()
        };
        let apart = attending.has_columns_of_states();
        let asking = Asking {
            tokens: asking.to_vec(),
            places: asking.iter().map(|token| n_over + token).collect(),
            keys,
            states: apart.then(|| came().map(|states| some(states, asking))),
            written: None,
        };
        let (memory, earlier) = match attending.seen() {
            Some(seen) => self.take_memory(attending, seen, step, block),
            None => (Vec::new(), Vec::new()),
        };
        Unread {
            states,
            n_last: new_last.len(),
            tokens: new_last.into_iter().chain(own).collect(),
            last,
            of_step,
            asking,
            memory,
            earlier,
        }
    }

    /// What a block sees at a step of what was written, and where that of each token lies.
    fn take_memory(
        &mut self,
        attending: &Attending<'_, B>,
        seen: Seen,
        step: usize,
        block: usize,
    ) -> (Vec<OfSlot<B>>, Vec<Vec<RowPlace>>) {
        let mut slots = seen.slots(step);
        slots.retain(|&slot| slot < self.written.len());
        let of_slot = |&slot: &usize| {
            let written = &self.written[slot].cache;
            if !attending.is_compressed() {
                return OfSlot {
                    slot,
                    cache: written.clone(),
                    unread: None,
                };
            }
            let cache = self.read.remove(&(slot, block)).unwrap_or_default();
            OfSlot {
                slot,
                unread: written.after(cache.n_tokens()),
                cache,
            }
        };
        let memory = slots.iter().map(of_slot).collect();
        let places: Vec<usize> = (0..slots.len()).collect();
        let row = |place: usize, token: usize| {
            let written = &self.written[slots[place]];
            written.rows.get(&token).copied()
        };
        let of_token = |token: usize| {
            let seen = seen.of_token(&places, move |place| row(place, token).is_some());
            let at = |part| {
                let row = row(part, token).expect("it wrote");
                RowPlace { part, row }
            };
            seen.map(at).collect()
        };
        (memory, (0..self.places.len()).map(of_token).collect())
    }

    /// Keeps what a block keeps at a step, and what those who ran it write.
    pub fn put_back(
        &mut self,
        attending: &Attending<'_, B>,
        step: usize,
        block: usize,
        read: Unread<B>,
    ) {
        let owner = attending.owner(block);
        self.steps[step].blocks.insert(owner, read.of_step);
        self.last.insert(owner, read.last);
        if attending.is_compressed() {
            let read = read.memory.into_iter();
            self.read
                .extend(read.map(|OfSlot { slot, cache, .. }| ((slot, block), cache)));
        }
        let Asking {
            tokens, written, ..
        } = read.asking;
        self.now
            .extend(written.map(|written| (block, tokens, written)));
    }

    /// Ends a step of the last pass: keeps what its tokens have written, of those that ran several blocks the sum by their shares.
    ///
    /// # Shapes
    /// `weights`: `[n_new, n_pool]`
    pub fn write(&mut self, step: usize, weights: Option<&Tensor<B, 2>>) {
        let (mut of_runs, mut parts) = (Vec::new(), Vec::new());
        for (block, tokens, rows) in std::mem::take(&mut self.now) {
            parts.push(match weights {
                Some(weights) => {
                    rows * some(weights.clone().slice_dim(1, block..block + 1), &tokens)
                }
                None => rows,
            });
            of_runs.extend(tokens);
        }
        if self.written.len() <= step {
            self.written.resize_with(step + 1, WrittenAt::default);
        }
        let Some(first) = parts.first() else { return };
        let mut tokens = of_runs.clone();
        tokens.sort_unstable();
        tokens.dedup();
        let (n_over, [_, width]) = (self.n_tokens(), first.dims());
        let n_new = self.places.len() - n_over;
        let nothing = Tensor::zeros([n_new, width], &first.device());
        let rows = some(replace(nothing, &of_runs, parts), &tokens);
        let WrittenAt {
            cache,
            rows: places,
        } = &mut self.written[step];
        let first = cache.n_tokens();
        let tokens = tokens.into_iter().zip(first..);
        places.extend(tokens.map(|(token, row)| (n_over + token, row)));
        cache.append(rows);
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

/// The output of a block for those that run it in the last pass of some sequences, one sequence behind the other; what it has read is
/// added to what it keeps.
/// `visits` are the numbers of their visits to it.
/// The bits of a sequence on the host do not depend on the others.
///
/// # Shapes
/// Returns `[runners, d_model]` of all last passes
pub(crate) fn output<B: Backend>(
    attending: &Attending<'_, B>,
    block: usize,
    unread: &mut [Unread<B>],
    visits: &[usize],
) -> Tensor<B, 2> {
    let ((routed, _), rotary) = (attending.pool.block(block), attending.pool.rotary);
    let only = |rows: &Tensor<B, 2>| Group::only(block, rows);
    let add =
        |[hidden, position]: States<B>| add_position(hidden, routed.adapter.as_ref(), position);
    let places: Vec<usize> = unread.iter().flat_map(|of| of.tokens.clone()).collect();
    let read = (!places.is_empty()).then(|| {
        [0, 1].map(|part| {
            let states = unread.iter_mut();
            let states = states.flat_map(|of| std::mem::take(&mut of.states[part]));
            cat(states.collect(), 0)
        })
    });
    let asked = unread.iter().flat_map(|of| of.asking.places.clone());
    let asked: Vec<usize> = asked.collect();
    let (told, columns) = match (attending.has_columns_of_states(), read) {
        (false, Some(states)) => {
            let told = add(states);
            let columns = attending.columns(&only(&told), &told, &rotary.angles(places));
            let (mut first, mut rows) = (0, Vec::new());
            for of in unread.iter() {
                rows.extend(of.own_rows().map(|row| first + row));
                first += of.tokens.len();
            }
            (some(told, &rows), Some(columns))
        }
        (_, read) => {
            let states = [0, 1].map(|part| {
                let states = unread.iter();
                let states = states.filter_map(|of| Some(of.asking.states.as_ref()?[part].clone()));
                cat(states.collect(), 0)
            });
            let columns = read.map(|[hidden, _]| attending.columns_of_states(hidden));
            (add(states), columns)
        }
    };

    let (mut layout, mut parts) = (Layout::default(), Vec::new());
    let (mut first, writes) = (0, attending.seen().is_some());
    for of in unread {
        let (second, end) = (first + of.n_last, first + of.tokens.len());
        if let Some(columns) = &columns {
            let slice = |rows| columns.clone().slice_dim(0, rows);
            if second > first {
                of.last.cache.append(slice(first..second));
            }
            if end > second {
                of.of_step.cache.append(slice(second..end));
            }
            if writes {
                let rows: Vec<usize> = of.own_rows().map(|row| first + row).collect();
                let own = some(columns.clone(), &rows);
                of.asking.written = Some(attending.written(&only(&own), own));
            }
        }
        let [of_step, last] =
            [&of.of_step.cache, &of.last.cache].map(|cache| cache.lay(&mut parts));
        let memory = of.memory.iter_mut().map(|slot| {
            if let Some(unread) = slot.unread.take() {
                slot.cache.append(attending.read(block, unread));
            }
            slot.cache.lay(&mut parts)
        });
        let memory: Vec<Vec<RowPlace>> = memory.collect();
        let before = layout.places.len();
        let own = |key: &Key| match *key {
            Key::OfStep(row) => of_step[row],
            Key::Last(row) => last[row],
        };
        if memory.is_empty() {
            layout.tokens(of.of_step.keys.iter().map(own));
            layout.sequence(of.asking.keys.iter().map(|key| key + 1));
        } else {
            let ends = of
                .of_step
                .keys
                .iter()
                .zip(&of.earlier)
                .map(|(key, earlier)| {
                    let earlier = earlier.iter().map(|at| memory[at.part][at.row]);
                    layout.token(earlier, 1, own(key)) - before
                });
            let ends: Vec<usize> = ends.collect();
            layout.sequence(of.asking.keys.iter().map(|&key| ends[key]));
        }
        first = end;
    }

    let queries = attending.queries(&only(&told), &told, &rotary.angles(asked));
    let bias = writes.then(|| attending.bias(block));
    let among = layout.among(parts, bias.into_iter());
    let groups = only(&told);
    let factors = attending.factors(&groups, visits);
    attending.attend(&groups, told, queries, &among, factors.as_ref())
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::ops::tests::Host;
    use crate::{Brian, BrianConfig, Rules};

    fn column(numbers: &[usize]) -> Tensor<Host, 2> {
        let numbers: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
        Tensor::<Host, 1>::from_floats(&numbers[..], &Default::default()).unsqueeze_dim(1)
    }

    /// A model whose blocks are never run here: it says how they attend.
    fn model() -> Brian<Host> {
        let config = BrianConfig::small();
        config.init(3, 1, &Default::default())
    }

    /// What block 0 is to read at a step for so many new tokens: states, tokens, how many of these are last states, and the rows of
    /// the new ones. Then it has read it.
    fn read(
        walks: &mut WalkCache<Host>,
        step: usize,
        n_new: usize,
    ) -> (Vec<f32>, Vec<usize>, usize, Vec<usize>) {
        let model = model();
        let (nothing, causal) = (
            Tensor::zeros([1, 1, 1], &Default::default()),
            model.rotary.causal(1),
        );
        let context = model.ground(&nothing, &causal, &Rules::sequential(), None, None);
        let attending = context.attending();
        let asking: Vec<usize> = (0..n_new).collect();
        let mut unread = walks.take(&attending, step, 0, &asking);
        let [states, _] = unread.states.clone();
        let states = cat(states, 0);
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
            unread.own_rows().collect(),
        );
        walks.put_back(&attending, step, 0, unread);
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
        let step_0 = (vec![0.0, 1.0], vec![0, 1], 0, vec![0, 1]);
        assert_eq!(read(&mut walks, 0, 2), step_0);
        enter(&mut walks, 1, &[0, 1]);
        end(&mut walks, &[0, 1], &[1, 2]);
        assert_eq!(walks.n_tokens(), 2);

        enter(&mut walks, 0, &[2]);
        assert_eq!(read(&mut walks, 0, 1), (vec![2.0], vec![2], 0, vec![0]));
        enter(&mut walks, 1, &[2]);
        let step_1 = (vec![100.0, 11.0, 12.0], vec![0, 1, 2], 1, vec![2]);
        assert_eq!(read(&mut walks, 1, 1), step_1);
        enter(&mut walks, 2, &[2]);
        // Token 0 was read at the step before.
        let step_2 = (vec![101.0, 22.0], vec![1, 2], 1, vec![1]);
        assert_eq!(read(&mut walks, 2, 1), step_2);
        end(&mut walks, &[2], &[3]);

        // Two tokens that leave at once, while others take steps that nobody has taken.
        enter(&mut walks, 0, &[3, 4]);
        let step_0 = (vec![3.0, 4.0], vec![3, 4], 0, vec![0, 1]);
        assert_eq!(read(&mut walks, 0, 2), step_0);
        end(&mut walks, &[3, 4], &[1, 1]);
        for step in 0..4 {
            enter(&mut walks, step, &[5]);
        }
        let step_3 = (
            vec![102.0, 103.0, 104.0, 35.0],
            vec![2, 3, 4, 5],
            3,
            vec![3],
        );
        assert_eq!(read(&mut walks, 3, 1), step_3);
        assert_eq!(read(&mut walks, 2, 1), (vec![25.0], vec![5], 0, vec![0]));
    }
}

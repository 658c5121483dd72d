//! Runs the chosen blocks, dense on every token or grouped on the tokens that chose them: equal up to the order of sums.
//!
//! A block needs keys and values of all earlier tokens, whichever block those chose. Grouped execution computes them for tokens
//! that still walk; a token that has left keeps its state, so its keys and values are made once per block, not once per step.
//! The rest of the block runs on the tokens that chose it. On the host all blocks of a step go through each operation together,
//! see [`groups`](crate::ops::groups): one gather and one scatter per step; elsewhere one per block.
//!
//! The branches of a beam count as further sequences. Each attends to the best branch of every earlier token, and to itself.

use super::choose::Chosen;
use super::context::WalkContext;
use super::exited_cache::ExitedCache;
use super::rules::{Attends, Execution};
use super::trace::Origin;
use super::walk_cache::output;
use crate::block::attention::{Maps, NormedMaps, packed};
use crate::block::routed::RoutedBlock;
use crate::block::transformer::TransformerBlock;
use crate::ops::attention::KeysValues;
use crate::ops::attention_spans::{AttentionSpans, MASKED};
use crate::ops::gather::{Parts, copies, replace, rows, some};
use crate::ops::groups::{Group, each};
use crate::ops::linear::groups_at_once;
use crate::ops::reshape::reshape;
use crate::ops::reuse::shared;
use crate::ops::rotary::Angles;
use crate::ops::straight_through::straight_through;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use std::sync::Arc;

/// Which tokens run which block; tokens count `[batch * seq]`.
pub(crate) struct Dispatch {
    /// Per block, rising.
    of: Vec<Vec<usize>>,
    /// Those that run none, rising.
    idle: Vec<usize>,
    /// Whether each token leaves, although it runs a block.
    leaves: Vec<bool>,
    /// Whether each token had left before.
    left: Vec<bool>,
}

impl Dispatch {
    /// The dispatch of choices: a fused token runs its likeliest blocks, a leaving token its forgone block, if there is one.
    pub fn new(chosen: &[Chosen], n_pool: usize) -> Self {
        let mut dispatch = Self {
            of: vec![Vec::new(); n_pool],
            idle: Vec::new(),
            leaves: Vec::with_capacity(chosen.len()),
            left: Vec::with_capacity(chosen.len()),
        };
        for (token, chosen) in chosen.iter().enumerate() {
            dispatch.left.push(chosen.origin == Origin::Left);
            dispatch.leaves.push(chosen.forgone.is_some());
            match (chosen.fused, chosen.action.block().or(chosen.forgone)) {
                (true, _) => {
                    let blocks = chosen.likeliest.iter().filter(|&&block| block < n_pool);
                    blocks.for_each(|&block| dispatch.of[block].push(token));
                }
                (false, Some(block)) => dispatch.of[block].push(token),
                (false, None) => dispatch.idle.push(token),
            }
        }
        dispatch
    }

    /// The blocks that at least one token runs.
    pub(super) fn used(&self) -> impl Iterator<Item = usize> {
        let blocks = self.of.iter().enumerate();
        blocks.filter_map(|(block, tokens)| (!tokens.is_empty()).then_some(block))
    }
}

/// Factors per token, `[batch * seq, 1]`: a block's change times its factor is added to the token's state once more.
#[derive(Default)]
pub(crate) struct GradientGates<B: Backend> {
    /// With a gradient for the factor and the change.
    pub whole: Option<Tensor<B, 2>>,
    /// With a gradient for the factor only, whose value is zero.
    pub straight: Option<Tensor<B, 2>>,
}

impl<B: Backend> GradientGates<B> {
    /// The states of some tokens after a block, `[tokens, d_model]`; `hidden` are the states of all tokens before it.
    fn states(
        &self,
        hidden: &Tensor<B, 2>,
        after: Tensor<B, 2>,
        tokens: &[usize],
        leaves: &[bool],
    ) -> Tensor<B, 2> {
        let before = || some(hidden.clone(), tokens);
        let mut states = after.clone();
        if tokens.iter().any(|&token| leaves[token]) {
            let leaves: Vec<bool> = tokens.iter().map(|&token| leaves[token]).collect();
            let leaves = TensorData::new(leaves, [tokens.len(), 1]);
            let leaves = Tensor::<B, 2, Bool>::from_data(leaves, &states.device());
            states = states.mask_where(leaves.expand(after.dims()), before());
        }
        if let Some(whole) = &self.whole {
            states = states + (after.clone() - before()) * some(whole.clone(), tokens);
        }
        if let Some(gain) = &self.straight {
            states = straight_through(states, [&after, hidden], gain, tokens);
        }
        states
    }
}

/// The states of tokens after the blocks that they chose, of a fused token the mixture by `weights`; `None` if none runs a block.
/// `together` are blocks that run together, `run` gives the outputs of such blocks for the tokens that chose them.
///
/// # Shapes
/// - `hidden`: `[n_tokens, d_model]`, `weights`: `[n_tokens, n_pool]`
/// - `run`: returns `[tokens, d_model]`
/// - returns `[n_tokens, d_model]`
pub(super) fn after_blocks<'u, B: Backend>(
    hidden: &Tensor<B, 2>,
    dispatch: &Dispatch,
    weights: Option<&Tensor<B, 2>>,
    gains: &GradientGates<B>,
    together: impl Iterator<Item = &'u [usize]>,
    mut run: impl FnMut(&[usize], &[usize]) -> Tensor<B, 2>,
) -> Option<Tensor<B, 2>> {
    let (mut order, mut outputs) = (Vec::new(), Vec::new());
    let [n_tokens, _] = hidden.dims();
    for blocks in together {
        let of_block = |&block: &usize| {
            let tokens = dispatch.of[block].iter();
            tokens.map(move |&token| (block, token))
        };
        let runs: Vec<(usize, usize)> = blocks.iter().flat_map(of_block).collect();
        let tokens: Vec<usize> = runs.iter().map(|&(_, token)| token).collect();
        let output = run(blocks, &tokens);
        let output = gains.states(hidden, output, &tokens, &dispatch.leaves);
        outputs.push(match weights {
            Some(weights) => {
                let [_, n_pool] = weights.dims();
                let cell = |&(block, token): &(usize, usize)| token * n_pool + block;
                let cells: Vec<usize> = runs.iter().map(cell).collect();
                output * rows(reshape(weights.clone(), [n_tokens * n_pool, 1]), &cells)
            }
            None => output,
        });
        order.extend(tokens);
    }
    // Not the change: a state plus a change is not to the bit the state that it leads to. A token that is fused has several
    // outputs; one that runs no block is not touched: not in memory, not by a gradient.
    (!outputs.is_empty()).then(|| replace(hidden.clone(), &order, outputs))
}

/// The input of blocks, `[batch * seq, …]`.
struct Input<B: Backend> {
    hidden: Tensor<B, 2>,
    position: Tensor<B, 2>,
}

impl<B: Backend> Input<B> {
    /// States and positions, `[batch, seq, …]`.
    fn of_sequences(&self, [batch, seq]: [usize; 2]) -> [Tensor<B, 3>; 2] {
        [&self.hidden, &self.position].map(|x| {
            let [_, width] = x.dims();
            reshape(x.clone(), [batch, seq, width])
        })
    }
}

/// Executes the blocks of one walk.
pub(crate) struct Executor<'a, 'm, B: Backend> {
    ground: &'a WalkContext<'m, B>,
    execution: Execution,
    dims: [usize; 2],
    /// Branches per token; the sequences of the best branches come first.
    n_branches: usize,
    /// How many consecutive blocks of the pool run together.
    at_once: usize,
    /// Cached keys and values, for every group of blocks that run together.
    resting: Vec<Option<ExitedCache<B>>>,
}

impl<'a, 'm, B: Backend> Executor<'a, 'm, B> {
    /// An executor for `dims`: sequences, and tokens of each.
    pub fn new(ground: &'a WalkContext<'m, B>, dims: [usize; 2]) -> Self {
        let pool = &ground.pool;
        let execution = ground.execution();
        let at_once = match (execution, ground.past) {
            (Execution::Grouped, None) => groups_at_once(&pool[0].block.attention.output),
            _ => 1,
        };
        let resting = |blocks: &[_]| Some(ExitedCache::new(blocks.len() * dims[0] * dims[1]));
        Self {
            ground,
            execution,
            dims,
            n_branches: 1,
            at_once,
            resting: pool.chunks(at_once).map(resting).collect(),
        }
    }

    /// The same for the branches of a beam, which `dims` counts as sequences.
    pub fn of_branches(self, n_branches: usize) -> Self {
        Self { n_branches, ..self }
    }

    /// The states after the chosen blocks: of a fused token the mixture by `weights`, of a token without a block its old state.
    ///
    /// `index` is the number of the step.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, d_model]`
    /// - `position`: `[batch * seq, d_position]`, as blocks see it
    /// - `weights`: `[batch * seq, n_pool]`
    /// - returns `[batch, seq, d_model]`
    pub fn execute(
        &mut self,
        index: usize,
        hidden: &Tensor<B, 3>,
        position: Tensor<B, 2>,
        dispatch: &Dispatch,
        weights: Option<&Tensor<B, 2>>,
        gains: &GradientGates<B>,
    ) -> Tensor<B, 3> {
        let dims @ [batch, seq, d_model] = hidden.dims();
        let input = Input {
            hidden: shared(reshape(hidden.clone(), [batch * seq, d_model])),
            position,
        };
        if let Some(past) = self.ground.past {
            past.borrow_mut()
                .enter(index, input.hidden.clone(), input.position.clone());
        }
        let used: Vec<usize> = dispatch.used().collect();
        let together = self.together(&used, dispatch);
        let run = |blocks: &[usize], tokens: &[usize]| {
            let block = blocks[0];
            match (self.execution, self.ground.route.attends) {
                _ if self.n_branches > 1 => self.beside_best(block, &input, tokens),
                _ if let Some(past) = self.ground.past => {
                    let mut past = past.borrow_mut();
                    let mut unread = [past.take(index, block)];
                    let output = output(&self.ground.blocks(), block, &mut unread);
                    let [read] = unread;
                    past.put_back(index, block, read);
                    some(output, tokens)
                }
                (Execution::Grouped, Attends::All) if self.runs_everywhere(&dispatch.of[block]) => {
                    self.everywhere(block, &input, dispatch)
                }
                (Execution::Grouped, _) => self.gathered(blocks, &input, dispatch),
                (Execution::Dense, _) => some(self.everywhere(block, &input, dispatch), tokens),
            }
        };
        let moved = after_blocks(
            &input.hidden,
            dispatch,
            weights,
            gains,
            together.into_iter(),
            run,
        );
        moved.map_or_else(|| hidden.clone(), |moved| reshape(moved, dims))
    }

    /// Chunks of blocks that run together; a block that runs on every token is a chunk of its own.
    fn together<'u>(&self, used: &'u [usize], dispatch: &Dispatch) -> Vec<&'u [usize]> {
        let at_once = match self.n_branches {
            1 => self.at_once,
            _ => 1,
        };
        let is_gathered = |&block: &usize| !self.runs_everywhere(&dispatch.of[block]);
        let together =
            |a: &usize, b: &usize| a / at_once == b / at_once && is_gathered(a) && is_gathered(b);
        used.chunk_by(together).collect()
    }

    fn runs_everywhere(&self, tokens: &[usize]) -> bool {
        tokens.len() == self.dims[0] * self.dims[1]
    }

    /// A block's output for every token.
    fn everywhere(&self, index: usize, input: &Input<B>, dispatch: &Dispatch) -> Tensor<B, 2> {
        let [batch, seq] = self.dims;
        let [n_tokens, d_model] = input.hidden.dims();
        let (block, tokens) = (&self.ground.pool[index], &dispatch.of[index]);
        let [hidden, position] = input.of_sequences(self.dims);
        let output = match self.ground.route.attends {
            Attends::Selected if !(self.runs_everywhere(tokens) && all_stay(tokens, dispatch)) => {
                let device = input.hidden.device();
                let mut absent = vec![MASKED; n_tokens];
                let staying = tokens.iter().filter(|&&token| !dispatch.leaves[token]);
                staying.for_each(|&token| absent[token] = 0.0);
                let absent = TensorData::new(absent, [batch, 1, 1, seq]);
                let absent = Tensor::from_data(absent, &device);
                let own = Tensor::<B, 2, Bool>::diag_mask([seq, seq], 0, &device).bool_not();
                let told = block.add_position(hidden, position);
                let (queries, keys_values) = block.block.project(told.clone(), self.ground.causal);
                let mask = self.ground.causal.mask() + absent;
                let mask = mask.mask_fill(own.unsqueeze(), 0.0);
                block.block.finish(told, queries, keys_values, mask)
            }
            _ => self
                .ground
                .memory
                .execute(index, block, hidden, position, self.ground.causal),
        };
        reshape(output, [n_tokens, d_model])
    }

    /// A block's output for some branches, `[tokens, d_model]`: only the part after attention runs on these alone.
    fn beside_best(&self, block: usize, input: &Input<B>, tokens: &[usize]) -> Tensor<B, 2> {
        let [n_sequences, seq] = self.dims;
        let [n_tokens, _] = input.hidden.dims();
        let batch = n_sequences / self.n_branches;
        let block = &self.ground.pool[block];
        let [hidden, position] = input.of_sequences(self.dims);
        let told = block.add_position(hidden, position);
        let (queries, own) = block.block.project(told.clone(), self.ground.causal);
        let beside = |own: Tensor<B, 4>| {
            let best = own.clone().slice_dim(0, 0..batch);
            Tensor::cat(vec![copies(best, self.n_branches), own], 2)
        };
        let among = KeysValues {
            keys: beside(own.keys),
            values: beside(own.values),
        };
        let mut absent = vec![0.0; batch * seq];
        if self.ground.route.attends == Attends::Selected {
            absent.fill(MASKED);
            let best = tokens.iter().filter(|&&token| token < batch * seq);
            best.for_each(|&token| absent[token] = 0.0);
        }
        let absent = TensorData::new(absent, [batch, 1, 1, seq]);
        let absent = Tensor::from_data(absent, &input.hidden.device());
        let mask = self
            .ground
            .causal
            .mask_beside(absent)
            .repeat_dim(0, self.n_branches);
        let found = block.block.attention.find(queries, among, mask);
        let [told, found] = [told, found].map(|x| {
            let [_, _, width] = x.dims();
            some(x.reshape([n_tokens, width]), tokens)
        });
        block.block.end(told, found)
    }

    /// The outputs of blocks for the tokens that run them, `[tokens, d_model]`, block by block.
    ///
    /// The token of a block has the number `block * n_tokens + token`; `block` counts from the first block of those that run
    /// together.
    fn gathered(
        &mut self,
        blocks: &[usize],
        input: &Input<B>,
        dispatch: &Dispatch,
    ) -> Tensor<B, 2> {
        let [_, seq] = self.dims;
        let [n_tokens, _] = input.hidden.dims();
        let first = blocks[0] / self.at_once * self.at_once;
        let of_block = |&block: &usize| {
            let tokens = dispatch.of[block].iter();
            tokens.map(move |token| (block - first) * n_tokens + token)
        };
        let tokens: Vec<usize> = blocks.iter().flat_map(of_block).collect();
        let groups = self.groups(first, &tokens);
        let angles = self.angles(&tokens);
        let (told, keys_values, spans) = match self.ground.route.attends {
            Attends::Selected => {
                let leaves = |token: usize| dispatch.leaves[token % n_tokens];
                let (keys, spans) = among_runners(&tokens, seq, leaves);
                let told = self.told(&groups, input, &tokens);
                let made = Maps::keys_values(&self.normed_maps(&groups), &told, &angles);
                (told, Parts::one(some(made, &keys)), spans)
            }
            Attends::All => {
                let (keys, spans) = among_all(&tokens, seq);
                let (told, keys_values) =
                    self.keys_values(first, input, &keys, &tokens, &dispatch.left);
                (told, keys_values, spans)
            }
        };
        let queries = Maps::queries(&self.normed_maps(&groups), &told, &angles);
        let attention = &self.ground.pool[first].block.attention;
        let found = attention.find_rows(queries, keys_values, &Arc::new(spans));
        let blocks = each(&groups, |&block| &self.ground.pool[block].block);
        let packed = packed(&self.normed_maps(&groups));
        TransformerBlock::end_each(&blocks, told, found, &packed)
    }

    /// The blocks of some tokens.
    fn groups(&self, first: usize, tokens: &[usize]) -> Vec<Group<usize>> {
        let n_tokens = self.dims[0] * self.dims[1];
        let block = |token: &usize| token / n_tokens;
        let groups = tokens.chunk_by(|a, b| block(a) == block(b));
        let group = |tokens: &[usize]| Group {
            of: first + block(&tokens[0]),
            n_rows: tokens.len(),
        };
        groups.map(group).collect()
    }

    fn angles(&self, tokens: &[usize]) -> Angles<B> {
        let [_, seq] = self.dims;
        self.ground
            .causal
            .angles(tokens.iter().map(|token| token % seq).collect())
    }

    /// The input of the blocks' norms, for some tokens.
    fn told(&self, groups: &[Group<usize>], input: &Input<B>, tokens: &[usize]) -> Tensor<B, 2> {
        let [n_tokens, _] = input.hidden.dims();
        let tokens: Vec<usize> = tokens.iter().map(|token| token % n_tokens).collect();
        let operators = each(groups, |&block| &self.ground.pool[block]);
        let packed = packed(&self.normed_maps(groups));
        let Input { hidden, position } = input;
        RoutedBlock::add_position_each(&operators, &tokens, hidden, position, &packed)
    }

    fn normed_maps(&self, groups: &[Group<usize>]) -> Vec<Group<NormedMaps<'_, B>>> {
        each(groups, |&block| {
            let (routed, maps) = self.ground.blocks().block(block);
            (&routed.block.attention_norm, maps)
        })
    }

    /// The keys and values of some tokens, `[keys, 2 * n_kv_heads * d_head]`, behind the norm's input for those of them that run their
    /// block.
    fn keys_values(
        &mut self,
        first: usize,
        input: &Input<B>,
        keys: &[usize],
        tokens: &[usize],
        left: &[bool],
    ) -> (Tensor<B, 2>, Parts<B>) {
        let chunk = first / self.at_once;
        let mut resting = self.resting[chunk].take().expect("it is put back below");
        let mut of_tokens = None;
        let left = |key: usize| left[key % left.len()];
        let rows = resting.rows(keys, left, |fresh| {
            let groups = self.groups(first, fresh);
            let told = shared(self.told(&groups, input, fresh));
            let maps = self.normed_maps(&groups);
            let made = Maps::keys_values(&maps, &told, &self.angles(fresh));
            let at = |token| fresh.binary_search(token).expect("what runs is fresh");
            let rows: Vec<usize> = tokens.iter().map(at).collect();
            of_tokens = Some(some(told, &rows));
            made
        });
        self.resting[chunk] = Some(resting);
        (of_tokens.expect("what runs is fresh"), rows)
    }
}

/// Whether none of some tokens leaves.
fn all_stay(tokens: &[usize], dispatch: &Dispatch) -> bool {
    tokens.iter().all(|&token| !dispatch.leaves[token])
}

/// Keys and spans of tokens that run a block, rising: each sees all tokens of its sequence up to itself.
fn among_all(tokens: &[usize], seq: usize) -> (Vec<usize>, AttentionSpans) {
    let of_sequences = tokens.chunk_by(|a, b| a / seq == b / seq);
    let seen = |own: &[usize]| own[0] / seq * seq..own[own.len() - 1] + 1;
    let spans = AttentionSpans {
        n_queries: of_sequences.clone().map(<[usize]>::len).collect(),
        n_keys: of_sequences.clone().map(|own| seen(own).len()).collect(),
        visible: tokens.iter().map(|token| token % seq + 1).collect(),
    };
    (of_sequences.flat_map(seen).collect(), spans)
}

/// Keys and spans of tokens that run a block, rising: each sees the others up to itself; keys are indices into `tokens`. A
/// token that leaves would not run in evaluation, so no other sees it: it is a sequence of its own, as are those between two.
fn among_runners(
    tokens: &[usize],
    seq: usize,
    leaves: impl Fn(usize) -> bool,
) -> (Vec<usize>, AttentionSpans) {
    let mut keys = Vec::with_capacity(tokens.len());
    let mut spans = AttentionSpans {
        n_queries: Vec::new(),
        n_keys: Vec::new(),
        visible: Vec::with_capacity(tokens.len()),
    };
    let mut first = 0;
    for own in tokens.chunk_by(|a, b| a / seq == b / seq) {
        let mut staying = Vec::with_capacity(own.len());
        for queries in own.chunk_by(|&a, &b| !leaves(a) && !leaves(b)) {
            let before = staying.len();
            let own = first..first + queries.len();
            keys.extend(staying.iter().copied().chain(own.clone()));
            spans.n_queries.push(queries.len());
            spans.n_keys.push(before + queries.len());
            spans.visible.extend(before + 1..=before + queries.len());
            if !leaves(queries[0]) {
                staying.extend(own);
            }
            first += queries.len();
        }
    }
    (keys, spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runners_see_all_tokens_of_their_sequence_up_to_themselves() {
        let (keys, spans) = among_all(&[1, 2, 13, 15, 16, 33], 10);
        assert_eq!(keys, [0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 30, 31, 32, 33]);
        assert_eq!(spans.n_queries, [2, 3, 1]);
        assert_eq!(spans.n_keys, [3, 7, 4]);
        assert_eq!(spans.visible, [2, 3, 4, 6, 7, 4]);
    }

    #[test]
    fn who_leaves_sees_who_stays_and_is_seen_by_itself_alone() {
        let tokens = [1, 2, 13, 15, 16, 33];
        let (keys, spans) = among_runners(&tokens, 10, |_| false);
        assert_eq!(keys, [0, 1, 2, 3, 4, 5]);
        assert_eq!(spans.n_queries, [2, 3, 1]);
        assert_eq!(spans.n_keys, [2, 3, 1]);
        assert_eq!(spans.visible, [1, 2, 1, 2, 3, 1]);
        let (keys, spans) = among_runners(&tokens, 10, |token| [2, 13, 15].contains(&token));
        assert_eq!(keys, [0, 0, 1, 2, 3, 4, 5]);
        assert_eq!(spans.n_queries, [1, 1, 1, 1, 1, 1]);
        assert_eq!(spans.n_keys, [1, 2, 1, 1, 1, 1]);
        assert_eq!(spans.visible, [1, 2, 1, 1, 1, 1]);
        let (keys, spans) = among_runners(&tokens, 10, |token| token == 15);
        assert_eq!(keys, [0, 1, 2, 2, 3, 2, 4, 5]);
        assert_eq!(spans.n_queries, [2, 1, 1, 1, 1]);
        assert_eq!(spans.n_keys, [2, 1, 2, 2, 1]);
        assert_eq!(spans.visible, [1, 2, 1, 2, 2, 1]);
    }
}

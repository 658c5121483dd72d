//! Runs the chosen blocks, dense on every token or grouped on the tokens that chose them: equal up to the order of sums.
//!
//! A block needs keys and values of all earlier tokens, whichever block those chose. Grouped execution computes them for tokens
//! that still walk; a token that has left keeps its state, so its keys and values are made once per block, not once per step.
//! The rest of the block runs on the tokens that chose it. On the host all blocks of a step go through each operation together,
//! see [`groups`](crate::ops::groups): one gather and one scatter per step; elsewhere one per block.
//!
//! A memory to which blocks attend adds columns: see [`attending`](super::attending). What its tokens write is kept here.
//!
//! The branches of a beam count as further sequences. Each attends to the best branch of every earlier token, and to itself.

use super::attending::{Attending, Layout};
use super::choose::Chosen;
use super::context::WalkContext;
use super::exited_cache::ExitedCache;
use super::rules::{Attends, Execution};
use super::trace::Origin;
use super::walk_cache::output;
use crate::block::routed::RoutedBlock;
use crate::memory::slots::{Kept, Seen, Slots};
use crate::ops::attention::{Among, KeysValues, mass};
use crate::ops::attention_spans::{AttentionSpans, MASKED};
use crate::ops::cat::cat;
use crate::ops::gather::{Parts, RowPlace, copies, replace, rows, some};
use crate::ops::groups::{Group, each};
use crate::ops::linear::groups_at_once;
use crate::ops::recompute::Recompute;
use crate::ops::reshape::reshape;
use crate::ops::reuse::shared;
use crate::ops::rotary::Angles;
use crate::ops::straight_through::straight_through;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};

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

    /// The tokens that run a block.
    pub(super) fn of(&self, block: usize) -> &[usize] {
        &self.of[block]
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
    for blocks in together {
        let of_block = |&block: &usize| {
            let tokens = dispatch.of[block].iter();
            tokens.map(move |&token| (block, token))
        };
        let runs: Vec<Run> = blocks.iter().flat_map(of_block).collect();
        let tokens: Vec<usize> = runs.iter().map(|&(_, token)| token).collect();
        let output = run(blocks, &tokens);
        let output = gains.states(hidden, output, &tokens, &dispatch.leaves);
        outputs.push(match weights {
            Some(weights) => output * shares(weights, &runs),
            None => output,
        });
        order.extend(tokens);
    }
    // Not the change: a state plus a change is not to the bit the state that it leads to. A token that is fused has several
    // outputs; one that runs no block is not touched: not in memory, not by a gradient.
    (!outputs.is_empty()).then(|| replace(hidden.clone(), &order, outputs))
}

/// The shares of some blocks and tokens, `[n_tokens, n_pool]` to `[runs, 1]`.
pub(super) fn shares<B: Backend>(weights: &Tensor<B, 2>, runs: &[(usize, usize)]) -> Tensor<B, 2> {
    let [n_tokens, n_pool] = weights.dims();
    let cell = |&(block, token): &Run| token * n_pool + block;
    let cells: Vec<usize> = runs.iter().map(cell).collect();
    rows(reshape(weights.clone(), [n_tokens * n_pool, 1]), &cells)
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
    /// Cached columns, for every group of blocks that run together.
    resting: Vec<Option<ExitedCache<B>>>,
    /// Columns of states, of all tokens at this step, where all blocks attend to the same ones.
    of_states: OfStates<B>,
    memory: OfMemory<B>,
    /// How often each token has executed each block, `[n_pool * n_tokens]`.
    visits: Vec<usize>,
}

struct OfStates<B: Backend> {
    resting: ExitedCache<B>,
    /// `[n_tokens, width]`
    now: Option<Tensor<B, 2>>,
}

/// A block, and a token that runs it.
type Run = (usize, usize);

/// What tokens write, if blocks attend to it.
struct OfMemory<B: Backend> {
    slots: Slots<B>,
    /// What blocks see of it at this step.
    kept: Option<Kept<B>>,
    /// What was written at this step: the block and the token of each row.
    now: Vec<(Vec<Run>, Tensor<B, 2>)>,
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
            of_states: OfStates {
                resting: ExitedCache::new(dims[0] * dims[1]),
                now: None,
            },
            memory: OfMemory {
                slots: Slots::new(dims[0] * dims[1]),
                kept: None,
                now: Vec::new(),
            },
            visits: vec![0; pool.len() * dims[0] * dims[1]],
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
        self.of_states.now = None;
        self.memory.kept = match self.seen() {
            Some(seen) => self.memory.slots.kept(seen),
            None => None,
        };
        let used: Vec<usize> = dispatch.used().collect();
        let together = self.together(&used, dispatch);
        let recompute = self.ground.recompute;
        let run = |blocks: &[usize], tokens: &[usize]| {
            let block = blocks[0];
            match (self.execution, self.ground.route.attends) {
                _ if self.n_branches > 1 => self.beside_best(block, &input, tokens),
                _ if let Some(past) = self.ground.past => {
                    let mut past = past.borrow_mut();
                    let attending = self.ground.attending();
                    let mut unread = [past.take(&attending, index, block, tokens)];
                    let visits = self.visits(block, tokens);
                    let output = output(&attending, block, &mut unread, &visits);
                    let [read] = unread;
                    past.put_back(&attending, index, block, read);
                    output
                }
                (Execution::Grouped, Attends::All) if self.runs_plainly(&dispatch.of[block]) => {
                    self.everywhere(block, &input, dispatch)
                }
                (Execution::Grouped, _) => self.gathered(blocks, &input, dispatch, weights),
                (Execution::Dense, _) => some(self.everywhere(block, &input, dispatch), tokens),
            }
        };
        let moved = Recompute::block(recompute, || {
            let together = together.into_iter();
            after_blocks(&input.hidden, dispatch, weights, gains, together, run)
        });
        match self.ground.past {
            Some(past) if self.ground.attending().seen().is_some() => {
                past.borrow_mut().write(index, weights);
            }
            None if self.seen().is_some() => self.write(dispatch, weights),
            _ => {}
        }
        for block in dispatch.used() {
            let staying = dispatch.of[block]
                .iter()
                .filter(|&&token| !dispatch.leaves[token]);
            staying.for_each(|token| self.visits[block * batch * seq + token] += 1);
        }
        moved.map_or_else(|| hidden.clone(), |moved| reshape(moved, dims))
    }

    /// The numbers of the visits that tokens make now to a block.
    fn visits(&self, block: usize, tokens: &[usize]) -> Vec<usize> {
        let n_tokens = self.dims[0] * self.dims[1];
        let number = |token: &usize| self.visits[block * n_tokens + token] + 1;
        tokens.iter().map(number).collect()
    }

    /// Which slots blocks see, where they run on some of their tokens.
    fn seen(&self) -> Option<Seen> {
        let grouped = self.execution == Execution::Grouped && self.ground.past.is_none();
        self.ground.attending().seen().filter(|_| grouped)
    }

    /// Keeps what tokens that go on have written at a step.
    fn write(&mut self, dispatch: &Dispatch, weights: Option<&Tensor<B, 2>>) {
        let (mut written, mut parts) = (Vec::new(), Vec::new());
        for (runs, rows) in std::mem::take(&mut self.memory.now) {
            let goes_on = |&row: &usize| !dispatch.leaves[runs[row].1];
            let which: Vec<usize> = (0..runs.len()).filter(goes_on).collect();
            if which.is_empty() {
                continue;
            }
            let runs: Vec<Run> = which.iter().map(|&row| runs[row]).collect();
            let rows = some(rows, &which);
            parts.push(match weights {
                Some(weights) => rows * shares(weights, &runs),
                None => rows,
            });
            written.extend(runs.into_iter().map(|(_, token)| token));
        }
        if let Some(seen) = self.seen() {
            self.memory.slots.write(seen, &written, parts);
        }
    }

    /// Chunks of blocks that run together; a block that runs on every token is a chunk of its own.
    fn together<'u>(&self, used: &'u [usize], dispatch: &Dispatch) -> Vec<&'u [usize]> {
        let at_once = match self.n_branches {
            1 => self.at_once,
            _ => 1,
        };
        let is_gathered = |&block: &usize| !self.runs_plainly(&dispatch.of[block]);
        let together =
            |a: &usize, b: &usize| a / at_once == b / at_once && is_gathered(a) && is_gathered(b);
        used.chunk_by(together).collect()
    }

    fn runs_everywhere(&self, tokens: &[usize]) -> bool {
        tokens.len() == self.dims[0] * self.dims[1]
    }

    /// Whether a block runs on every token, as a block outside the pool does.
    fn runs_plainly(&self, tokens: &[usize]) -> bool {
        self.runs_everywhere(tokens) && self.ground.attending().is_plain()
    }

    /// A block's output for every token.
    fn everywhere(&self, index: usize, input: &Input<B>, dispatch: &Dispatch) -> Tensor<B, 2> {
        let [batch, seq] = self.dims;
        let [n_tokens, d_model] = input.hidden.dims();
        let (block, tokens) = (&self.ground.pool[index], &dispatch.of[index]);
        let [hidden, position] = input.of_sequences(self.dims);
        let factors = block.visits.differ().then(|| {
            let all: Vec<usize> = (0..n_tokens).collect();
            let visits = self.visits(index, &all);
            block.visits.factors(&visits, &hidden.device())
        });
        let factors = factors.flatten();
        let factors = factors.as_ref();
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
                block
                    .block
                    .finish(told, queries, keys_values, mask, factors)
            }
            _ => self.ground.memory.execute(
                index,
                block,
                hidden,
                position,
                self.ground.causal,
                factors,
            ),
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
            cat(vec![copies(best, self.n_branches), own], 2)
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
        block.block.end(told, found, None)
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
        weights: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 2> {
        let [n_tokens, _] = input.hidden.dims();
        let place = |token: usize| self.ground.causal.place(token % n_tokens);
        let attending = self.ground.attending();
        let first = blocks[0] / self.at_once * self.at_once;
        let of_block = |&block: &usize| {
            let tokens = dispatch.of[block].iter();
            tokens.map(move |token| (block - first) * n_tokens + token)
        };
        let tokens: Vec<usize> = blocks.iter().flat_map(of_block).collect();
        let groups = self.groups(first, &tokens);
        let angles = self.angles(&tokens);
        let (told, among) = match self.ground.route.attends {
            Attends::Selected => {
                let leaves = |token: usize| dispatch.leaves[token % n_tokens];
                let (keys, spans) = among_runners(&tokens, place, leaves);
                let told = self.told(&groups, input, &tokens);
                let made = attending.columns(&groups, &told, &angles);
                (told, Among::plain(Parts::one(some(made, &keys)), spans))
            }
            Attends::All => {
                let (keys, spans) = among_all(&tokens, place);
                let (told, own) = self.columns(first, input, &keys, &tokens, &dispatch.left);
                (told, self.beside_memory(first, own, &keys, spans))
            }
        };
        let queries = attending.queries(&groups, &told, &angles);
        if self.ground.memory.counts() && attending.seen().is_some() {
            self.count(&attending, (first, &tokens), &queries, &among, weights);
        }
        let factors = self.ground.pool[first].visits.differ().then(|| {
            let of_block = |&block: &usize| self.visits(block, &dispatch.of[block]);
            let visits: Vec<usize> = blocks.iter().flat_map(of_block).collect();
            attending.factors(&groups, &visits)
        });
        let factors = factors.flatten();
        attending.attend(&groups, told, queries, &among, factors.as_ref())
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
        let (causal, n_tokens) = (self.ground.causal, self.dims[0] * self.dims[1]);
        let places = tokens.iter().map(|token| causal.place(token % n_tokens));
        causal.angles(places.collect())
    }

    /// The input of the blocks' norms, for some tokens.
    fn told(&self, groups: &[Group<usize>], input: &Input<B>, tokens: &[usize]) -> Tensor<B, 2> {
        let [n_tokens, _] = input.hidden.dims();
        let tokens: Vec<usize> = tokens.iter().map(|token| token % n_tokens).collect();
        let operators = each(groups, |&block| &self.ground.pool[block]);
        let packed = self.ground.attending().packed(groups);
        let Input { hidden, position } = input;
        RoutedBlock::add_position_each(&operators, &tokens, hidden, position, &packed)
    }

    /// The columns of some tokens, behind the norm's input for those of them that run their block.
    fn columns(
        &mut self,
        first: usize,
        input: &Input<B>,
        keys: &[usize],
        tokens: &[usize],
        left: &[bool],
    ) -> (Tensor<B, 2>, Parts<B>) {
        let n_tokens = left.len();
        let attending = self.ground.attending();
        if attending.has_columns_of_states() {
            let told = self.told(&self.groups(first, tokens), input, tokens);
            return (told, self.columns_of_states(input, keys, left));
        }
        let chunk = first / self.at_once;
        let mut resting = self.resting[chunk].take().expect("it is put back below");
        let (mut of_tokens, mut written) = (None, None);
        let left = |key: usize| left[key % n_tokens];
        let rows = resting.rows(keys, left, |fresh| {
            let groups = self.groups(first, fresh);
            let told = shared(self.told(&groups, input, fresh));
            let made = attending.columns(&groups, &told, &self.angles(fresh));
            let at = |token| fresh.binary_search(token).expect("what runs is fresh");
            let rows: Vec<usize> = tokens.iter().map(at).collect();
            of_tokens = Some(some(told, &rows));
            if attending.seen().is_none() {
                return made;
            }
            let made = shared(made);
            written = Some(some(made.clone(), &rows));
            made
        });
        self.resting[chunk] = Some(resting);
        if let Some(written) = written {
            let written = attending.written(&self.groups(first, tokens), written);
            let runs = tokens.iter();
            let runs = runs.map(|token| (first + token / n_tokens, token % n_tokens));
            self.memory.now.push((runs.collect(), written));
        }
        (of_tokens.expect("what runs is fresh"), rows)
    }

    /// The columns of the states of some tokens, which all blocks share; no two lie in one place.
    fn columns_of_states(&mut self, input: &Input<B>, keys: &[usize], left: &[bool]) -> Parts<B> {
        let n_tokens = left.len();
        let attending = self.ground.attending();
        let OfStates { resting, now } = &mut self.of_states;
        let all = now.get_or_insert_with(|| {
            let all: Vec<usize> = (0..n_tokens).collect();
            let made =
                |fresh: &[usize]| attending.columns_of_states(some(input.hidden.clone(), fresh));
            shared(resting.rows(&all, |token| left[token], made).gather())
        });
        let mut parts = Parts::none();
        for of_block in keys.chunk_by(|a, b| a / n_tokens == b / n_tokens) {
            let part = parts.parts.len();
            parts.parts.push(all.clone());
            let place = |key: &usize| RowPlace {
                part,
                row: key % n_tokens,
            };
            parts.places.extend(of_block.iter().map(place));
        }
        parts
    }

    /// The tokens' own columns `own` of `keys`, with those of the memory that blocks see of each in front of its own.
    fn beside_memory(
        &self,
        first: usize,
        own: Parts<B>,
        keys: &[usize],
        spans: AttentionSpans,
    ) -> Among<B> {
        let Some(kept) = &self.memory.kept else {
            return Among::plain(own, spans);
        };
        let attending = self.ground.attending();
        let n_tokens = self.dims[0] * self.dims[1];
        let Parts { mut parts, places } = own;
        let mut layout = Layout::default();
        let mut biases: Vec<usize> = Vec::new();
        let mut visible = spans.visible.iter();
        let (mut next, pairs) = (0, spans.n_queries.iter().zip(&spans.n_keys));
        for (&n_queries, &n_keys) in pairs {
            let block = first + keys[next] / n_tokens;
            if biases.last() != Some(&block) {
                biases.push(block);
                parts.push(attending.read(block, kept.rows.clone()));
            }
            let part = parts.len() - 1;
            let before = layout.places.len();
            let own = next..next + n_keys;
            next = own.end;
            let ends: Vec<usize> = own
                .map(|key| {
                    let rows = kept.of_token[keys[key] % n_tokens].iter();
                    let earlier = rows.map(|&row| RowPlace { part, row });
                    layout.token(earlier, biases.len(), places[key]) - before
                })
                .collect();
            let visible = visible.by_ref().take(n_queries);
            layout.sequence(visible.map(|&n| ends[n - 1]).collect::<Vec<_>>());
        }
        layout.among(parts, biases.iter().map(|&block| attending.bias(block)))
    }

    /// Counts the attention of tokens that run blocks to what the memory adds.
    fn count(
        &self,
        attending: &Attending<'_, B>,
        (first, tokens): (usize, &[usize]),
        queries: &Tensor<B, 2>,
        among: &Among<B>,
        weights: Option<&Tensor<B, 2>>,
    ) {
        let n_tokens = self.dims[0] * self.dims[1];
        let [n_queries, _] = queries.dims();
        let (device, groups) = (queries.device(), self.groups(first, tokens));
        let (mass, ages) = match &self.memory.kept {
            None => (Tensor::zeros([n_queries, 1], &device), &[0][..]),
            Some(Kept { ages, .. }) => {
                // The columns of the memory are the last parts, one for each block.
                let n_own = among.keys_values.parts.len() - groups.len();
                let slot = |place: &RowPlace| {
                    let slot = (place.row / n_tokens).min(ages.len() - 1);
                    (place.part >= n_own).then_some(slot)
                };
                let slots = among.keys_values.places.iter().map(slot);
                let slots: Vec<Option<usize>> = slots.collect();
                let heads = attending.heads();
                (
                    mass(queries.clone(), among, heads, &slots, ages.len()),
                    &ages[..],
                )
            }
        };
        let mut begin = 0;
        for group in groups {
            let own = begin..begin + group.n_rows;
            begin = own.end;
            let readers = match weights {
                Some(weights) => {
                    let runs = tokens[own.clone()].iter();
                    let runs: Vec<_> = runs.map(|token| (group.of, token % n_tokens)).collect();
                    shares(weights, &runs)
                }
                None => Tensor::ones([group.n_rows, 1], &device),
            };
            let bias = attending.bias(group.of);
            self.ground
                .memory
                .count(mass.clone().slice_dim(0, own), ages, readers, bias);
        }
    }
}

/// Whether none of some tokens leaves.
fn all_stay(tokens: &[usize], dispatch: &Dispatch) -> bool {
    tokens.iter().all(|&token| !dispatch.leaves[token])
}

/// Keys and spans of tokens that run a block, rising: each sees all tokens of its sequence up to itself. `place` is how many lie
/// before it there.
fn among_all(tokens: &[usize], place: impl Fn(usize) -> usize) -> (Vec<usize>, AttentionSpans) {
    let begin = |token: usize| token - place(token);
    let of_sequences = tokens.chunk_by(|&a, &b| begin(a) == begin(b));
    let seen = |own: &[usize]| begin(own[0])..own[own.len() - 1] + 1;
    let spans = AttentionSpans {
        n_queries: of_sequences.clone().map(<[usize]>::len).collect(),
        n_keys: of_sequences.clone().map(|own| seen(own).len()).collect(),
        visible: tokens.iter().map(|&token| place(token) + 1).collect(),
    };
    (of_sequences.flat_map(seen).collect(), spans)
}

/// Keys and spans of tokens that run a block, rising: each sees the others up to itself; keys are indices into `tokens`. A
/// token that leaves would not run in evaluation, so no other sees it: it is a sequence of its own, as are those between two.
fn among_runners(
    tokens: &[usize],
    place: impl Fn(usize) -> usize,
    leaves: impl Fn(usize) -> bool,
) -> (Vec<usize>, AttentionSpans) {
    let mut keys = Vec::with_capacity(tokens.len());
    let mut spans = AttentionSpans {
        n_queries: Vec::new(),
        n_keys: Vec::new(),
        visible: Vec::with_capacity(tokens.len()),
    };
    let mut first = 0;
    let begin = |token: usize| token - place(token);
    for own in tokens.chunk_by(|&a, &b| begin(a) == begin(b)) {
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

    /// The place of a token in sequences of ten.
    fn of_ten(token: usize) -> usize {
        token % 10
    }

    #[test]
    fn runners_see_all_tokens_of_their_sequence_up_to_themselves() {
        let (keys, spans) = among_all(&[1, 2, 13, 15, 16, 33], of_ten);
        assert_eq!(keys, [0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 30, 31, 32, 33]);
        assert_eq!(spans.n_queries, [2, 3, 1]);
        assert_eq!(spans.n_keys, [3, 7, 4]);
        assert_eq!(spans.visible, [2, 3, 4, 6, 7, 4]);
    }

    #[test]
    fn who_leaves_sees_who_stays_and_is_seen_by_itself_alone() {
        let tokens = [1, 2, 13, 15, 16, 33];
        let (keys, spans) = among_runners(&tokens, of_ten, |_| false);
        assert_eq!(keys, [0, 1, 2, 3, 4, 5]);
        assert_eq!(spans.n_queries, [2, 3, 1]);
        assert_eq!(spans.n_keys, [2, 3, 1]);
        assert_eq!(spans.visible, [1, 2, 1, 2, 3, 1]);
        let (keys, spans) = among_runners(&tokens, of_ten, |token| [2, 13, 15].contains(&token));
        assert_eq!(keys, [0, 0, 1, 2, 3, 4, 5]);
        assert_eq!(spans.n_queries, [1, 1, 1, 1, 1, 1]);
        assert_eq!(spans.n_keys, [1, 2, 1, 1, 1, 1]);
        assert_eq!(spans.visible, [1, 2, 1, 1, 1, 1]);
        let (keys, spans) = among_runners(&tokens, of_ten, |token| token == 15);
        assert_eq!(keys, [0, 1, 2, 2, 3, 2, 4, 5]);
        assert_eq!(spans.n_queries, [2, 1, 1, 1, 1]);
        assert_eq!(spans.n_keys, [2, 1, 2, 2, 1]);
        assert_eq!(spans.visible, [1, 2, 1, 2, 2, 1]);
    }
}

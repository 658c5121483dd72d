//! The walk: the loop over steps, each of which scores, chooses, executes, moves and records.
//!
//! Every token walks on its own, but attends to all earlier tokens.

use super::action::Action;
use super::choose::{Chosen, StepContext, Token, choose};
use super::constraint::CAPPED;
use super::context::{WalkContext, WalkState};
use super::draws::Purpose;
use super::execute::{Dispatch, Executor, GradientGates};
use super::exited_cache::ExitedCache;
use super::leave::{Mixture, StraightThrough};
use super::parallel::Finished;
use super::policy::{Policy, SequenceInfo, Teacher};
use super::position::{Table, distances};
use super::rules::{ChoiceGradient, Execution, ExitObjective, Rules, Sees};
use super::trace::{Decisions, Move, Origin, Trace, TraceStep};
use crate::memory::step::Written;
use crate::ops::cat::cat;
use crate::ops::gather::some;
use crate::ops::reshape::{reshape, values};
use crate::ops::softmax::{chosen_probability, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use rayon::prelude::*;

/// Tokens that choose on one thread.
const TASK: usize = 128;

impl<B: Backend> WalkContext<'_, B> {
    /// Walks every token from its entering state; returns the final state and the trace.
    ///
    /// # Shapes
    /// `entered`: `[batch, seq, d_model]`
    ///
    /// # Panics
    /// If `rows` has not one entry per sequence, or per text where windows hold several, or a teacher names an action beyond OUT.
    pub fn walk(
        &self,
        entered: Tensor<B, 3>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (WalkState<B>, Trace<B>) {
        let [batch, seq, _] = entered.dims();
        let n_texts = self.causal.segments().map_or(batch, |texts| texts.len());
        assert_eq!(n_texts, rows.len(), "rows of {n_texts} sequences");
        // A teacher knows one path; only a router can say which others are worth a try.
        if let Some(search) = rules.paths(self.route.parallel).search() {
            return match search.finished {
                Finished::Rests => self.beam(&search, entered, rules, rows),
                Finished::Repeats(_) => self.sequence_beam(&search, entered, rules, rows),
            };
        }
        let n_pool = self.pool.len();
        let table = self.positions.table();
        let targets = self.targets(rules, rows);
        let n_steps = rules.n_steps(match rules.policy {
            Policy::Teacher(_) => targets.len(),
            _ => self.route.max_steps,
        });
        let before = self.past.map_or(0, |past| past.borrow().n_tokens());
        let row_of = self.row_of([batch, seq]);
        let mut tokens = tokens(&row_of, rows, before, seq);
        let mut state = WalkState {
            hidden: entered,
            position: table.start(batch * seq),
        };
        let hard_exit = rules.exit_objective.hard();
        let mut trace = Trace::new([batch, seq], n_pool, n_steps, hard_exit);
        trace.walks.segments = self.causal.segments().cloned();
        let mut resting = ExitedCache::new(batch * seq);
        let mut underway = Underway {
            executor: Executor::new(self, [batch, seq]),
            straight: StraightThrough::default(),
        };
        let mut mixture = rules.mixes_states().then(|| Mixture::new(&state.hidden));
        for index in 0..n_steps {
            let step = self.step_at(rules, index, n_steps);
            state.hidden = self.memory.read(state.hidden);
            let asked = rules
                .asks_router()
                .then(|| self.score(rules, |_| step, &state, &tokens, &table, &mut resting));
            let teacher = rules.policy.teacher();
            let taught = teacher.map(|_| targets_at(&targets, index, &row_of));
            let chosen = choose_all(step, &tokens, asked.as_ref(), taught.as_deref());
            for (token, chosen) in tokens.iter_mut().zip(&chosen) {
                token.go(chosen, hard_exit);
            }
            if let (Some(mixture), Some(asked)) = (&mut mixture, &asked) {
                mixture.leave(&state.hidden, asked.out_probability(), &chosen);
            }
            state = self.go(step, state, &chosen, asked.as_ref(), &mut underway, &table);
            if let Some(asked) = &asked {
                let position = state.position.clone();
                trace.steps.push(asked.trace(position, &table));
            }
            let decisions = record(&chosen, asked, taught, n_pool);
            trace.walks.steps.push(decisions);
            if tokens.iter().all(|token| token.left) {
                break;
            }
        }
        if let Some(mixture) = mixture {
            state = mixture.end(state, table.after(n_pool, batch * seq));
        }
        (state, trace)
    }

    /// How blocks are run: grouped only where the state of a token that has left no longer changes.
    pub(super) fn execution(&self) -> Execution {
        match self.memory.rests() {
            true => self.route.execution,
            false => Execution::Dense,
        }
    }

    /// The row of every token.
    pub(super) fn row_of(&self, [batch, seq]: [usize; 2]) -> Vec<usize> {
        match self.causal.segments() {
            Some(segments) => segments.of_tokens().to_vec(),
            None => (0..batch * seq).map(|token| token / seq).collect(),
        }
    }

    pub(super) fn targets(&self, rules: &Rules, rows: &[SequenceInfo]) -> Vec<Vec<Action>> {
        let (n_pool, max_steps) = (self.pool.len(), self.route.max_steps);
        let of = |teacher: &Teacher| teacher.targets(n_pool, max_steps, rows, rules.draws);
        rules.policy.teacher().map(of).unwrap_or_default()
    }

    /// A step of a walk of at most `n_steps`.
    pub(super) fn step_at<'r>(
        &self,
        rules: &'r Rules,
        index: usize,
        n_steps: usize,
    ) -> StepContext<'r> {
        StepContext {
            rules,
            index,
            n_steps,
            is_last: index + 1 == n_steps,
            n_pool: self.pool.len(),
            top_k: self.top_k(index),
        }
    }

    pub(super) fn top_k(&self, index: usize) -> usize {
        let top_k = match index {
            0 => self.route.top_k_first,
            _ => self.route.top_k,
        };
        top_k.clamp(1, self.pool.len() + 1)
    }

    /// The adjusted action logits of every token, each at its own step.
    pub(super) fn score<'r>(
        &self,
        rules: &Rules,
        step_of: impl Fn(usize) -> StepContext<'r>,
        state: &WalkState<B>,
        tokens: &[Token],
        table: &Table<B>,
        resting: &mut ExitedCache<B>,
    ) -> RouterOutput<B> {
        let [batch, seq, d_model] = state.hidden.dims();
        let n_tokens = batch * seq;
        let n_pool = self.pool.len();
        let n_actions = n_pool + 1;
        let device = state.hidden.device();
        let seen = match self.route.sees {
            Sees::Token => state.hidden.clone(),
            Sees::SequenceMean => state
                .hidden
                .clone()
                .mean_dim(1)
                .expand([batch, seq, d_model]),
        };
        let position = self.positions.reach().tell_router(state.position.clone());
        let seen = reshape(seen, [n_tokens, d_model]);
        let mut logits = match (self.execution(), self.route.sees) {
            (Execution::Grouped, Sees::Token) => {
                let all: Vec<usize> = (0..n_tokens).collect();
                let left = |token: usize| tokens[token].left;
                let logits = resting.rows(&all, left, |fresh| {
                    let (seen, position) = (some(seen, fresh), some(position, fresh));
                    self.router
                        .forward_packed(seen, position, &self.maps.router)
                });
                logits.gather()
            }
            _ => self
                .router
                .forward_packed(seen, position, &self.maps.router),
        };
        if rules.location_bias != 0.0 {
            logits = logits
                - distances(state.position.clone(), table.of_actions()) * rules.location_bias;
        }
        if rules.noise_std > 0.0 {
            let draw = |(row, action): (usize, usize)| {
                let (token, index) = (&tokens[row], step_of(row).index);
                let purpose = Purpose::Noise(action);
                let drawn = rules
                    .draws
                    .normal(purpose, token.sequence, token.place, index);
                (rules.noise_std * drawn) as f32
            };
            let cells = (0..n_tokens).flat_map(|row| (0..n_actions).map(move |a| (row, a)));
            let noise: Vec<f32> = cells.map(draw).collect();
            logits =
                logits + Tensor::from_data(TensorData::new(noise, [n_tokens, n_actions]), &device);
        }
        let exit_bias = |row| {
            let StepContext { index, n_steps, .. } = step_of(row);
            rules.constraint.exit_bias(index, n_steps) as f32
        };
        if (0..n_tokens).any(|row| exit_bias(row) != 0.0) {
            let mut bias = vec![0.0; n_tokens * n_actions];
            let of_out = bias.iter_mut().skip(n_pool).step_by(n_actions);
            of_out
                .zip(0..)
                .for_each(|(bias, row)| *bias = exit_bias(row));
            let bias = TensorData::new(bias, [n_tokens, n_actions]);
            logits = logits + Tensor::from_data(bias, &device);
        }
        let cap = rules.constraint.self_recurrence_cap;
        if tokens.iter().any(|token| token.capped(cap).is_some()) {
            let hit = |token: &Token| {
                let capped = token.capped(cap);
                (0..n_actions).map(move |action| capped == Some(action))
            };
            let mask: Vec<bool> = tokens.iter().flat_map(hit).collect();
            let mask = Tensor::<B, 2, Bool>::from_data(
                TensorData::new(mask, [n_tokens, n_actions]),
                &device,
            );
            logits = logits.mask_fill(mask, CAPPED);
        }
        let probabilities = softmax(&logits);
        RouterOutput::new(logits, probabilities)
    }

    /// Executes what was chosen and moves.
    fn go(
        &self,
        step: StepContext<'_>,
        state: WalkState<B>,
        chosen: &[Chosen],
        asked: Option<&RouterOutput<B>>,
        underway: &mut Underway<'_, '_, B>,
        table: &Table<B>,
    ) -> WalkState<B> {
        let WalkState { hidden, position } = state;
        let mixes = chosen.iter().any(|chosen| chosen.fused);
        let weights = asked.filter(|_| mixes).map(|asked| asked.fusion(chosen));
        let runs = Dispatch::new(chosen, step.n_pool);
        let seen = self.positions.reach().tell_blocks(position);
        let gains = self.gains(step, chosen, asked, underway);
        let moved =
            underway
                .executor
                .execute(step.index, &hidden, seen, &runs, weights.as_ref(), &gains);
        let hard = step.rules.exit_objective.hard();
        self.memory.write(&Written {
            hidden: &moved,
            causal: self.causal,
            actions: indices(chosen, step.n_pool),
            walking: chosen
                .iter()
                .map(|chosen| !(hard && chosen.action == Action::Out))
                .collect(),
            weights: weights.as_ref(),
        });
        WalkState {
            hidden: moved,
            position: self.arrive(chosen, weights, table),
        }
    }

    /// The factors by which the choice of a block and the exit get a gradient of the task.
    fn gains(
        &self,
        step: StepContext<'_>,
        chosen: &[Chosen],
        asked: Option<&RouterOutput<B>>,
        underway: &mut Underway<'_, '_, B>,
    ) -> GradientGates<B> {
        let mut gains = GradientGates::default();
        let rules = step.rules;
        let gates = rules.with_gradients || rules.choice_gradient == ChoiceGradient::Gated;
        let Some(asked) = asked.filter(|_| gates) else {
            return gains;
        };
        if rules.choice_gradient != ChoiceGradient::Legacy
            && chosen.iter().any(|chosen| alone(chosen).is_some())
        {
            let gate = asked.gates(chosen);
            match rules.choice_gradient {
                // The value of this difference is exactly zero, its gradient that of the gate.
                ChoiceGradient::StraightThrough => {
                    gains.straight = Some(gate.clone() - gate.detach());
                }
                _ => gains.whole = Some(gate - 1.0),
            }
        }
        if rules.with_gradients && rules.exit_objective == ExitObjective::StraightThrough {
            let out_probability = asked.out_probability();
            let alive = underway.straight.alive(out_probability, chosen);
            let of_alive = alive.clone() - alive.detach();
            gains.straight = Some(match gains.straight.take() {
                Some(of_gate) => of_gate + of_alive,
                None => of_alive,
            });
        }
        gains
    }

    /// The position of every token after its action.
    pub(super) fn arrive(
        &self,
        chosen: &[Chosen],
        weights: Option<Tensor<B, 2>>,
        table: &Table<B>,
    ) -> Tensor<B, 2> {
        let (n_tokens, n_pool) = (chosen.len(), self.pool.len());
        let first = chosen[0].action;
        let alone = match chosen.iter().all(|chosen| chosen.action == first) {
            true => table.after(first.index(n_pool), n_tokens),
            false => {
                let hot = |chosen: &Chosen, index| chosen.action.index(n_pool) == index;
                table.after_each(matrix(chosen, n_pool + 1, hot, &table.device()))
            }
        };
        let Some(weights) = weights else {
            return alone;
        };
        let of_out = Tensor::zeros([n_tokens, 1], &table.device());
        let mixed = table.after_mixture(cat(vec![weights, of_out], 1));
        let fused: Vec<bool> = chosen.iter().map(|chosen| chosen.fused).collect();
        let fused = TensorData::new(fused, [n_tokens, 1]);
        let fused = Tensor::<B, 2, Bool>::from_data(fused, &table.device());
        alone.clone().mask_where(fused.expand(alone.dims()), mixed)
    }
}

/// What a walk keeps from step to step besides its state.
struct Underway<'a, 'm, B: Backend> {
    executor: Executor<'a, 'm, B>,
    straight: StraightThrough<B>,
}

/// The router's output at a step, for every token.
pub(super) struct RouterOutput<B: Backend> {
    /// Adjusted, `[n_tokens, n_actions]`.
    pub logits: Tensor<B, 2>,
    pub probabilities: Tensor<B, 2>,
    pub host_logits: Vec<f32>,
    pub host_probabilities: Vec<f32>,
    pub n_actions: usize,
}

impl<B: Backend> RouterOutput<B> {
    /// The walk waits here for the device: who decides sits on the host.
    pub fn new(logits: Tensor<B, 2>, probabilities: Tensor<B, 2>) -> Self {
        Self {
            host_logits: values(&logits),
            host_probabilities: values(&probabilities),
            n_actions: logits.dims()[1],
            probabilities,
            logits,
        }
    }

    /// The adjusted logits of a token.
    pub fn of_token(&self, token: usize) -> &[f32] {
        &self.host_logits[token * self.n_actions..][..self.n_actions]
    }

    /// The part of the trace on the device; `position` is that of the tokens after the step.
    ///
    /// # Shapes
    /// `position`: `[n_tokens, d_position]`
    pub fn trace(&self, position: Tensor<B, 2>, table: &Table<B>) -> TraceStep<B> {
        TraceStep {
            logits: self.logits.clone(),
            last_move: Move {
                probabilities: self.probabilities.clone(),
                position,
                of_actions: table.of_actions(),
            },
        }
    }

    /// `[n_tokens, 1]`.
    fn out_probability(&self) -> Tensor<B, 2> {
        let out = self.n_actions - 1;
        self.probabilities.clone().slice_dim(1, out..out + 1)
    }

    /// The probability, among blocks, of the block that the router chose for a token alone; 1 for any other token.
    ///
    /// # Shapes
    /// Returns `[n_tokens, 1]`
    pub fn gates(&self, chosen: &[Chosen]) -> Tensor<B, 2> {
        let alone: Vec<Option<usize>> = chosen.iter().map(alone).collect();
        chosen_probability(&self.logits, &alone, self.n_actions - 1)
    }

    /// The weights of the blocks, `[n_tokens, n_pool]`: of a fused token the probabilities of its likeliest blocks, made to
    /// sum to 1; of any other 1 for its block.
    pub fn fusion(&self, chosen: &[Chosen]) -> Tensor<B, 2> {
        let (n_pool, device) = (self.n_actions - 1, self.probabilities.device());
        let among = |of: &Chosen, block| of.fused && of.likeliest.contains(&block);
        let among = matrix(chosen, n_pool, among, &device);
        let runs =
            |of: &Chosen, block| of.action == Action::Block(block) || of.forgone == Some(block);
        let alone = |of: &Chosen, block| !of.fused && runs(of, block);
        let alone = matrix(chosen, n_pool, alone, &device);
        let kept = self.probabilities.clone().slice_dim(1, 0..n_pool) * among;
        let total = kept.clone().sum_dim(1).clamp_min(1e-9);
        kept / total + alone
    }
}

/// 1 where something holds of a choice and a column, else 0; `[n_tokens, width]`.
pub(super) fn matrix<B: Backend>(
    chosen: &[Chosen],
    width: usize,
    holds: impl Fn(&Chosen, usize) -> bool,
    device: &B::Device,
) -> Tensor<B, 2> {
    let mut values = Vec::with_capacity(chosen.len() * width);
    for chosen in chosen {
        values.extend((0..width).map(|column| f32::from(holds(chosen, column))));
    }
    Tensor::from_data(TensorData::new(values, [chosen.len(), width]), device)
}

/// The tokens of windows of `seq` behind `before` earlier ones, at the start of their walk.
pub(super) fn tokens(
    row_of: &[usize],
    rows: &[SequenceInfo],
    before: usize,
    seq: usize,
) -> Vec<Token> {
    let token = |(token, &row): (usize, &usize)| {
        // Counted in the window, so that no two tokens of it draw the same.
        Token::new(rows[row].sequence, before + token % seq)
    };
    row_of.iter().enumerate().map(token).collect()
}

/// The teacher's actions at a step, for every token; OUT beyond the end of its path.
pub(super) fn targets_at(targets: &[Vec<Action>], index: usize, row_of: &[usize]) -> Vec<Action> {
    let of_step = targets.get(index);
    let action = |&row: &usize| of_step.map_or(Action::Out, |actions| actions[row]);
    row_of.iter().map(action).collect()
}

/// The indices of what was chosen.
pub(super) fn indices(chosen: &[Chosen], n_pool: usize) -> Vec<usize> {
    let index = |chosen: &Chosen| chosen.action.index(n_pool);
    chosen.iter().map(index).collect()
}

/// The block that the router chose for a token, if it runs no other.
fn alone(chosen: &Chosen) -> Option<usize> {
    let is_alone = chosen.origin == Origin::Router && !chosen.fused;
    chosen.action.block().filter(|_| is_alone)
}

/// The choices of all tokens.
pub(super) fn choose_all<B: Backend>(
    step: StepContext<'_>,
    tokens: &[Token],
    asked: Option<&RouterOutput<B>>,
    targets: Option<&[Action]>,
) -> Vec<Chosen> {
    let (logits, n_actions) = asked.map_or((&[][..], 0), |asked| {
        (&asked.host_logits[..], asked.n_actions)
    });
    let choose_one = |(index, token): (usize, &Token)| {
        let logits = &logits[index * n_actions..][..n_actions];
        let target = targets.map(|targets| targets[index]);
        choose(step, token, logits, target)
    };
    let tokens = tokens.par_iter().enumerate().with_min_len(TASK);
    tokens.map(choose_one).collect()
}

pub(super) fn record<B: Backend>(
    chosen: &[Chosen],
    asked: Option<RouterOutput<B>>,
    targets: Option<Vec<Action>>,
    n_pool: usize,
) -> Decisions {
    fn each<T>(chosen: &[Chosen], of: impl Fn(&Chosen) -> T) -> Vec<T> {
        chosen.iter().map(of).collect()
    }
    let index = |target: Action| target.index(n_pool);
    let targets = targets.map(|targets| targets.into_iter().map(index).collect());
    let of_asked = if asked.is_some() { chosen } else { &[] };
    Decisions {
        actions: indices(chosen, n_pool),
        origins: each(chosen, |chosen| chosen.origin),
        fused: each(chosen, |chosen| chosen.fused),
        best: each(of_asked, |chosen| chosen.best),
        targets,
        probabilities: asked.map_or_else(Vec::new, |asked| asked.host_probabilities),
        likeliest: chosen
            .iter()
            .flat_map(|chosen| &chosen.likeliest)
            .copied()
            .collect(),
        capped: each(chosen, |chosen| chosen.capped.is_some()),
    }
}

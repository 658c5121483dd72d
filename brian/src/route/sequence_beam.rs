//! The reference's beam over paths, one for every sequence. **Not causal**: for parity only.
//!
//! The router sees the mean over the sequence, so that the path of every token depends on all later ones. Bounds on the walk,
//! noise, override and cap do not apply. The trace has for every token of a sequence the action of the best branch at that
//! step, the probabilities `Σ_i w_i p_i`, and the logits `max(ln p, −50)`. The weights `w` are those of the *new* branches, but
//! `p` are the probabilities of the *old* ones in the same places: a wrong pairing of the reference, kept for its losses. Where
//! the two differ in number it has no value there, and each branch is paired with its parent here.
//!
//! A memory of codes has one code per sequence here: what a branch reads reaches the router only, never the state, and nothing
//! is read behind the exit.

use super::action::Action;
use super::branch::{Child, Parent};
use super::choose::{Chosen, by_logit};
use super::context::{WalkContext, WalkState};
use super::execute::{Dispatch, Executor, GradientGates};
use super::parallel::Search;
use super::policy::SequenceInfo;
use super::position::{Table, distances, normalize};
use super::rules::Rules;
use super::scores::{Scores, parent_rows};
use super::trace::{Origin, Trace};
use super::walk::{RouterOutput, indices, record, targets_at};
use crate::memory::codes::Codes;
use crate::memory::step::Written;
use crate::ops::gather::{rows as rows_of, some};
use crate::ops::reshape::values;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;

/// The smallest logarithm of a probability that is recorded.
const LOWEST: f64 = -50.0;

/// All branches of all sequences, the best ones first.
struct Branches<B: Backend> {
    /// `[n_branches * batch, seq, d_model]`.
    hidden: Tensor<B, 3>,
    /// `[n_branches * batch, d_position]`.
    position: Tensor<B, 2>,
    left: Vec<bool>,
    scores: Scores<B>,
}

impl<B: Backend> WalkContext<'_, B> {
    /// Walks every sequence on several paths from its entering state, and mixes the final states.
    pub(super) fn sequence_beam(
        &self,
        search: &Search,
        entered: Tensor<B, 3>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (WalkState<B>, Trace<B>) {
        let [batch, seq, _] = entered.dims();
        let n_pool = self.pool.len();
        let n_steps = rules.n_steps(self.route.max_steps);
        let hard_exit = rules.exit_objective.hard();
        let table = self.positions.table();
        let targets = self.targets(rules, rows);
        let row_of = self.row_of([batch, seq]);
        let mut branches = Branches {
            scores: Scores::start(batch, &entered.device()),
            hidden: entered,
            position: table.start(batch),
            left: vec![false; batch],
        };
        let mut trace = Trace::new([batch, seq], n_pool, n_steps, hard_exit);
        let mean = branches.mean();
        let mut memory = self.memory.of_sequences(mean, n_pool);
        for index in 0..n_steps {
            let logits = self.logits(&branches, memory.as_mut(), &table, rules);
            let children = branches.follow(search, &logits, self.top_k(index), batch);
            let parents = parent_rows(&children, batch);
            let chosen = chosen(&children, &parents, &branches.left);
            branches.scores = branches.scores.follow(logits.clone(), &children);
            self.move_on(index, &mut branches, &chosen, &parents, &table);
            if let Some(memory) = &mut memory {
                memory.follow(&parents);
                memory.write(&Written {
                    hidden: &branches.mean().unsqueeze_dim(1),
                    causal: self.causal,
                    actions: indices(&chosen, n_pool),
                    walking: branches.left.iter().map(|left| !left).collect(),
                    weights: None,
                });
            }
            let asked = asked(&branches.scores, logits, &children, seq);
            let position = branches.position.clone().slice_dim(0, 0..batch);
            let position = every_token(position, seq);
            trace.steps.push(asked.trace(position, &table));
            let teacher = rules.policy.teacher();
            let taught = teacher.map(|_| targets_at(&targets, index, &row_of));
            let of_tokens = of_tokens(&chosen, &asked, [batch, seq]);
            let decisions = record(&of_tokens, Some(asked), taught, n_pool);
            trace.walks.steps.push(decisions);
            if hard_exit && branches.left.iter().all(|&left| left) {
                break;
            }
        }
        (branches.merge([batch, seq]), trace)
    }

    /// Action logits of all branches, `[n_branches * batch, n_actions]`.
    fn logits(
        &self,
        branches: &Branches<B>,
        memory: Option<&mut Codes<'_, B>>,
        table: &Table<B>,
        rules: &Rules,
    ) -> Tensor<B, 2> {
        let mean = branches.mean();
        let seen = match memory {
            Some(memory) => memory.read(mean.unsqueeze_dim(1)).squeeze_dim(1),
            None => mean,
        };
        let position = self
            .positions
            .reach()
            .tell_router(branches.position.clone());
        let logits = self.router.forward(seen, position);
        match rules.location_bias {
            0.0 => logits,
            bias => logits - distances(branches.position.clone(), table.of_actions()) * bias,
        }
    }

    /// Executes what was chosen and moves.
    fn move_on(
        &self,
        index: usize,
        branches: &mut Branches<B>,
        chosen: &[Chosen],
        parents: &[usize],
        table: &Table<B>,
    ) {
        let [n_before, seq, d_model] = branches.hidden.dims();
        let n_after = chosen.len();
        let n_pool = self.pool.len();
        let hidden = branches.hidden.clone().reshape([n_before, seq * d_model]);
        let hidden = some(hidden, parents).reshape([n_after, seq, d_model]);
        let position = some(branches.position.clone(), parents);
        let told = self.positions.reach().tell_blocks(position);
        let of_tokens: Vec<Chosen> = chosen
            .iter()
            .flat_map(|chosen| std::iter::repeat_n(chosen.clone(), seq))
            .collect();
        let mut executor = Executor::new(self, [n_after, seq]);
        let told = every_token(told, seq);
        let runs = Dispatch::new(&of_tokens, n_pool);
        branches.hidden =
            executor.execute(index, &hidden, told, &runs, None, &GradientGates::default());
        branches.position = self.arrive(chosen, None, table);
        let left = |chosen: &Chosen| chosen.action == Action::Out;
        branches.left = chosen.iter().map(left).collect();
    }
}

impl<B: Backend> Branches<B> {
    /// The mean state of a sequence, `[n_branches * batch, d_model]`.
    fn mean(&self) -> Tensor<B, 2> {
        self.hidden.clone().mean_dim(1).squeeze_dim(1)
    }

    /// The branches after a step, `[n_branches * batch]`.
    fn follow(
        &self,
        search: &Search,
        logits: &Tensor<B, 2>,
        top_k: usize,
        batch: usize,
    ) -> Vec<Child> {
        let [n_rows, n_actions] = logits.dims();
        // The walk waits here for the device: who decides sits on the host.
        let host_logits = values(logits);
        let parent = |row: usize| Parent {
            score: self.scores.on_host[row],
            left: self.left[row],
            logits: &host_logits[row * n_actions..][..n_actions],
            capped: None,
            must_leave: false,
        };
        search.follow_all([n_rows, batch], top_k, parent)
    }

    /// What leaves the walk: every token gets the position of its sequence.
    fn merge(self, [batch, seq]: [usize; 2]) -> WalkState<B> {
        let [n_rows, _, d_model] = self.hidden.dims();
        let hidden = self
            .scores
            .mix(self.hidden.reshape([n_rows, seq * d_model]));
        let position = normalize(self.scores.mix(self.position));
        WalkState {
            hidden: hidden.reshape([batch, seq, d_model]),
            position: every_token(position, seq),
        }
    }
}

fn chosen(children: &[Child], parents: &[usize], left: &[bool]) -> Vec<Chosen> {
    let of = |(child, &parent): (&Child, &usize)| {
        let origin = match left[parent] {
            true => Origin::Left,
            false => Origin::Router,
        };
        Chosen::alone(child.action, origin)
    };
    children.iter().zip(parents).map(of).collect()
}

/// The router's recorded output for every token; `logits` belong to the branches before the step.
fn asked<B: Backend>(
    scores: &Scores<B>,
    logits: Tensor<B, 2>,
    children: &[Child],
    seq: usize,
) -> RouterOutput<B> {
    let [n_before, _] = logits.dims();
    let probabilities = softmax(logits, 1);
    let [_, batch] = scores.weights().dims();
    let probabilities = match n_before == children.len() {
        true => probabilities,
        false => rows_of(probabilities, &parent_rows(children, batch)),
    };
    let probabilities = scores.mix(probabilities);
    // Bounded before the logarithm, so that a probability of zero has a zero gradient and not none.
    let logits = probabilities.clone().clamp_min(LOWEST.exp()).log();
    RouterOutput::new(every_token(logits, seq), every_token(probabilities, seq))
}

/// The recorded choice of every token of a sequence: that of the best branch, the first one.
fn of_tokens<B: Backend>(
    chosen: &[Chosen],
    asked: &RouterOutput<B>,
    [batch, seq]: [usize; 2],
) -> Vec<Chosen> {
    let n_pool = asked.n_actions - 1;
    let of_sequence = |sequence: usize| {
        let kept = chosen.iter().skip(sequence).step_by(batch);
        Chosen {
            best: by_logit(asked.of_token(sequence * seq))[0],
            likeliest: kept.map(|c| c.action.index(n_pool)).collect(),
            ..chosen[sequence].clone()
        }
    };
    (0..batch)
        .flat_map(|sequence| std::iter::repeat_n(of_sequence(sequence), seq))
        .collect()
}

/// `[n, width]` to `[n * seq, width]`: a row for every token of a sequence.
fn every_token<B: Backend>(of_sequences: Tensor<B, 2>, seq: usize) -> Tensor<B, 2> {
    let [n, width] = of_sequences.dims();
    let spread = of_sequences.unsqueeze_dim::<3>(1).expand([n, seq, width]);
    spread.reshape([n * seq, width])
}

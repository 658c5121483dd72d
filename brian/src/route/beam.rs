//! The beam of every token: walks several branches per token, step by step, and mixes their final states by their scores.
//!
//! Position `t` depends on the tokens up to `t` only. A branch of a token runs a block on its own state; its attention sees the
//! *best* branch of every earlier token at that step, and the branch itself. It sees the best one and not their mixture,
//! because the best branch has a state of some walk, as blocks know them, and a mixture of states of different depth is no such
//! state. So a block's keys and values are those of one walk for any width, and along its best branches a beam is an ordinary
//! walk: with one branch it is the greedy walk with a hard exit.
//!
//! A branch that has left keeps its state and competes with the others. When all branches of a token have left, its scores
//! rest, so that nothing depends on how long other tokens walk. Noise, the bias of OUT, the cap and the forced last exit apply
//! to branches as to a walk. `select` and the random override do not, since a beam explores by itself; nor do `exit_objective`
//! and `choice_gradient`: the weights of the mixture carry the gradient, and OUT is an action among others.
//!
//! With a memory of codes each branch reads and writes along its own path, and sees the best branch of every earlier token.
//! Behind the exit the mixture reads the slots that the best branch saw.
//!
//! The trace records one walk: from its first step the one that led to the branch that is best at the end.

use super::action::Action;
use super::branch::{Child, Parent};
use super::choose::{Chosen, StepContext, Token, by_logit};
use super::context::{WalkContext, WalkState};
use super::execute::{Dispatch, Executor, GradientGates};
use super::exited_cache::ExitedCache;
use super::parallel::Search;
use super::policy::SequenceInfo;
use super::position::{Table, normalize};
use super::rules::Rules;
use super::scores::{Scores, parent_rows};
use super::trace::{Origin, Trace, Walks};
use super::walk::{RouterOutput, indices, record, targets_at, tokens};
use crate::memory::step::Written;
use crate::ops::gather::{rows as rows_of, some};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// All branches of all tokens, the best ones first: `[n_branches * batch * seq]`.
struct Branches<B: Backend> {
    /// Hidden states `[n_branches * batch, seq, d_model]`.
    state: WalkState<B>,
    tokens: Vec<Token>,
    scores: Scores<B>,
}

/// The record of one step.
struct Passed<B: Backend> {
    /// The router's output for the branches before the step.
    asked: RouterOutput<B>,
    /// The branches after the step.
    children: Vec<Child>,
    chosen: Vec<Chosen>,
    /// The positions after the step.
    position: Tensor<B, 2>,
    top_k: usize,
}

impl<B: Backend> WalkContext<'_, B> {
    /// Walks every token on several paths from its entering state, and mixes the final states.
    pub(super) fn beam(
        &self,
        search: &Search,
        entered: Tensor<B, 3>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (WalkState<B>, Trace<B>) {
        let dims @ [batch, seq, _] = entered.dims();
        let n_tokens = batch * seq;
        let n_steps = rules.n_steps(self.route.max_steps);
        let table = self.positions.table();
        let row_of = self.row_of([batch, seq]);
        let mut branches = Branches {
            scores: Scores::start(n_tokens, &entered.device()),
            state: WalkState {
                hidden: entered,
                position: table.start(n_tokens),
            },
            tokens: tokens(&row_of, rows, 0, seq),
        };
        let mut walked = Vec::new();
        for index in 0..n_steps {
            let step = self.step_at(rules, index, n_steps);
            let children = search.children.unwrap_or(step.top_k);
            let step = StepContext {
                top_k: children.min(self.pool.len() + 1),
                ..step
            };
            let passed = self.step(search, step, &mut branches, &table, dims);
            walked.push(passed);
            if branches.tokens.iter().all(|token| token.left) {
                break;
            }
        }
        self.memory.settle();
        let mut trace = Trace::new([batch, seq], self.pool.len(), n_steps, true);
        trace.walks.segments = self.causal.segments().cloned();
        let targets = self.targets(rules, rows);
        let trace = best_walks(trace, walked, (&targets, &row_of), &table);
        (branches.merge(dims), trace)
    }

    /// One step of all branches.
    fn step(
        &self,
        search: &Search,
        step: StepContext<'_>,
        branches: &mut Branches<B>,
        table: &Table<B>,
        [batch, seq, d_model]: [usize; 3],
    ) -> Passed<B> {
        let n_tokens = batch * seq;
        branches.state.hidden = self.memory.read(branches.state.hidden.clone());
        // Branches change places, so nothing is kept by place from step to step.
        let mut resting = ExitedCache::new(branches.tokens.len());
        let asked = self.score(
            step.rules,
            |_| step,
            &branches.state,
            &branches.tokens,
            table,
            &mut resting,
        );
        let children = branches.follow(search, step, &asked, n_tokens);
        let parents = parent_rows(&children, n_tokens);
        self.memory.follow(&parents);
        let chosen = branches.choose(step, &children, &parents);
        branches.scores = branches.scores.follow(asked.logits.clone(), &children);
        let followed = chosen.iter().zip(&parents).map(|(chosen, &parent)| {
            let mut token = branches.tokens[parent].clone();
            token.go(chosen, true);
            token
        });
        branches.tokens = followed.collect();
        branches.state = self.run(
            step,
            &branches.state,
            &chosen,
            &parents,
            table,
            [batch, d_model],
        );
        Passed {
            asked,
            children,
            chosen,
            position: branches.state.position.clone(),
            top_k: step.top_k,
        }
    }

    /// Executes what was chosen, each on the state of its parent, and moves.
    fn run(
        &self,
        step: StepContext<'_>,
        state: &WalkState<B>,
        chosen: &[Chosen],
        parents: &[usize],
        table: &Table<B>,
        [batch, d_model]: [usize; 2],
    ) -> WalkState<B> {
        let [n_before, seq, _] = state.hidden.dims();
        let n_branches = chosen.len() / (batch * seq);
        let n_pool = step.n_pool;
        let hidden = state.hidden.clone().reshape([n_before * seq, d_model]);
        let hidden = some(hidden, parents).reshape([n_branches * batch, seq, d_model]);
        let position = some(state.position.clone(), parents);
        let told = self.positions.reach().tell_blocks(position);
        let mut executor = Executor::new(self, [n_branches * batch, seq]).of_branches(n_branches);
        let runs = Dispatch::new(chosen, n_pool);
        let hidden = executor.execute(
            step.index,
            &hidden,
            told,
            &runs,
            None,
            &GradientGates::default(),
        );
        self.memory.write(&Written {
            hidden: &hidden,
            causal: self.causal,
            actions: indices(chosen, n_pool),
            walking: chosen.iter().map(|c| c.action != Action::Out).collect(),
            weights: None,
        });
        WalkState {
            hidden,
            position: self.arrive(chosen, None, table),
        }
    }
}

impl<B: Backend> Branches<B> {
    /// The branches after a step, `[n_branches * n_tokens]`.
    fn follow(
        &self,
        search: &Search,
        step: StepContext<'_>,
        asked: &RouterOutput<B>,
        n_tokens: usize,
    ) -> Vec<Child> {
        let cap = step.rules.constraint.self_recurrence_cap;
        let parent = |row: usize| Parent {
            score: self.scores.on_host[row],
            left: self.tokens[row].left,
            logits: asked.of_token(row),
            capped: self.tokens[row].capped(cap),
            must_leave: step.must_leave(),
        };
        search.follow_all([self.tokens.len(), n_tokens], step.top_k, parent)
    }

    /// What each branch does, those that have left included.
    fn choose(&self, step: StepContext<'_>, children: &[Child], parents: &[usize]) -> Vec<Chosen> {
        let cap = step.rules.constraint.self_recurrence_cap;
        let of = |(child, &parent): (&Child, &usize)| {
            let before = &self.tokens[parent];
            let origin = match step.must_leave() {
                _ if before.left || child.is_empty() => Origin::Left,
                true => Origin::Last,
                false => Origin::Router,
            };
            Chosen {
                capped: before.capped(cap),
                ..Chosen::alone(child.action, origin)
            }
        };
        children.iter().zip(parents).map(of).collect()
    }

    /// What leaves the walk; `dims` of what entered it.
    fn merge(self, dims: [usize; 3]) -> WalkState<B> {
        let [_, _, d_model] = dims;
        let n_rows = self.tokens.len();
        let hidden = self
            .scores
            .mix(self.state.hidden.reshape([n_rows, d_model]));
        WalkState {
            hidden: hidden.reshape(dims),
            position: normalize(self.scores.mix(self.state.position)),
        }
    }
}

impl StepContext<'_> {
    fn must_leave(&self) -> bool {
        self.is_last && self.rules.constraint.force_final_exit
    }
}

/// The record of the walks that led to the best branches.
fn best_walks<B: Backend>(
    mut trace: Trace<B>,
    walked: Vec<Passed<B>>,
    (targets, row_of): (&[Vec<Action>], &[usize]),
    table: &Table<B>,
) -> Trace<B> {
    let Walks { batch, seq, .. } = trace.walks;
    let n_tokens = batch * seq;
    let mut branch = vec![0; n_tokens];
    for (index, passed) in walked.into_iter().enumerate().rev() {
        let row = |(token, branch): (usize, &usize)| branch * n_tokens + token;
        let ends: Vec<usize> = branch.iter().enumerate().map(row).collect();
        let parents = ends.iter().map(|&end| passed.children[end].parent);
        branch = parents.collect();
        let starts: Vec<usize> = branch.iter().enumerate().map(row).collect();
        let asked = passed.asked.of_tokens(&starts);
        let position = some(passed.position, &ends);
        trace.steps.push(asked.trace(position, table));
        let chosen = ends.iter().enumerate().map(|(token, &end)| {
            let mut likeliest = by_logit(asked.of_token(token));
            let best = likeliest[0];
            likeliest.truncate(passed.top_k);
            Chosen {
                best,
                likeliest,
                ..passed.chosen[end].clone()
            }
        });
        let chosen: Vec<Chosen> = chosen.collect();
        let taught = (!targets.is_empty()).then(|| targets_at(targets, index, row_of));
        let decisions = record(&chosen, Some(asked), taught, trace.walks.n_pool);
        trace.walks.steps.push(decisions);
    }
    trace.steps.reverse();
    trace.walks.steps.reverse();
    trace
}

impl<B: Backend> RouterOutput<B> {
    /// What the router said about some tokens.
    fn of_tokens(&self, tokens: &[usize]) -> Self {
        let on_host = |values: &[f32]| -> Vec<f32> {
            let of = |&token: &usize| &values[token * self.n_actions..][..self.n_actions];
            tokens.iter().flat_map(of).copied().collect()
        };
        Self {
            logits: rows_of(self.logits.clone(), tokens),
            probabilities: rows_of(self.probabilities.clone(), tokens),
            host_logits: on_host(&self.host_logits),
            host_probabilities: on_host(&self.host_probabilities),
            n_actions: self.n_actions,
        }
    }
}

//! The record of a walk: decisions per step and token on the host, and tensors on the device where losses need gradients.

use super::action::Action;
use super::position::distances;
use crate::memory::MemoryUse;
use crate::segments::Segments;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::sync::Arc;

/// Who decided an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The teacher.
    Teacher,
    /// The router.
    Router,
    /// Exploration put another block in the place of the one chosen.
    Random,
    /// The self-recurrence cap forbade the one chosen.
    Cap,
    /// The last step, at which every token leaves.
    Last,
    /// The token had left before.
    Left,
}

/// The decisions of one step, for all tokens in the order `[batch * seq]`: rows of numbers, with actions by their indices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decisions {
    /// What was executed. A token that left before keeps choosing OUT.
    pub actions: Vec<usize>,
    /// Who decided it.
    pub origins: Vec<Origin>,
    /// Whether the outputs of several blocks were mixed.
    pub fused: Vec<bool>,
    /// The router's best action: the largest adjusted logit, the lowest action among equals. Empty if it was not asked.
    pub best: Vec<usize>,
    /// The teacher's actions, if there is a teacher.
    pub targets: Option<Vec<usize>>,
    /// Probabilities of the adjusted logits, `[batch * seq * n_actions]`. Empty if the router was not asked.
    pub probabilities: Vec<f32>,
    /// The `top_k` likeliest actions of every token, `[batch * seq * top_k]`. Empty if the router was not asked.
    pub likeliest: Vec<usize>,
    /// Whether the self-recurrence cap forbade a block.
    pub capped: Vec<bool>,
}

/// The part of a trace on the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Walks {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub seq: usize,
    /// The texts in them, if any of them is a window that holds several.
    pub segments: Option<Arc<Segments>>,
    /// Blocks to choose from; OUT is the action after the last.
    pub n_pool: usize,
    /// The most steps the walk could have had.
    pub max_steps: usize,
    /// Whether OUT ends a walk; else it only passes a step.
    pub hard_exit: bool,
    /// What was decided, step by step; fewer than `max_steps` if every token left before.
    pub steps: Vec<Decisions>,
    /// What was read from the memory, if there is one; not measured while learning.
    pub memory: Option<MemoryUse>,
    /// The same of what blocks attend to, where the model has codes of hidden states beside it.
    pub attended: Option<MemoryUse>,
}

impl Walks {
    /// The texts in all sequences.
    pub fn texts(&self) -> Arc<Segments> {
        let whole = || Arc::new(Segments::whole(self.batch, self.seq));
        self.segments.clone().unwrap_or_else(whole)
    }

    /// The actions of a token, step by step.
    pub fn actions(&self, token: usize) -> Vec<Action> {
        let action = |step: &Decisions| Action::from_index(step.actions[token], self.n_pool);
        self.steps.iter().map(action).collect()
    }

    /// The actions of a token; where OUT ends the walk, only those before it.
    pub fn path(&self, token: usize) -> Vec<Action> {
        let mut actions = self.actions(token);
        let end = actions.iter().position(|&action| action == Action::Out);
        actions.truncate(end.filter(|_| self.hard_exit).unwrap_or(actions.len()));
        actions
    }

    /// The blocks that a token executed at a step, which counts from 0: one, none, or all whose outputs were mixed.
    pub fn blocks(&self, step: usize, token: usize) -> Vec<usize> {
        let step = &self.steps[step];
        let of_token = step.likeliest.len() / (self.batch * self.seq);
        let mut blocks = match step.fused[token] {
            true => step.likeliest[token * of_token..][..of_token].to_vec(),
            false => vec![step.actions[token]],
        };
        blocks.retain(|&block| block < self.n_pool);
        blocks
    }

    /// How many blocks a token executed.
    pub fn n_executed(&self, token: usize) -> usize {
        let executed = |step: &&Decisions| step.actions[token] < self.n_pool;
        self.steps.iter().filter(executed).count()
    }
}

impl<B: Backend> Trace<B> {
    /// An empty trace.
    pub(crate) fn new(
        [batch, seq]: [usize; 2],
        n_pool: usize,
        max_steps: usize,
        hard_exit: bool,
    ) -> Self {
        Self {
            walks: Walks {
                batch,
                seq,
                n_pool,
                max_steps,
                hard_exit,
                ..Walks::default()
            },
            steps: Vec::new(),
        }
    }
}

/// One step on the device.
#[derive(Clone, Debug)]
pub struct TraceStep<B: Backend> {
    /// Adjusted action logits, `[batch * seq, n_actions]`.
    pub logits: Tensor<B, 2>,
    /// The positions after the step.
    pub last_move: Move<B>,
}

/// The positions of tokens after a step, with the positions and probabilities of all actions.
#[derive(Clone, Debug)]
pub struct Move<B: Backend> {
    /// Probabilities of all actions, `[n_tokens, n_actions]`.
    pub probabilities: Tensor<B, 2>,
    /// Positions after the step, `[n_tokens, d_position]`.
    pub position: Tensor<B, 2>,
    /// Positions of all actions, `[n_actions, d_position]`.
    pub of_actions: Tensor<B, 2>,
}

impl<B: Backend> Move<B> {
    /// Expected squared distance of each token, `Σ_a p_a |P' − E_a|²`.
    ///
    /// # Shapes
    /// Returns `[n_tokens]`
    pub fn location(&self) -> Tensor<B, 1> {
        let distances = distances(self.position.clone(), self.of_actions.clone());
        let location = self.probabilities.clone() * distances;
        location.sum_dim(1).squeeze_dim(1)
    }
}

/// The record of a pass.
#[derive(Clone, Debug)]
pub struct Trace<B: Backend> {
    /// What was decided.
    pub walks: Walks,
    /// Tensors for the gradients of the route losses: one per entry of `walks.steps`, or none if the router was not asked.
    pub steps: Vec<TraceStep<B>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_executed_its_block_or_those_that_were_mixed_and_out_is_none() {
        let step = |actions: [usize; 3], fused, likeliest: [usize; 6]| Decisions {
            actions: actions.to_vec(),
            fused: vec![false, fused, false],
            likeliest: likeliest.to_vec(),
            ..Decisions::default()
        };
        let walks = Walks {
            batch: 1,
            seq: 3,
            n_pool: 2,
            steps: vec![
                step([1, 0, 2], false, [1, 0, 0, 1, 2, 0]),
                step([2, 1, 0], true, [2, 1, 1, 0, 0, 1]),
                step([2, 1, 0], true, [2, 1, 1, 2, 0, 1]),
            ],
            ..Walks::default()
        };
        let found = |step: usize| [0, 1, 2].map(|token| walks.blocks(step, token));
        assert_eq!(found(0), [vec![1], vec![0], vec![]]);
        assert_eq!(found(1), [vec![], vec![1, 0], vec![0]]);
        assert_eq!(found(2), [vec![], vec![1], vec![0]], "OUT has no weight");
    }

    /// Two tokens in a pool of two: one passes a step with OUT and comes back, as only a soft exit lets it.
    #[test]
    fn a_path_ends_with_a_hard_out_and_passes_a_soft_one() {
        let actions = |indices: &[usize]| -> Vec<Action> {
            let action = |&index: &usize| Action::from_index(index, 2);
            indices.iter().map(action).collect()
        };
        let step = |actions: [usize; 2]| Decisions {
            actions: actions.to_vec(),
            ..Decisions::default()
        };
        let walks = |hard_exit| Walks {
            batch: 1,
            seq: 2,
            n_pool: 2,
            max_steps: 4,
            hard_exit,
            steps: [[1, 2], [2, 0], [0, 1]].map(step).to_vec(),
            ..Walks::default()
        };
        assert_eq!(
            (walks(true).path(0), walks(true).path(1)),
            (actions(&[1]), vec![])
        );
        assert_eq!(
            (walks(false).path(0), walks(false).path(1)),
            (actions(&[1, 2, 0]), actions(&[2, 0, 1]))
        );
        assert_eq!(
            (walks(false).n_executed(0), walks(false).n_executed(1)),
            (2, 2)
        );
    }
}

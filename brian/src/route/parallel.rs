//! Parallel paths: the configuration of a beam, whose final states are mixed by the scores of its paths.
//!
//! A beam of branches replaces the single walk wherever the router alone decides; a teacher, or a lot between teacher and
//! router, leads one path only. A branch has a state, a score and whether it has left. At every step the children of a branch
//! are its likeliest actions (nothing is fused), and the best `width` children go on. The result is
//! `H = Σ w H_i`, `P = norm(Σ w P_i)` with `w = softmax(scores)`: the router gets its gradient through the scores.

use serde::Deserialize;

/// How many paths are walked at once.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parallel {
    /// One.
    None,
    /// Every token has branches of its own: causal, and about `width` times as expensive as one walk.
    Beam {
        /// The most branches of a token.
        width: usize,
        /// How many of its likeliest actions a branch tries.
        children: usize,
        /// Subtracted from a branch's score per block.
        branch_cost: f64,
        /// What a score is multiplied by per step.
        score_decay: f64,
    },
    /// Every sequence has branches: the reference's, for parity only. The router sees the mean over the
    /// sequence, so every logit depends on later tokens, and its loss is no loss of a language model. A branch tries as many
    /// actions as a walk would mix.
    SequenceBeam {
        /// The most branches of a sequence.
        width: usize,
        /// Subtracted from a branch's score per block.
        branch_cost: f64,
        /// What a score is multiplied by per step.
        score_decay: f64,
        /// What becomes of a branch whose best action is OUT.
        parent_exit: ParentExit,
    },
}

/// What becomes of a branch whose best action is OUT, in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParentExit {
    /// OUT is one child among others.
    Branch,
    /// All children are OUT.
    Top1,
    /// The same: the reference names it apart and treats it alike.
    AnyTopk,
}

/// How a beam searches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Search {
    /// The most branches.
    pub width: usize,
    /// The most children of a branch; `None` for as many as a walk would mix.
    pub children: Option<usize>,
    pub branch_cost: f64,
    pub score_decay: f64,
    pub finished: Finished,
}

/// What becomes of a branch that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It stays, as one branch. Once all branches of a token have left, their scores no longer decay: they must not depend on
    /// how long others walk.
    Rests,
    /// It has as many children as any other, all alike, which may fill the beam; as in the reference.
    Repeats(ParentExit),
}

impl Parallel {
    /// The most branches; one where there is no beam.
    pub fn width(self) -> usize {
        match self {
            Self::None => 1,
            Self::Beam { width, .. } | Self::SequenceBeam { width, .. } => width,
        }
    }

    /// How branches are scored and kept, if there is a beam.
    pub(crate) fn search(self) -> Option<Search> {
        match self {
            Self::None => None,
            Self::Beam {
                width,
                children,
                branch_cost,
                score_decay,
            } => Some(Search {
                width,
                children: Some(children),
                branch_cost,
                score_decay,
                finished: Finished::Rests,
            }),
            Self::SequenceBeam {
                width,
                branch_cost,
                score_decay,
                parent_exit,
            } => Some(Search {
                width,
                children: None,
                branch_cost,
                score_decay,
                finished: Finished::Repeats(parent_exit),
            }),
        }
    }
}

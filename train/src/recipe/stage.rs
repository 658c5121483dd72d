//! A stage of the ladder: how long, from which weights, who chooses the path, and the gate behind it.

use crate::learner::Schedule;
use brian::route::policy::Policy as Route;
use serde::Deserialize;

/// One rung of the ladder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Stage {
    /// What metrics, checkpoints and `--set` call it.
    pub name: String,
    /// Optimizer steps.
    pub steps: u64,
    /// Which weights it starts with.
    pub start: Start,
    /// Who chooses the path through the pool.
    pub policy: Policy,
    /// Step → learning rate.
    pub learning_rate: Schedule,
    /// Groups of parameters that rest at first; often none.
    pub freeze: Vec<Freeze>,
    /// What must hold at its end for the next stage to begin; without it the ladder goes on in any case.
    pub gate: Option<Gate>,
}

/// The weights a stage starts with. The optimizer always starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// Drawn from the run's seed.
    Fresh,
    /// Those at the end of the stage before.
    Previous,
}

/// Who chooses the path of a token through the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Nobody: the plain decoder made of the same blocks.
    None,
    /// The blocks of the pool in their order, then OUT.
    Sequential,
}

impl Policy {
    /// The rule a pool is walked by. A plain decoder has no pool and one path, its own.
    pub fn route(self) -> Route {
        match self {
            Self::None | Self::Sequential => Route::Sequential,
        }
    }
}

/// Keeps a group of parameters as it is until a step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Freeze {
    /// The group. Of the plain decoder, which policy `none` trains: `embedding`, `blocks`, `norm`. On a route:
    /// `embedding`, `pre`, `pool`, `post`, `norm`, `position`, `exit`, `router`.
    pub group: String,
    /// The first step of the stage, from 0, at which the group learns.
    pub until_step: u64,
}

/// What a validation measures on each split: the numbers that a gate can look at.
pub const VALID_METRICS: [&str; 3] = ["loss/lm", "loss/total", "bits_per_byte"];

/// A bound on a number of the stage's last validation. Exactly one of the two bounds is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Gate {
    /// The number, by its split and its name in the metrics: `valid/loss/lm`.
    pub metric: String,
    /// The gate opens at this value or below.
    pub at_most: Option<f64>,
    /// The gate opens at this value or above.
    pub at_least: Option<f64>,
}

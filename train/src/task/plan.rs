//! What a step shall do, as a plain value that travels with its batch.

use brian::route::policy::Policy;
use std::collections::BTreeSet;

/// What the coming step will do. The strategy fills it, hooks may change it.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPlan {
    /// Optimizer steps done in this stage so far: the coming step's index.
    pub stage_step: u64,
    /// Optimizer steps of the stage.
    pub stage_steps: u64,
    /// Who chooses the path.
    pub route: Policy,
    /// Parameter groups that do not learn; their gradients are not computed.
    pub frozen: BTreeSet<String>,
    /// Targets that count in all micro-batches of the step.
    pub targets: u64,
}

impl StepPlan {
    /// The plan of a pass that is no training step.
    pub fn idle(route: Policy) -> Self {
        Self {
            stage_step: 0,
            stage_steps: 0,
            route,
            frozen: BTreeSet::new(),
            targets: 0,
        }
    }
}

//! Hook that freezes named parameter groups until a given step. A pure function of the step, so a resume needs no state.

use crate::error::Error;
use crate::learner::Hook;
use crate::recipe::Freeze;
use crate::task::StepPlan;
use burn::tensor::backend::AutodiffBackend;

/// Freezes groups at the start of a stage.
pub struct StagedUnfreezing {
    groups: Vec<Freeze>,
}

impl StagedUnfreezing {
    /// A hook that freezes each group until its step.
    pub fn new(groups: Vec<Freeze>) -> Self {
        Self { groups }
    }
}

impl<B: AutodiffBackend, M> Hook<B, M> for StagedUnfreezing {
    fn name(&self) -> &'static str {
        "staged_unfreezing"
    }

    fn before_step(&mut self, plan: &mut StepPlan) -> Result<(), Error> {
        let resting = self
            .groups
            .iter()
            .filter(|group| plan.stage_step < group.until(plan.stage_steps));
        let names: Vec<String> = resting.map(|group| group.group.clone()).collect();
        plan.frozen.extend(names);
        Ok(())
    }
}

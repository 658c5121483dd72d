//! `Hook`: the trait whose methods run before each step (may change its plan), after it (see `StepInfo`, may stop the run),
//! at the end of a stage and at checkpoints (state to save); `Every` calls a hook every n-th step only.

use crate::error::Error;
use crate::task::{Measured, StepPlan};
use burn::tensor::backend::AutodiffBackend;
use serde_json::Value;
use std::collections::BTreeMap;

/// The result of a step.
pub struct StepInfo<'a, M> {
    /// Optimizer steps done, over all stages.
    pub step: u64,
    /// The stage's name.
    pub stage: &'a str,
    /// Optimizer steps done in this stage.
    pub stage_step: u64,
    /// Optimizer steps of the stage.
    pub stage_steps: u64,
    /// Targets seen in training so far.
    pub tokens: u64,
    /// Seconds of training so far, including those before a resume.
    pub wall_s: f64,
    /// The plan it followed.
    pub plan: &'a StepPlan,
    /// The model after the step.
    pub model: &'a M,
    /// What training measured; `None` at the start of a stage, which only validates. Hooks may add numbers.
    pub train: Option<Measured>,
    /// What was measured on each validation split, if this step was followed by a validation.
    pub valid: BTreeMap<String, Measured>,
}

impl<M> StepInfo<'_, M> {
    /// Adds a number to the dashboard and the log of this training step.
    pub fn add(&mut self, name: &str, value: f64) {
        if let Some(train) = &mut self.train {
            train.numbers.insert(name.to_string(), value);
        }
    }

    /// Whether the stage ends with this step.
    pub fn is_last(&self) -> bool {
        self.stage_step == self.stage_steps
    }
}

/// The decision of a hook after a step.
#[derive(Debug)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Save and stop; the error is what the command ends with.
    Stop(Error),
}

/// Extends the learner. Hooks run in list order and do not know each other.
pub trait Hook<B: AutodiffBackend, M> {
    /// The name under which its state is saved.
    fn name(&self) -> &'static str;

    /// Called before every optimizer step; may change the plan.
    ///
    /// # Errors
    /// Ends the run without another checkpoint.
    fn before_step(&mut self, _plan: &mut StepPlan) -> Result<(), Error> {
        Ok(())
    }

    /// Called after every optimizer step, and once before the first of a stage that validates at its start.
    ///
    /// # Errors
    /// Ends the run without another checkpoint.
    fn after_step(&mut self, _step: &mut StepInfo<M>) -> Result<Verdict, Error> {
        Ok(Verdict::Continue)
    }

    /// Called once when the stage is over, also after an interruption or an error.
    ///
    /// # Errors
    /// Ends the run.
    fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// The state that must survive a resume; `None` when stateless. Called at every checkpoint.
    ///
    /// # Errors
    /// If data that the state refers to cannot be saved.
    fn state(&mut self) -> Result<Option<Value>, Error> {
        Ok(None)
    }
}

/// Hooks in the order in which they are called.
pub type Hooks<B, M> = Vec<Box<dyn Hook<B, M>>>;

/// Calls a hook's `after_step` only for every n-th step of a stage and for its last one.
pub struct Every<H>(pub u64, pub H);

impl<B: AutodiffBackend, M, H: Hook<B, M>> Hook<B, M> for Every<H> {
    fn name(&self) -> &'static str {
        self.1.name()
    }

    fn before_step(&mut self, plan: &mut StepPlan) -> Result<(), Error> {
        self.1.before_step(plan)
    }

    fn after_step(&mut self, step: &mut StepInfo<M>) -> Result<Verdict, Error> {
        let due =
            step.train.is_some() && (step.is_last() || step.stage_step.is_multiple_of(self.0));
        match due {
            true => self.1.after_step(step),
            false => Ok(Verdict::Continue),
        }
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.1.finish()
    }

    fn state(&mut self) -> Result<Option<Value>, Error> {
        self.1.state()
    }
}

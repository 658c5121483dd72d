//! Hook that adds metrics of the walks of a step and of a validation: `route/…`, for dashboard, log and gates.
//!
//! A training step shows the walks of that step alone, so a resume needs no state. Only a validation, which sees enough
//! sequences, gets intervals.

use crate::error::Error;
use crate::learner::{Hook, StepInfo, Verdict};
use burn::tensor::backend::AutodiffBackend;

/// A hook that turns counts of walks into metrics.
pub struct RoutingMetrics;

impl<B: AutodiffBackend, M> Hook<B, M> for RoutingMetrics {
    fn name(&self) -> &'static str {
        "routing_metrics"
    }

    fn after_step(&mut self, step: &mut StepInfo<M>) -> Result<Verdict, Error> {
        if let Some(train) = &mut step.train {
            train.numbers.extend(train.route.named(false));
        }
        for valid in step.valid.values_mut() {
            valid.numbers.extend(valid.route.named(true));
        }
        Ok(Verdict::Continue)
    }
}

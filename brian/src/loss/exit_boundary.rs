//! Loss on the time of leaving: binary cross-entropy of `p_OUT` with a target that rises from 0 to 1 over the last steps.

use super::view::View;
use crate::route::constraint::Constraint;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Keeps both logarithms finite.
const CERTAIN: f64 = 1e-6;

/// The loss in nats per decision.
///
/// # Shapes
/// Returns `[1]`
pub fn exit_boundary<B: Backend>(view: &View<B>, constraint: &Constraint) -> Tensor<B, 1> {
    view.mean(|index, step| {
        let target = constraint.exit_target(index, view.max_steps);
        let out = step.of_out().clamp(CERTAIN, 1.0 - CERTAIN);
        let leave = out.clone().log() * target;
        let stay = (out.neg() + 1.0).log() * (1.0 - target);
        (leave + stay).neg()
    })
}

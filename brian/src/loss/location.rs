//! Location loss, which pulls likely actions near: mean of `Σ_a p_a |P' − E_a|²` with the position after the step.
//!
//! Its trivial minima are a router that is certain and a table that has shrunk; keep its weight small.

use super::view::View;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Mean squared distance.
///
/// # Shapes
/// Returns `[1]`
pub fn location<B: Backend>(view: &View<B>) -> Tensor<B, 1> {
    view.mean(|_, step| step.last_move.location())
}

//! Load-balancing loss on the router's probabilities: `mean_a (mean p_a − 1/n_pool)²`.
//!
//! OUT has a share of the probabilities but no term in the sum, so the loss also lowers the probability of OUT. Where OUT
//! matters, [`load`](super::load) is the better loss.

use super::view::View;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Squared deviation from even use.
///
/// # Shapes
/// Returns `[1]`
pub fn balance<B: Backend>(view: &View<B>) -> Tensor<B, 1> {
    let mean = view.mean_rows(|step| step.of_blocks());
    (mean - 1.0 / view.n_pool as f64).square().mean()
}

//! Even use of the blocks, by what the router says: `mean_a (mean p_a − 1/n_pool)²`.
//!
//! OUT is left out of the sum but not of the probabilities, so the term also pulls the blocks' share up to 1: where OUT
//! matters, [`load`](super::load) is the better term.

use super::view::View;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Squared deviation from even use, `[1]`.
pub fn balance<B: Backend>(view: &View<B>) -> Tensor<B, 1> {
    let mean = view.mean_rows(|step| step.of_blocks());
    (mean - 1.0 / view.n_pool as f64).square().mean()
}

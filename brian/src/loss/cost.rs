//! Expected number of blocks per token: `mean Σ_s alive_s (1 − p_OUT,s)` with `alive_s = Π_{r<s} (1 − p_OUT,r)`.
//!
//! In the reference's scope, and where OUT does not end a walk, `alive` is 1.

use super::view::View;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Expected blocks per token.
///
/// # Shapes
/// Returns `[1]`
pub fn cost<B: Backend>(view: &View<B>) -> Tensor<B, 1> {
    let blocks = view
        .steps
        .iter()
        .map(|step| step.of_blocks().sum_dim(1).squeeze_dim(1) * step.survival.clone());
    let expected = blocks.reduce(|sum, step| sum + step);
    view.mean_over_tokens(expected.expect("a walk that asked the router has a step"))
}

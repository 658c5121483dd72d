//! The router's two layers, from hidden states `h` and positions `P` to action logits: `silu([h, P] W1 + b1) W2 + b2`.

use super::cat::cat;
use super::reuse::Packed;
use super::{fused, host};
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::silu;
use burn::tensor::backend::Backend;

/// Action logits.
///
/// # Shapes
/// `[n, d_model]` and `[n, d_position]` to `[n, n_actions]`
pub(crate) fn router_scores<B: Backend>(
    hidden: Tensor<B, 2>,
    position: Tensor<B, 2>,
    first: &Linear<B>,
    second: &Linear<B>,
    packed: &Packed,
) -> Tensor<B, 2> {
    let layers = [first, second];
    fused(&[&|| host::router_scores::router_scores(&hidden, &position, layers, packed)])
        .unwrap_or_else(|| {
            let state = cat(vec![hidden, position], 1);
            second.forward(silu(first.forward(state)))
        })
}

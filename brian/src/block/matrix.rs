//! Helpers of blocks: making a linear map, applying one to all tokens as one product, and adding a position
//! vector to the residual stream.

use crate::ops::linear::{add_linear, linear};
use crate::ops::reshape::{per_row, reshape};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// A map `[d_in, d_out]` without a bias; its values come from [`crate::initial`].
pub(crate) fn matrix<B: Backend>(d_in: usize, d_out: usize, device: &B::Device) -> Linear<B> {
    biased_matrix(d_in, d_out, false, device)
}

/// The same, with a bias if it has one. Operations on maps leave the bias to their callers.
pub(crate) fn biased_matrix<B: Backend>(
    d_in: usize,
    d_out: usize,
    has_bias: bool,
    device: &B::Device,
) -> Linear<B> {
    LinearConfig::new(d_in, d_out)
        .with_bias(has_bias)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// Applies a map to every token as one matrix product.
///
/// On `[batch, seq, d_in]` Burn makes one product and one weight gradient per sequence and then adds those up.
///
/// # Shapes
/// `[batch, seq, d_in]` to `[batch, seq, d_out]`
pub(crate) fn per_token<B: Backend>(map: &Linear<B>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    let [batch, seq, _] = x.dims();
    let y = linear(per_row(x), map);
    let [_, d_out] = y.dims();
    reshape(y, [batch, seq, d_out])
}

/// The residual stream plus the position, through an adapter if there is one.
///
/// # Shapes
/// `[n_tokens, d_model]` and `[n_tokens, d_position]` to `[n_tokens, d_model]`
pub(crate) fn add_position<B: Backend>(
    hidden: Tensor<B, 2>,
    adapter: Option<&Linear<B>>,
    position: Tensor<B, 2>,
) -> Tensor<B, 2> {
    match adapter {
        Some(adapter) => add_linear(hidden, position, adapter),
        None => hidden + position,
    }
}

//! The same numbers in another shape, and on the host.

use super::{fused, host};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The same numbers in another shape. Burn's own on the host copies them.
pub(crate) fn reshape<B: Backend, const D: usize, const E: usize>(
    tensor: Tensor<B, D>,
    dims: [usize; E],
) -> Tensor<B, E> {
    fused(&[&|| host::custom_op::reshape(&tensor, dims)]).unwrap_or_else(|| tensor.reshape(dims))
}

/// `[batch, seq, width]` token by token.
pub(crate) fn per_row<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [batch, seq, width] = x.dims();
    reshape(x, [batch * seq, width])
}

/// What a tensor holds, on the host.
pub(crate) fn values<B: Backend>(tensor: &Tensor<B, 2>) -> Vec<f32> {
    fused(&[&|| host::custom_op::values(tensor)])
        .unwrap_or_else(|| tensor.clone().into_data().iter::<f32>().collect())
}

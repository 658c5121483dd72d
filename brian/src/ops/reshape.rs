//! Reshapes without a copy on the host, and reading a tensor's values to the host.

use super::{fused, host};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The tensor in another shape. On the host Burn's own reshape copies the values.
pub(crate) fn reshape<B: Backend, const D: usize, const E: usize>(
    tensor: Tensor<B, D>,
    dims: [usize; E],
) -> Tensor<B, E> {
    fused(&[&|| host::custom_op::reshape(&tensor, dims)]).unwrap_or_else(|| tensor.reshape(dims))
}

/// `[batch, seq, width]` to `[batch * seq, width]`.
pub(crate) fn per_row<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [batch, seq, width] = x.dims();
    reshape(x, [batch * seq, width])
}

/// The values of a tensor, on the host.
pub(crate) fn values<B: Backend>(tensor: &Tensor<B, 2>) -> Vec<f32> {
    fused(&[&|| host::custom_op::values(tensor)])
        .unwrap_or_else(|| tensor.clone().into_data().iter::<f32>().collect())
}

//! The same numbers in another shape, and on the host.

use super::{Operation, host, run};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The same numbers in another shape. Burn's own on the host copies them.
pub(crate) fn reshape<B: Backend, const D: usize, const E: usize>(
    tensor: Tensor<B, D>,
    dims: [usize; E],
) -> Tensor<B, E> {
    run(Reshape { tensor, dims })
}

struct Reshape<B: Backend, const D: usize, const E: usize> {
    tensor: Tensor<B, D>,
    dims: [usize; E],
}

impl<B: Backend, const D: usize, const E: usize> Operation for Reshape<B, D, E> {
    type Output = Tensor<B, E>;

    fn define(self) -> Tensor<B, E> {
        self.tensor.reshape(self.dims)
    }

    fn on_host(&self) -> Option<Tensor<B, E>> {
        host::custom_op::reshape(&self.tensor, self.dims)
    }
}

/// `[batch, seq, width]` token by token.
pub(crate) fn per_row<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [batch, seq, width] = x.dims();
    reshape(x, [batch * seq, width])
}

/// What a tensor holds, on the host.
pub(crate) fn values<B: Backend>(tensor: &Tensor<B, 2>) -> Vec<f32> {
    run(Values(tensor))
}

struct Values<'a, B: Backend>(&'a Tensor<B, 2>);

impl<B: Backend> Operation for Values<'_, B> {
    type Output = Vec<f32>;

    fn define(self) -> Vec<f32> {
        self.0.clone().into_data().iter::<f32>().collect()
    }

    fn on_host(&self) -> Option<Vec<f32>> {
        host::custom_op::values(self.0)
    }
}

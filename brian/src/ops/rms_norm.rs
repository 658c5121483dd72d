//! RMS norm (Zhang and Sennrich 2019): `x / sqrt(mean(x²) + ε) ⊙ gain`.

use super::{Operation, gpu, host, run};
use burn::nn::RmsNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// Rows, normed, in the type of the product that they go into.
///
/// # Shapes
/// `[n, d_model]` to the same
pub fn rms_norm<B: Backend>(x: &Tensor<B, 2>, norm: &RmsNorm<B>, dtype: DType) -> Tensor<B, 2> {
    run(Norm { x, norm, dtype })
}

struct Norm<'a, B: Backend> {
    x: &'a Tensor<B, 2>,
    norm: &'a RmsNorm<B>,
    dtype: DType,
}

impl<B: Backend> Operation for Norm<'_, B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        self.norm.forward(self.x.clone()).cast(self.dtype)
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::rms_norm::rms_norm(self.x, self.norm)
    }

    fn on_gpu(&self) -> Option<Tensor<B, 2>> {
        gpu::rms_norm(self.x, self.norm, self.dtype)
    }
}

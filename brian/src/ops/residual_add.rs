//! A stream with what a product gave, in the type of the stream: `y + x`.

use super::{Operation, gpu, run};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `y + x` in the type of `y`.
///
/// # Shapes
/// `[n, d_model]` each
pub fn residual_add<B: Backend>(y: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    run(Add { y, x })
}

struct Add<B: Backend> {
    y: Tensor<B, 2>,
    x: Tensor<B, 2>,
}

impl<B: Backend> Operation for Add<B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        let dtype = self.y.dtype();
        self.y + self.x.cast(dtype)
    }

    fn on_gpu(&self) -> Option<Tensor<B, 2>> {
        gpu::residual_add(&self.y, &self.x)
    }
}

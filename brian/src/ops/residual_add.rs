//! Residual addition: `y + x` in the type of the residual stream `y`.

use super::{fused, gpu};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `y + x` in the type of `y`.
///
/// # Shapes
/// `[n, d_model]` each
pub fn residual_add<B: Backend>(y: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    fused(&[&|| gpu::residual_add(&y, &x)]).unwrap_or_else(|| {
        let dtype = y.dtype();
        y + x.cast(dtype)
    })
}

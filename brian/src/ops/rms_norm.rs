//! RMS norm (Zhang and Sennrich 2019): `x / sqrt(mean(x²) + ε) ⊙ gain`.

use super::{fused, gpu, host};
use burn::nn::RmsNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// The norm of every row, in `dtype`, the type of the product that follows.
///
/// # Shapes
/// `[n, d_model]` to the same
pub fn rms_norm<B: Backend>(x: &Tensor<B, 2>, norm: &RmsNorm<B>, dtype: DType) -> Tensor<B, 2> {
    let on_host = || match x.dtype() == dtype {
        true => host::rms_norm::rms_norm(x, norm),
        false => None,
    };
    fused(&[&on_host, &|| gpu::rms_norm(x, norm, dtype)])
        .unwrap_or_else(|| norm.forward(x.clone()).cast(dtype))
}

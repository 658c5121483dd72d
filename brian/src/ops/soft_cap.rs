//! Soft cap `cap tanh(x / cap)`: nearly `x` where that is small, and never beyond `cap` (Gemma 2, Riviere et al. 2024).

use super::{fused, host};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `cap tanh(x / cap)` of every number; `cap` is above 0.
///
/// # Shapes
/// `[n, width]` to the same
pub(crate) fn soft_cap<B: Backend>(x: Tensor<B, 2>, cap: f64) -> Tensor<B, 2> {
    fused(&[&|| host::soft_cap::soft_cap(&x, cap)]).unwrap_or_else(|| (x / cap).tanh() * cap)
}

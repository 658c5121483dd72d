//! Logarithm of a row's sum of exponentials, `ln Σ exp(x)`: the logarithm of the normaliser of its softmax.

use super::{fused, host};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// That of every row.
///
/// # Shapes
/// `[n, width]` to `[n]`
pub(crate) fn log_sum_exp<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 1> {
    fused(&[&|| host::log_sum_exp::log_sum_exp(&x)]).unwrap_or_else(|| {
        // Subtracted and added again, so that it needs no gradient of its own.
        let peak = x.clone().detach().max_dim(1);
        let sum = (x - peak.clone()).exp().sum_dim(1);
        (sum.log() + peak).squeeze_dim(1)
    })
}

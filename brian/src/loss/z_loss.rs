//! z-loss: the mean over valid targets of `(ln Σ exp(logit))²`. It keeps the normaliser of the softmax near 1, where logits are
//! logarithms of probabilities and half precision has most digits (Chowdhery et al. 2022, section 5).

use crate::ops::log_sum_exp::log_sum_exp;
use crate::ops::reshape::reshape;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The loss; 0 if no target counts.
///
/// # Shapes
/// - `logits`: `[batch, seq, vocabulary]`
/// - `counted`: `[batch, seq]`, 1 where the target counts and 0 where it does not
/// - returns `[1]`
pub fn z_loss<B: Backend>(logits: Tensor<B, 3>, counted: Tensor<B, 2>) -> Tensor<B, 1> {
    let [batch, seq, vocabulary] = logits.dims();
    let normalisers = log_sum_exp(reshape(logits, [batch * seq, vocabulary]));
    let squares = normalisers.square().reshape([batch, seq]) * counted.clone();
    squares.sum() / counted.sum().clamp_min(1.0)
}

//! The language-model loss: `−ln softmax(logits)[target]`.

use crate::kernel::node::reshape;
use crate::kernel::{gpu, softmax};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// Nats of every target.
///
/// # Shapes
/// - `logits`: `[batch, seq, vocabulary]`; position `t` predicts `targets[t]`, nothing is shifted here
/// - `targets`: `[batch, seq]`
/// - returns `[batch, seq]`
pub fn nats<B: Backend>(logits: Tensor<B, 3>, targets: Tensor<B, 2, Int>) -> Tensor<B, 2> {
    let [batch, seq, vocabulary] = logits.dims();
    let logits = reshape(logits, [batch * seq, vocabulary]);
    let of_rows = targets.clone().reshape([batch * seq]);
    if let Some(nats) = gpu::nats(&logits, &of_rows) {
        return nats.reshape([batch, seq]);
    }
    if let Some(nats) = softmax::nats(&logits, &of_rows) {
        return nats.reshape([batch, seq]);
    }
    let log_probabilities = log_softmax(logits, 1);
    let of_target = log_probabilities.gather(1, targets.reshape([batch * seq, 1]));
    of_target.neg().reshape([batch, seq])
}

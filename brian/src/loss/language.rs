//! Language-model loss of every token, `[batch, seq]`, in nats: `−ln softmax(logits)[target]`, without mean, mask or shift.

use crate::ops::cross_entropy::cross_entropy;
use crate::ops::reshape::reshape;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// Loss of every target token, in nats.
///
/// # Shapes
/// - `logits`: `[batch, seq, vocabulary]`; position `t` predicts `targets[t]`, nothing is shifted here
/// - `targets`: `[batch, seq]`
/// - returns `[batch, seq]`
pub fn token_losses<B: Backend>(logits: Tensor<B, 3>, targets: Tensor<B, 2, Int>) -> Tensor<B, 2> {
    let [batch, seq, vocabulary] = logits.dims();
    let logits = reshape(logits, [batch * seq, vocabulary]);
    cross_entropy(logits, targets.reshape([batch * seq])).reshape([batch, seq])
}

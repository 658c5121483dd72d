//! Cross entropy with one right answer: `−ln softmax(logits)[target]`, in nats.

use super::{fused, gpu, host};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// The loss of every row.
///
/// # Shapes
/// `[n, vocabulary]` and `[n]` to `[n]`
pub(crate) fn cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    fused(&[
        &|| host::cross_entropy::cross_entropy(&logits, &targets),
        &|| gpu::cross_entropy(&logits, &targets),
    ])
    .unwrap_or_else(|| {
        let of_target = log_softmax(logits, 1).gather(1, targets.unsqueeze_dim(1));
        of_target.neg().squeeze_dim(1)
    })
}

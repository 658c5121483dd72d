//! Cross entropy with one right answer: `−ln softmax(logits)[target]`, in nats.

use super::{Operation, gpu, host, run};
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
    run(CrossEntropy { logits, targets })
}

struct CrossEntropy<B: Backend> {
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
}

impl<B: Backend> Operation for CrossEntropy<B> {
    type Output = Tensor<B, 1>;

    fn define(self) -> Tensor<B, 1> {
        let targets = self.targets.unsqueeze_dim(1);
        let of_target = log_softmax(self.logits, 1).gather(1, targets);
        of_target.neg().squeeze_dim(1)
    }

    fn on_host(&self) -> Option<Tensor<B, 1>> {
        host::cross_entropy::cross_entropy(&self.logits, &self.targets)
    }

    fn on_gpu(&self) -> Option<Tensor<B, 1>> {
        gpu::cross_entropy(&self.logits, &self.targets)
    }
}

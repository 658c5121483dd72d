//! The router's two layers: `silu([h, P] W1 + b1) W2 + b2`.

use super::{Operation, host, run};
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::silu;
use burn::tensor::backend::Backend;

/// Action logits.
///
/// # Shapes
/// `[n, d_model]` and `[n, d_position]` to `[n, n_actions]`
pub(crate) fn router_scores<B: Backend>(
    hidden: Tensor<B, 2>,
    position: Tensor<B, 2>,
    first: &Linear<B>,
    second: &Linear<B>,
) -> Tensor<B, 2> {
    run(Scores {
        hidden,
        position,
        first,
        second,
    })
}

struct Scores<'a, B: Backend> {
    hidden: Tensor<B, 2>,
    position: Tensor<B, 2>,
    first: &'a Linear<B>,
    second: &'a Linear<B>,
}

impl<B: Backend> Operation for Scores<'_, B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        let state = Tensor::cat(vec![self.hidden, self.position], 1);
        self.second.forward(silu(self.first.forward(state)))
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::router_scores::router_scores(&self.hidden, &self.position, self.first, self.second)
    }
}

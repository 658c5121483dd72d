//! The rows of a table by tokens.

use super::{Operation, gpu, run};
use burn::nn::Embedding;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// The rows of tokens.
///
/// # Shapes
/// `[batch, seq]` to `[batch, seq, d_model]`
pub fn embed<B: Backend>(table: &Embedding<B>, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
    run(Embed { table, tokens })
}

struct Embed<'a, B: Backend> {
    table: &'a Embedding<B>,
    tokens: Tensor<B, 2, Int>,
}

impl<B: Backend> Operation for Embed<'_, B> {
    type Output = Tensor<B, 3>;

    fn define(self) -> Tensor<B, 3> {
        self.table.forward(self.tokens)
    }

    fn on_gpu(&self) -> Option<Tensor<B, 3>> {
        let ([batch, seq], table) = (self.tokens.dims(), self.table.weight.val());
        let [_, d_model] = table.dims();
        let tokens = || self.tokens.clone().reshape([batch * seq]);
        Some(gpu::rows(&table, tokens)?.reshape([batch, seq, d_model]))
    }
}

//! Embedding lookup: the rows of a table for tokens.

use super::{fused, gpu};
use burn::nn::Embedding;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// The embeddings of tokens.
///
/// # Shapes
/// `[batch, seq]` to `[batch, seq, d_model]`
pub fn embed<B: Backend>(table: &Embedding<B>, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
    let on_gpu = || {
        let ([batch, seq], table) = (tokens.dims(), table.weight.val());
        let [_, d_model] = table.dims();
        let rows = gpu::rows(&table, || tokens.clone().reshape([batch * seq]))?;
        Some(rows.reshape([batch, seq, d_model]))
    };
    fused(&[&on_gpu]).unwrap_or_else(|| table.forward(tokens))
}

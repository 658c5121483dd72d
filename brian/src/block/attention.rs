//! Causal self-attention with rotary positions: `softmax(q kᵀ / sqrt(d_head) + mask) v`, heads joined, one output matrix.
//!
//! One packed matrix makes queries, keys and values, in this order. No biases, no dropout.

use super::BlockSizes;
use super::causal::Causal;
use super::matrix::{matrix, per_token};
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;

/// Attention over the earlier positions of the same sequence.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// `[d_model, 3 * d_model]`: queries, keys, values.
    pub query_key_value: Linear<B>,
    /// `[d_model, d_model]`, adds to the residual stream.
    pub output: Linear<B>,
    n_heads: usize,
}

impl<B: Backend> Attention<B> {
    pub(crate) fn new(sizes: &BlockSizes, device: &B::Device) -> Self {
        Self {
            query_key_value: matrix(sizes.d_model, 3 * sizes.d_model, device),
            output: matrix(sizes.d_model, sizes.d_model, device),
            n_heads: sizes.n_heads,
        }
    }

    /// Attends.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to the same
    pub fn forward(&self, x: Tensor<B, 3>, causal: &Causal<B>) -> Tensor<B, 3> {
        let [batch, seq, d_model] = x.dims();
        let d_head = d_model / self.n_heads;
        let packed = per_token(&self.query_key_value, x);
        let heads = |index: usize| {
            packed
                .clone()
                .slice_dim(2, index * d_model..(index + 1) * d_model)
                .reshape([batch, seq, self.n_heads, d_head])
                .swap_dims(1, 2)
        };
        let query = causal.rotate(heads(0)) * (d_head as f64).powf(-0.5);
        let key = causal.rotate(heads(1));
        let scores = causal.hide_future(query.matmul(key.swap_dims(2, 3)));
        let mixed = softmax(scores, 3).matmul(heads(2));
        let joined = mixed.swap_dims(1, 2).reshape([batch, seq, d_model]);
        per_token(&self.output, joined)
    }
}

//! Causal self-attention with rotary positions: `softmax(q kᵀ / sqrt(d_head) + mask) v`, heads joined, one output matrix.
//!
//! One packed matrix makes queries, keys and values, in this order. No biases, no dropout.

use super::BlockSizes;
use super::causal::{Angles, Causal};
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
        let (queries, own) = self.project(x, causal);
        self.output(self.find(queries, own, causal.mask()))
    }

    /// Queries, scaled, and keys and values of tokens, all turned to their positions.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, n_heads, seq, d_head]`
    pub fn project(&self, x: Tensor<B, 3>, causal: &Causal<B>) -> (Tensor<B, 4>, KeysValues<B>) {
        let [_, _, d_model] = x.dims();
        let d_head = d_model / self.n_heads;
        let packed = per_token(&self.query_key_value, x);
        let heads = |index: usize| {
            let part = index * d_model..(index + 1) * d_model;
            self.heads(packed.clone().slice_dim(2, part))
        };
        let own = KeysValues {
            keys: causal.rotate(heads(1)),
            values: heads(2),
        };
        (causal.rotate(heads(0)) * (d_head as f64).powf(-0.5), own)
    }

    /// The maps to queries, keys and values, cut apart.
    pub fn maps(&self) -> Maps<B> {
        let packed = self.query_key_value.weight.val();
        let [d_model, _] = packed.dims();
        let part = |index: usize| {
            packed
                .clone()
                .slice_dim(1, index * d_model..(index + 1) * d_model)
        };
        Maps {
            queries: part(0),
            keys: part(1),
            values: part(2),
            scale: ((d_model / self.n_heads) as f64).powf(-0.5),
        }
    }

    /// `[batch, seq, d_model]` to `[batch, n_heads, seq, d_head]`.
    pub fn heads(&self, x: Tensor<B, 3>) -> Tensor<B, 4> {
        let [batch, seq, d_model] = x.dims();
        let d_head = d_model / self.n_heads;
        x.reshape([batch, seq, self.n_heads, d_head])
            .swap_dims(1, 2)
    }

    /// What queries find among keys and values; `mask` is added to the scores.
    ///
    /// # Shapes
    /// - `queries`: `[batch, n_heads, seq, d_head]`
    /// - `among`: `[batch, n_heads, n_keys, d_head]`
    /// - `mask`: `[batch or 1, n_heads or 1, seq, n_keys]`
    /// - returns `[batch, seq, d_model]`
    pub fn find(
        &self,
        queries: Tensor<B, 4>,
        among: KeysValues<B>,
        mask: Tensor<B, 4>,
    ) -> Tensor<B, 3> {
        let [batch, _, seq, d_head] = queries.dims();
        let scores = queries.matmul(among.keys.swap_dims(2, 3)) + mask;
        let found = softmax(scores, 3).matmul(among.values);
        found
            .swap_dims(1, 2)
            .reshape([batch, seq, self.n_heads * d_head])
    }

    /// What is added to the stream for what was found, `[batch, seq, d_model]` each.
    pub fn output(&self, found: Tensor<B, 3>) -> Tensor<B, 3> {
        per_token(&self.output, found)
    }
}

/// What makes queries, keys and values of tokens apart, `[d_model, d_model]` each.
#[derive(Clone, Debug)]
pub struct Maps<B: Backend> {
    queries: Tensor<B, 2>,
    keys: Tensor<B, 2>,
    values: Tensor<B, 2>,
    scale: f64,
}

impl<B: Backend> Maps<B> {
    /// Queries, scaled, of tokens apart.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to the same
    pub fn queries(&self, x: Tensor<B, 2>, angles: &Angles<B>) -> Tensor<B, 2> {
        angles.rotate(x.matmul(self.queries.clone())) * self.scale
    }

    /// Keys and values of tokens apart.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to twice the same
    pub fn keys_values(&self, x: Tensor<B, 2>, angles: &Angles<B>) -> [Tensor<B, 2>; 2] {
        let keys = angles.rotate(x.clone().matmul(self.keys.clone()));
        [keys, x.matmul(self.values.clone())]
    }
}

/// What can be attended to, `[batch, n_heads, n_keys, d_head]` each; keys know their position.
#[derive(Clone, Debug)]
pub struct KeysValues<B: Backend> {
    /// What queries are compared with.
    pub keys: Tensor<B, 4>,
    /// What they take with them.
    pub values: Tensor<B, 4>,
}

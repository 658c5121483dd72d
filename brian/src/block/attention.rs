//! `Attention`, causal with rotary positions: its weights, queries, keys and values of whole sequences or selected tokens, and
//! `softmax(q kᵀ / sqrt(d_head) + mask) v` with heads joined. The output matrix is applied by the block.
//!
//! One packed matrix makes queries, keys and values, in this order. No biases, no dropout.

use super::BlockSizes;
use super::causal::{Angles, Causal};
use super::matrix::{matrix, per_token};
use crate::described::{Described, Description, Start};
pub use crate::ops::attention::KeysValues;
use crate::ops::attention::{attention, attention_over_spans, causal_attention, heads};
use crate::ops::attention_spans::AttentionSpans;
use crate::ops::gather::{Parts, columns};
use crate::ops::groups::{Group, each};
use crate::ops::reuse::{Packed, shared};
use crate::ops::rotary_projection::{Columns, rotary_projection};
use burn::module::Module;
use burn::nn::{Linear, RmsNorm};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use std::sync::Arc;

/// Attention over the earlier tokens of the same sequence.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// Weights of queries, keys and values side by side, `[d_model, 3 * d_model]`.
    pub query_key_value: Linear<B>,
    /// Output projection, `[d_model, d_model]`; its result is added to the residual stream.
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

    /// Attention output of whole sequences, from their states before the norm; sequences lie one after another.
    ///
    /// # Shapes
    /// `[batch * seq, d_model]` to the same
    pub fn forward(
        &self,
        x: &Tensor<B, 2>,
        norm: &RmsNorm<B>,
        batch: usize,
        causal: &Causal<B>,
    ) -> Tensor<B, 2> {
        self.find_all(self.project_rows(x, norm, causal), batch, causal)
    }

    /// Scaled queries, keys and values of tokens; queries and keys are rotated to their places.
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

    /// Scaled queries, keys and values side by side, made from the norm of `x`; sequences lie one after another.
    ///
    /// # Shapes
    /// `[batch * seq, d_model]` to `[batch * seq, 3 * d_model]`
    pub fn project_rows(
        &self,
        x: &Tensor<B, 2>,
        norm: &RmsNorm<B>,
        causal: &Causal<B>,
    ) -> Tensor<B, 2> {
        let map = self.query_key_value.weight.val();
        let groups = Group::only((norm, &map), x);
        let angles = causal.all_angles();
        rotary_projection(x, &groups, Columns::All, &angles, &Packed::default())
    }

    /// Attention output of whole sequences, from the output of [`Self::project_rows`].
    ///
    /// # Shapes
    /// `[batch * seq, 3 * d_model]` to `[batch * seq, d_model]`
    pub fn find_all(&self, packed: Tensor<B, 2>, batch: usize, causal: &Causal<B>) -> Tensor<B, 2> {
        causal_attention(
            packed,
            self.n_heads,
            batch,
            || causal.mask(),
            self.products(),
        )
    }

    /// Attention output of queries over keys and values of other tokens.
    ///
    /// # Shapes
    /// `[n_queries, d_model]` and `[n_keys, 2 * d_model]` to `[n_queries, d_model]`
    pub(crate) fn find_rows(
        &self,
        queries: Tensor<B, 2>,
        keys_values: Parts<B>,
        spans: &Arc<AttentionSpans>,
    ) -> Tensor<B, 2> {
        attention_over_spans(queries, keys_values, self.n_heads, spans, self.products())
    }

    /// The weights of queries and those of keys and values, as two matrices.
    pub(crate) fn maps(&self) -> Maps<B> {
        let all = self.query_key_value.weight.val();
        let [d_model, _] = all.dims();
        let part = |which| shared(columns(&all, which));
        let [queries, keys_values] = [0..d_model, d_model..3 * d_model].map(part);
        Maps {
            packed: Packed::maps([&queries, &keys_values]),
            queries,
            keys_values,
        }
    }

    /// Splits the last dimension into heads.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, n_heads, seq, d_head]`
    pub fn heads(&self, x: Tensor<B, 3>) -> Tensor<B, 4> {
        heads(x, self.n_heads)
    }

    /// The type of matrix products; see [`crate::precision`].
    pub fn products(&self) -> DType {
        self.output.weight.val().dtype()
    }

    /// Attention output of queries over keys and values, heads joined; see `ops::attention`.
    ///
    /// # Shapes
    /// - `queries`: `[batch, n_heads, seq, d_head]`
    /// - `among`: `[batch, n_heads, n_keys, d_head]`
    /// - `mask`, added to the scores: `[batch or 1, n_heads or 1, seq, n_keys]`
    /// - returns `[batch, seq, d_model]`
    pub fn find(
        &self,
        queries: Tensor<B, 4>,
        among: KeysValues<B>,
        mask: Tensor<B, 4>,
    ) -> Tensor<B, 3> {
        attention(queries, among, mask, self.products())
    }
}

impl<B: Backend> Described<B> for Attention<B> {
    fn describe(&self, to: &mut Description) {
        to.multiplies(&self.query_key_value);
        to.multiplies(&self.output);
        to.starts(&self.output.weight, Start::IntoStream);
    }
}

/// Weights of queries, `[d_model, d_model]`, and of keys and values, `[d_model, 2 * d_model]`, for selected tokens.
#[derive(Clone, Debug)]
pub(crate) struct Maps<B: Backend> {
    queries: Tensor<B, 2>,
    keys_values: Tensor<B, 2>,
    /// These and whatever else of the block is used again and again.
    pub packed: Packed,
}

/// A norm and the weights that follow it.
pub(crate) type NormedMaps<'a, B> = (&'a RmsNorm<B>, &'a Maps<B>);

impl<B: Backend> Maps<B> {
    /// Scaled queries of selected tokens; each group of rows has its own norm and weights.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to the same
    pub fn queries(
        groups: &[Group<NormedMaps<'_, B>>],
        x: &Tensor<B, 2>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        let maps = each(groups, |(norm, maps)| (*norm, &maps.queries));
        rotary_projection(x, &maps, Columns::Queries, angles, &packed(groups)).cast(x.dtype())
    }

    /// Keys and values of selected tokens; each group of rows has its own norm and weights.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to `[n_tokens, 2 * d_model]`
    pub fn keys_values(
        groups: &[Group<NormedMaps<'_, B>>],
        x: &Tensor<B, 2>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        let maps = each(groups, |(norm, maps)| (*norm, &maps.keys_values));
        rotary_projection(x, &maps, Columns::KeysValues, angles, &packed(groups)).cast(x.dtype())
    }
}

/// The packed maps of all groups.
pub(crate) fn packed<B: Backend>(groups: &[Group<NormedMaps<'_, B>>]) -> Packed {
    groups.iter().map(|group| &group.of.1.packed).collect()
}

//! `Attention`, causal with rotary positions: its weights, queries, keys and values of whole sequences or selected tokens, and
//! `softmax(q kᵀ / sqrt(d_head) + mask) v` with heads joined. The output matrix is applied by the block. With a width transfer, queries
//! have one more factor, which comes with the rotary angles (`crate::width_transfer`).
//!
//! One packed matrix makes queries, keys and values, in this order. There may be fewer heads of keys and values than of queries,
//! biases, and norms of single heads of queries and keys (Henry et al. 2020). No dropout.

use super::causal::{Angles, Causal};
use super::matrix::biased_matrix;
use super::{AttentionBias, BlockSizes, Heads};
use crate::described::{Described, Description, FanIn, Start};
pub use crate::ops::attention::KeysValues;
use crate::ops::attention::{Among, attention, attention_over_spans, causal_attention, heads};
use crate::ops::gather::columns;
use crate::ops::groups::{Group, each};
use crate::ops::linear::{linear, multiply};
use crate::ops::reshape::{per_row, reshape};
use crate::ops::reuse::{Packed, shared};
use crate::ops::rotary_projection::{Columns, Projection, biased_and_normed, rotary_projection};
use burn::module::Module;
use burn::nn::{Linear, RmsNorm, RmsNormConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use std::ops::Range;

/// Attention over the earlier tokens of the same sequence.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// Weights of queries, keys and values side by side, `[d_model, (n_heads + 2 * n_kv_heads) * d_head]`.
    pub query_key_value: Linear<B>,
    /// Output projection, `[n_heads * d_head, d_model]`; its result is added to the residual stream.
    pub output: Linear<B>,
    /// Norm of every head of queries, of width `d_head`, before it is rotated.
    pub query_norm: Option<RmsNorm<B>>,
    /// The same of keys.
    pub key_norm: Option<RmsNorm<B>>,
    #[module(skip)]
    heads: Heads,
}

impl<B: Backend> Attention<B> {
    pub(crate) fn new(sizes: &BlockSizes, device: &B::Device) -> Self {
        let (heads, bias) = (sizes.heads, sizes.attention_bias);
        let [_, _, width] = Columns::All.widths(heads);
        let norm = RmsNormConfig::new(heads.d_head).with_epsilon(sizes.norm_epsilon);
        let head_norm = || sizes.query_key_norm.then(|| norm.init(device));
        let of_output = bias == Some(AttentionBias::All);
        Self {
            query_key_value: biased_matrix(sizes.d_model, width, bias.is_some(), device),
            output: biased_matrix(heads.d_queries(), sizes.d_model, of_output, device),
            query_norm: head_norm(),
            key_norm: head_norm(),
            heads,
        }
    }

    /// How many heads there are, and how wide they are.
    pub fn shape(&self) -> Heads {
        self.heads
    }

    /// Attention output of whole sequences, from their states before the norm; sequences lie one after another.
    ///
    /// # Shapes
    /// `[batch * seq, d_model]` to `[batch * seq, n_heads * d_head]`
    pub fn forward(
        &self,
        x: &Tensor<B, 2>,
        norm: &RmsNorm<B>,
        batch: usize,
        causal: &Causal<B>,
    ) -> Tensor<B, 2> {
        let packed = self.project_rows(x, norm, &causal.all_angles());
        self.find_all(packed, batch, causal)
    }

    /// Scaled queries, keys and values of tokens; queries and keys are rotated to their places.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, n_heads, seq, d_head]`, keys and values with `n_kv_heads`
    pub fn project(&self, x: Tensor<B, 3>, causal: &Causal<B>) -> (Tensor<B, 4>, KeysValues<B>) {
        let Heads {
            n_heads,
            n_kv_heads,
            d_head,
        } = self.heads;
        let ([batch, seq, _], columns) = (x.dims(), Columns::All.rotated(self.heads));
        let bias = self.query_key_value.bias.as_ref().map(|bias| bias.val());
        let norms = self.head_norms(Columns::All);
        let rows = linear(per_row(x), &self.query_key_value);
        let rows = biased_and_normed(rows, bias.as_ref(), &columns, &norms);
        let [queries, keys, all] = Columns::All.widths(self.heads);
        let packed = reshape(rows, [batch, seq, all]);
        let part = |part: Range<usize>, n| heads(packed.clone().slice_dim(2, part), n);
        let own = KeysValues {
            keys: causal.rotate(part(queries..keys, n_kv_heads)),
            values: part(keys..all, n_kv_heads),
        };
        let queries = causal.rotate(part(0..queries, n_heads));
        let scale = (d_head as f64).powf(-0.5) * causal.query_factor();
        (queries * scale, own)
    }

    /// Queries of tokens, neither scaled nor rotated, from their states behind the norm.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, n_heads, seq, d_head]`
    pub(crate) fn plain_queries(&self, normed: Tensor<B, 3>) -> Tensor<B, 4> {
        let [batch, seq, _] = normed.dims();
        let all = self.query_key_value.weight.val();
        let [width, ..] = Columns::All.widths(self.heads);
        let rows = multiply(per_row(normed), columns(&all, 0..width));
        let bias = self.query_key_value.bias.as_ref();
        let bias = bias.map(|bias| bias.val().slice_dim(0, 0..width));
        let parts = Columns::Queries.rotated(self.heads);
        let rows = biased_and_normed(
            rows,
            bias.as_ref(),
            &parts,
            &self.head_norms(Columns::Queries),
        );
        heads(reshape(rows, [batch, seq, width]), self.heads.n_heads)
    }

    /// The norms of heads in some columns; none if heads have none.
    fn head_norms(&self, columns: Columns) -> Vec<&RmsNorm<B>> {
        let (queries, keys) = (&self.query_norm, &self.key_norm);
        match columns {
            Columns::All => queries.iter().chain(keys).collect(),
            Columns::Queries => queries.iter().collect(),
            Columns::KeysValues => keys.iter().collect(),
        }
    }

    /// Scaled queries, keys and values side by side, made from the norm of `x`; queries and keys are rotated by `angles`.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to `[n_tokens, (n_heads + 2 * n_kv_heads) * d_head]`
    pub fn project_rows(
        &self,
        x: &Tensor<B, 2>,
        norm: &RmsNorm<B>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        self.project_packed(x, norm, angles, &Packed::default())
    }

    /// [`Self::project_rows`] where the weights may be packed.
    pub(crate) fn project_packed(
        &self,
        x: &Tensor<B, 2>,
        norm: &RmsNorm<B>,
        angles: &Angles<B>,
        packed: &Packed,
    ) -> Tensor<B, 2> {
        let map = self.query_key_value.weight.val();
        let bias = self.query_key_value.bias.as_ref().map(|bias| bias.val());
        let projection = Projection {
            norm,
            map: &map,
            bias: bias.as_ref(),
            head_norms: self.head_norms(Columns::All),
        };
        let groups = Group::only(projection, x);
        let parts = (Columns::All, self.heads);
        rotary_projection(x, &groups, parts, angles, packed)
    }

    /// Attention output of whole sequences, from the output of [`Self::project_rows`].
    ///
    /// # Shapes
    /// `[batch * seq, (n_heads + 2 * n_kv_heads) * d_head]` to `[batch * seq, n_heads * d_head]`
    pub fn find_all(&self, packed: Tensor<B, 2>, batch: usize, causal: &Causal<B>) -> Tensor<B, 2> {
        let mask = || causal.mask();
        let (apart, products) = (causal.spans(), self.products());
        causal_attention(packed, self.heads, batch, apart, mask, products)
    }

    /// Attention output of queries over keys and values of other tokens.
    ///
    /// # Shapes
    /// `[n_queries, n_heads * d_head]` to the same
    pub(crate) fn find_rows(&self, queries: Tensor<B, 2>, among: &Among<B>) -> Tensor<B, 2> {
        attention_over_spans(queries, among, self.heads, self.products())
    }

    /// The weights of queries and those of keys and values, apart.
    pub(crate) fn maps(&self) -> Maps<B> {
        let all = self.query_key_value.weight.val();
        let [queries, _, width] = Columns::All.widths(self.heads);
        let parts = [0..queries, queries..width];
        let [queries, keys_values] = parts.clone().map(|which| shared(columns(&all, which)));
        let biases = self.query_key_value.bias.as_ref().map(|bias| {
            let all = bias.val();
            parts.map(|which| all.clone().slice_dim(0, which))
        });
        Maps {
            packed: Packed::maps([&queries, &keys_values]),
            queries,
            keys_values,
            biases,
            query_norm: self.query_norm.clone(),
            key_norm: self.key_norm.clone(),
            heads: self.heads,
        }
    }

    /// The type of matrix products; see [`crate::precision`].
    pub fn products(&self) -> DType {
        self.output.weight.val().dtype()
    }

    /// Attention output of queries over keys and values, heads joined; see `ops::attention`.
    ///
    /// # Shapes
    /// - `queries`: `[batch, n_heads, seq, d_head]`
    /// - `among`: `[batch, n_kv_heads, n_keys, d_head]`
    /// - `mask`, added to the scores: `[batch or 1, n_heads or 1, seq, n_keys]`
    /// - returns `[batch, seq, n_heads * d_head]`
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
        for map in [&self.query_key_value, &self.output] {
            to.multiplies(map);
            to.sums(&map.weight, FanIn::Width);
            if let Some(bias) = &map.bias {
                let [d_in, _] = map.weight.dims();
                to.starts(bias, Start::Bias { d_in });
            }
        }
        to.starts(&self.output.weight, Start::IntoStream);
        let norms = self.query_norm.iter().chain(&self.key_norm);
        norms.for_each(|norm| to.norm(norm));
    }
}

/// Weights of queries, `[d_model, n_heads * d_head]`, and of keys and values, `[d_model, 2 * n_kv_heads * d_head]`, for
/// selected tokens.
#[derive(Clone, Debug)]
pub(crate) struct Maps<B: Backend> {
    queries: Tensor<B, 2>,
    keys_values: Tensor<B, 2>,
    /// Theirs, in the same order.
    biases: Option<[Tensor<B, 1>; 2]>,
    query_norm: Option<RmsNorm<B>>,
    key_norm: Option<RmsNorm<B>>,
    heads: Heads,
    /// These and whatever else of the block is used again and again.
    pub packed: Packed,
}

/// A norm and the weights that follow it.
pub(crate) type NormedMaps<'a, B> = (&'a RmsNorm<B>, &'a Maps<B>);

impl<B: Backend> Maps<B> {
    /// Scaled queries of selected tokens; each group of rows has its own norm and weights.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to `[n_tokens, n_heads * d_head]`
    pub fn queries(
        groups: &[Group<NormedMaps<'_, B>>],
        x: &Tensor<B, 2>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        let maps = each(groups, |(norm, maps)| Projection {
            norm,
            map: &maps.queries,
            bias: maps.biases.as_ref().map(|[bias, _]| bias),
            head_norms: maps.query_norm.iter().collect(),
        });
        let parts = (Columns::Queries, groups[0].of.1.heads);
        rotary_projection(x, &maps, parts, angles, &packed(groups)).cast(x.dtype())
    }

    /// Keys and values of selected tokens; each group of rows has its own norm and weights.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to `[n_tokens, 2 * n_kv_heads * d_head]`
    pub fn keys_values(
        groups: &[Group<NormedMaps<'_, B>>],
        x: &Tensor<B, 2>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        let maps = each(groups, |(norm, maps)| Projection {
            norm,
            map: &maps.keys_values,
            bias: maps.biases.as_ref().map(|[_, bias]| bias),
            head_norms: maps.key_norm.iter().collect(),
        });
        let parts = (Columns::KeysValues, groups[0].of.1.heads);
        rotary_projection(x, &maps, parts, angles, &packed(groups)).cast(x.dtype())
    }
}

/// The packed maps of all groups.
pub(crate) fn packed<B: Backend>(groups: &[Group<NormedMaps<'_, B>>]) -> Packed {
    groups.iter().map(|group| &group.of.1.packed).collect()
}

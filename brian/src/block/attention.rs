//! Causal self-attention with rotary positions: `softmax(q kᵀ / sqrt(d_head) + mask) v`, heads joined, one output matrix.
//!
//! One packed matrix makes queries, keys and values, in this order. No biases, no dropout.

use super::BlockSizes;
use super::causal::{Angles, Causal};
use super::matrix::{by_group, columns, exact, matrix, multiply, normed, per_row, per_token};
use crate::kernel::attend::{attend, attend_all};
use crate::kernel::gpu;
use crate::kernel::groups::{Group, each};
use crate::kernel::node::shared;
use crate::kernel::pin::{Pinned, pin};
use crate::kernel::project::{Columns, NormedMap, project};
use crate::kernel::rows::Parts;
use crate::kernel::sight::Sight;
use burn::module::Module;
use burn::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use std::ops::Range;
use std::sync::Arc;

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

    /// Queries, scaled, keys and values side by side, of sequences one after another, behind their norm.
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
        project_rows(x, &groups, Columns::All, &causal.all_angles())
    }

    /// What the tokens of whole sequences find, from [`Self::project_rows`].
    ///
    /// # Shapes
    /// `[batch * seq, 3 * d_model]` to `[batch * seq, d_model]`
    pub fn find_all(&self, packed: Tensor<B, 2>, batch: usize, causal: &Causal<B>) -> Tensor<B, 2> {
        let [n_tokens, width] = packed.dims();
        let (seq, d_model) = (n_tokens / batch, width / 3);
        let found = gpu::attend_all(&packed, self.n_heads, batch).or_else(|| {
            let sight = Arc::new(Sight::whole(batch, seq));
            attend_all(&packed, self.n_heads, &sight)
        });
        found.unwrap_or_else(|| {
            let dtype = exact(packed.dtype());
            let packed = packed.cast(dtype).reshape([batch, seq, width]);
            let [queries, keys, values] = [0, 1, 2].map(|index| {
                let part = index * d_model..(index + 1) * d_model;
                self.heads(packed.clone().slice_dim(2, part))
            });
            per_row(self.find(queries, KeysValues { keys, values }, causal.mask()))
        })
    }

    /// What queries find among keys and values of other tokens.
    ///
    /// # Shapes
    /// `[n_queries, d_model]` and `[n_keys, 2 * d_model]` to `[n_queries, d_model]`
    pub(crate) fn find_rows(
        &self,
        queries: Tensor<B, 2>,
        keys_values: Parts<B>,
        sight: &Arc<Sight>,
    ) -> Tensor<B, 2> {
        attend(&queries, &keys_values, self.n_heads, sight).unwrap_or_else(|| {
            let keys_values = keys_values.gather();
            sight.on_rectangles(queries, keys_values, |queries, keys_values, mask| {
                let d_model = queries.dims()[2];
                let part = |part: Range<usize>| self.heads(keys_values.clone().slice_dim(2, part));
                let among = KeysValues {
                    keys: part(0..d_model),
                    values: part(d_model..2 * d_model),
                };
                self.find(self.heads(queries), among, mask)
            })
        })
    }

    /// The maps to queries and to keys and values, cut apart.
    pub(crate) fn maps(&self) -> Maps<B> {
        let packed = self.query_key_value.weight.val();
        let [d_model, _] = packed.dims();
        let part = |which| shared(columns(&packed, which));
        let [queries, keys_values] = [0..d_model, d_model..3 * d_model].map(part);
        Maps {
            pinned: [&queries, &keys_values].map(pin),
            queries,
            keys_values,
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
        let dtype = self.output.weight.val().dtype();
        let scores = multiply(queries, among.keys.cast(dtype).swap_dims(2, 3)) + mask;
        let found = multiply(softmax(scores, 3), among.values.cast(dtype));
        found
            .swap_dims(1, 2)
            .reshape([batch, seq, self.n_heads * d_head])
    }
}

/// What makes queries, `[d_model, d_model]`, and keys and values, `[d_model, 2 * d_model]`, of tokens apart.
#[derive(Clone, Debug)]
pub(crate) struct Maps<B: Backend> {
    queries: Tensor<B, 2>,
    keys_values: Tensor<B, 2>,
    #[expect(dead_code, reason = "is held, for whoever multiplies to find")]
    pinned: [Option<Arc<Pinned>>; 2],
}

/// Maps behind their norm.
pub(crate) type NormedMaps<'a, B> = (&'a RmsNorm<B>, &'a Maps<B>);

impl<B: Backend> Maps<B> {
    /// Queries, scaled, of tokens apart, those of each group by maps of its own.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to the same
    pub fn queries(
        groups: &[Group<NormedMaps<'_, B>>],
        x: &Tensor<B, 2>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        let maps = each(groups, |(norm, maps)| (*norm, &maps.queries));
        project_rows(x, &maps, Columns::Queries, angles).cast(x.dtype())
    }

    /// Keys and values of tokens apart, those of each group by maps of its own.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to `[n_tokens, 2 * d_model]`
    pub fn keys_values(
        groups: &[Group<NormedMaps<'_, B>>],
        x: &Tensor<B, 2>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        let maps = each(groups, |(norm, maps)| (*norm, &maps.keys_values));
        project_rows(x, &maps, Columns::KeysValues, angles).cast(x.dtype())
    }
}

/// See [`project`]: the pass, or what it is composed of. On a GPU in the type of the map, else in that of `x`.
fn project_rows<B: Backend>(
    x: &Tensor<B, 2>,
    groups: &[Group<NormedMap<'_, B>>],
    columns: Columns,
    angles: &Angles<B>,
) -> Tensor<B, 2> {
    project(x, groups, columns, angles.parts()).unwrap_or_else(|| {
        by_group([x.clone()], groups, |[x], (norm, map), which| {
            composed(x, norm, map, columns, &angles.some(which))
        })
    })
}

fn composed<B: Backend>(
    x: Tensor<B, 2>,
    norm: &RmsNorm<B>,
    map: &Tensor<B, 2>,
    columns: Columns,
    angles: &Angles<B>,
) -> Tensor<B, 2> {
    let [_, d_model] = x.dims();
    let [n_scaled, n_turned, n_parts] = columns.parts();
    let packed = multiply(normed(norm, &x, map.dtype()), map.clone());
    if let Some(turned) = gpu::turn(&packed, angles.tables(), columns.parts()) {
        return turned;
    }
    let packed = packed.cast(x.dtype());
    let parts = (0..n_parts).map(|index| {
        let columns = index * d_model..(index + 1) * d_model;
        let part = packed.clone().slice_dim(1, columns);
        let part = match index < n_turned {
            true => angles.rotate(part),
            false => part,
        };
        match index < n_scaled {
            true => part * (angles.d_head() as f64).powf(-0.5),
            false => part,
        }
    });
    Tensor::cat(parts.collect(), 1)
}

/// What can be attended to, `[batch, n_heads, n_keys, d_head]` each; keys know their position.
#[derive(Clone, Debug)]
pub struct KeysValues<B: Backend> {
    /// What queries are compared with.
    pub keys: Tensor<B, 4>,
    /// What they take with them.
    pub values: Tensor<B, 4>,
}

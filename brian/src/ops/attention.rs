//! Attention `softmax(q kᵀ + mask) v`, head by head, with queries that are scaled before: under a given mask, causal over whole
//! sequences, or over spans of keys.

use super::attention_spans::AttentionSpans;
use super::gather::Parts;
use super::linear::{exact, multiply};
use super::{fused, gpu, host};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Keys, rotated to their positions, and values: `[batch, n_heads, n_keys, d_head]` each.
#[derive(Clone, Debug)]
pub struct KeysValues<B: Backend> {
    /// The keys.
    pub keys: Tensor<B, 4>,
    /// The values.
    pub values: Tensor<B, 4>,
}

/// Attention output of queries over keys and values, heads joined; products run in `dtype`, `mask` is added to the scores.
///
/// # Shapes
/// - `queries`: `[batch, n_heads, seq, d_head]`
/// - `among`: `[batch, n_heads, n_keys, d_head]`
/// - `mask`: `[batch or 1, n_heads or 1, seq, n_keys]`
/// - returns `[batch, seq, d_model]`
pub fn attention<B: Backend>(
    queries: Tensor<B, 4>,
    among: KeysValues<B>,
    mask: Tensor<B, 4>,
    dtype: DType,
) -> Tensor<B, 3> {
    let [batch, n_heads, seq, d_head] = queries.dims();
    let scores = multiply(queries, among.keys.cast(dtype).swap_dims(2, 3)) + mask;
    let found = multiply(softmax(scores, 3), among.values.cast(dtype));
    found
        .swap_dims(1, 2)
        .reshape([batch, seq, n_heads * d_head])
}

/// Splits the last dimension into heads.
///
/// # Shapes
/// `[batch, seq, n_heads * d_head]` to `[batch, n_heads, seq, d_head]`
pub fn heads<B: Backend>(x: Tensor<B, 3>, n_heads: usize) -> Tensor<B, 4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, n_heads, width / n_heads])
        .swap_dims(1, 2)
}

/// Causal attention of whole sequences: each token attends to those before it and to itself. `mask` hides later positions,
/// `[1, 1, seq, seq]`.
///
/// # Shapes
/// `[batch * seq, 3 * d_model]`, queries, keys and values side by side, to `[batch * seq, d_model]`
pub(crate) fn causal_attention<B: Backend>(
    packed: Tensor<B, 2>,
    n_heads: usize,
    batch: usize,
    mask: impl FnOnce() -> Tensor<B, 4>,
    dtype: DType,
) -> Tensor<B, 2> {
    let [n_tokens, width] = packed.dims();
    let seq = n_tokens / batch;
    let on_host = || {
        let spans = Arc::new(AttentionSpans::whole(batch, seq));
        host::attention::causal_attention(&packed, n_heads, &spans)
    };
    let on_gpu = || gpu::causal_attention(&packed, n_heads, batch);
    fused(&[&on_host, &on_gpu]).unwrap_or_else(|| {
        let inside = exact(packed.dtype());
        let packed = packed.clone().cast(inside).reshape([batch, seq, width]);
        let [queries, keys, values] = [0, 1, 2].map(|index| {
            let part = index * width / 3..(index + 1) * width / 3;
            heads(packed.clone().slice_dim(2, part), n_heads)
        });
        let among = KeysValues { keys, values };
        let found = attention(queries, among, mask(), dtype);
        found.reshape([n_tokens, width / 3])
    })
}

/// Attention output of queries over keys and values of other tokens; `spans` say which keys each query sees.
///
/// # Shapes
/// `[n_queries, d_model]` and `[n_keys, 2 * d_model]` to `[n_queries, d_model]`
pub(crate) fn attention_over_spans<B: Backend>(
    queries: Tensor<B, 2>,
    keys_values: Parts<B>,
    n_heads: usize,
    spans: &Arc<AttentionSpans>,
    dtype: DType,
) -> Tensor<B, 2> {
    let on_host = || host::attention::attention_over_spans(&queries, &keys_values, n_heads, spans);
    fused(&[&on_host]).unwrap_or_else(|| {
        let keys_values = keys_values.clone().gather();
        let find = |queries: Tensor<B, 3>, keys_values: Tensor<B, 3>, mask| {
            let d_model = queries.dims()[2];
            let part = |part: Range<usize>| heads(keys_values.clone().slice_dim(2, part), n_heads);
            let among = KeysValues {
                keys: part(0..d_model),
                values: part(d_model..2 * d_model),
            };
            attention(heads(queries, n_heads), among, mask, dtype)
        };
        spans.on_rectangles(queries.clone(), keys_values, find)
    })
}

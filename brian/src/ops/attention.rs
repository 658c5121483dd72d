//! Attention `softmax(q kᵀ + mask) v`, head by head, with queries that are scaled before: under a given mask, causal over whole
//! sequences, or over spans of keys. Several heads of queries may share one of keys and values (Ainslie et al. 2023).

use super::attention_spans::AttentionSpans;
use super::cat::cat;
use super::gather::Parts;
use super::linear::{exact, multiply};
use super::{fused, gpu, host};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use std::ops::Range;
use std::sync::Arc;

/// Heads of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values, a divisor of `n_heads`: each serves `n_heads / n_kv_heads` neighbouring heads of queries.
    pub n_kv_heads: usize,
    /// Width of each.
    pub d_head: usize,
}

impl Heads {
    /// Width of all queries of a token.
    pub fn d_queries(self) -> usize {
        self.n_heads * self.d_head
    }

    /// Width of all keys of a token, and of all its values.
    pub fn d_keys(self) -> usize {
        self.n_kv_heads * self.d_head
    }

    /// How many heads of queries share one of keys and values.
    pub fn n_sharing(self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// Keys, rotated to their positions, and values: `[batch, n_kv_heads, n_keys, d_head]` each.
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
/// - `among`: `[batch, n_kv_heads, n_keys, d_head]`
/// - `mask`: `[batch or 1, n_heads or 1, seq, n_keys]`
/// - returns `[batch, seq, n_heads * d_head]`
pub fn attention<B: Backend>(
    queries: Tensor<B, 4>,
    among: KeysValues<B>,
    mask: Tensor<B, 4>,
    dtype: DType,
) -> Tensor<B, 3> {
    let [batch, n_heads, seq, d_head] = queries.dims();
    let KeysValues { keys, values } = among;
    let [keys, values] = [keys, values].map(|part| for_each_head(part.cast(dtype), n_heads));
    let scores = multiply(queries, keys.swap_dims(2, 3)) + mask;
    let found = multiply(softmax(scores, 3), values);
    found
        .swap_dims(1, 2)
        .reshape([batch, seq, n_heads * d_head])
}

/// Keys or values, once for every head of queries that uses them.
///
/// # Shapes
/// `[batch, n_kv_heads, n_keys, d_head]` to `[batch, n_heads, n_keys, d_head]`
pub(crate) fn for_each_head<B: Backend>(x: Tensor<B, 4>, n_heads: usize) -> Tensor<B, 4> {
    let [batch, n_kv_heads, n_keys, d_head] = x.dims();
    if n_kv_heads == n_heads {
        return x;
    }
    let shared: Tensor<B, 5> = x.unsqueeze_dim(2);
    let dims = [batch, n_kv_heads, n_heads / n_kv_heads, n_keys, d_head];
    shared
        .expand(dims)
        .reshape([batch, n_heads, n_keys, d_head])
}

/// Queries, keys and values side by side, keys and values once for every head of queries that uses them.
///
/// # Shapes
/// `[n, (n_heads + 2 * n_kv_heads) * d_head]` to `[n, 3 * n_heads * d_head]`
fn side_by_side<B: Backend>(packed: &Tensor<B, 2>, heads: Heads) -> Tensor<B, 2> {
    let [n_tokens, _] = packed.dims();
    let (d_queries, d_keys) = (heads.d_queries(), heads.d_keys());
    let queries = packed.clone().slice_dim(1, 0..d_queries);
    let [keys, values] = [0, 1].map(|index| {
        let first = d_queries + index * d_keys;
        let part = packed.clone().slice_dim(1, first..first + d_keys);
        let part = part.reshape([n_tokens, heads.n_kv_heads, 1, heads.d_head]);
        let part = part.expand([n_tokens, heads.n_kv_heads, heads.n_sharing(), heads.d_head]);
        part.reshape([n_tokens, d_queries])
    });
    cat(vec![queries, keys, values], 1)
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

/// Causal attention of whole sequences: each token attends to those before it and to itself. Where sequences are windows that hold
/// several texts, `apart` says which keys each token sees. `mask` hides all others, `[batch or 1, 1, seq, seq]`.
///
/// # Shapes
/// `[batch * seq, (n_heads + 2 * n_kv_heads) * d_head]`, queries, keys and values side by side, to
/// `[batch * seq, n_heads * d_head]`
pub(crate) fn causal_attention<B: Backend>(
    packed: Tensor<B, 2>,
    of: Heads,
    batch: usize,
    apart: Option<&Arc<AttentionSpans>>,
    mask: impl FnOnce() -> Tensor<B, 4>,
    dtype: DType,
) -> Tensor<B, 2> {
    let [n_tokens, width] = packed.dims();
    let seq = n_tokens / batch;
    let on_host = || {
        let whole = || Arc::new(AttentionSpans::each(vec![seq; batch]));
        let spans = apart.cloned().unwrap_or_else(whole);
        host::attention::causal_attention(&packed, of, &spans)
    };
    // The kernels know whole sequences only.
    let on_gpu = || match (apart, of.n_sharing()) {
        (Some(_), _) => None,
        (None, 1) => gpu::causal_attention(&packed, of.n_heads, batch),
        (None, _) => gpu::causal_attention(&side_by_side(&packed, of), of.n_heads, batch),
    };
    fused(&[&on_host, &on_gpu]).unwrap_or_else(|| {
        let inside = exact(packed.dtype());
        let packed = packed.clone().cast(inside).reshape([batch, seq, width]);
        let (d_queries, d_keys) = (of.d_queries(), of.d_keys());
        let part = |part: Range<usize>, n_heads| heads(packed.clone().slice_dim(2, part), n_heads);
        let queries = part(0..d_queries, of.n_heads);
        let among = KeysValues {
            keys: part(d_queries..width - d_keys, of.n_kv_heads),
            values: part(width - d_keys..width, of.n_kv_heads),
        };
        let found = attention(queries, among, mask(), dtype);
        found.reshape([n_tokens, d_queries])
    })
}

/// What queries attend to over spans.
#[derive(Clone, Debug)]
pub(crate) struct Among<B: Backend> {
    /// Keys and values, `[n_keys, 2 * n_kv_heads * d_head]`.
    pub keys_values: Parts<B>,
    /// Added to the scores of every key, `[n_keys, 1]`.
    pub bias: Option<Tensor<B, 2>>,
    /// Which keys each query sees.
    pub spans: Arc<AttentionSpans>,
}

impl<B: Backend> Among<B> {
    /// Keys and values to whose scores nothing is added.
    pub fn plain(keys_values: Parts<B>, spans: AttentionSpans) -> Self {
        Self {
            keys_values,
            bias: None,
            spans: Arc::new(spans),
        }
    }
}

/// Attention output of queries over keys and values of other tokens.
///
/// # Shapes
/// `[n_queries, n_heads * d_head]` to the same
pub(crate) fn attention_over_spans<B: Backend>(
    queries: Tensor<B, 2>,
    among: &Among<B>,
    of: Heads,
    dtype: DType,
) -> Tensor<B, 2> {
    let on_host = || host::attention::attention_over_spans(&queries, among, of);
    fused(&[&on_host]).unwrap_or_else(|| {
        let keys_values = among.keys_values.clone().gather();
        let find = |queries: Tensor<B, 3>, keys_values: Tensor<B, 3>, mask| {
            let d_keys = of.d_keys();
            let part =
                |part: Range<usize>| heads(keys_values.clone().slice_dim(2, part), of.n_kv_heads);
            let among = KeysValues {
                keys: part(0..d_keys),
                values: part(d_keys..2 * d_keys),
            };
            attention(heads(queries, of.n_heads), among, mask, dtype)
        };
        let bias = among.bias.clone();
        among
            .spans
            .on_rectangles(queries.clone(), keys_values, bias, find)
    })
}

/// The attention of every query to groups of keys, the mean over heads; `groups` says to which of `n_groups` each key belongs.
///
/// # Shapes
/// `[n_queries, n_heads * d_head]` to `[n_queries, n_groups]`
pub(crate) fn mass<B: Backend>(
    queries: Tensor<B, 2>,
    among: &Among<B>,
    of: Heads,
    groups: &[Option<usize>],
    n_groups: usize,
) -> Tensor<B, 2> {
    let on_host = || host::attention::mass(&queries, among, of, groups, n_groups);
    fused(&[&on_host])
        .unwrap_or_else(|| composed_mass(queries.clone(), among, of, groups, n_groups))
}

fn composed_mass<B: Backend>(
    queries: Tensor<B, 2>,
    among: &Among<B>,
    of: Heads,
    groups: &[Option<usize>],
    n_groups: usize,
) -> Tensor<B, 2> {
    let keys_values = among.keys_values.clone().gather();
    let [n_keys, width] = keys_values.dims();
    let mut belongs = vec![0.0; n_keys * n_groups];
    for (key, group) in groups.iter().enumerate() {
        if let Some(group) = group {
            belongs[key * n_groups + group] = 1.0;
        }
    }
    let belongs = TensorData::new::<f32, _>(belongs, [n_keys, n_groups]);
    let belongs = Tensor::from_data(belongs, &keys_values.device());
    let find = |queries: Tensor<B, 3>, keys: Tensor<B, 3>, mask| {
        let belongs = keys.clone().slice_dim(2, width..width + n_groups);
        let keys = heads(keys.slice_dim(2, 0..of.d_keys()), of.n_kv_heads);
        let keys = for_each_head(keys, of.n_heads).swap_dims(2, 3);
        let shares = softmax(heads(queries, of.n_heads).matmul(keys) + mask, 3);
        let [batch, _, n_queries, n_keys] = shares.dims();
        let shares = shares.mean_dim(1).reshape([batch, n_queries, n_keys]);
        shares.matmul(belongs)
    };
    let keys = cat(vec![keys_values, belongs], 1);
    let bias = among.bias.clone();
    among.spans.on_rectangles(queries, keys, bias, find)
}

//! `Cache`, the keys and values that one Transformer block keeps of one sequence; `execute` runs the block on new tokens of
//! several sequences at once, which attend to all earlier tokens of their own.

use super::transformer::TransformerBlock;
use crate::ops::attention_spans::AttentionSpans;
use crate::ops::gather::{Parts, RowPlace, columns, some};
use crate::ops::rotary::Angles;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::sync::Arc;

/// Only a part with fewer rows than this is copied to grow.
const FULL: usize = 64;

/// Rotated keys, and values, of all tokens so far of one sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache<B: Backend> {
    /// Rows in order, `[…, 2 * n_kv_heads * d_head]`.
    parts: Vec<Tensor<B, 2>>,
}

/// Tokens that a block reads of one sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewTokens {
    /// How many.
    pub n_new: usize,
    /// Of how many of them, the last ones, the output is wanted.
    pub n_wanted: usize,
}

impl NewTokens {
    /// So many, all of them wanted.
    pub fn all(n: usize) -> Self {
        Self {
            n_new: n,
            n_wanted: n,
        }
    }
}

impl<B: Backend> Cache<B> {
    /// How many tokens are kept.
    pub fn n_tokens(&self) -> usize {
        self.parts.iter().map(|part| part.dims()[0]).sum()
    }

    fn append(&mut self, rows: Tensor<B, 2>) {
        match self.parts.pop_if(|last| last.dims()[0] < FULL) {
            Some(last) => self.parts.push(Tensor::cat(vec![last, rows], 0)),
            None => self.parts.push(rows),
        }
    }
}

/// Runs a block on new tokens, one sequence behind the other, and adds these to the sequences' caches; returns its output for
/// those that are wanted. The bits of a sequence on the host do not depend on the others.
///
/// # Shapes
/// `[n_new, d_model]` of all sequences to `[n_wanted, d_model]`; `angles` are those of the `n_new`
pub(crate) fn execute<B: Backend>(
    block: &TransformerBlock<B>,
    x: Tensor<B, 2>,
    angles: &Angles<B>,
    sequences: &[NewTokens],
    caches: &mut [Cache<B>],
) -> Tensor<B, 2> {
    let heads = block.attention.shape();
    let (d_queries, width) = (heads.d_queries(), heads.d_queries() + 2 * heads.d_keys());
    let packed = block
        .attention
        .project_rows(&x, &block.attention_norm, angles);
    let keys_values = columns(&packed, d_queries..width);
    let mut wanted = Vec::new();
    let mut among = Parts {
        parts: Vec::new(),
        places: Vec::new(),
    };
    let mut spans = AttentionSpans {
        n_queries: Vec::new(),
        n_keys: Vec::new(),
        visible: Vec::new(),
    };
    let mut first = 0;
    for (&NewTokens { n_new, n_wanted }, cache) in sequences.iter().zip(caches) {
        let end = first + n_new;
        cache.append(keys_values.clone().slice_dim(0, first..end));
        let n_keys = cache.n_tokens();
        wanted.extend(end - n_wanted..end);
        spans.n_queries.push(n_wanted);
        spans.n_keys.push(n_keys);
        spans.visible.extend(n_keys - n_wanted + 1..=n_keys);
        for kept in &cache.parts {
            let part = among.parts.len();
            let rows = 0..kept.dims()[0];
            among.places.extend(rows.map(|row| RowPlace { part, row }));
            among.parts.push(kept.clone());
        }
        first = end;
    }
    let queries = columns(&some(packed, &wanted), 0..d_queries);
    let found = block.attention.find_rows(queries, among, &Arc::new(spans));
    block.end(some(x, &wanted), found)
}

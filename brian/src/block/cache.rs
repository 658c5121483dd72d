//! `Cache`, the keys and values that one Transformer block keeps of one sequence; `execute` runs the block on new tokens of
//! several sequences at once, which attend to all earlier tokens of their own.

use super::transformer::TransformerBlock;
use crate::ops::attention::Among;
use crate::ops::attention_spans::AttentionSpans;
use crate::ops::cat::cat;
use crate::ops::gather::{Parts, RowPlace, columns};
use crate::ops::groups::Group;
use crate::ops::reuse::Packed;
use crate::ops::rotary::Angles;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Only a part with fewer rows than this is copied to grow.
const FULL: usize = 16;

/// Rotated keys, and values, of all tokens so far of one sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache<B: Backend> {
    /// Rows in order, `[…, 2 * n_kv_heads * d_head]`.
    parts: Vec<Tensor<B, 2>>,
}

impl<B: Backend> Cache<B> {
    /// How many tokens are kept.
    pub fn n_tokens(&self) -> usize {
        self.parts.iter().map(|part| part.dims()[0]).sum()
    }

    pub fn append(&mut self, rows: Tensor<B, 2>) {
        match self.parts.pop_if(|last| last.dims()[0] < FULL) {
            Some(last) => self.parts.push(cat(vec![last, rows], 0)),
            None => self.parts.push(rows),
        }
    }

    /// The rows behind the first `n`, if there are any.
    pub fn after(&self, n: usize) -> Option<Tensor<B, 2>> {
        let (mut first, mut rows) = (0, Vec::new());
        for part in &self.parts {
            let end = first + part.dims()[0];
            if end > n {
                let own = n.saturating_sub(first)..end - first;
                rows.push(part.clone().slice_dim(0, own));
            }
            first = end;
        }
        (!rows.is_empty()).then(|| cat(rows, 0))
    }

    /// Adds the parts to `among`; returns where each token's row lies there.
    pub fn lay(&self, among: &mut Vec<Tensor<B, 2>>) -> Vec<RowPlace> {
        let mut places = Vec::with_capacity(self.n_tokens());
        for kept in &self.parts {
            let part = among.len();
            let rows = 0..kept.dims()[0];
            places.extend(rows.map(|row| RowPlace { part, row }));
            among.push(kept.clone());
        }
        places
    }
}

/// Runs a block on new tokens, so many of each sequence, one sequence behind the other, and adds them to the sequences' caches;
/// `packed` may hold its maps.
/// The bits of a sequence on the host do not depend on the others.
///
/// # Shapes
/// `[n_new, d_model]` of all sequences to the same; `angles` are those of the `n_new`
pub(crate) fn execute<B: Backend>(
    block: &TransformerBlock<B>,
    x: Tensor<B, 2>,
    angles: &Angles<B>,
    n_new: &[usize],
    caches: &mut [Cache<B>],
    packed: &Packed,
) -> Tensor<B, 2> {
    let heads = block.attention.shape();
    let (d_queries, width) = (heads.d_queries(), heads.d_queries() + 2 * heads.d_keys());
    let made = block
        .attention
        .project_packed(&x, &block.attention_norm, angles, packed);
    let keys_values = columns(&made, d_queries..width);
    let (mut among, mut spans) = (Parts::none(), AttentionSpans::none());
    let mut first = 0;
    for (&n_new, cache) in n_new.iter().zip(caches) {
        let end = first + n_new;
        cache.append(keys_values.clone().slice_dim(0, first..end));
        spans.last(n_new, cache.n_tokens());
        let places = cache.lay(&mut among.parts);
        among.places.extend(places);
        first = end;
    }
    let queries = columns(&made, 0..d_queries);
    let found = block
        .attention
        .find_rows(queries, &Among::plain(among, spans));
    TransformerBlock::end_each(&Group::only(block, &x), x, found, None, packed)
}

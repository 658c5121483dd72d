//! `Cache`, the key-value cache of one Transformer block in decoding: it runs the block on new tokens, which attend to all
//! earlier ones, and keeps their keys and values.

use super::causal::Causal;
use super::transformer::TransformerBlock;
use crate::ops::attention_spans::AttentionSpans;
use crate::ops::gather::Parts;
use crate::ops::reshape::per_row;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::sync::Arc;

/// Rotated keys, and values, of all tokens so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache<B: Backend> {
    /// `[batch, n_tokens, 2 * n_kv_heads * d_head]`
    kept: Option<Tensor<B, 3>>,
}

impl<B: Backend> Cache<B> {
    /// How many tokens are kept.
    pub fn n_tokens(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.dims()[1])
    }

    /// Runs the block on new tokens and adds these to the cache; returns its output for the last `n_wanted` of them.
    ///
    /// # Shapes
    /// `[batch, n_new, d_model]` to `[batch, n_wanted, d_model]`; `causal` is that of the `n_new`
    pub fn execute(
        &mut self,
        block: &TransformerBlock<B>,
        x: Tensor<B, 3>,
        causal: &Causal<B>,
        n_wanted: usize,
    ) -> Tensor<B, 3> {
        let [batch, n_new, d_model] = x.dims();
        let heads = block.attention.shape();
        let (d_queries, width) = (heads.d_queries(), heads.d_queries() + 2 * heads.d_keys());
        let packed = block
            .attention
            .project_rows(&per_row(x.clone()), &block.attention_norm, causal)
            .reshape([batch, n_new, width]);
        let own = packed.clone().slice_dim(2, d_queries..width);
        let kept = self.kept.take().into_iter().chain([own]);
        let kept = Tensor::cat(kept.collect(), 1);
        self.kept = Some(kept.clone());

        let n_keys = self.n_tokens();
        let spans = AttentionSpans {
            n_queries: vec![n_wanted; batch],
            n_keys: vec![n_keys; batch],
            visible: (0..batch)
                .flat_map(|_| n_keys - n_wanted + 1..=n_keys)
                .collect(),
        };
        let wanted = n_new - n_wanted..n_new;
        let queries = packed
            .slice_dim(1, wanted.clone())
            .slice_dim(2, 0..d_queries);
        let among = Parts::one(per_row(kept));
        let found = block
            .attention
            .find_rows(per_row(queries), among, &Arc::new(spans));
        let output = block.end(per_row(x.slice_dim(1, wanted)), found);
        output.reshape([batch, n_wanted, d_model])
    }
}

//! What a block keeps of the tokens it has seen, so that later ones can attend to them without another pass.

use super::attention::KeysValues;
use super::causal::Causal;
use super::transformer::TransformerBlock;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Keys, turned to their positions, and values of all tokens so far.
#[derive(Clone, Debug)]
pub(crate) struct Cache<B: Backend> {
    kept: Option<KeysValues<B>>,
}

impl<B: Backend> Default for Cache<B> {
    fn default() -> Self {
        Self { kept: None }
    }
}

impl<B: Backend> Cache<B> {
    /// How many tokens are kept.
    pub fn n_tokens(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.keys.dims()[2])
    }

    /// The block's output for the last `n_wanted` of the tokens that follow those kept; all of them are kept from now on.
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
        let [_, n_new, _] = x.dims();
        let (mut x, mut mask) = (x, causal.mask());
        let (mut queries, own) = block.project(x.clone(), causal);
        let among = match self.kept.take() {
            None => own,
            Some(kept) => KeysValues {
                keys: Tensor::cat(vec![kept.keys, own.keys], 2),
                values: Tensor::cat(vec![kept.values, own.values], 2),
            },
        };
        self.kept = Some(among.clone());
        if n_wanted < n_new {
            let wanted = n_new - n_wanted..n_new;
            x = x.slice_dim(1, wanted.clone());
            queries = queries.slice_dim(2, wanted.clone());
            mask = mask.slice_dim(2, wanted);
        }
        block.finish(x, queries, among, mask)
    }
}

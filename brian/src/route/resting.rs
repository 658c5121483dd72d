//! What does not change any more: rows that were made of the state of a token that has left, once.

use crate::block::matrix::some;
use crate::kernel::rows::Parts;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Rows of tokens that have left.
pub(crate) struct Resting<B: Backend> {
    /// The row of each token that has one.
    row: Vec<Option<usize>>,
    /// `[n_rows, width]`
    kept: Option<Tensor<B, 2>>,
}

impl<B: Backend> Resting<B> {
    pub fn new(n_tokens: usize) -> Self {
        Self {
            row: vec![None; n_tokens],
            kept: None,
        }
    }

    /// The rows of `tokens`: those of tokens that have none here come from `make`, `[tokens, width]`, and of those the ones of tokens
    /// that have `left` are kept.
    pub fn rows(
        &mut self,
        tokens: &[usize],
        left: &[bool],
        make: impl FnOnce(&[usize]) -> Tensor<B, 2>,
    ) -> Parts<B> {
        let without = |token: &usize| self.row[*token].is_none();
        let fresh: Vec<usize> = tokens.iter().copied().filter(without).collect();
        let mut parts: Vec<Tensor<B, 2>> = self.kept.iter().cloned().collect();
        let n_kept = parts.first().map_or(0, |kept| kept.dims()[0]);
        let mut row = self.row.clone();
        if !fresh.is_empty() {
            let made = make(&fresh);
            for (index, &token) in fresh.iter().enumerate() {
                row[token] = Some(n_kept + index);
            }
            let stay: Vec<usize> = (0..fresh.len()).filter(|&at| left[fresh[at]]).collect();
            for (index, &at) in stay.iter().enumerate() {
                self.row[fresh[at]] = Some(n_kept + index);
            }
            if !stay.is_empty() {
                let kept = self.kept.iter().cloned();
                let kept = kept.chain([some(made.clone(), &stay)]).collect();
                self.kept = Some(Tensor::cat(kept, 0));
            }
            parts.push(made);
        }
        let rows = tokens.iter().filter_map(|&token| row[token]).collect();
        Parts { parts, rows }
    }
}

//! What does not change any more: rows that were made of the state of a token that has left, once.

use crate::block::matrix::rows;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Rows of tokens that have left.
pub(crate) struct Resting<B: Backend> {
    /// The row of each token that has one.
    row: Vec<Option<usize>>,
    /// `[n_rows, width]`.
    rows: Option<Tensor<B, 2>>,
}

impl<B: Backend> Resting<B> {
    pub fn new(n_tokens: usize) -> Self {
        Self {
            row: vec![None; n_tokens],
            rows: None,
        }
    }

    /// The rows of `tokens`, `[tokens, width]`: those of tokens that have none here come from `make`, and of those the ones of
    /// tokens that have `left` are kept.
    pub fn rows(
        &mut self,
        tokens: &[usize],
        left: &[bool],
        make: impl FnOnce(&[usize]) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let without = |token: &usize| self.row[*token].is_none();
        let fresh: Vec<usize> = tokens.iter().copied().filter(without).collect();
        let n_kept = self.rows.as_ref().map_or(0, |rows| rows.dims()[0]);
        let parts = [self.rows.take(), (!fresh.is_empty()).then(|| make(&fresh))];
        let all = Tensor::cat(parts.into_iter().flatten().collect(), 0);
        let mut row = self.row.clone();
        for (index, &token) in fresh.iter().enumerate() {
            row[token] = Some(n_kept + index);
        }
        let wanted: Vec<usize> = tokens.iter().filter_map(|&token| row[token]).collect();
        let stay = (0..fresh.len()).filter(|&index| left[fresh[index]]);
        let stay: Vec<usize> = stay.collect();
        for (index, &place) in stay.iter().enumerate() {
            self.row[fresh[place]] = Some(n_kept + index);
        }
        let kept: Vec<usize> = (0..n_kept)
            .chain(stay.into_iter().map(|index| n_kept + index))
            .collect();
        self.rows = (!kept.is_empty()).then(|| some(all.clone(), &kept));
        some(all, &wanted)
    }
}

/// Some rows; all of them as they are.
pub(crate) fn some<B: Backend>(all: Tensor<B, 2>, which: &[usize]) -> Tensor<B, 2> {
    match which.iter().copied().eq(0..all.dims()[0]) {
        true => all,
        false => rows(all, which),
    }
}

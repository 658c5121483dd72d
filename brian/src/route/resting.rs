//! What does not change any more: rows that were made of the state of a token that has left, once.

use crate::block::matrix::rows;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Rows of tokens that have left.
pub(crate) struct Resting<B: Backend, const N: usize> {
    /// The row of each token that has one.
    row: Vec<Option<usize>>,
    n_rows: usize,
    /// `N` tensors `[n_rows, width]` in parts, as they came.
    parts: Vec<[Tensor<B, 2>; N]>,
}

impl<B: Backend, const N: usize> Resting<B, N> {
    pub fn new(n_tokens: usize) -> Self {
        Self {
            row: vec![None; n_tokens],
            n_rows: 0,
            parts: Vec::new(),
        }
    }

    /// The rows of `tokens`, `N` tensors `[tokens, width]`: those of tokens that have none here come from `make`, and of those the ones of
    /// tokens that have `left` are kept.
    pub fn rows(
        &mut self,
        tokens: &[usize],
        left: &[bool],
        make: impl FnOnce(&[usize]) -> [Tensor<B, 2>; N],
    ) -> [Tensor<B, 2>; N] {
        let without = |token: &usize| self.row[*token].is_none();
        let fresh: Vec<usize> = tokens.iter().copied().filter(without).collect();
        let mut parts = self.parts.clone();
        let mut row = self.row.clone();
        if !fresh.is_empty() {
            let made = make(&fresh);
            for (index, &token) in fresh.iter().enumerate() {
                row[token] = Some(self.n_rows + index);
            }
            let stay = (0..fresh.len()).filter(|&index| left[fresh[index]]);
            let stay: Vec<usize> = stay.collect();
            for &index in &stay {
                self.row[fresh[index]] = Some(self.n_rows);
                self.n_rows += 1;
            }
            if !stay.is_empty() {
                self.parts.push(made.clone().map(|made| some(made, &stay)));
            }
            parts.push(made);
        }
        let wanted: Vec<usize> = tokens.iter().filter_map(|&token| row[token]).collect();
        std::array::from_fn(|index| {
            let parts: Vec<_> = parts.iter().map(|part| part[index].clone()).collect();
            some(Tensor::cat(parts, 0), &wanted)
        })
    }
}

/// Some rows; all of them as they are.
pub(crate) fn some<B: Backend>(all: Tensor<B, 2>, which: &[usize]) -> Tensor<B, 2> {
    match which.iter().copied().eq(0..all.dims()[0]) {
        true => all,
        false => rows(all, which),
    }
}

//! What does not change any more: rows that were made of the state of a token that has left, once.

use crate::block::matrix::some;
use crate::kernel::node::shared;
use crate::kernel::rows::{Parts, Place};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Rows of tokens that have left.
pub(crate) struct Resting<B: Backend> {
    /// Where the row of each token lies that has one.
    places: Vec<Option<Place>>,
    /// Of each step those that were made, `[…, width]`.
    kept: Vec<Tensor<B, 2>>,
}

impl<B: Backend> Resting<B> {
    pub fn new(n_tokens: usize) -> Self {
        Self {
            places: vec![None; n_tokens],
            kept: Vec::new(),
        }
    }

    /// The rows of `tokens`: those of tokens that have none here come from `make`, `[tokens, width]`, and of those the ones of tokens
    /// that have `left` are kept.
    pub fn rows(
        &mut self,
        tokens: &[usize],
        left: impl Fn(usize) -> bool,
        make: impl FnOnce(&[usize]) -> Tensor<B, 2>,
    ) -> Parts<B> {
        let mut parts = self.kept.clone();
        let (part, mut fresh) = (parts.len(), Vec::new());
        let place = |&token: &usize| {
            self.places[token].unwrap_or_else(|| {
                fresh.push(token);
                let row = fresh.len() - 1;
                Place { part, row }
            })
        };
        let places = tokens.iter().map(place).collect();
        if !fresh.is_empty() {
            let made = shared(make(&fresh));
            self.keep(&fresh, left, &made);
            parts.push(made);
        }
        Parts { parts, places }
    }

    /// Keeps rows of those that have left, or, where these are most, all.
    fn keep(&mut self, fresh: &[usize], left: impl Fn(usize) -> bool, made: &Tensor<B, 2>) {
        let stay: Vec<usize> = (0..fresh.len()).filter(|&at| left(fresh[at])).collect();
        if stay.is_empty() {
            return;
        }
        let part = self.kept.len();
        let all = 2 * stay.len() > fresh.len();
        for (index, &at) in stay.iter().enumerate() {
            let row = if all { at } else { index };
            self.places[fresh[at]] = Some(Place { part, row });
        }
        self.kept.push(match all {
            true => made.clone(),
            false => shared(some(made.clone(), &stay)),
        });
    }
}

//! Cache of one row per token, made by the caller's function (keys and values, or logits); kept once its token has left,
//! for then its state no longer changes.

use crate::ops::gather::{Parts, RowPlace, some};
use crate::ops::reuse::shared;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Rows of tokens that have left.
pub(crate) struct ExitedCache<B: Backend> {
    /// Where each token's row lies, if it has one.
    places: Vec<Option<RowPlace>>,
    /// The rows that were made, by step, `[…, width]`.
    kept: Vec<Tensor<B, 2>>,
}

impl<B: Backend> ExitedCache<B> {
    pub fn new(n_tokens: usize) -> Self {
        Self {
            places: vec![None; n_tokens],
            kept: Vec::new(),
        }
    }

    /// The rows of `tokens`. Those that are not cached come from `make`; of these, the rows of tokens that have `left` are
    /// cached.
    ///
    /// # Shapes
    /// `make` gets `n` tokens and returns `[n, width]`
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
                RowPlace { part, row }
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
            self.places[fresh[at]] = Some(RowPlace { part, row });
        }
        self.kept.push(match all {
            true => made.clone(),
            false => shared(some(made.clone(), &stay)),
        });
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::ops::tests::Learning;
    use crate::random;
    use burn::tensor::TensorData;

    /// What is made of a token says which and at which step: of one that has left, the first step at which it was asked for since.
    #[test]
    fn a_row_is_made_anew_until_its_token_has_left_and_then_never_again() {
        let row = |token: usize, step: usize| (100 * token + step) as f32;
        for seed in 0..40 {
            let n = 7;
            let mut resting = ExitedCache::<Learning>::new(n);
            let mut left = vec![false; n];
            let mut since: Vec<Option<usize>> = vec![None; n];
            for step in 0..5 {
                let drawn = |name: &str, token: usize| {
                    let key = random::key(seed, name, step as u64);
                    random::bits(key, token as u64) % 3
                };
                let asked = |&token: &usize| token == 0 || drawn("asked", token) > 0;
                let asked: Vec<usize> = (0..n).filter(asked).collect();
                let make = |fresh: &[usize]| {
                    let rows: Vec<f32> = fresh.iter().map(|&token| row(token, step)).collect();
                    let data = TensorData::new(rows, [fresh.len(), 1]);
                    Tensor::from_data(data, &Default::default())
                };
                let made = resting.rows(&asked, |token| left[token], make);
                let found: Vec<f32> = made.gather().into_data().iter().collect();
                let made_at = |&token: &usize| row(token, since[token].unwrap_or(step));
                let expected: Vec<f32> = asked.iter().map(made_at).collect();
                assert_eq!(found, expected, "{seed}, step {step}");
                for &token in asked.iter().filter(|&&token| left[token]) {
                    since[token] = since[token].or(Some(step));
                }
                for (token, left) in left.iter_mut().enumerate() {
                    *left |= drawn("leaves", token) == 0;
                }
            }
        }
    }
}

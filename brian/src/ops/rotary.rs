//! Rotary positions (Su et al. 2021), half-split: `Angles` holds cosines and sines of tokens, made elsewhere, and rotates a
//! head `[x1, x2]` of queries or keys to `[x1 cos − x2 sin, x2 cos + x1 sin]`, angle `position · base^(−2j/d_head)`.

use super::cat::cat;
use super::gather::indices;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::ops::Range;

/// Rotary angles of tokens, as cosines and sines.
#[derive(Clone, Debug)]
pub struct Angles<B: Backend> {
    /// Of all positions, `[seq, d_head / 2]`.
    pub(crate) cos: Tensor<B, 2>,
    pub(crate) sin: Tensor<B, 2>,
    /// The position of each token; `None` for whole sequences: all positions in order, once per sequence.
    pub(crate) places: Option<Vec<usize>>,
    /// What multiplies queries besides `1/sqrt(d_head)`: 1 without a width transfer.
    pub(crate) query_factor: f64,
}

impl<B: Backend> Angles<B> {
    /// The angles of some of the tokens; for whole sequences always those of all tokens.
    pub(crate) fn some(&self, which: Range<usize>) -> Self {
        Self {
            places: self.places.as_ref().map(|places| places[which].to_vec()),
            ..self.clone()
        }
    }

    /// Cosines and sines of the tokens; for whole sequences those of one sequence.
    ///
    /// # Shapes
    /// `[n_tokens, d_head / 2]` each, for whole sequences `[seq, d_head / 2]`
    pub fn tables(&self) -> [Tensor<B, 2>; 2] {
        let tables = [self.cos.clone(), self.sin.clone()];
        let Some(places) = &self.places else {
            return tables;
        };
        let places = indices(places, &self.cos.device());
        tables.map(|table| table.select(0, places.clone()))
    }

    /// Width of a head.
    pub fn d_head(&self) -> usize {
        let [_, half] = self.cos.dims();
        2 * half
    }

    /// Rotates queries or keys to their positions, head by head.
    ///
    /// # Shapes
    /// `[n_tokens, n_heads * d_head]` to the same
    pub fn rotate(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let [n_tokens, d_model] = x.dims();
        let d_head = self.d_head();
        let [cos, sin] = self.tables().map(|table| {
            let n_times = n_tokens / table.dims()[0].max(1);
            table.repeat_dim(0, n_times).unsqueeze_dim(1)
        });
        let x = x.reshape([n_tokens, d_model / d_head, d_head]);
        apply_rotary(x, 2, cos, sin).reshape([n_tokens, d_model])
    }
}

/// `[x1 cos − x2 sin, x2 cos + x1 sin]` along the last dimension.
pub(crate) fn apply_rotary<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    last: usize,
    cos: Tensor<B, D>,
    sin: Tensor<B, D>,
) -> Tensor<B, D> {
    let half = x.dims()[last] / 2;
    let first = x.clone().slice_dim(last, 0..half);
    let second = x.slice_dim(last, half..2 * half);
    let turned = vec![
        first.clone() * cos.clone() - second.clone() * sin.clone(),
        second * cos + first * sin,
    ];
    cat(turned, last)
}

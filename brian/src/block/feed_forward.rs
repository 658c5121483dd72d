//! Gated feed-forward (SwiGLU, Shazeer 2020): `down( silu(gate x) ⊙ up x )`, no biases.

use super::BlockSizes;
use super::matrix::matrix;
use crate::described::{Described, Description, FanIn, Start};
use crate::ops::swiglu::swiglu;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The feed-forward half of a block.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    /// `[d_model, d_ff]`, through the nonlinearity (`w1` of the reference).
    pub gate: Linear<B>,
    /// `[d_model, d_ff]`, multiplied with the gate (`w2` of the reference).
    pub up: Linear<B>,
    /// `[d_ff, d_model]`, adds to the residual stream (`w3` of the reference).
    pub down: Linear<B>,
}

impl<B: Backend> FeedForward<B> {
    pub(crate) fn new(sizes: &BlockSizes, device: &B::Device) -> Self {
        Self {
            gate: matrix(sizes.d_model, sizes.d_ff, device),
            up: matrix(sizes.d_model, sizes.d_ff, device),
            down: matrix(sizes.d_ff, sizes.d_model, device),
        }
    }

    /// Gate, up and down.
    pub(crate) fn all(&self) -> [&Linear<B>; 3] {
        [&self.gate, &self.up, &self.down]
    }

    /// Maps every token on its own.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to the same
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        swiglu(x, self.all())
    }
}

impl<B: Backend> Described<B> for FeedForward<B> {
    fn describe(&self, to: &mut Description) {
        self.all().iter().for_each(|map| to.multiplies(map));
        let maps = self.all().into_iter();
        maps.for_each(|map| to.sums(&map.weight, FanIn::Width));
        to.starts(&self.down.weight, Start::IntoStream);
    }
}

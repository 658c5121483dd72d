//! The exit block behind OUT: position, norm and one linear map, no attention; every token passes it once, after the walk.
//!
//! `residual`: `out = h + W norm(h + adapter P)` with W zero at the start, so that wrapping a trained baseline changes
//! nothing. `projection`: the reference's `out = W norm(h + adapter P)`, which cuts the residual stream and thereby
//! makes a wrapped baseline another model.

use super::BlockSizes;
use super::matrix::{add_position, matrix};
use super::transformer::norm;
use crate::described::{Described, Description, FanIn, Start};
use crate::ops::linear::{add_linear, linear};
use crate::ops::reshape::{per_row, reshape};
use crate::ops::rms_norm::rms_norm;
use burn::module::Module;
use burn::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Deserialize;

/// What leaves the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Adds to the stream; the identity at the start.
    Residual,
    /// Replaces the stream; for parity with the reference.
    Projection,
}

/// The exit block.
#[derive(Module, Debug)]
pub struct ExitBlock<B: Backend> {
    /// `[d_position, d_model]`; `None` if the position is added directly.
    pub adapter: Option<Linear<B>>,
    /// Norm before the projection.
    pub norm: RmsNorm<B>,
    /// `[d_model, d_model]`.
    pub projection: Linear<B>,
    #[module(skip)]
    kind: Exit,
}

impl<B: Backend> ExitBlock<B> {
    pub(crate) fn new(
        sizes: &BlockSizes,
        d_position: Option<usize>,
        kind: Exit,
        device: &B::Device,
    ) -> Self {
        Self {
            adapter: d_position.map(|d_position| matrix(d_position, sizes.d_model, device)),
            norm: norm(sizes, device),
            projection: matrix(sizes.d_model, sizes.d_model, device),
            kind,
        }
    }

    /// Maps the states that leave the walk to the input of the post blocks.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, d_model]`
    /// - `position`: `[batch, seq, d_position]`
    /// - returns `[batch, seq, d_model]`
    pub fn forward(&self, hidden: Tensor<B, 3>, position: Tensor<B, 3>) -> Tensor<B, 3> {
        let dims = hidden.dims();
        let (hidden, position) = (per_row(hidden), per_row(position));
        let told = add_position(hidden.clone(), self.adapter.as_ref(), position);
        let normed = rms_norm(&told, &self.norm, told.dtype());
        let left = match self.kind {
            Exit::Residual => add_linear(hidden, normed, &self.projection),
            Exit::Projection => linear(normed, &self.projection),
        };
        reshape(left, dims)
    }
}

impl<B: Backend> Described<B> for ExitBlock<B> {
    fn describe(&self, to: &mut Description) {
        to.norm(&self.norm);
        to.sums(&self.projection.weight, FanIn::Width);
        if self.kind == Exit::Residual {
            to.starts(&self.projection.weight, Start::Constant(0.0));
        }
    }
}

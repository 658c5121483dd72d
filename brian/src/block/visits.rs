//! What changes where a token executes a block again: what the block adds to the stream is scaled by the number of the visit, and by gains
//! that it learns for every visit.
//!
//! At the `n`-th visit of a token, from 1, the factor of both outputs of a block is `s(n) (1 + g_n)`: `s` is given ([`VisitScale`]), and
//! `g_n`, of width `d_model`, is learned and starts at zero, where weight decay pulls it too. A first visit to a fresh block is that of a
//! block without either.

use crate::described::{Described, Description, Start};
use crate::ops::gather::rows;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use serde::Deserialize;

/// By what the `n`-th visit of a token to a block multiplies what the block adds to the stream. Outputs that are alike add up to
/// something that grows with the number of visits; scaled, to its root or its logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisitScale {
    /// `1/n`
    Inverse,
    /// `1/sqrt(n)`
    InverseSqrt,
}

impl VisitScale {
    /// The factor of a visit, counted from 1.
    pub fn factor(self, visit: usize) -> f64 {
        match self {
            Self::Inverse => 1.0 / visit as f64,
            Self::InverseSqrt => 1.0 / (visit as f64).sqrt(),
        }
    }
}

/// What blocks of the pool do otherwise when a token executes them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct VisitsConfig {
    /// By what the number of a visit multiplies what a block adds to the stream; nothing if it is left out.
    pub scale: Option<VisitScale>,
    /// Whether blocks learn gains for every visit, as many as a walk has steps; no if it is left out.
    pub gains: Option<bool>,
}

/// What a block does otherwise when it is executed again.
#[derive(Module, Debug)]
pub struct Visits<B: Backend> {
    /// What is added to the factor 1, `[visits, d_model]`; the last row is also that of later visits.
    pub gains: Option<Param<Tensor<B, 2>>>,
    #[module(skip)]
    scale: Option<VisitScale>,
}

impl<B: Backend> Visits<B> {
    /// With gains, if there are to be any, of `dims`: visits, and `d_model`.
    pub(crate) fn new(config: Option<VisitsConfig>, dims: [usize; 2], device: &B::Device) -> Self {
        let has_gains = config.and_then(|config| config.gains) == Some(true);
        Self {
            gains: has_gains.then(|| Initializer::Zeros.init(dims, device)),
            scale: config.and_then(|config| config.scale),
        }
    }

    /// Whether visits differ at all.
    pub(crate) fn differ(&self) -> bool {
        self.scale.is_some() || self.gains.is_some()
    }

    /// The factors of some tokens, from the numbers of their visits, counted from 1; `None` where all visits are alike.
    ///
    /// # Shapes
    /// Returns `[visits, 1]` or `[visits, d_model]`
    pub(crate) fn factors(&self, visits: &[usize], device: &B::Device) -> Option<Tensor<B, 2>> {
        let scales = self.scale.map(|scale| {
            let factors = visits.iter().map(|&visit| scale.factor(visit) as f32);
            let factors: Vec<f32> = factors.collect();
            Tensor::from_data(TensorData::new(factors, [visits.len(), 1]), device)
        });
        let gains = self.gains.as_ref().map(|gains| {
            let [n_rows, _] = gains.dims();
            let which: Vec<usize> = visits
                .iter()
                .map(|visit| (visit - 1).min(n_rows - 1))
                .collect();
            rows(gains.val(), &which) + 1.0
        });
        match (scales, gains) {
            (Some(scales), Some(gains)) => Some(gains * scales),
            (scales, gains) => scales.or(gains),
        }
    }
}

impl<B: Backend> Described<B> for Visits<B> {
    fn describe(&self, to: &mut Description) {
        if let Some(gains) = &self.gains {
            to.starts(gains, Start::Constant(0.0));
        }
    }
}

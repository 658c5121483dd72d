//! The mix of past signals, `h = S / Z` with `S ← keep S + take e` and `Z ← keep Z + take` (`docs/brillm.md`, section 2).
//!
//! The host's is [`Mixer`](crate::flow::Mixer).

use super::gather::Used;
use crate::flow::Mix;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use burn::tensor::backend::Backend;

/// The running sums `S`, `[batch, d]`, and `Z`, `[1]`.
pub(super) struct Sums<B: Backend> {
    sum: Tensor<B, 2>,
    total: Tensor<B, 1>,
    /// The largest `α` so far, which all weights are relative to.
    peak: f32,
}

impl<B: Backend> Sums<B> {
    /// The sums with a signal `[batch, d]` more, that behind an edge of the paths.
    pub fn with(
        before: Option<Self>,
        used: &Used<'_, B>,
        signal: Tensor<B, 2>,
        edge: usize,
    ) -> Self {
        let old_peak = before.as_ref().map_or(f32::NEG_INFINITY, |sums| sums.peak);
        let (keep, take, peak) = match used.model.config.flow.mix {
            Mix::Absolute { .. } => {
                let weights = &used.model.parameters.mix;
                let place = edge.min(weights.len() - 1);
                let peak = old_peak.max(weights[place]);
                let keep = Tensor::full([1], (old_peak - peak).exp(), used.device);
                let take = (used.mix.clone().narrow(0, place, 1) - peak).exp();
                (keep, take, peak)
            }
            Mix::Decay { .. } => {
                let take = Tensor::ones([1], used.device);
                (sigmoid(used.mix.clone()), take, old_peak)
            }
        };
        let (sum, total) = match before {
            Some(Self { sum, total, .. }) => (
                sum * keep.clone().unsqueeze() + signal * take.clone().unsqueeze(),
                total * keep + take,
            ),
            None => (signal * take.clone().unsqueeze(), take),
        };
        Self { sum, total, peak }
    }

    /// `S / Z`, `[batch, d]`.
    pub fn read(&self) -> Tensor<B, 2> {
        self.sum.clone() / self.total.clone().unsqueeze()
    }
}

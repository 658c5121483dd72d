//! Halting prior: the Kullback–Leibler divergence of the halting distribution from a geometric distribution.
//!
//! `π_s = alive_s p_OUT,s`, with the rest after the last step as one more outcome; prior `∝ (1 − 1/n)^s` with `n` the desired
//! mean number of steps (Banino, Balaguer, Blundell 2021, equation 6, truncated).

use super::view::View;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Keeps the logarithm of a probability that has vanished finite.
const VANISHED: f64 = 1e-9;

/// The loss in nats per token; `mean_steps` of the prior is above 1.
///
/// # Shapes
/// Returns `[1]`
pub fn halting_prior<B: Backend>(view: &View<B>, mean_steps: f64) -> Tensor<B, 1> {
    let n = view.steps.len();
    let stay = 1.0 - 1.0 / mean_steps;
    let weights: Vec<f64> = (0..=n).map(|step| stay.powi(step as i32)).collect();
    let total: f64 = weights.iter().sum();
    let term = |share: Tensor<B, 1>, step: usize| {
        let share = share.clamp_min(VANISHED);
        share.clone() * (share.log() - (weights[step] / total).ln())
    };
    let leaving = view
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| term(step.survival.clone() * step.of_out(), index));
    let last = &view.steps[n - 1];
    let rest = term(last.survival.clone() * (last.of_out().neg() + 1.0), n);
    let divergence = leaving.fold(rest, |sum, term| sum + term);
    view.mean_over_tokens(divergence)
}

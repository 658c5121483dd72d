//! The competition of the rows of a group: `−ln p(truth) = ln Σ_r w_r exp(E_r) − E_truth − ln w_truth`, with the weight `w` of
//! a row before any signal flows (`docs/brillm.md`, section 2).
//!
//! The host's is `host/score.rs`, the GPU's `resident/score.rs`.

use super::gather::Used;
use crate::candidate::Group;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// Stands for the logarithm of no weight.
const ABSENT: f32 = -1e30;

/// `−ln p(truth)` of every token of a group, by its energies.
///
/// # Shapes
/// `[tokens, rows]` to `[tokens]`
pub(super) fn nats<B: Backend>(
    used: &Used<'_, B>,
    energies: Tensor<B, 2>,
    group: &Group,
) -> Tensor<B, 1> {
    let [n, r] = energies.dims();
    let mut weights: Vec<f32> = (0..n).flat_map(|_| group.weights.iter().copied()).collect();
    for &(token, row, weight) in &group.corrections {
        weights[token as usize * r + row as usize] += weight;
    }
    for weight in &mut weights {
        *weight = if *weight > 0.0 { weight.ln() } else { ABSENT };
    }
    let ln_weights = Tensor::from_data(TensorData::new(weights, [n, r]), used.device);
    let scores = energies.clone() + ln_weights;
    let peak = scores.clone().detach().max_dim(1);
    let lse = (scores - peak.clone()).exp().sum_dim(1).log() + peak;
    let truth = used.indices(group.truth.iter().map(|&row| row as usize));
    let of_truth = energies.gather(1, truth.reshape([n, 1]));
    let own = TensorData::new(group.truth_ln_weight.clone(), [n, 1]);
    (lse - of_truth - Tensor::from_data(own, used.device)).reshape([n])
}

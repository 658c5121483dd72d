//! Splits a target's energy into what every earlier signal, the edge's bias and the code added to it, in two ways: by the
//! gradient and by integrated gradients.
//!
//! The pre-activation behind an edge is a sum, `z = Σ_k A_k (e_k W) + b + code`, and the energy is `E = ‖GELU(z)‖`. Two
//! splits follow from that, both `a = ⟨part of z, γ⟩`:
//!
//! - by the gradient, `γ = O/‖O‖ ⊙ GELU'(z)`: what a small change of the part would do. The parts do not add up to the
//!   energy; `gap` says by how much.
//! - by integrated gradients (Sundararajan et al. 2017), `γ = ∫₀¹ ∂E/∂z (s z) ds`: the parts add up to
//!   `E − ‖GELU(0)‖ = E`, up to the error of the integral, which `gap` says too.

use crate::flow::add_edge;
use crate::generate::{Decoding, SignalState};
use crate::model::BriLlm;
use crate::ops::host::numeric::{LANES, add_lanes, gelu, vector_matrix, vectorised};

/// The parts of a target's energy, by two ways to split it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// The target.
    pub target: u32,
    /// Its energy.
    pub energy: f64,
    /// The split by the gradient.
    pub gradient: Split,
    /// The split by integrated gradients.
    pub integrated: Split,
}

/// One way to split an energy.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What the signal that arrived at each position added, from position 0 on.
    pub positions: Vec<f64>,
    /// What the bias of the edge added.
    pub bias: f64,
    /// What the code of the position added, and the bias of the node where nodes add one.
    pub code: f64,
    /// The energy minus all of these.
    pub gap: f64,
}

/// A signal behind an edge, with the parts it was made of.
pub struct ArrivedSignal {
    /// `[W; b]`.
    row: Vec<f32>,
    /// What is added besides the edge's own bias, `[d]`.
    code: Vec<f32>,
    /// `[d]`.
    z: Vec<f32>,
}

impl ArrivedSignal {
    /// The signal that arrives at a target.
    pub fn new(model: &BriLlm, decoding: Decoding, state: &SignalState, target: u32) -> Self {
        let d = model.config.d_node;
        let row = model.graph.row(state.token, target);
        let row = model.parameters.edge(row, d).to_vec();
        let code = state.code(model, decoding, target);
        let mut z = code.clone();
        vectorised!(add_edge(&state.mixed, &row, &mut z));
        Self { row, code, z }
    }

    /// `‖GELU(z)‖`.
    pub fn energy(&self) -> f64 {
        self.direction(1.0).1
    }

    /// `GELU'(z)`, `[d]`.
    pub fn slopes(&self) -> Vec<f32> {
        self.z.iter().map(|&z| gelu(z).1).collect()
    }

    /// `∂E/∂z` and `E` at `s z`.
    fn direction(&self, s: f32) -> (Vec<f64>, f64) {
        let (signal, slope): (Vec<f32>, Vec<f32>) = self.z.iter().map(|z| gelu(s * z)).unzip();
        let square: f64 = signal.iter().map(|&value| f64::from(value).powi(2)).sum();
        let energy = square.sqrt();
        // The gradient of a length of zero is zero.
        let inverse = if energy > 0.0 { 1.0 / energy } else { 0.0 };
        let places = signal.into_iter().zip(slope);
        let direction = places.map(|(value, slope)| f64::from(value) * inverse * f64::from(slope));
        (direction.collect(), energy)
    }

    /// The mean of `∂E/∂z` along the straight way from 0 to `z`, by the midpoint rule.
    fn mean_direction(&self) -> Vec<f64> {
        let longest = self.z.iter().fold(0.0, |longest, z| z.abs().max(longest));
        let n = steps(longest);
        let mut mean = vec![0.0; self.z.len()];
        for step in 0..n {
            let at = (step as f32 + 0.5) / n as f32;
            let (direction, _) = self.direction(at);
            mean.iter_mut()
                .zip(direction)
                .for_each(|(mean, value)| *mean += value / n as f64);
        }
        mean
    }

    /// Both splits. `signals` arrived at the positions, and have the weights `shares` in the mix.
    pub fn attribution(&self, target: u32, signals: &[Vec<f32>], shares: &[f64]) -> Attribution {
        let (direction, energy) = self.direction(1.0);
        Attribution {
            target,
            energy,
            gradient: self.split(&direction, energy, signals, shares),
            integrated: self.split(&self.mean_direction(), energy, signals, shares),
        }
    }

    fn split(&self, direction: &[f64], energy: f64, signals: &[Vec<f32>], shares: &[f64]) -> Split {
        let d = direction.len();
        let along: Vec<f32> = direction.iter().map(|&value| value as f32).collect();
        // ⟨e W, γ⟩ = ⟨e, W γ⟩: the matrix is used once for all signals.
        let mut lanes = vec![0.0; d * LANES];
        let mut back = vec![0.0; d];
        vectorised!({
            vector_matrix(&along, &self.row[..d * d], &mut lanes);
            add_lanes(&lanes, &mut back);
        });
        let positions: Vec<f64> = signals
            .iter()
            .zip(shares)
            .map(|(signal, share)| share * inner(signal, &back))
            .collect();
        let bias = inner(&self.row[d * d..], &along);
        let code = inner(&self.code, &along);
        let gap = energy - positions.iter().sum::<f64>() - bias - code;
        Split {
            positions,
            bias,
            code,
            gap,
        }
    }
}

/// GELU bends within a few units of zero; a longer way needs more steps to see it.
fn steps(longest: f32) -> usize {
    ((8.0 * longest).ceil() as usize).clamp(32, 4096)
}

fn inner(a: &[f32], b: &[f32]) -> f64 {
    let places = a.iter().zip(b);
    places.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

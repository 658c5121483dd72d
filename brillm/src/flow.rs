//! The signal flow: the first signal, a hop over an edge, and the mix of past signals.
//!
//! The mix is a running sum, `h = S / Z`, so that the state and the time per token do not grow with the context
//! (`docs/brillm.md`, section 2).

use crate::ops::host::numeric::{add, gelu, matrix_vector};
use crate::position::{self, Encoding};
use serde::Deserialize;

/// What decides the way of a signal. In most fields the paper and its code differ (`docs/brillm.md`, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowConfig {
    /// How a signal begins (D2, D3).
    pub first: First,
    /// What travels along an edge (D1).
    pub hop: Hop,
    /// How much each past signal counts.
    pub mix: Mix,
    /// What a position adds (D5).
    pub encoding: Encoding,
    /// The position whose code the first hop adds: 1 in the code's training, 0 in the paper (D6).
    pub first_hop: usize,
    /// What is added to a signal that arrives, besides the code (D3, D4).
    pub bias: Bias,
}

/// What is added to a signal that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// A bias of the edge (the code).
    Edge,
    /// The bias of the node that is reached (the paper); targets that share a row differ by it.
    Node,
    /// Both.
    EdgeAndNode,
    /// Nothing.
    None,
}

impl Bias {
    /// Whether edges have biases; if not, the last line of every row stays zero.
    pub fn of_edge(self) -> bool {
        matches!(self, Self::Edge | Self::EdgeAndNode)
    }

    /// Whether the node that is reached adds its bias.
    pub fn of_node(self) -> bool {
        matches!(self, Self::Node | Self::EdgeAndNode)
    }
}

/// How a signal begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum First {
    /// `GELU(1/d + bias of the first token + code of position 0)` (the reference).
    NodeBias,
    /// `1/d` in every component (the release of March 2025).
    Even,
    /// 1 in every component (the paper).
    Ones,
}

/// What travels along an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hop {
    /// The mix of all signals so far (the code).
    Mixed,
    /// The last signal alone; the mix is made for the prediction only (the paper).
    Previous,
}

/// How much each past signal counts.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mix {
    /// `softmax(α)` over the signals so far, with one `α` per place in the sequence (the reference); the last one holds
    /// for all places beyond.
    Absolute {
        /// How many `α` there are.
        max_length: usize,
    },
    /// Every step multiplies the weight of all earlier signals by one learnt factor below 1.
    Decay {
        /// The factor at first.
        initial: f64,
    },
}

impl Mix {
    /// The initial parameters.
    pub fn initial(self) -> Vec<f32> {
        match self {
            Self::Absolute { max_length } => vec![1.0; max_length],
            Self::Decay { initial } => vec![(initial / (1.0 - initial)).ln() as f32],
        }
    }
}

/// Coefficients of a step of the running sum: `S ← keep S + take e`, and the same for `Z`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Factor of the old sum.
    pub keep: f64,
    /// Weight of the new signal.
    pub take: f64,
}

/// A running mix of signals.
///
/// Sums are f64: at a million tokens a signal is a millionth of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixer {
    mix: Mix,
    /// `S`.
    pub sum: Vec<f64>,
    /// `Z`.
    pub total: f64,
    /// The largest `α` so far, which all weights are relative to.
    peak: f64,
    /// How many signals were added.
    pub count: usize,
}

impl Mixer {
    /// An empty mix of signals of a width.
    pub fn new(mix: Mix, width: usize) -> Self {
        Self {
            mix,
            sum: vec![0.0; width],
            total: 0.0,
            peak: f64::NEG_INFINITY,
            count: 0,
        }
    }

    /// Adds a signal; `weights` are the parameters of the mix.
    pub fn add(&mut self, weights: &[f32], signal: &[f32]) -> Coefficients {
        let step = match self.mix {
            Mix::Absolute { .. } => {
                let weight = f64::from(weights[self.count.min(weights.len() - 1)]);
                let peak = self.peak.max(weight);
                let keep = (self.peak - peak).exp();
                self.peak = peak;
                Coefficients {
                    keep,
                    take: (weight - peak).exp(),
                }
            }
            Mix::Decay { .. } => {
                let keep = 1.0 / (1.0 + (-f64::from(weights[0])).exp());
                Coefficients { keep, take: 1.0 }
            }
        };
        for (sum, &value) in self.sum.iter_mut().zip(signal) {
            *sum = *sum * step.keep + step.take * f64::from(value);
        }
        self.total = self.total * step.keep + step.take;
        self.count += 1;
        step
    }

    /// `h = S / Z`; NaN if no signal was added.
    pub fn read(&self, into: &mut [f32]) {
        for (value, sum) in into.iter_mut().zip(&self.sum) {
            *value = (sum / self.total) as f32;
        }
    }
}

impl FlowConfig {
    /// The signal at the first token, and the derivative by its node's bias; `codes` are the learnt ones.
    pub fn first_signal(&self, node_bias: &[f32], codes: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let width = node_bias.len();
        let even = 1.0 / width as f32;
        match self.first {
            First::Even => (vec![even; width], vec![0.0; width]),
            First::Ones => (vec![1.0; width], vec![0.0; width]),
            First::NodeBias => {
                let mut z: Vec<f32> = node_bias.iter().map(|bias| even + bias).collect();
                position::add(self.encoding, codes, 0, &mut z);
                z.into_iter().map(gelu).unzip()
            }
        }
    }
}

/// `z += h W + b`, of one row `[W; b]`.
#[inline(always)]
pub fn add_edge(signal: &[f32], row: &[f32], z: &mut [f32]) {
    let width = signal.len();
    add(z, &row[width * width..]);
    matrix_vector(signal, row, z);
}

/// The input of GELU behind an edge, `z = code + node bias + h W + b`; `node_bias` is empty where nodes add none.
#[inline(always)]
pub fn lead(signal: &[f32], row: &[f32], code: &[f32], node_bias: &[f32], z: &mut [f32]) {
    z.copy_from_slice(code);
    add(z, node_bias);
    add_edge(signal, row, z);
}

/// `GELU(h W + b + code)` and its slope, of one row `[W; b]`; `z` holds the code and is overwritten by the signal.
#[inline(always)]
pub fn arrive(signal: &[f32], row: &[f32], z: &mut [f32], slope: &mut [f32]) {
    add_edge(signal, row, z);
    for (z, slope) in z.iter_mut().zip(slope) {
        (*z, *slope) = gelu(*z);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(step: usize) -> Vec<f32> {
        (0..4)
            .map(|k| ((step * 4 + k) as f32 * 0.37).sin())
            .collect()
    }

    #[test]
    fn running_sums_are_the_softmax_over_the_past() {
        // Rising, falling and huge weights: a softmax must not overflow.
        for weight in [
            |i: usize| i as f32 * 0.1,
            |i| -(i as f32),
            |i| ((i * i) as f32).sin() * 300.0,
        ] {
            let weights: Vec<f32> = (0..512).map(weight).collect();
            let mut mixer = Mixer::new(Mix::Absolute { max_length: 512 }, 4);
            for step in 0..512 {
                mixer.add(&weights, &signal(step));
                let past = &weights[..=step];
                let peak = past.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let shares: Vec<f64> = past.iter().map(|w| f64::from(w - peak).exp()).collect();
                let total: f64 = shares.iter().sum();
                let mut read = [0.0; 4];
                mixer.read(&mut read);
                for (k, value) in read.iter().enumerate() {
                    let direct: f64 = (0..=step)
                        .map(|i| shares[i] * f64::from(signal(i)[k]))
                        .sum();
                    assert!((f64::from(*value) - direct / total).abs() < 1e-5, "{step}");
                }
            }
        }
    }

    #[test]
    fn decay_is_a_geometric_mean_of_the_past() {
        let mix = Mix::Decay { initial: 0.8 };
        let mut mixer = Mixer::new(mix, 4);
        let (mut sum, mut total) = (0.0, 0.0);
        for step in 0..100 {
            mixer.add(&mix.initial(), &signal(step));
            sum = sum * 0.8 + f64::from(signal(step)[0]);
            total = total * 0.8 + 1.0;
        }
        let mut read = [0.0; 4];
        mixer.read(&mut read);
        assert!((f64::from(read[0]) - sum / total).abs() < 1e-6);
    }
}

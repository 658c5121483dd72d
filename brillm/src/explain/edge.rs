//! Analysis of one edge: its size, its dead outputs, and putting other values in its place.

use super::attribution::ArrivedSignal;
use crate::generate::{Decoding, SignalState};
use crate::model::BriLlm;

/// An output whose GELU has a slope below this, upwards or downwards, learns nothing.
pub const DEAD: f32 = 1e-3;

/// How large the values of a row `[W; b]` are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeSize {
    /// Root of the sum of the squares of `W`.
    pub frobenius: f64,
    /// The most that `W` can lengthen a signal: its largest singular value.
    pub spectral: f64,
    /// Length of `b`.
    pub bias: f64,
}

impl EdgeSize {
    /// The size of a row.
    pub fn of(model: &BriLlm, row: usize) -> Self {
        let d = model.config.d_node;
        let row = model.parameters.edge(row, d).to_vec();
        let row: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        let (matrix, bias) = row.split_at(d * d);
        Self {
            frobenius: length(matrix),
            spectral: spectral(matrix, d),
            bias: length(bias),
        }
    }
}

fn length(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Power iteration on `W Wᵀ`.
fn spectral(matrix: &[f64], d: usize) -> f64 {
    // Nothing that a matrix would be orthogonal to by its form.
    let mut signal: Vec<f64> = (0..d).map(|k| 1.0 + (k as f64 + 1.0).sin()).collect();
    let mut largest = 0.0;
    for _ in 0..300 {
        let scale = length(&signal);
        if scale == 0.0 {
            return 0.0;
        }
        signal.iter_mut().for_each(|value| *value /= scale);
        let mut behind = vec![0.0; d];
        for (value, row) in signal.iter().zip(matrix.chunks_exact(d)) {
            behind
                .iter_mut()
                .zip(row)
                .for_each(|(sum, weight)| *sum += value * weight);
        }
        let before = std::mem::replace(&mut largest, length(&behind));
        if (largest - before).abs() <= 1e-12 * largest {
            break;
        }
        let back = |row: &[f64]| row.iter().zip(&behind).map(|(a, b)| a * b).sum();
        signal = matrix.chunks_exact(d).map(back).collect();
    }
    largest
}

/// How many outputs behind an edge were dead, over the signals that reached its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadOutputs {
    /// Signals that reached the edge's source.
    pub signals: u64,
    /// Outputs of all of them.
    pub outputs: u64,
    /// How many of those were dead.
    pub dead: u64,
}

impl DeadOutputs {
    /// Walks a sequence, and counts the edge's outputs wherever its source is reached.
    pub fn add(&mut self, model: &BriLlm, decoding: Decoding, tokens: &[u32], pair: (u32, u32)) {
        let (source, target) = pair;
        let Some((&first, rest)) = tokens.split_first() else {
            return;
        };
        let mut state = SignalState::start(model, first);
        let mut rest = rest.iter();
        loop {
            if state.token == source {
                let slopes = ArrivedSignal::new(model, decoding, &state, target).slopes();
                self.signals += 1;
                self.outputs += slopes.len() as u64;
                self.dead += slopes.iter().filter(|slope| slope.abs() < DEAD).count() as u64;
            }
            let Some(&next) = rest.next() else { break };
            state.advance(model, decoding, next);
        }
    }

    /// The share of dead outputs; `None` if no signal reached the source.
    pub fn share(&self) -> Option<f64> {
        (self.outputs > 0).then(|| self.dead as f64 / self.outputs as f64)
    }
}

/// What an edge is replaced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// A matrix and a bias of zeros: no signal passes, and only the code arrives.
    Zero,
    /// The row the pair would use if it had no edge of its own.
    BackOff,
    /// The row that another pair uses.
    Edge(u32, u32),
}

/// Replaces a pair's own edge, in memory; returns its row and its old values. If the pair has no edge of its own, nothing
/// changes, because others share its row, and the result is `None`.
pub fn replace(
    model: &mut BriLlm,
    (source, target): (u32, u32),
    by: Replacement,
) -> Option<(usize, Vec<f32>)> {
    let d = model.config.d_node;
    let row = model.graph.own_row(source, target)?;
    let values = |row: usize| model.parameters.edge(row, d).to_vec();
    let new = match by {
        Replacement::Zero => vec![0.0; model.config.row_len()],
        Replacement::BackOff => values(model.graph.back_off_row(source, target)),
        Replacement::Edge(source, target) => values(model.graph.row(source, target)),
    };
    let old = values(row);
    write_row(model, row, &new);
    Some((row, old))
}

/// Overwrites a row with values `[d + 1, d]`.
pub fn write_row(model: &mut BriLlm, row: usize, values: &[f32]) {
    let row_len = model.config.row_len();
    model.parameters.edges.set(row * row_len, values);
}

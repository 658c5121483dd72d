//! `Trail`, the forward pass along one sequence's true path, which gives the mix at every position; and its backward pass, to
//! the gradients of the mix's parameters, of the first signal and behind every edge.

use super::numeric::{LANES, add, add_lanes, vector_matrix};
use super::walked::Walked;
use crate::candidate::Paths;
use crate::flow::{Coefficients, Hop, Mix, Mixer, arrive};
use crate::model::BriLlm;
use crate::shard::{Message, Said};

/// The forward pass of one sequence; lists of signals are `[edges, d]`.
pub struct Trail {
    /// The row of every edge.
    pub rows: Vec<usize>,
    /// The mix from which each position predicts.
    pub mixed: Vec<f32>,
    /// The signal behind each edge.
    arrived: Vec<f32>,
    slope: Vec<f32>,
    first_slope: Vec<f32>,
    /// `Z` of every mix, and the coefficients of the step that follows it.
    totals: Vec<f64>,
    coefficients: Vec<Coefficients>,
}

/// Gradients of what is not in the table.
pub struct TrailGradients {
    /// Gradients of the mix's parameters.
    pub mix: Vec<f64>,
    /// Gradient of the first node's bias and of the code of position 0, `[d]`.
    pub first: Vec<f32>,
    /// Gradient `δ` behind every edge, from later signals, `[edges, d]`.
    pub hops: Vec<f32>,
}

impl TrailGradients {
    /// Those of a sequence that another process walked, from what that one says of them.
    pub fn told(said: &mut Said) -> Self {
        Self {
            mix: said.take(),
            first: said.take(),
            hops: said.take(),
        }
    }

    /// The inverse of [`Self::told`].
    pub fn tell(&self, to: &mut Message) {
        to.put(&self.mix);
        to.put(&self.first);
        to.put(&self.hops);
    }
}

impl Trail {
    /// Forward pass: walks the edges of one row of the paths.
    pub fn walk(
        model: &BriLlm,
        edges: &Walked,
        codes: &[f32],
        paths: &Paths<'_>,
        row: usize,
    ) -> Self {
        let BriLlm {
            config, parameters, ..
        } = model;
        let d = config.d_node;
        let length = paths.length(row);
        let begin = row * paths.seq;
        let mut trail = Self {
            rows: Vec::with_capacity(length),
            mixed: vec![0.0; length * d],
            arrived: vec![0.0; length * d],
            slope: vec![0.0; length * d],
            first_slope: Vec::new(),
            totals: Vec::with_capacity(length),
            coefficients: Vec::with_capacity(length),
        };
        let mut mixer = Mixer::new(config.flow.mix, d);
        let mut scratch = Vec::new();
        for edge in 0..length {
            let source = paths.sources[begin + edge];
            let here = edge * d..(edge + 1) * d;
            match edge {
                0 => {
                    let (signal, slope) = config
                        .flow
                        .first_signal(parameters.node_bias_of(source, d), &parameters.codes);
                    trail.mixed[..d].copy_from_slice(&signal);
                    trail.first_slope = slope;
                }
                _ => mixer.read(&mut trail.mixed[here.clone()]),
            }
            trail.totals.push(mixer.total);
            let table_row = model.graph.row(source, paths.targets[begin + edge]);
            trail.rows.push(table_row);
            let (before, after) = trail.arrived.split_at_mut(here.start);
            let z = &mut after[..d];
            z.copy_from_slice(&codes[(edge + config.flow.first_hop) * d..][..d]);
            if config.flow.bias.of_node() {
                let bias = parameters.node_bias_of(paths.targets[begin + edge], d);
                add(z, bias);
            }
            let signal = match (config.flow.hop, edge) {
                (Hop::Previous, 1..) => &before[here.start - d..],
                _ => &trail.mixed[here.clone()],
            };
            let row = edges.load(parameters, table_row, d, &mut scratch);
            arrive(signal, row, z, &mut trail.slope[here]);
            trail.coefficients.push(mixer.add(&parameters.mix, z));
        }
        trail
    }

    /// The trail of a sequence that another process walked, from what that one says of it.
    pub fn told(rows: Vec<usize>, hop: Hop, said: &mut Said) -> Self {
        Self {
            rows,
            mixed: said.take(),
            arrived: match hop {
                Hop::Previous => said.take(),
                Hop::Mixed => Vec::new(),
            },
            slope: Vec::new(),
            first_slope: Vec::new(),
            totals: Vec::new(),
            coefficients: Vec::new(),
        }
    }

    /// The inverse of [`Self::told`].
    pub fn tell(&self, hop: Hop, to: &mut Message) {
        to.put(&self.mixed);
        if hop == Hop::Previous {
            to.put(&self.arrived);
        }
    }

    /// The signal that went along an edge.
    pub fn hop(&self, hop: Hop, edge: usize, d: usize) -> &[f32] {
        match (hop, edge) {
            (Hop::Previous, 1..) => &self.arrived[(edge - 1) * d..][..d],
            _ => &self.mixed[edge * d..][..d],
        }
    }

    /// Backward pass: from the gradient of the mix at every position to the gradients of everything before it.
    ///
    /// `G` and `Q` are the gradients of `S` and `Z` behind the current edge (`docs/brillm.md`, section 2, gradients).
    pub fn backward(&self, model: &BriLlm, edges: &Walked, of_mixes: &[f32]) -> TrailGradients {
        let BriLlm {
            config, parameters, ..
        } = model;
        let d = config.d_node;
        let length = self.rows.len();
        let mut gradients = TrailGradients {
            mix: vec![0.0; parameters.mix.len()],
            first: vec![0.0; d],
            hops: vec![0.0; length * d],
        };
        let mut sum_gradient = vec![0.0f64; d];
        let mut total_gradient = 0.0f64;
        // With `Hop::Previous`, what the next hop wants of the signal behind this edge.
        let mut next_hop = vec![0.0f32; d];
        let mut lanes = vec![0.0; d * LANES];
        let mut scratch = Vec::new();
        for edge in (0..length).rev() {
            let here = edge * d..(edge + 1) * d;
            let Coefficients { keep, take } = self.coefficients[edge];
            let arrived = &self.arrived[here.clone()];
            let mut of_take = total_gradient;
            let delta = &mut gradients.hops[here.clone()];
            for k in 0..d {
                of_take += sum_gradient[k] * f64::from(arrived[k]);
                let of_arrived = take * sum_gradient[k] + f64::from(next_hop[k]);
                delta[k] = of_arrived as f32 * self.slope[here.start + k];
            }
            lanes.fill(0.0);
            let row = edges.load(parameters, self.rows[edge], d, &mut scratch);
            vector_matrix(delta, row, &mut lanes);
            let mut of_mix = of_mixes[here.clone()].to_vec();
            next_hop.fill(0.0);
            match (config.flow.hop, edge) {
                (Hop::Previous, 1..) => add_lanes(&lanes, &mut next_hop),
                _ => add_lanes(&lanes, &mut of_mix),
            }
            match config.flow.mix {
                Mix::Absolute { .. } => {
                    gradients.mix[edge.min(parameters.mix.len() - 1)] += take * of_take
                }
                Mix::Decay { .. } if edge > 0 => {
                    let total = self.totals[edge];
                    let mixed = &self.mixed[here.clone()];
                    let sums = sum_gradient
                        .iter()
                        .zip(mixed)
                        .map(|(gradient, &h)| gradient * f64::from(h) * total);
                    let of_keep = sums.sum::<f64>() + total_gradient * total;
                    gradients.mix[0] += of_keep * keep * (1.0 - keep);
                }
                Mix::Decay { .. } => {}
            }
            if edge == 0 {
                let products = of_mix
                    .iter()
                    .zip(&self.first_slope)
                    .map(|(gradient, slope)| gradient * slope);
                gradients.first = products.collect();
                break;
            }
            let total = self.totals[edge];
            let mixed = &self.mixed[here];
            total_gradient *= keep;
            for k in 0..d {
                sum_gradient[k] = sum_gradient[k] * keep + f64::from(of_mix[k]) / total;
                total_gradient -= f64::from(of_mix[k]) * f64::from(mixed[k]) / total;
            }
        }
        gradients
    }
}

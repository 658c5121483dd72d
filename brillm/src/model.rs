//! BriLLM: its sizes, its parameters, and how they begin.

use crate::candidate::{Group, Paths};
use crate::flow::FlowConfig;
use crate::graph::Graph;
use crate::kernel::pass;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A BriLLM: which edges there are, and what they do to a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct BriLlm {
    /// Sizes and rules.
    pub config: BriLlmConfig,
    /// The rows of the edge table.
    pub graph: Arc<Graph>,
    /// The values.
    pub parameters: Parameters,
}

impl BriLlm {
    /// `−ln p(truth)` per place of the paths, among the candidates of the groups; 0 where there is no edge.
    pub fn nats(&self, paths: &Paths<'_>, groups: &[Group]) -> Vec<f64> {
        pass::evaluate(&self.config, &self.graph, &self.parameters, paths, groups)
    }

    /// The number of parameters.
    pub fn n_parameters(&self) -> u64 {
        self.config
            .n_parameters(self.graph.nodes(), self.graph.rows())
    }
}

/// The sizes and the rules of a BriLLM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BriLlmConfig {
    /// Width `d` of a signal; even.
    pub d_node: usize,
    /// The way of a signal.
    pub flow: FlowConfig,
    /// How the table begins.
    pub initial: Initial,
}

/// How weights begin.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    /// Everything uniform in `±half_range` (the reference, with 0.5).
    Uniform {
        /// Largest absolute value.
        half_range: f64,
    },
}

/// All parameters, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Of the mix: the `α`, or the decay.
    pub mix: Vec<f32>,
    /// One bias per node, `[nodes, d]`.
    pub node_bias: Vec<f32>,
    /// The edge table `[rows, d + 1, d]`: a matrix `W[in, out]` and below it the bias.
    pub edges: Vec<f32>,
}

/// Gradients of what is not in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// Of the mix.
    pub mix: Vec<f64>,
    /// Of the biases of nodes that a sequence began with.
    pub node_bias: BTreeMap<u32, Vec<f32>>,
}

impl Gradients {
    pub(crate) fn square(&self) -> f64 {
        let mix: f64 = self.mix.iter().map(|value| value * value).sum();
        let node_bias = self.node_bias.values().flatten();
        mix + node_bias
            .map(|&value| f64::from(value).powi(2))
            .sum::<f64>()
    }
}

impl BriLlmConfig {
    /// Values of a row of the edge table.
    pub fn row_len(&self) -> usize {
        self.d_node * (self.d_node + 1)
    }

    /// The number of parameters over a graph with so many nodes and rows.
    pub fn n_parameters(&self, nodes: usize, rows: usize) -> u64 {
        let mix = self.flow.mix.initial().len();
        (mix + nodes * self.d_node) as u64 + rows as u64 * self.row_len() as u64
    }

    /// Fresh parameters; `uniform` gives for every stream and place a number in `[0, 1)`.
    pub fn init(
        &self,
        nodes: usize,
        rows: usize,
        uniform: &(dyn Fn(&str, u64) -> f64 + Sync),
    ) -> Parameters {
        use rayon::prelude::*;
        let Initial::Uniform { half_range } = self.initial;
        let draw = |stream: &str, place: usize| {
            ((2.0 * uniform(stream, place as u64) - 1.0) * half_range) as f32
        };
        let fill = |stream: &'static str, n: usize| -> Vec<f32> {
            (0..n)
                .into_par_iter()
                .map(|place| draw(stream, place))
                .collect()
        };
        Parameters {
            mix: self.flow.mix.initial(),
            node_bias: fill("node_bias", nodes * self.d_node),
            edges: fill("edges", rows * self.row_len()),
        }
    }
}

impl Parameters {
    /// The bias of a node, `[d]`.
    pub fn node_bias_of(&self, node: u32, d: usize) -> &[f32] {
        &self.node_bias[node as usize * d..][..d]
    }

    /// A row of the edge table, `[d + 1, d]`.
    pub fn edge(&self, row: usize, d: usize) -> &[f32] {
        &self.edges[row * d * (d + 1)..][..d * (d + 1)]
    }
}

//! The BriLLM model: its sizes and settings, its parameters and their initial values, and what a training step returns: losses
//! and gradients.

use crate::decoding::Decoding;
use crate::flow::FlowConfig;
use crate::graph::Graph;
use crate::ops::host::numeric::add;
use crate::position;
use crate::table::{Storage, Table};
use half::bf16;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A BriLLM: its sizes and rules, its graph and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct BriLlm {
    /// Sizes and rules.
    pub config: BriLlmConfig,
    /// The rows of the edge table.
    pub graph: Arc<Graph>,
    /// The parameters.
    pub parameters: Parameters,
}

impl BriLlm {
    /// How many rows, from the first, are not trained.
    pub fn frozen_rows(&self) -> usize {
        match self.config.back_off_rows {
            BackOffRows::Trained => 0,
            BackOffRows::Frozen => self.graph.back_off_rows(),
        }
    }

    /// The codes of the first positions, `[positions, d]`.
    pub fn codes(&self, positions: usize) -> Vec<f32> {
        let learnt = &self.parameters.codes;
        position::table(
            self.config.flow.encoding,
            learnt,
            positions,
            self.config.d_node,
        )
    }

    /// A row that a source uses, `[d + 1, d]`. Where a table lies in shards, all processes call it together.
    pub fn edge(&self, source: u32, row: usize) -> Cow<'_, [f32]> {
        let d = self.config.d_node;
        let here = || self.parameters.edge(self.graph.place(source, row), d);
        match self.graph.shard() {
            Some(shard) if self.graph.is_own(row) => {
                shard.of_owner(source, || here().into_owned()).into()
            }
            _ => here(),
        }
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
    /// The signal flow.
    pub flow: FlowConfig,
    /// Initial values.
    pub initial: Initial,
    /// Whether rows that pairs without an edge share are trained.
    pub back_off_rows: BackOffRows,
    /// How the edge table and its moments are stored.
    pub storage: Storage,
    /// Settings in which decoding differs from training.
    pub decoding: Decoding,
}

/// Whether rows that pairs without an edge share are trained (`docs/brillm.md`, D10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackOffRows {
    /// Like all others (the code).
    Trained,
    /// They keep their initial values (the paper).
    Frozen,
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
    /// Parameters of the mix: the `α`, or the decay.
    pub mix: Vec<f32>,
    /// One bias per node, `[nodes, d]`.
    pub node_bias: Vec<f32>,
    /// Learnt codes of positions, `[positions, d]`; empty if none are learnt.
    pub codes: Vec<f32>,
    /// The edge table `[rows, d + 1, d]`: a matrix `W[in, out]` and below it the bias.
    pub edges: Table,
}

/// The result of a training step.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// `−ln p(truth)` per place of the paths; 0 where there is no edge.
    pub nats: Vec<f64>,
    /// Length of the gradient of everything, before rows are clipped.
    pub gradient_norm: f64,
}

/// Gradients of what is not in the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// Gradients of the mix's parameters.
    pub mix: Vec<f64>,
    /// Gradients of the biases of nodes that were used.
    pub node_bias: BTreeMap<u32, Vec<f32>>,
    /// Gradients of the learnt codes of positions.
    pub codes: Vec<f32>,
}

impl Gradients {
    /// Those of nothing yet.
    pub(crate) fn zeros(parameters: &Parameters) -> Self {
        Self {
            mix: vec![0.0; parameters.mix.len()],
            node_bias: BTreeMap::new(),
            codes: vec![0.0; parameters.codes.len()],
        }
    }

    pub(crate) fn square(&self) -> f64 {
        let mix: f64 = self.mix.iter().map(|value| value * value).sum();
        let others = self.node_bias.values().flatten().chain(&self.codes);
        mix + others.map(|&value| f64::from(value).powi(2)).sum::<f64>()
    }

    /// Adds to the gradient of a node's bias.
    pub(crate) fn add_to_node(&mut self, node: u32, part: &[f32]) {
        let fresh = || vec![0.0; part.len()];
        add(self.node_bias.entry(node).or_insert_with(fresh), part);
    }

    /// Adds to the gradient of the code of a position, if codes are learnt.
    pub(crate) fn add_to_code(&mut self, position: usize, part: &[f32]) {
        if !self.codes.is_empty() {
            let place = position::place(&self.codes, position, part.len());
            add(&mut self.codes[place..], part);
        }
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
        let codes = self.flow.encoding.initial(self.d_node).len();
        let table = (rows as u64).saturating_mul(self.row_len() as u64);
        table.saturating_add((mix + codes + nodes * self.d_node) as u64)
    }

    /// Fresh parameters; `uniform` gives for every stream and place a number in `[0, 1)`.
    pub fn init(
        &self,
        nodes: usize,
        rows: usize,
        uniform: &(dyn Fn(&str, u64) -> f64 + Sync),
    ) -> Parameters {
        let rows: Vec<usize> = (0..rows).collect();
        self.init_rows(nodes, &rows, uniform)
    }

    /// The same, with some rows of the table, in this order.
    pub fn init_rows(
        &self,
        nodes: usize,
        rows: &[usize],
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
        let row_len = self.row_len();
        let weights = match self.flow.bias.of_edge() {
            true => row_len,
            false => self.d_node * self.d_node,
        };
        let value = |place: usize| match place % row_len < weights {
            true => draw("edges", place),
            false => 0.0,
        };
        let places = (0..rows.len() * row_len).into_par_iter();
        let value = |place: usize| value(rows[place / row_len] * row_len + place % row_len);
        let edges = match self.storage {
            Storage::F32 => Table::F32(places.map(value).collect()),
            Storage::Bf16 => {
                Table::Bf16(places.map(|place| bf16::from_f32(value(place))).collect())
            }
        };
        Parameters {
            node_bias: fill("node_bias", nodes * self.d_node),
            edges,
            ..self.skeleton(0, 0)
        }
    }

    /// Parameters to load into: the table and the biases of nodes are zero.
    pub fn skeleton(&self, nodes: usize, rows: usize) -> Parameters {
        Parameters {
            mix: self.flow.mix.initial(),
            node_bias: vec![0.0; nodes * self.d_node],
            codes: self.flow.encoding.initial(self.d_node),
            edges: Table::zeros(self.storage, rows * self.row_len()),
        }
    }
}

impl Parameters {
    /// The bias of a node, `[d]`.
    pub fn node_bias_of(&self, node: u32, d: usize) -> &[f32] {
        &self.node_bias[node as usize * d..][..d]
    }

    /// A row of the edge table, `[d + 1, d]`.
    pub fn edge(&self, row: usize, d: usize) -> Cow<'_, [f32]> {
        self.edges.part(row_places(row, d))
    }

    /// The same, widened into `scratch` where it is not f32.
    #[inline(always)]
    pub fn load_edge<'a>(&'a self, row: usize, d: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        self.edges.load(row_places(row, d), scratch)
    }
}

/// Where a row lies in the edge table.
pub fn row_places(row: usize, d: usize) -> Range<usize> {
    let row_len = d * (d + 1);
    row * row_len..(row + 1) * row_len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat;
    use crate::flow::{Bias, Mix};
    use crate::position::Encoding;

    fn config(bias: Bias, storage: Storage) -> BriLlmConfig {
        BriLlmConfig {
            d_node: 2,
            flow: FlowConfig {
                bias,
                mix: Mix::Absolute { max_length: 7 },
                encoding: Encoding::Learnt { max_length: 5 },
                ..compat::NATIVE
            },
            initial: Initial::Uniform { half_range: 0.5 },
            back_off_rows: BackOffRows::Trained,
            storage,
            decoding: Decoding::NATIVE,
        }
    }

    #[test]
    fn fresh_values_are_uniform_in_their_range_and_absent_biases_are_zero() {
        for (bias, of_edge) in [
            (Bias::Edge, true),
            (Bias::EdgeAndNode, true),
            (Bias::Node, false),
            (Bias::None, false),
        ] {
            for storage in [Storage::F32, Storage::Bf16] {
                let config = config(bias, storage);
                let fresh = config.init(3, 4, &|stream, place| match stream {
                    // Quarters, so that bf16 holds them.
                    "edges" => (place % 4) as f64 / 4.0,
                    _ => 0.75,
                });
                // (2 u − 1) / 2 for u = 0.75.
                assert_eq!(fresh.node_bias, [0.25; 6]);
                assert_eq!((fresh.mix, fresh.codes.len()), (vec![1.0; 7], 10));
                let expected = |place: usize| match place % 6 {
                    4 | 5 if !of_edge => 0.0,
                    _ => (place % 4) as f32 / 4.0 - 0.5,
                };
                let edges: Vec<f32> = (0..24).map(expected).collect();
                assert_eq!(fresh.edges.part(0..24).to_vec(), edges);
                assert_eq!(fresh.edges.storage(), storage);
            }
        }
    }

    #[test]
    fn parameters_are_counted_and_rows_found_where_they_lie() {
        let config = config(Bias::Edge, Storage::F32);
        // 4 rows of 2 · 3, 3 biases of 2, 5 codes of 2, 7 weights.
        assert_eq!(config.n_parameters(3, 4), 24 + 6 + 10 + 7);
        let graph = Arc::new(Graph::with_hash(3, 2, [vec![0], vec![], vec![2]]));
        let mut model = BriLlm {
            parameters: config.skeleton(3, graph.rows()),
            config,
            graph,
        };
        assert_eq!(model.n_parameters(), 24 + 6 + 10 + 7);
        assert_eq!(model.frozen_rows(), 0);
        model.config.back_off_rows = BackOffRows::Frozen;
        assert_eq!(model.frozen_rows(), 2);
        assert_eq!(row_places(3, 2), 18..24);
        let values: Vec<f32> = (0u8..24).map(f32::from).collect();
        model.parameters.edges = values.clone().into();
        model.parameters.node_bias = values;
        assert_eq!(
            *model.parameters.edge(1, 2),
            [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
        );
        assert_eq!(model.parameters.node_bias_of(2, 2), [4.0, 5.0]);
    }
}

//! `Used`: what a pass uses of the parameters, copied to a device (rows of the edge table, biases of nodes, codes of positions,
//! the mix), and the gradients of these.
//!
//! The edge table stays on the host. A pass brings the rows it uses to the device, once each, and its gradient has the
//! size of those rows, never that of the table.

use crate::candidate::{Group, Paths};
use crate::graph::Graph;
use crate::model::{BriLlm, Gradients};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use std::collections::BTreeSet;

/// The rows of the edge table that a pass uses, rising.
pub fn rows_of(graph: &Graph, paths: &Paths<'_>, groups: &[Group]) -> Vec<usize> {
    let of_groups = groups.iter().flat_map(|group| group.rows.iter().copied());
    let mut rows: BTreeSet<usize> = of_groups.collect();
    for row in 0..paths.batch() {
        let begin = row * paths.seq;
        let edges = begin..begin + paths.length(row);
        rows.extend(edges.map(|place| graph.row(paths.sources[place], paths.targets[place])));
    }
    rows.into_iter().collect()
}

/// The nodes whose biases a pass uses, rising.
fn nodes_of(model: &BriLlm, paths: &Paths<'_>, groups: &[Group]) -> Vec<u32> {
    let first = (0..paths.batch()).map(|row| paths.sources[row * paths.seq]);
    let mut nodes: BTreeSet<u32> = first.collect();
    if model.config.flow.bias.of_node() {
        nodes.extend(paths.targets);
        nodes.extend(groups.iter().flat_map(|group| &group.nodes));
    }
    nodes.into_iter().collect()
}

/// The parameters that a pass over a batch uses.
pub(super) struct Used<'a, B: Backend> {
    pub model: &'a BriLlm,
    pub paths: &'a Paths<'a>,
    pub device: &'a B::Device,
    /// Their numbers in the table, rising.
    pub rows: Vec<usize>,
    nodes: Vec<u32>,
    /// `[rows, d + 1, d]`
    pub edges: Tensor<B, 3>,
    /// `[weights]`
    pub mix: Tensor<B, 1>,
    /// `[nodes, d]`
    node_bias: Tensor<B, 2>,
    /// The codes of the positions of the paths and one more, `[positions, d]`.
    pub codes: Tensor<B, 2>,
}

impl<'a, B: Backend> Used<'a, B> {
    pub fn new(
        model: &'a BriLlm,
        paths: &'a Paths<'a>,
        groups: &[Group],
        device: &'a B::Device,
    ) -> Self {
        let (d, flow) = (model.config.d_node, model.config.flow);
        let parameters = &model.parameters;
        let rows = rows_of(&model.graph, paths, groups);
        let nodes = nodes_of(model, paths, groups);
        let edges = rows.iter().map(|&row| parameters.edge(row, d).into_owned());
        let edges = TensorData::new(edges.flatten().collect(), [rows.len(), d + 1, d]);
        let node_bias = nodes.iter().map(|&node| parameters.node_bias_of(node, d));
        let node_bias: Vec<f32> = node_bias.flatten().copied().collect();
        let positions = paths.seq + flow.first_hop.max(1);
        let codes = TensorData::new(model.codes(positions), [positions, d]);
        Self {
            edges: Tensor::from_data(edges, device),
            mix: Tensor::from_data(&parameters.mix[..], device),
            node_bias: Tensor::from_data(TensorData::new(node_bias, [nodes.len(), d]), device),
            codes: Tensor::from_data(codes, device),
            model,
            paths,
            device,
            rows,
            nodes,
        }
    }

    /// Integers on the device.
    pub fn indices(&self, indices: impl Iterator<Item = usize>) -> Tensor<B, 1, Int> {
        let indices: Vec<i32> = indices.map(|index| index as i32).collect();
        Tensor::from_data(&indices[..], self.device)
    }

    /// Where a row of the table is among those of [`Self::edges`].
    pub fn place_of_row(&self, row: usize) -> usize {
        let place = self.rows.binary_search(&row);
        place.expect("every row that is used was gathered")
    }

    /// Biases of nodes, `[nodes, d]`.
    pub fn node_biases(&self, nodes: impl Iterator<Item = u32>) -> Tensor<B, 2> {
        let place = |node: u32| {
            let place = self.nodes.binary_search(&node);
            place.expect("every node that is used was gathered")
        };
        let places = self.indices(nodes.map(place));
        self.node_bias.clone().select(0, places)
    }
}

impl<B: AutodiffBackend> Used<'_, B> {
    /// The same, with gradients.
    pub fn tracked(self) -> Self {
        Self {
            edges: self.edges.require_grad(),
            mix: self.mix.require_grad(),
            node_bias: self.node_bias.require_grad(),
            codes: self.codes.require_grad(),
            ..self
        }
    }

    /// The gradients of the rows, `[rows][d + 1][d]`, and of the rest.
    pub fn gradients(&self, of_all: &B::Gradients) -> (Vec<f32>, Gradients) {
        fn flat<B: AutodiffBackend, const D: usize>(
            tensor: &Tensor<B, D>,
            of_all: &B::Gradients,
        ) -> Vec<f32> {
            match tensor.grad(of_all) {
                Some(gradient) => gradient.into_data().iter().collect(),
                None => vec![0.0; tensor.shape().num_elements()],
            }
        }
        let (d, parameters) = (self.model.config.d_node, &self.model.parameters);
        let node_bias = flat(&self.node_bias, of_all);
        let of_nodes = node_bias.chunks_exact(d).map(<[f32]>::to_vec);
        let mix = flat(&self.mix, of_all).into_iter().map(f64::from);
        let mut gradients = Gradients {
            mix: mix.collect(),
            node_bias: self.nodes.iter().copied().zip(of_nodes).collect(),
            codes: vec![0.0; parameters.codes.len()],
        };
        let codes = flat(&self.codes, of_all);
        for (position, part) in codes.chunks_exact(d).enumerate() {
            gradients.add_to_code(position, part);
        }
        (flat(&self.edges, of_all), gradients)
    }
}

//! The passes composed of tensor operations, on any backend: the definition that [`crate::kernel`] has to equal.
//!
//! The edge table stays on the host. A pass brings the rows it uses to the device, once each, and its gradient has the
//! size of those rows, never that of the table.

use crate::candidate::{Group, Paths};
use crate::flow::{First, Hop, Mix};
use crate::graph::Graph;
use crate::model::{BriLlm, BriLlmConfig, Gradients};
use crate::position;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use std::collections::BTreeSet;

/// The rows of the edge table that a pass uses, rising.
pub fn rows_of(graph: &Graph, paths: &Paths<'_>, groups: &[Group]) -> Vec<usize> {
    let mut rows: BTreeSet<usize> = groups
        .iter()
        .flat_map(|group| group.rows.iter().copied())
        .collect();
    for row in 0..paths.batch() {
        let begin = row * paths.seq;
        let edges = begin..begin + paths.length(row);
        rows.extend(edges.map(|place| graph.row(paths.sources[place], paths.targets[place])));
    }
    rows.into_iter().collect()
}

/// Parameters on a device, as far as a pass uses them.
struct Gathered<B: Backend> {
    /// `[rows, d + 1, d]`
    edges: Tensor<B, 3>,
    /// `[weights]`
    mix: Tensor<B, 1>,
    /// Biases of the nodes of [`nodes_of`], `[nodes, d]`.
    node_bias: Tensor<B, 2>,
    /// The codes of the positions of the paths and one more, `[positions, d]`.
    codes: Tensor<B, 2>,
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

/// The positions whose codes a pass uses, from 0.
fn positions(model: &BriLlm, paths: &Paths<'_>) -> usize {
    paths.seq + model.config.flow.first_hop.max(1)
}

impl<B: Backend> Gathered<B> {
    fn new(
        model: &BriLlm,
        paths: &Paths<'_>,
        (rows, nodes): (&[usize], &[u32]),
        device: &B::Device,
    ) -> Self {
        let d = model.config.d_node;
        let parameters = &model.parameters;
        let edges: Vec<f32> = rows
            .iter()
            .flat_map(|&row| parameters.edge(row, d).into_owned())
            .collect();
        let node_bias = nodes
            .iter()
            .flat_map(|&node| parameters.node_bias_of(node, d));
        let node_bias: Vec<f32> = node_bias.copied().collect();
        let mix = parameters.mix.clone();
        let positions = positions(model, paths);
        let encoding = model.config.flow.encoding;
        let codes = position::table(encoding, &parameters.codes, positions, d);
        Self {
            edges: Tensor::from_data(TensorData::new(edges, [rows.len(), d + 1, d]), device),
            mix: Tensor::from_data(TensorData::new(mix, [parameters.mix.len()]), device),
            node_bias: Tensor::from_data(TensorData::new(node_bias, [nodes.len(), d]), device),
            codes: Tensor::from_data(TensorData::new(codes, [positions, d]), device),
        }
    }
}

/// `−ln p(truth)` of every token of every group, in their order.
///
/// # Shapes
/// Returns `[edges]`, the edges of all groups
pub fn token_losses<B: Backend>(
    model: &BriLlm,
    paths: &Paths<'_>,
    groups: &[Group],
    device: &B::Device,
) -> Tensor<B, 1> {
    let rows = rows_of(&model.graph, paths, groups);
    let nodes = nodes_of(model, paths, groups);
    let gathered = Gathered::<B>::new(model, paths, (&rows, &nodes), device);
    ComposedPass {
        model,
        paths,
        rows: &rows,
        nodes: &nodes,
        device,
    }
    .token_losses(&gathered, groups)
}

/// `−ln p(truth)` of every token, and the gradient of its mean: for the rows of [`rows_of`], `[rows][d + 1][d]`, and the rest.
pub fn gradients<B: AutodiffBackend>(
    model: &BriLlm,
    paths: &Paths<'_>,
    groups: &[Group],
    device: &B::Device,
) -> (Vec<f64>, Vec<f32>, Gradients) {
    let d = model.config.d_node;
    let rows = rows_of(&model.graph, paths, groups);
    let nodes = nodes_of(model, paths, groups);
    let Gathered {
        edges,
        mix,
        node_bias,
        codes,
    } = Gathered::<B>::new(model, paths, (&rows, &nodes), device);
    let gathered = Gathered {
        edges: edges.require_grad(),
        mix: mix.require_grad(),
        node_bias: node_bias.require_grad(),
        codes: codes.require_grad(),
    };
    let nats = ComposedPass {
        model,
        paths,
        rows: &rows,
        nodes: &nodes,
        device,
    }
    .token_losses(&gathered, groups);
    let on_host: Vec<f64> = nats.clone().into_data().iter().collect();
    let of_all = nats.mean().backward();
    let flat = |data: Option<TensorData>, n: usize| match data {
        Some(data) => data.iter::<f32>().collect(),
        None => vec![0.0; n],
    };
    let edges = flat(
        gathered.edges.grad(&of_all).map(Tensor::into_data),
        rows.len() * d * (d + 1),
    );
    let mix = flat(
        gathered.mix.grad(&of_all).map(Tensor::into_data),
        model.parameters.mix.len(),
    );
    let node_bias = flat(
        gathered.node_bias.grad(&of_all).map(Tensor::into_data),
        nodes.len() * d,
    );
    let of_nodes = node_bias.chunks_exact(d).map(<[f32]>::to_vec);
    let codes = flat(
        gathered.codes.grad(&of_all).map(Tensor::into_data),
        positions(model, paths) * d,
    );
    let mut gradients = Gradients {
        mix: mix.into_iter().map(f64::from).collect(),
        node_bias: nodes.into_iter().zip(of_nodes).collect(),
        codes: vec![0.0; model.parameters.codes.len()],
    };
    for (position, part) in codes.chunks_exact(d).enumerate() {
        gradients.add_to_code(position, part);
    }
    (on_host, edges, gradients)
}

/// `z Φ(z)`. Burn's own activation has the derivative of another function, the approximation by tanh: gradients would be
/// off by some 1e-4 of the largest.
fn gelu<B: Backend, const D: usize>(z: Tensor<B, D>) -> Tensor<B, D> {
    z.clone() * ((z * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5
}

/// One pass over a batch.
struct ComposedPass<'a, B: Backend> {
    model: &'a BriLlm,
    paths: &'a Paths<'a>,
    rows: &'a [usize],
    nodes: &'a [u32],
    device: &'a B::Device,
}

impl<B: Backend> ComposedPass<'_, B> {
    fn config(&self) -> &BriLlmConfig {
        &self.model.config
    }

    fn indices(&self, indices: impl Iterator<Item = usize>) -> Tensor<B, 1, Int> {
        let indices: Vec<i32> = indices.map(|index| index as i32).collect();
        let n = indices.len();
        Tensor::from_data(TensorData::new(indices, [n]), self.device)
    }

    fn local(&self, row: usize) -> usize {
        self.rows
            .binary_search(&row)
            .expect("every row that is used was gathered")
    }

    fn token_losses(&self, parameters: &Gathered<B>, groups: &[Group]) -> Tensor<B, 1> {
        let mixed = self.mixed(parameters);
        let of_group = |group: &Group| self.nats_of(parameters, mixed.clone(), group);
        Tensor::cat(groups.iter().map(of_group).collect(), 0)
    }

    /// Biases of nodes, `[nodes, d]`.
    fn node_bias(
        &self,
        parameters: &Gathered<B>,
        nodes: impl Iterator<Item = u32>,
    ) -> Tensor<B, 2> {
        let local = |node: u32| {
            let place = self.nodes.binary_search(&node);
            place.expect("every node that is used was gathered")
        };
        let places = self.indices(nodes.map(local));
        parameters.node_bias.clone().select(0, places)
    }

    /// The mix at every place, `[batch * seq, d]`.
    fn mixed(&self, parameters: &Gathered<B>) -> Tensor<B, 2> {
        let d = self.config().d_node;
        let flow = self.config().flow;
        let (batch, seq) = (self.paths.batch(), self.paths.seq);
        let even = 1.0 / d as f32;
        let mut mixed: Tensor<B, 2> = match flow.first {
            First::Even => Tensor::full([batch, d], even, self.device),
            First::Ones => Tensor::ones([batch, d], self.device),
            First::NodeBias => {
                let first = (0..batch).map(|path| self.paths.sources[path * seq]);
                let bias = self.node_bias(parameters, first);
                gelu(bias + even + parameters.codes.clone().narrow(0, 0, 1))
            }
        };
        let mut arrived: Option<Tensor<B, 2>> = None;
        let mut sums: Option<(Tensor<B, 2>, Tensor<B, 1>)> = None;
        let weights: Vec<f32> = self.model.parameters.mix.clone();
        let mut peak = f32::NEG_INFINITY;
        let mut all = Vec::with_capacity(seq);
        for edge in 0..seq {
            all.push(mixed.clone().unsqueeze_dim::<3>(1));
            let row = |path: usize| {
                let place = path * seq + edge;
                // Behind the last edge any row will do: nothing is predicted from there.
                let there = edge < self.paths.length(path);
                let row = || {
                    self.model
                        .graph
                        .row(self.paths.sources[place], self.paths.targets[place])
                };
                if there { self.local(row()) } else { 0 }
            };
            let rows = parameters
                .edges
                .clone()
                .select(0, self.indices((0..batch).map(row)));
            let matrix = rows.clone().slice([0..batch, 0..d, 0..d]);
            let bias = rows.slice([0..batch, d..d + 1, 0..d]).squeeze_dim::<2>(1);
            let signal = match (flow.hop, arrived) {
                (Hop::Previous, Some(arrived)) => arrived,
                _ => mixed,
            };
            let z = signal
                .unsqueeze_dim::<3>(1)
                .matmul(matrix)
                .squeeze_dim::<2>(1);
            let code = parameters.codes.clone();
            let mut z = z + bias + code.narrow(0, edge + flow.first_hop, 1);
            if flow.bias.of_node() {
                let reached = (0..batch).map(|path| self.paths.targets[path * seq + edge]);
                z = z + self.node_bias(parameters, reached);
            }
            let signal = gelu(z);
            let (keep, take) = match flow.mix {
                Mix::Absolute { .. } => {
                    let place = edge.min(weights.len() - 1);
                    let new_peak = peak.max(weights[place]);
                    let keep = Tensor::full([1], (peak - new_peak).exp(), self.device);
                    peak = new_peak;
                    (
                        keep,
                        (parameters.mix.clone().narrow(0, place, 1) - peak).exp(),
                    )
                }
                Mix::Decay { .. } => {
                    let keep = burn::tensor::activation::sigmoid(parameters.mix.clone());
                    (keep, Tensor::ones([1], self.device))
                }
            };
            let (sum, total) = match sums {
                Some((sum, total)) => (
                    sum * keep.clone().unsqueeze() + signal.clone() * take.clone().unsqueeze(),
                    total * keep + take,
                ),
                None => (signal.clone() * take.clone().unsqueeze(), take),
            };
            mixed = sum.clone() / total.clone().unsqueeze();
            sums = Some((sum, total));
            arrived = Some(signal);
        }
        Tensor::cat(all, 1).reshape([batch * seq, d])
    }

    fn nats_of(
        &self,
        parameters: &Gathered<B>,
        mixed: Tensor<B, 2>,
        group: &Group,
    ) -> Tensor<B, 1> {
        let (n, r) = (group.places.len(), group.rows.len());
        let energies = self.energies(parameters, mixed, group);
        let mut weights: Vec<f32> = (0..n).flat_map(|_| group.weights.iter().copied()).collect();
        for &(token, row, weight) in &group.corrections {
            weights[token as usize * r + row as usize] += weight;
        }
        let absent = -1e30;
        let ln = |weight: &f32| if *weight > 0.0 { weight.ln() } else { absent };
        let ln_weights = TensorData::new(weights.iter().map(ln).collect::<Vec<f32>>(), [n, r]);
        let scores = energies.clone() + Tensor::from_data(ln_weights, self.device);
        let peak = scores.clone().detach().max_dim(1);
        let lse = (scores - peak.clone()).exp().sum_dim(1).log() + peak;
        let truth = self
            .indices(group.truth.iter().map(|&row| row as usize))
            .reshape([n, 1]);
        let of_truth = energies.gather(1, truth);
        let own = TensorData::new(group.truth_ln_weight.clone(), [n, 1]);
        (lse - of_truth - Tensor::from_data(own, self.device)).reshape([n])
    }

    /// The energy of every token on every row of a group, `[tokens, rows]`.
    fn energies(
        &self,
        parameters: &Gathered<B>,
        mixed: Tensor<B, 2>,
        group: &Group,
    ) -> Tensor<B, 2> {
        let d = self.config().d_node;
        let (n, r) = (group.places.len(), group.rows.len());
        let rows = self.indices(group.rows.iter().map(|&row| self.local(row)));
        let rows = parameters.edges.clone().select(0, rows);
        let matrices = rows
            .clone()
            .slice([0..r, 0..d, 0..d])
            .swap_dims(0, 1)
            .reshape([d, r * d]);
        let biases = rows.slice([0..r, d..d + 1, 0..d]).reshape([1, r, d]);
        let position = |place: usize| place % self.paths.seq + self.config().flow.first_hop;
        let positions = self.indices(group.places.iter().map(|&place| position(place)));
        let codes = parameters.codes.clone().select(0, positions);
        let signals = mixed.select(0, self.indices(group.places.iter().copied()));
        let mut z = signals.matmul(matrices).reshape([n, r, d]) + biases;
        if self.config().flow.bias.of_node() {
            let nodes = self.node_bias(parameters, group.nodes.iter().copied());
            z = z + nodes.reshape([1, r, d]);
        }
        let arrived = gelu(z + codes.reshape([n, 1, d]));
        let squares = arrived.square().sum_dim(2).reshape([n, r]);
        // The derivative of a root at zero is infinite; that of a length there is set to zero.
        let dead = squares.clone().equal_elem(0.0);
        squares
            .mask_fill(dead.clone(), 1.0)
            .sqrt()
            .mask_fill(dead, 0.0)
    }
}

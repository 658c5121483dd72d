//! The energy with which a signal arrives: `E = ‖GELU(h W + b + code + node bias)‖` (`docs/brillm.md`, section 2).
//!
//! The host's is `host/score.rs`, with the slopes that backward needs, the GPU's `resident/score.rs`.

use super::gather::Used;
use super::gelu::gelu;
use crate::candidate::Group;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The energy of every token on every row of a group.
///
/// # Shapes
/// `mixed`: `[batch * seq, d]`. Returns `[tokens, rows]`
pub(super) fn energies<B: Backend>(
    used: &Used<'_, B>,
    mixed: Tensor<B, 2>,
    group: &Group,
) -> Tensor<B, 2> {
    let (d, flow) = (used.model.config.d_node, used.model.config.flow);
    let (n, r) = (group.places.len(), group.rows.len());
    let rows = used.indices(group.rows.iter().map(|&row| used.place_of_row(row)));
    let rows = used.edges.clone().select(0, rows);
    let matrices = rows
        .clone()
        .slice([0..r, 0..d, 0..d])
        .swap_dims(0, 1)
        .reshape([d, r * d]);
    let biases = rows.slice([0..r, d..d + 1, 0..d]).reshape([1, r, d]);
    let places = group.places.iter().copied();
    let positions = places
        .clone()
        .map(|place| place % used.paths.seq + flow.first_hop);
    let codes = used.codes.clone().select(0, used.indices(positions));
    let signals = mixed.select(0, used.indices(places));
    let mut z = signals.matmul(matrices).reshape([n, r, d]) + biases;
    if flow.bias.of_node() {
        z = z + used
            .node_biases(group.nodes.iter().copied())
            .reshape([1, r, d]);
    }
    let arrived = gelu(z + codes.reshape([n, 1, d]));
    let squares = arrived.square().sum_dim(2).reshape([n, r]);
    // The derivative of a root at zero is infinite; that of a length there is set to zero.
    let dead = squares.clone().equal_elem(0.0);
    let lengths = squares.mask_fill(dead.clone(), 1.0).sqrt();
    lengths.mask_fill(dead, 0.0)
}

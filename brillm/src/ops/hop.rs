//! A hop: `e = GELU(h W + b + code + node bias)` arrives behind an edge with the row `[W; b]` (`docs/brillm.md`, section 2).
//!
//! The host's is [`flow::lead`](crate::flow::lead) and [`flow::arrive`](crate::flow::arrive).

use super::gather::Used;
use super::gelu::gelu;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// What arrives at the end of the edges at one place of the paths.
///
/// # Shapes
/// `[batch, d]` to the same
pub(super) fn hop<B: Backend>(
    used: &Used<'_, B>,
    signal: Tensor<B, 2>,
    edge: usize,
) -> Tensor<B, 2> {
    let (paths, graph) = (used.paths, &used.model.graph);
    let (batch, d) = (paths.batch(), used.model.config.d_node);
    let flow = used.model.config.flow;
    let row = |path: usize| {
        let place = path * paths.seq + edge;
        // Behind the last edge any row will do: nothing is predicted from there.
        match edge < paths.length(path) {
            true => used.place_of_row(graph.row(paths.sources[place], paths.targets[place])),
            false => 0,
        }
    };
    let rows = used.edges.clone();
    let rows = rows.select(0, used.indices((0..batch).map(row)));
    let matrix = rows.clone().slice([0..batch, 0..d, 0..d]);
    let bias = rows.slice([0..batch, d..d + 1, 0..d]).squeeze_dim::<2>(1);
    let signal = signal.unsqueeze_dim::<3>(1);
    let z = signal.matmul(matrix).squeeze_dim::<2>(1);
    let mut z = z + bias + used.codes.clone().narrow(0, edge + flow.first_hop, 1);
    if flow.bias.of_node() {
        z = z + used.node_biases((0..batch).map(|path| paths.targets[path * paths.seq + edge]));
    }
    gelu(z)
}

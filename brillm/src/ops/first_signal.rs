//! The signal at the first token, `h₀ = GELU(1/d + node bias + code of position 0)`, or a constant (`docs/brillm.md`, D2, D3).
//!
//! Host and GPU take it from [`FlowConfig::first_signal`](crate::flow::FlowConfig::first_signal).

use super::gather::Used;
use super::gelu::gelu;
use crate::flow::First;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The first signal of every path.
///
/// # Shapes
/// Returns `[batch, d]`
pub(super) fn first_signal<B: Backend>(used: &Used<'_, B>) -> Tensor<B, 2> {
    let (batch, d) = (used.paths.batch(), used.model.config.d_node);
    let even = 1.0 / d as f32;
    match used.model.config.flow.first {
        First::Even => Tensor::full([batch, d], even, used.device),
        First::Ones => Tensor::ones([batch, d], used.device),
        First::NodeBias => {
            let first = (0..batch).map(|path| used.paths.sources[path * used.paths.seq]);
            gelu(used.node_biases(first) + even + used.codes.clone().narrow(0, 0, 1))
        }
    }
}

//! Anchor loss: keeps the learned start near the blocks, `|start − mean_a norm(E_a)|²`, with no gradient to the blocks.
//!
//! Zero where walks start at block 0.

use crate::route::position::{Positions, normalize};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Squared distance.
///
/// # Shapes
/// Returns `[1]`
pub fn input_anchor<B: Backend>(positions: &Positions<B>) -> Tensor<B, 1> {
    let embeddings = positions.embeddings.val();
    let Some(start) = &positions.start else {
        return Tensor::zeros([1], &embeddings.device());
    };
    let [n_actions, _] = embeddings.dims();
    let blocks = normalize(embeddings.slice_dim(0, 0..n_actions - 1));
    let middle = blocks.mean_dim(0).detach();
    (normalize(start.val().unsqueeze()) - middle).square().sum()
}

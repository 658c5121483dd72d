//! Two losses on executed blocks: `selected_balance` on uneven loads, `coverage_floor` on loads below a least share. A block's
//! load is its share of the decisions in value and its mean probability in gradient.

use super::view::{View, straight_through};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;

/// `mean_a (load_a − Σ load / n_pool)²`; zero if no block was executed.
///
/// # Shapes
/// Returns `[1]`
pub fn selected_balance<B: Backend>(view: &View<B>) -> Tensor<B, 1> {
    let load = load(view);
    let total = load.clone().detach().sum();
    let even = total.clone() / view.n_pool as f64;
    // Without an executed block every load is zero, and the gradient of the squares too.
    (load - even).square().mean()
}

/// `Σ_a max(0, least − load_a)`: how far blocks are below the least share.
///
/// # Shapes
/// Returns `[1]`
pub fn coverage_floor<B: Backend>(view: &View<B>, least: f64) -> Tensor<B, 1> {
    relu(load(view).neg() + least).sum()
}

/// The share of all decisions that executed each block, `[n_pool]`.
fn load<B: Backend>(view: &View<B>) -> Tensor<B, 1> {
    view.mean_rows(|step| straight_through(step.executed.clone(), step.of_blocks()))
}

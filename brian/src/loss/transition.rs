//! Diversity of moves: `1 − H(q) / ln n_pool²` over pairs of blocks executed one after the other, `q` their shares: counts in
//! value, products of probabilities in gradient.
//!
//! Zero with fewer than two steps, a single block, or no pair at all.

use super::view::{View, ViewStep, straight_through};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The loss: 0 if all moves are equally frequent, 1 if all are the same.
///
/// # Shapes
/// Returns `[1]`
pub fn transition_diversity<B: Backend>(view: &View<B>) -> Tensor<B, 1> {
    let m = view.n_pool;
    let device = view.counted.device();
    if view.steps.len() < 2 || m < 2 {
        return Tensor::zeros([1], &device);
    }
    let mut sum = Tensor::<B, 1>::zeros([m * m], &device);
    let mut weights = Tensor::<B, 1>::zeros([1], &device);
    for pair in view.steps.windows(2) {
        let pairs = |of: &dyn Fn(&ViewStep<B>) -> Tensor<B, 2>| {
            let [n, _] = of(&pair[0]).dims();
            let from = of(&pair[0]).reshape([n, m, 1]);
            let to = of(&pair[1]).reshape([n, 1, m]);
            (from * to).reshape([n, m * m])
        };
        let hard = pairs(&|step| step.executed.clone());
        let soft = pairs(&|step| step.of_blocks());
        let weight = pair[0].weight.clone() * pair[1].weight.clone();
        let moves = straight_through(hard, soft) * weight.clone().unsqueeze_dim(1);
        sum = sum + moves.sum_dim(0).squeeze_dim(0);
        weights = weights + weight.sum();
    }
    let load = sum / weights.clamp_min(1e-9);
    let total = load.clone().detach().sum();
    // Whether there is a pair at all is in the counts themselves: 1 or 0, without a look from the host.
    let exists = total.clone().greater_elem(0.0).float();
    let share = (load / total.clamp_min(1e-9)).clamp_min(1e-9);
    let entropy = (share.clone() * share.log()).sum().neg();
    (entropy.neg() / ((m * m) as f64).ln() + 1.0) * exists
}

//! Softmax of rows, `softmax(x)_i = exp(x_i) / Σ_j exp(x_j)`, and the probability of one chosen entry.

use super::{fused, host};
use burn::tensor::activation;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// `softmax` of every row.
///
/// # Shapes
/// `[n, width]` to the same
pub(crate) fn softmax<B: Backend>(scores: &Tensor<B, 2>) -> Tensor<B, 2> {
    fused(&[&|| host::softmax::softmax(scores)])
        .unwrap_or_else(|| activation::softmax(scores.clone(), 1))
}

/// For every row, the probability of the chosen entry among the first `n` scores; 1, whatever the scores, if none is chosen.
///
/// # Shapes
/// `[rows, width]` and `[rows]` to `[rows, 1]`
pub(crate) fn chosen_probability<B: Backend>(
    scores: &Tensor<B, 2>,
    chosen: &[Option<usize>],
    n: usize,
) -> Tensor<B, 2> {
    fused(&[&|| host::softmax::chosen_probability(scores, chosen, n)]).unwrap_or_else(|| {
        let (device, dims) = (scores.device(), [chosen.len(), 1]);
        let none: Vec<bool> = chosen.iter().map(Option::is_none).collect();
        let none = Tensor::from_data(TensorData::new(none, dims), &device);
        let chosen: Vec<i32> = chosen.iter().map(|of| of.unwrap_or(0) as i32).collect();
        let chosen = Tensor::from_data(TensorData::new(chosen, dims), &device);
        let shares = activation::softmax(scores.clone().slice_dim(1, 0..n), 1);
        shares.gather(1, chosen).mask_fill(none, 1.0)
    })
}

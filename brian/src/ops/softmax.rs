//! Scores to probabilities: `softmax(x)_i = exp(x_i) / Σ_j exp(x_j)`, and one of them.

use super::{Operation, host, run};
use burn::tensor::activation;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// `softmax` of every row.
///
/// # Shapes
/// `[n, width]` to the same
pub(crate) fn softmax<B: Backend>(scores: &Tensor<B, 2>) -> Tensor<B, 2> {
    run(Softmax(scores))
}

struct Softmax<'a, B: Backend>(&'a Tensor<B, 2>);

impl<B: Backend> Operation for Softmax<'_, B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        activation::softmax(self.0.clone(), 1)
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::softmax::softmax(self.0)
    }
}

/// Of every row the probability of the chosen one among its first `n` scores; 1, whatever the scores, where none is chosen.
///
/// # Shapes
/// `[rows, width]` and `[rows]` to `[rows, 1]`
pub(crate) fn chosen_probability<B: Backend>(
    scores: &Tensor<B, 2>,
    chosen: &[Option<usize>],
    n: usize,
) -> Tensor<B, 2> {
    run(Chosen { scores, chosen, n })
}

struct Chosen<'a, B: Backend> {
    scores: &'a Tensor<B, 2>,
    chosen: &'a [Option<usize>],
    n: usize,
}

impl<B: Backend> Operation for Chosen<'_, B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        let device = self.scores.device();
        let dims = [self.chosen.len(), 1];
        let none: Vec<bool> = self.chosen.iter().map(Option::is_none).collect();
        let none = Tensor::from_data(TensorData::new(none, dims), &device);
        let chosen = self.chosen.iter().map(|chosen| chosen.unwrap_or(0) as i32);
        let chosen = TensorData::new(chosen.collect::<Vec<i32>>(), dims);
        let chosen = Tensor::from_data(chosen, &device);
        let shares = activation::softmax(self.scores.clone().slice_dim(1, 0..self.n), 1);
        shares.gather(1, chosen).mask_fill(none, 1.0)
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::softmax::chosen_probability(self.scores, self.chosen, self.n)
    }
}

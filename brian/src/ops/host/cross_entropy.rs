//! Cross entropy as a fused operation on the host, `[n, vocabulary]` → `[n]`, and its gradient; `None` on other backends.

use super::custom_op::{FusedPass, input, rows_of, run};
use super::gradient::Gradient;
use super::numeric::{Rows, exp, vectorised};
use super::softmax::{each_row, to_probabilities};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use ndarray::Array2;
use std::sync::Arc;

/// The loss of every row's target, in nats.
///
/// # Shapes
/// `[n, vocabulary]` and `[n]` to `[n]`
pub(crate) fn cross_entropy<B: Backend>(
    logits: &Tensor<B, 2>,
    targets: &Tensor<B, 1, Int>,
) -> Option<Tensor<B, 1>> {
    // On another backend targets would have to be waited for.
    rows_of::<B>(input(logits))?;
    let targets = targets.clone().into_data();
    let targets = targets
        .iter::<i64>()
        .map(|target| target as usize)
        .collect();
    let nats = run(CrossEntropy(targets), [input(logits)])?;
    Some(nats.squeeze_dim(1))
}

#[derive(Clone, Debug)]
struct CrossEntropy(Arc<[usize]>);

impl FusedPass<1> for CrossEntropy {
    /// The logarithm of every row's sum of exponentials.
    type Kept = Array2<f32>;

    fn forward(&self, [logits]: &[Rows; 1]) -> (Array2<f32>, Array2<f32>) {
        let mut ends = Array2::zeros([logits.nrows(), 1]);
        each_row(&mut ends, logits, |_, end, logits| {
            let mut logits = logits.to_vec();
            end[0] = vectorised!(to_probabilities(&mut logits));
        });
        let mut nats = ends.clone();
        for ((row, nats), &target) in nats.indexed_iter_mut().zip(&*self.0) {
            *nats -= logits[[row.0, target]];
        }
        (nats, ends)
    }

    fn backward(
        &self,
        [logits]: &[Rows; 1],
        ends: Array2<f32>,
        gradient: Rows,
        _: [bool; 1],
    ) -> [Option<Gradient>; 1] {
        let mut found = logits.to_owned();
        each_row(&mut found, &gradient, |row, found, gradient| {
            let (end, gradient) = (ends[[row, 0]], gradient[0]);
            vectorised!({
                for value in found.iter_mut() {
                    *value = gradient * exp((*value - end).min(0.0));
                }
            });
            found[self.0[row]] -= gradient;
        });
        [Some(found.into())]
    }
}

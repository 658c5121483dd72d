//! Cross entropy as a fused operation on the host, `[n, vocabulary]` → `[n]`, and its gradient; `None` on other backends.

use super::custom_op::{Flow, input, rows_of, run};
use super::numeric::{exp, vectorised};
use super::softmax::{each_row, to_probabilities};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use ndarray::Array2;

/// See [`cross_entropy`](super::super::cross_entropy::cross_entropy).
pub(crate) fn cross_entropy<B: Backend>(
    logits: &Tensor<B, 2>,
    targets: &Tensor<B, 1, Int>,
) -> Option<Tensor<B, 1>> {
    // On another backend targets would have to be waited for.
    rows_of::<B>(input(logits))?;
    let targets = targets.clone().into_data();
    let targets = targets.iter::<i64>().map(|target| target as usize);
    let targets: Vec<usize> = targets.collect();
    let nats = run([input(logits)], move |[logits]| {
        // The logarithm of every row's sum of exponentials.
        let mut ends = Array2::zeros([logits.nrows(), 1]);
        each_row(&mut ends, &logits, |_, end, logits| {
            let mut logits = logits.to_vec();
            end[0] = vectorised!(to_probabilities(&mut logits));
        });
        let mut nats = ends.clone();
        for ((row, nats), &target) in nats.indexed_iter_mut().zip(&targets) {
            *nats -= logits[[row.0, target]];
        }
        let back = move |flow: Flow<'_>| {
            let mut found = logits.to_owned();
            each_row(&mut found, &flow.gradient, |row, found, gradient| {
                let (end, gradient) = (ends[[row, 0]], gradient[0]);
                vectorised!({
                    for value in found.iter_mut() {
                        *value = gradient * exp((*value - end).min(0.0));
                    }
                });
                found[targets[row]] -= gradient;
            });
            vec![Some(found.into())]
        };
        (nats, Box::new(back))
    })?;
    Some(nats.squeeze_dim(1))
}

//! Logarithm of a row's sum of exponentials as a fused operation on the host, `[n, width]` → `[n]`, and its gradient, the softmax
//! of the row; cross entropy uses both.

use super::custom_op::{Flow, input, run};
use super::numeric::{Rows, exp, vectorised};
use super::softmax::{each_row, to_probabilities};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;

/// See [`log_sum_exp`](super::super::log_sum_exp::log_sum_exp).
pub(crate) fn log_sum_exp<B: Backend>(x: &Tensor<B, 2>) -> Option<Tensor<B, 1>> {
    let found = run([input(x)], |[x]| {
        let found = ends(&x);
        let kept = found.clone();
        let back = move |flow: Flow<'_>| vec![Some(slopes(&x, &kept, &flow.gradient).into())];
        (found, Box::new(back))
    })?;
    Some(found.squeeze_dim(1))
}

/// The logarithm of every row's sum of exponentials, `[n, 1]`.
pub(super) fn ends(x: &Rows) -> Array2<f32> {
    let mut ends = Array2::zeros([x.nrows(), 1]);
    each_row(&mut ends, x, |_, end, x| {
        let mut x = x.to_vec();
        end[0] = vectorised!(to_probabilities(&mut x));
    });
    ends
}

/// The gradient of rows from that of their `ends`, `[n, 1]`.
pub(super) fn slopes(x: &Rows, ends: &Array2<f32>, gradient: &Rows) -> Array2<f32> {
    let mut found = x.to_owned();
    each_row(&mut found, gradient, |row, found, gradient| {
        let (end, gradient) = (ends[[row, 0]], gradient[0]);
        vectorised!({
            for value in found.iter_mut() {
                *value = gradient * exp((*value - end).min(0.0));
            }
        });
    });
    found
}

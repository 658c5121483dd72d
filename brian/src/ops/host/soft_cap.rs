//! Soft cap of every number as a fused operation on the host, and its gradient: `1 − tanh²(x / cap)`.

use super::custom_op::{Flow, input, run};
use super::numeric::{tanh, vectorised};
use super::softmax::each_row;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;

/// See [`soft_cap`](super::super::soft_cap::soft_cap).
pub(crate) fn soft_cap<B: Backend>(x: &Tensor<B, 2>, cap: f64) -> Option<Tensor<B, 2>> {
    let (cap, share) = (cap as f32, 1.0 / cap as f32);
    run([input(x)], move |[x]| {
        let mut found = Array2::zeros(x.dim());
        each_row(&mut found, &x, |_, found, x| {
            vectorised!({
                for (found, x) in found.iter_mut().zip(x) {
                    *found = cap * tanh(x * share);
                }
            });
        });
        let back = move |flow: Flow<'_>| {
            let mut of_x = flow.gradient.into_owned();
            each_row(&mut of_x, &x, |_, gradient, x| {
                vectorised!({
                    for (gradient, x) in gradient.iter_mut().zip(x) {
                        let part = tanh(x * share);
                        *gradient *= 1.0 - part * part;
                    }
                });
            });
            vec![Some(of_x.into())]
        };
        (found, Box::new(back))
    })
}

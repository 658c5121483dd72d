//! Fused RMS norm of rows on the host, `x / sqrt(mean(x²) + ε) ⊙ gain`, with the gradients of `x` and of the gain.

use super::custom_op::{Flow, input, run};
use super::gradient::Gradient;
use super::numeric::{Rows, dot, flat, flat_mut, rows_per_task, total, vectorised};
use burn::nn::RmsNorm;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

/// See [`rms_norm`](super::super::rms_norm::rms_norm).
pub(crate) fn rms_norm<B: Backend>(x: &Tensor<B, 2>, norm: &RmsNorm<B>) -> Option<Tensor<B, 2>> {
    let epsilon = norm.epsilon as f32;
    let inputs = [input(x), input(&norm.gamma.val())];
    run(inputs, move |[x, gain]| {
        let normed = self::norm(x.view(), &gain, epsilon);
        let of_inputs = move |flow: Flow<'_>| {
            let mut gradient = flow.gradient.into_owned();
            let of_gain = back(x.view(), &gain, epsilon, gradient.view_mut(), None);
            vec![Some(gradient.into()), Some(of_gain)]
        };
        (normed, Box::new(of_inputs))
    })
}

/// `1 / sqrt(mean(x²) + ε)`.
#[inline(always)]
fn scale(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

/// The norm of every row.
pub(super) fn norm(x: ArrayView2<f32>, gain: &Rows, epsilon: f32) -> Array2<f32> {
    let width = x.ncols();
    let gain = flat(gain);
    let mut normed = Array2::zeros(x.dim());
    let task = rows_per_task(width) * width;
    let from = flat(&x).par_chunks(task);
    let to = flat_mut(&mut normed).par_chunks_mut(task);
    to.zip(from).for_each(|(to, from)| {
        vectorised!({
            let rows = to.chunks_exact_mut(width).zip(from.chunks_exact(width));
            for (to, from) in rows {
                let scale = scale(from, epsilon);
                for ((to, from), gain) in to.iter_mut().zip(from).zip(gain) {
                    *to = from * scale * gain;
                }
            }
        });
    });
    normed
}

/// Returns the gradient of the gain; `gradient` is that of the normed rows and becomes that of `x`. `beside` is what else flows
/// back to `x`.
pub(super) fn back(
    x: ArrayView2<f32>,
    gain: &Rows,
    epsilon: f32,
    mut gradient: ArrayViewMut2<f32>,
    beside: Option<ArrayView2<f32>>,
) -> Gradient {
    let width = x.ncols();
    let gain = flat(gain);
    let task = rows_per_task(width) * width;
    let from = flat(&x).par_chunks(task);
    let to = flat_mut(&mut gradient).par_chunks_mut(task);
    let parts: Vec<Vec<f32>> = to
        .zip(from)
        .enumerate()
        .map(|(chunk, (to, from))| {
            let mut of_gain = vec![0.0; width];
            let first = chunk * task;
            vectorised!({
                let rows = to.chunks_exact_mut(width).zip(from.chunks_exact(width));
                for (index, (to, from)) in rows.enumerate() {
                    let scale = scale(from, epsilon);
                    for (((to, from), gain), sum) in
                        to.iter_mut().zip(from).zip(gain).zip(&mut of_gain)
                    {
                        *sum += *to * from * scale;
                        *to *= gain;
                    }
                    let along = dot(to, from) * scale * scale / width as f32;
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = scale * (*to - from * along);
                    }
                    if let Some(beside) = &beside {
                        let beside = &flat(beside)[first + index * width..][..width];
                        for (to, beside) in to.iter_mut().zip(beside) {
                            *to += beside;
                        }
                    }
                }
            });
            of_gain
        })
        .collect();
    total(parts).into()
}

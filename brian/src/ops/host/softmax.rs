//! Fused softmax of rows and probability of one chosen entry, on the host, each with its gradient; also for one row in place.

use super::custom_op::{Flow, input, run};
use super::numeric::{Rows, dot, exp, flat, flat_mut, largest, rows_per_task, sum, vectorised};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;
use rayon::prelude::*;

/// Turns scores into probabilities; returns the logarithm of the sum of their exponentials.
#[inline(always)]
pub fn to_probabilities(row: &mut [f32]) -> f32 {
    let peak = largest(row);
    for score in row.iter_mut() {
        *score = exp(*score - peak);
    }
    let whole = sum(row);
    let share = 1.0 / whole;
    for score in row.iter_mut() {
        *score *= share;
    }
    peak + whole.ln()
}

/// Turns the gradient of probabilities into that of scores.
#[inline(always)]
pub fn to_scores(probabilities: &[f32], gradient: &mut [f32]) {
    let mean = dot(probabilities, gradient);
    for (gradient, share) in gradient.iter_mut().zip(probabilities) {
        *gradient = share * (*gradient - mean);
    }
}

/// Does something with every row of one matrix beside the same row of another.
pub(super) fn each_row(
    rows: &mut Array2<f32>,
    beside: &Rows,
    each: impl Fn(usize, &mut [f32], &[f32]) + Sync,
) {
    let widths = [rows.ncols(), beside.ncols()];
    let n_rows = rows_per_task(widths[0].max(widths[1]));
    let chunks = flat_mut(rows).par_chunks_mut(n_rows * widths[0]);
    let beside = flat(beside).par_chunks(n_rows * widths[1]);
    let chunks = chunks.zip(beside).enumerate();
    chunks.for_each(|(chunk, (rows, beside))| {
        let rows = rows.chunks_exact_mut(widths[0]);
        let pairs = rows.zip(beside.chunks_exact(widths[1])).enumerate();
        pairs.for_each(|(row, (own, beside))| each(chunk * n_rows + row, own, beside));
    });
}

/// See [`softmax`](super::super::softmax::softmax).
pub(crate) fn softmax<B: Backend>(scores: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    run([input(scores)], |[scores]| {
        let mut found = scores.to_owned();
        each_row(&mut found, &scores, |_, row, _| {
            vectorised!(to_probabilities(row));
        });
        let probabilities = found.clone().into_shared();
        let back = move |flow: Flow<'_>| {
            let mut of_scores = flow.gradient.into_owned();
            each_row(&mut of_scores, &probabilities, |_, row, shares| {
                vectorised!(to_scores(shares, row));
            });
            vec![Some(of_scores.into())]
        };
        (found, Box::new(back))
    })
}

/// See [`chosen_probability`](super::super::softmax::chosen_probability).
pub(crate) fn chosen_probability<B: Backend>(
    scores: &Tensor<B, 2>,
    chosen: &[Option<usize>],
    n: usize,
) -> Option<Tensor<B, 2>> {
    let chosen = chosen.to_vec();
    run([input(scores)], move |[scores]| {
        let mut found = Array2::ones([scores.nrows(), 1]);
        each_row(&mut found, &scores, |row, found, scores| {
            if let Some(chosen) = chosen[row] {
                let mut shares = scores[..n].to_vec();
                vectorised!(to_probabilities(&mut shares));
                found[0] = shares[chosen];
            }
        });
        let back = move |flow: Flow<'_>| {
            let mut of_scores = scores.to_owned();
            each_row(&mut of_scores, &flow.gradient, |row, found, gradient| {
                let Some(chosen) = chosen[row] else {
                    return found.fill(0.0);
                };
                let (found, others) = found.split_at_mut(n);
                others.fill(0.0);
                vectorised!(to_probabilities(found));
                let share = gradient[0] * found[chosen];
                found.iter_mut().for_each(|found| *found *= -share);
                found[chosen] += share;
            });
            vec![Some(of_scores.into())]
        };
        (found, Box::new(back))
    })
}

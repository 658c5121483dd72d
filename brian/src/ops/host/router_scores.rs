//! The router's two layers, fused on the host with their gradients: `silu([h, P] W1 + b1) W2 + b2`.

use super::custom_op::{Flow, input, run};
use super::gather::cut;
use super::gradient::Gradient;
use super::numeric::{
    Rows, copied, filled, flat, flat_mut, rows_per_task, sigmoid, sum_rows, vectorised,
};
use super::packed::Packed;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;
use rayon::prelude::*;
use std::ops::Range;

/// See [`router_scores`](super::super::router_scores::router_scores); `None` also if a layer has no bias.
pub(crate) fn router_scores<B: Backend>(
    hidden: &Tensor<B, 2>,
    position: &Tensor<B, 2>,
    [first, second]: [&Linear<B>; 2],
    packed: &Packed,
) -> Option<Tensor<B, 2>> {
    let [first_bias, second_bias] = [first.bias.as_ref()?, second.bias.as_ref()?];
    let inputs = [
        input(hidden),
        input(position),
        input(&first.weight.val()),
        input(&first_bias.val()),
        input(&second.weight.val()),
        input(&second_bias.val()),
    ];
    let packed = packed.lend();
    run(inputs, move |inputs| {
        let [hidden, position, first, first_bias, second, second_bias] = inputs;
        let state = side_by_side(&hidden, &position).into_shared();
        let mut between = repeat(&first_bias, state.nrows());
        packed.add_product(state.view(), first.view(), between.view_mut());
        let between = between.into_shared();
        let mut logits = repeat(&second_bias, state.nrows());
        packed.add_product(open(&between).view(), second.view(), logits.view_mut());
        let back = move |Flow {
                             gradient, wanted, ..
                         }: Flow<'_>| {
            let mut of_between = packed.product(gradient.view(), second.t());
            let task = rows_per_task(between.ncols()) * between.ncols();
            let from = flat(&between).par_chunks(task);
            let to = flat_mut(&mut of_between).par_chunks_mut(task);
            to.zip(from).for_each(|(to, from)| {
                vectorised!({
                    for (to, from) in to.iter_mut().zip(from) {
                        let share = sigmoid(*from);
                        *to *= share * (1.0 + from * (1.0 - share));
                    }
                });
            });
            let of_between = of_between.into_shared();
            let of_state =
                (wanted[0] || wanted[1]).then(|| packed.product(of_between.view(), first.t()));
            let of_columns = |wanted: bool, columns: Range<usize>| {
                let of_state = of_state.as_ref().filter(|_| wanted)?;
                Some(cut(of_state, columns).into())
            };
            let (d_model, width) = (hidden.ncols(), state.ncols());
            vec![
                of_columns(wanted[0], 0..d_model),
                of_columns(wanted[1], d_model..width),
                wanted[2].then(|| Gradient::Product(state, of_between.clone())),
                wanted[3].then(|| sum_rows(&of_between).into()),
                wanted[4]
                    .then(|| Gradient::Product(open(&between).into_shared(), gradient.clone())),
                wanted[5].then(|| sum_rows(&gradient).into()),
            ]
        };
        (logits, Box::new(back))
    })
}

/// Rows that are all the same one.
fn repeat(row: &Rows, n_rows: usize) -> Array2<f32> {
    let dims = [n_rows, row.ncols()];
    filled(dims, |_, to| to.copy_from_slice(flat(row)))
}

fn side_by_side(left: &Rows, right: &Rows) -> Array2<f32> {
    let [first, second] = [left.ncols(), right.ncols()];
    let (left_rows, right_rows) = (flat(left), flat(right));
    filled([left.nrows(), first + second], |row, to| {
        to[..first].copy_from_slice(&left_rows[row * first..][..first]);
        to[first..].copy_from_slice(&right_rows[row * second..][..second]);
    })
}

/// `silu` of what the first layer gives.
fn open(between: &Rows) -> Array2<f32> {
    let mut opened = copied(between);
    let task = rows_per_task(between.ncols()) * between.ncols();
    flat_mut(&mut opened).par_chunks_mut(task).for_each(|rows| {
        vectorised!({
            for value in rows.iter_mut() {
                *value *= sigmoid(*value);
            }
        });
    });
    opened
}

//! The router's two layers: `silu([h, P] W1 + b1) W2 + b2`, without `[h, P]` in memory.

use super::node::{Gradient, Pass, Rows, input, run};
use super::numeric::{
    add_product, flat, flat_mut, product, product_if, rows_per_task, sigmoid, vectorised,
};
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use rayon::prelude::*;

/// Action logits; `None` without biases too.
///
/// # Shapes
/// `[n, d_model]` and `[n, d_position]` to `[n, n_actions]`
pub(crate) fn score<B: Backend>(
    hidden: &Tensor<B, 2>,
    position: &Tensor<B, 2>,
    first: &Linear<B>,
    second: &Linear<B>,
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
    run(Score, inputs)
}

#[derive(Clone, Debug)]
struct Score;

/// Rows that are all the same one.
fn repeat(row: &Rows, n_rows: usize) -> Array2<f32> {
    let wide = row.broadcast([n_rows, row.ncols()]).expect("one row");
    wide.to_owned()
}

fn sum_rows(rows: ArrayView2<f32>) -> Gradient {
    let sum = rows.sum_axis(Axis(0));
    sum.insert_axis(Axis(0)).into()
}

impl Score {
    /// `silu` of what the first layer gives.
    fn open(between: &Array2<f32>) -> Array2<f32> {
        let mut opened = between.clone();
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
}

impl Pass<6> for Score {
    /// What the first layer gives.
    type Kept = Array2<f32>;

    fn forward(
        &self,
        [hidden, position, first, first_bias, second, second_bias]: &[Rows; 6],
    ) -> (Array2<f32>, Array2<f32>) {
        let (n_tokens, d_model) = hidden.dim();
        let (of_hidden, of_position) = first.view().split_at(Axis(0), d_model);
        let mut between = repeat(first_bias, n_tokens);
        add_product(hidden.view(), of_hidden, &mut between);
        add_product(position.view(), of_position, &mut between);
        let mut logits = repeat(second_bias, n_tokens);
        add_product(Self::open(&between).view(), second.view(), &mut logits);
        (logits, between)
    }

    fn backward(
        &self,
        [hidden, position, first, _, second, _]: &[Rows; 6],
        between: Array2<f32>,
        gradient: Rows,
        wanted: [bool; 6],
    ) -> [Option<Gradient>; 6] {
        let d_model = hidden.ncols();
        let of_second = wanted[4].then(|| {
            let opened = Self::open(&between).into_shared();
            Gradient::Product(opened, gradient.clone())
        });
        let mut of_between = product(gradient.view(), second.t());
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
        let (above, below) = first.view().split_at(Axis(0), d_model);
        let of_first = wanted[2].then(|| {
            let found = [hidden, position].map(|input| product(input.t(), of_between.view()));
            let [above, below] = found.each_ref().map(|part| part.view());
            let found = concatenate(Axis(0), &[above, below]).expect("one width");
            found.into()
        });
        [
            product_if(wanted[0], of_between.view(), above.t()),
            product_if(wanted[1], of_between.view(), below.t()),
            of_first,
            wanted[3].then(|| sum_rows(of_between.view())),
            of_second,
            wanted[5].then(|| sum_rows(gradient.view())),
        ]
    }
}

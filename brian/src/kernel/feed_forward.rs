//! The second half of a block: `x + down( silu(gate n) ⊙ up n )` with `n = norm(x)`.

use super::node::{Gradient, Pass, Rows, input, run};
use super::norm;
use super::numeric::{add_product, flat, flat_mut, product, rows_per_task, sigmoid, vectorised};
use burn::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;
use rayon::prelude::*;

/// Norm, feed-forward with `maps` gate, up and down, and the stream itself.
///
/// # Shapes
/// `[n, d_model]` to the same
pub(crate) fn feed_forward<B: Backend>(
    x: &Tensor<B, 2>,
    norm: &RmsNorm<B>,
    maps: [&Linear<B>; 3],
) -> Option<Tensor<B, 2>> {
    let epsilon = norm.epsilon as f32;
    let [gate, up, down] = maps.map(|map| input(&map.weight.val()));
    let inputs = [input(x), input(&norm.gamma.val()), gate, up, down];
    run(Fed { epsilon }, inputs)
}

#[derive(Clone, Debug)]
struct Fed {
    epsilon: f32,
}

impl Pass<5> for Fed {
    /// `gate n` and `up n`.
    type Kept = [Array2<f32>; 2];

    fn forward(&self, [x, gain, gate, up, down]: &[Rows; 5]) -> (Array2<f32>, Self::Kept) {
        let normed = norm::norm(x, gain, self.epsilon);
        let gates = product(normed.view(), gate.view());
        let ups = product(normed.view(), up.view());
        let mut hidden = Array2::zeros(gates.dim());
        let chunk = rows_per_task(gates.ncols()) * gates.ncols();
        let from = flat(&gates)
            .par_chunks(chunk)
            .zip(flat(&ups).par_chunks(chunk));
        let to = flat_mut(&mut hidden).par_chunks_mut(chunk);
        to.zip(from).for_each(|(hidden, (gates, ups))| {
            vectorised!({
                for ((hidden, gate), up) in hidden.iter_mut().zip(gates).zip(ups) {
                    *hidden = gate * sigmoid(*gate) * up;
                }
            });
        });
        let mut output = x.to_owned();
        add_product(hidden.view(), down.view(), &mut output);
        (output, [gates, ups])
    }

    fn backward(
        &self,
        [x, gain, gate, up, down]: &[Rows; 5],
        [mut gates, mut ups]: Self::Kept,
        gradient: Rows,
        wanted: [bool; 5],
    ) -> [Option<Gradient>; 5] {
        // From here on what was `gate n` and `up n` is their gradient, and `hidden` is first that of the hidden row.
        let mut hidden = product(gradient.view(), down.t());
        let chunk = rows_per_task(gates.ncols()) * gates.ncols();
        let pairs = flat_mut(&mut gates)
            .par_chunks_mut(chunk)
            .zip(flat_mut(&mut ups).par_chunks_mut(chunk));
        let hiddens = flat_mut(&mut hidden).par_chunks_mut(chunk);
        hiddens.zip(pairs).for_each(|(hidden, (gates, ups))| {
            vectorised!({
                for ((hidden, gate), up) in hidden.iter_mut().zip(gates).zip(ups) {
                    let share = sigmoid(*gate);
                    let (open, of_hidden) = (*gate * share, *hidden);
                    *hidden = open * *up;
                    *gate = of_hidden * *up * share * (1.0 + *gate * (1.0 - share));
                    *up = of_hidden * open;
                }
            });
        });
        let [of_x, of_gain] = match wanted[0] || wanted[1] {
            true => {
                let mut of_normed = product(gates.view(), gate.t());
                add_product(ups.view(), up.t(), &mut of_normed);
                norm::back(x, gain, self.epsilon, of_normed, Some(&gradient)).map(Some)
            }
            false => [None, None],
        };
        let of_down = wanted[4].then(|| Gradient::Product(hidden.into_shared(), gradient));
        let [of_gate, of_up] = match wanted[2] || wanted[3] {
            true => {
                let normed = norm::norm(x, gain, self.epsilon).into_shared();
                [(wanted[2], gates), (wanted[3], ups)].map(|(wanted, right)| {
                    wanted.then(|| Gradient::Product(normed.clone(), right.into_shared()))
                })
            }
            false => [None, None],
        };
        [of_x, of_gain, of_gate, of_up, of_down]
    }
}

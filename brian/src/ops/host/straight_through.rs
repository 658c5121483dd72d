//! The straight-through gain, fused on the host: returns the states unchanged; backward, a row's gain gets the product of the
//! states' gradient with the block's change, `after − before`.

use super::custom_op::{Flow, input, run};
use super::gradient::Gradient;
use super::numeric::{dot, flat, vectorised};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;

/// See [`straight_through`](super::super::straight_through::straight_through).
pub(crate) fn straight_through<B: Backend>(
    states: &Tensor<B, 2>,
    change: [&Tensor<B, 2>; 2],
    gain: &Tensor<B, 2>,
    which: &[usize],
) -> Option<Tensor<B, 2>> {
    let which = which.to_vec();
    let [after, before] = change.map(|cut| input(&cut.clone().detach()));
    let inputs = [input(states), after, before, input(gain)];
    run(inputs, move |[states, after, before, gain]| {
        let back = move |flow: Flow<'_>| {
            let Flow {
                gradient, wanted, ..
            } = flow;
            let of_gain = wanted[3].then(|| {
                let width = after.ncols();
                let mut of_gain = Array2::zeros(gain.dim());
                let mut change = vec![0.0; width];
                let rows = flat(&gradient)
                    .chunks_exact(width)
                    .zip(flat(&after).chunks_exact(width));
                for ((gradient, after), &row) in rows.zip(&which) {
                    let before = &flat(&before)[row * width..][..width];
                    of_gain[[row, 0]] += vectorised!({
                        for ((change, after), before) in change.iter_mut().zip(after).zip(before) {
                            *change = after - before;
                        }
                        dot(gradient, &change)
                    });
                }
                of_gain.into()
            });
            let of_states = wanted[0].then_some(Gradient::Whole(gradient));
            vec![of_states, None, None, of_gain]
        };
        (states.to_owned(), Box::new(back))
    })
}

//! The straight-through gain, fused on the host: zero times a block's change is added, which gives the gain its gradient.

use super::custom_op::{FusedPass, input, run};
use super::gradient::Gradient;
use super::numeric::{Rows, dot, flat, vectorised};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;

/// `states + (after − before) ⊙ gain` where all of `gain` is zero: the value is `states`, and `gain` gets its gradient. The
/// change gets none. `which` says where the rows lie in `before` and in `gain`.
///
/// # Shapes
/// `[which, d_model]`, `[which, d_model]`, `[n, d_model]` and `[n, 1]` to `[which, d_model]`
pub(crate) fn straight_through<B: Backend>(
    states: &Tensor<B, 2>,
    change: [&Tensor<B, 2>; 2],
    gain: &Tensor<B, 2>,
    which: &[usize],
) -> Option<Tensor<B, 2>> {
    let which = which.to_vec();
    let [after, before] = change.map(|cut| input(&cut.clone().detach()));
    run(
        Straight { which },
        [input(states), after, before, input(gain)],
    )
}

#[derive(Clone, Debug)]
struct Straight {
    which: Vec<usize>,
}

impl FusedPass<4> for Straight {
    type Kept = ();

    fn forward(&self, [states, ..]: &[Rows; 4]) -> (Array2<f32>, ()) {
        (states.to_owned(), ())
    }

    fn backward(
        &self,
        [_, after, before, gain]: &[Rows; 4],
        (): (),
        gradient: Rows,
        wanted: [bool; 4],
    ) -> [Option<Gradient>; 4] {
        let of_gain = wanted[3].then(|| {
            let width = after.ncols();
            let mut of_gain = Array2::zeros(gain.dim());
            let mut change = vec![0.0; width];
            let rows = flat(&gradient)
                .chunks_exact(width)
                .zip(flat(after).chunks_exact(width));
            for ((gradient, after), &row) in rows.zip(&self.which) {
                let before = &flat(before)[row * width..][..width];
                of_gain[[row, 0]] += vectorised!({
                    for ((change, after), before) in change.iter_mut().zip(after).zip(before) {
                        *change = after - before;
                    }
                    dot(gradient, &change)
                });
            }
            of_gain.into()
        });
        [
            wanted[0].then_some(Gradient::Whole(gradient)),
            None,
            None,
            of_gain,
        ]
    }
}

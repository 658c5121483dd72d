//! The feed-forward half of a block, fused on the host with gradients: `x + down( silu(gate n) ⊙ up n )` with `n = norm(x)`.

use super::super::groups::Group;
use super::super::swiglu::NormedMaps;
use super::custom_op::{Back, Flow, input, run_many};
use super::gradient::Gradient;
use super::groups::{n_rows, run_each, share};
use super::numeric::{Rows, copied, flat, flat_mut, part, rows_per_task, sigmoid, vectorised};
use super::packed::{Lent, Packed};
use super::rms_norm as norm;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

/// See [`swiglu_residual`](super::super::swiglu::swiglu_residual).
pub(crate) fn swiglu_residual<B: Backend>(
    x: &Tensor<B, 2>,
    groups: &[Group<NormedMaps<'_, B>>],
    packed: &Packed,
) -> Option<Tensor<B, 2>> {
    let (norm, _) = groups.first()?.of;
    let fed = Fed {
        epsilon: norm.epsilon as f32,
        n_rows: n_rows(groups),
        packed: packed.lend(),
    };
    let of_group = |group: &Group<NormedMaps<'_, B>>| {
        let (norm, [gate, up, down]) = group.of;
        let maps = [gate, up, down].map(|map| input(&map.weight.val()));
        [input(&norm.gamma.val())].into_iter().chain(maps)
    };
    let groups = groups.iter().flat_map(of_group);
    let inputs = [input(x)].into_iter().chain(groups).collect();
    run_many(inputs, move |inputs| fed.run(inputs))
}

#[derive(Clone)]
struct Fed {
    epsilon: f32,
    n_rows: Vec<usize>,
    packed: Lent,
}

impl Fed {
    /// Adds to the stream what a group gives; `gate n` and `up n` of it.
    fn forward(
        &self,
        x: ArrayView2<f32>,
        [gain, gate, up, down]: &[Rows; 4],
        out: ArrayViewMut2<f32>,
    ) -> [Array2<f32>; 2] {
        let normed = norm::norm(x, gain, self.epsilon);
        let gates = self.packed.product(normed.view(), gate.view());
        let ups = self.packed.product(normed.view(), up.view());
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
        self.packed.add_product(hidden.view(), down.view(), out);
        [gates, ups]
    }

    /// The gradients of a group's gain and maps; that of its rows goes to `of_x`.
    fn backward(
        &self,
        x: ArrayView2<f32>,
        [gain, gate, up, down]: &[Rows; 4],
        [mut gates, mut ups]: [Array2<f32>; 2],
        gradient: Rows,
        mut of_x: ArrayViewMut2<f32>,
    ) -> [Gradient; 4] {
        // From here on what was `gate n` and `up n` is their gradient, and `hidden` is first that of the hidden row.
        let mut hidden = self.packed.product(gradient.view(), down.t());
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
        self.packed
            .add_product(gates.view(), gate.t(), of_x.view_mut());
        self.packed.add_product(ups.view(), up.t(), of_x.view_mut());
        let normed = norm::norm(x, gain, self.epsilon).into_shared();
        let of_gain = norm::back(x, gain, self.epsilon, of_x, Some(gradient.view()));
        let [gates, ups, hidden] = [gates, ups, hidden].map(Array2::into_shared);
        [
            of_gain,
            Gradient::Product(normed.clone(), gates),
            Gradient::Product(normed, ups),
            Gradient::Product(hidden, gradient),
        ]
    }
    /// Of rows, then of each group the gain and the maps.
    fn run(self, inputs: Vec<Rows>) -> (Array2<f32>, Back) {
        let (x, groups) = inputs.split_first().expect("rows");
        let (groups, _) = groups.as_chunks();
        let mut output = copied(x);
        let kept = run_each(&self.n_rows, groups, &mut output, |which, group, out| {
            self.forward(part(x.view(), 0, which), group, out)
        });
        let back = move |Flow { gradient, .. }: Flow<'_>| {
            let (x, groups) = inputs.split_first().expect("rows");
            let (groups, _) = groups.as_chunks();
            let mut of_x = Array2::zeros(x.dim());
            let of = groups.iter().zip(kept);
            let of_groups = run_each(&self.n_rows, of, &mut of_x, |which, (group, kept), of_x| {
                let gradient = share(&gradient, which.clone());
                self.backward(part(x.view(), 0, which), group, kept, gradient, of_x)
            });
            let of_groups = of_groups.into_iter().flatten();
            let found = [of_x.into()].into_iter().chain(of_groups);
            found.map(Some).collect()
        };
        (output, Box::new(back))
    }
}

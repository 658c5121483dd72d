//! Fused projection on the host with its gradients: `norm(x) W`, queries scaled, queries and keys rotated to their positions.

use super::super::groups::Group;
use super::super::rotary::Angles;
use super::super::rotary_projection::{Columns, NormedMap};
use super::custom_op::{Back, Flow, input, run_many};
use super::gradient::Gradient;
use super::groups::{n_rows, run_each, share};
use super::numeric::{Rows, flat, flat_mut, part, rows_per_task, vectorised};
use super::packed::Packed;
use super::rms_norm as norm;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;
use rayon::prelude::*;
use std::sync::Arc;

/// See [`rotary_projection`](super::super::rotary_projection::rotary_projection).
pub(crate) fn rotary_projection<B: Backend>(
    x: &Tensor<B, 2>,
    groups: &[Group<NormedMap<'_, B>>],
    columns: Columns,
    angles: &Angles<B>,
    packed: &Packed,
) -> Option<Tensor<B, 2>> {
    let (norm, _) = groups.first()?.of;
    let project = Project {
        columns,
        epsilon: norm.epsilon as f32,
        places: angles.places.as_deref().map(Arc::from),
        n_rows: n_rows(groups),
        packed: packed.clone(),
    };
    let [cos, sin] = [&angles.cos, &angles.sin].map(input);
    let of_group = |group: &Group<NormedMap<'_, B>>| {
        let (norm, map) = group.of;
        [input(&norm.gamma.val()), input(map)]
    };
    let inputs = [input(x), cos, sin].into_iter();
    let inputs = inputs.chain(groups.iter().flat_map(of_group)).collect();
    run_many(inputs, |inputs| project.run(inputs))
}

struct Project {
    columns: Columns,
    epsilon: f32,
    /// Where each token stands; see [`rotary_projection`].
    places: Option<Arc<[usize]>>,
    n_rows: Vec<usize>,
    packed: Packed,
}

impl Project {
    /// Rotates and scales rows, or does the reverse with their gradient.
    fn apply_rotary(
        &self,
        rows: &mut Array2<f32>,
        d_model: usize,
        cos: &Rows,
        sin: &Rows,
        back: bool,
    ) {
        let [n_scaled, n_turned, _] = self.columns.parts().map(|parts| parts * d_model);
        let (width, n_angles, half) = (rows.ncols(), cos.nrows(), cos.ncols());
        let scale = (2.0 * half as f32).sqrt().recip();
        let sign = if back { -1.0 } else { 1.0 };
        let (cos, sin) = (flat(cos), flat(sin));
        let n_rows = rows_per_task(width);
        let chunks = flat_mut(rows).par_chunks_mut(n_rows * width);
        chunks.enumerate().for_each(|(chunk, rows)| {
            vectorised!({
                for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                    let token = chunk * n_rows + index;
                    let angle = match &self.places {
                        Some(places) => places[token],
                        None => token % n_angles,
                    } * half;
                    let (cos, sin) = (&cos[angle..][..half], &sin[angle..][..half]);
                    let heads = row[..n_turned].chunks_exact_mut(2 * half);
                    for (head, values) in heads.enumerate() {
                        let scale = if head * 2 * half < n_scaled {
                            scale
                        } else {
                            1.0
                        };
                        let (first, second) = values.split_at_mut(half);
                        let pairs = first.iter_mut().zip(second).zip(cos.iter().zip(sin));
                        for ((first, second), (cos, sin)) in pairs {
                            let (cos, sin) = (cos * scale, sin * scale * sign);
                            (*first, *second) =
                                (*first * cos - *second * sin, *second * cos + *first * sin);
                        }
                    }
                }
            });
        });
    }
    /// Of rows, cosines and sines, then of each group the gain and the map.
    fn run(self, inputs: Vec<Rows>) -> (Array2<f32>, Back) {
        let ([x, cos, sin], groups) = inputs.split_first_chunk().expect("rows and angles");
        let (groups, _) = groups.as_chunks();
        let mut rows = Array2::zeros([x.nrows(), groups[0][1].ncols()]);
        run_each(
            &self.n_rows,
            groups,
            &mut rows,
            |which, [gain, map], out| {
                let normed = norm::norm(part(x.view(), 0, which), gain, self.epsilon);
                self.packed.add_product(normed.view(), map.view(), out);
            },
        );
        self.apply_rotary(&mut rows, x.ncols(), cos, sin, false);
        (rows, Box::new(move |flow| self.back(&inputs, flow)))
    }

    fn back(&self, inputs: &[Rows], flow: Flow<'_>) -> Vec<Option<Gradient>> {
        let Flow {
            gradient, wanted, ..
        } = flow;
        let ([x, cos, sin], groups) = inputs.split_first_chunk().expect("rows and angles");
        let (groups, _) = groups.as_chunks();
        let (wanted_of_groups, _) = wanted[3..].as_chunks();
        let mut gradient = gradient.into_owned();
        self.apply_rotary(&mut gradient, x.ncols(), cos, sin, true);
        let gradient = gradient.into_shared();
        let mut of_x = Array2::zeros(x.dim());
        let of = groups.iter().zip(wanted_of_groups);
        let of_groups = run_each(
            &self.n_rows,
            of,
            &mut of_x,
            |which, ([gain, map], &[gain_wanted, map_wanted]), mut out| {
                let gradient = share(&gradient, which.clone());
                let x = part(x.view(), 0, which);
                let of_gain = (wanted[0] || gain_wanted).then(|| {
                    self.packed
                        .add_product(gradient.view(), map.t(), out.view_mut());
                    norm::back(x, gain, self.epsilon, out, None)
                });
                let of_map = map_wanted.then(|| {
                    let normed = norm::norm(x, gain, self.epsilon).into_shared();
                    Gradient::Product(normed, gradient)
                });
                [of_gain, of_map]
            },
        );
        let of_first_three = [Some(of_x.into()), None, None];
        let of_groups = of_groups.into_iter().flatten();
        of_first_three.into_iter().chain(of_groups).collect()
    }
}

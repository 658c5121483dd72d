//! Fused projection on the host with its gradients: `norm(x) W + b`, queries and keys normed head by head, queries scaled,
//! queries and keys rotated to their positions.

use super::super::attention::Heads;
use super::super::groups::Group;
use super::super::rotary::Angles;
use super::super::rotary_projection::{Columns, Projection};
use super::custom_op::{Back, Flow, input, run_many};
use super::gradient::Gradient;
use super::groups::{n_rows, run_each, share};
use super::numeric::{Rows, flat, flat_mut, part, rows_per_task, vectorised};
use super::packed::{Lent, Packed};
use super::rms_norm as norm;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// See [`rotary_projection`](super::super::rotary_projection::rotary_projection).
pub(crate) fn rotary_projection<B: Backend>(
    x: &Tensor<B, 2>,
    groups: &[Group<Projection<'_, B>>],
    (columns, heads): (Columns, Heads),
    angles: &Angles<B>,
    packed: &Packed,
) -> Option<Tensor<B, 2>> {
    let of = &groups.first()?.of;
    let project = Project {
        widths: columns.widths(heads),
        epsilon: of.norm.epsilon as f32,
        has_bias: of.bias.is_some(),
        normed: match of.head_norms.is_empty() {
            true => Vec::new(),
            false => columns.rotated(heads),
        },
        query_factor: angles.query_factor as f32,
        places: angles.places.as_deref().map(Arc::from),
        n_rows: n_rows(groups),
        packed: packed.lend(),
    };
    let [cos, sin] = [&angles.cos, &angles.sin].map(input);
    let of_group = |group: &Group<Projection<'_, B>>| {
        let Projection {
            norm,
            map,
            bias,
            head_norms,
        } = &group.of;
        let first = [input(&norm.gamma.val()), input(map)];
        let norms = head_norms.iter().map(|norm| input(&norm.gamma.val()));
        let rest = bias.iter().map(|bias| input(bias)).chain(norms);
        first.into_iter().chain(rest).collect::<Vec<_>>()
    };
    let inputs = [input(x), cos, sin].into_iter();
    let inputs = inputs.chain(groups.iter().flat_map(of_group)).collect();
    run_many(inputs, move |inputs| project.run(inputs))
}

#[derive(Clone)]
struct Project {
    /// Columns that are scaled, that are rotated, and all.
    widths: [usize; 3],
    epsilon: f32,
    has_bias: bool,
    /// Columns whose heads are normed.
    normed: Vec<Range<usize>>,
    /// What multiplies queries besides `1/sqrt(d_head)`.
    query_factor: f32,
    /// Where each token stands; see [`rotary_projection`].
    places: Option<Arc<[usize]>>,
    n_rows: Vec<usize>,
    packed: Lent,
}

/// The inputs of a group.
struct OfGroup<'a> {
    gain: &'a Rows,
    map: &'a Rows,
    bias: Option<&'a Rows>,
    /// Gains of the norms of heads.
    heads: &'a [Rows],
}

impl Project {
    /// Rotates and scales rows, or does the reverse with their gradient.
    fn apply_rotary(&self, rows: &mut Array2<f32>, cos: &Rows, sin: &Rows, back: bool) {
        let [n_scaled, n_turned, _] = self.widths;
        let (width, n_angles, half) = (rows.ncols(), cos.nrows(), cos.ncols());
        let scale = (2.0 * half as f32).sqrt().recip() * self.query_factor;
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

    /// How many inputs a group has.
    fn n_inputs(&self) -> usize {
        2 + usize::from(self.has_bias) + self.normed.len()
    }

    fn groups<'a>(&self, inputs: &'a [Rows]) -> Vec<OfGroup<'a>> {
        let groups = inputs.chunks_exact(self.n_inputs());
        let group = |inputs: &'a [Rows]| {
            let ([gain, map], rest) = inputs.split_first_chunk().expect("a gain and a map");
            let (bias, heads) = rest.split_at(usize::from(self.has_bias));
            OfGroup {
                gain,
                map,
                bias: bias.first(),
                heads,
            }
        };
        groups.map(group).collect()
    }

    /// Of rows, cosines and sines, then of each group the gain, the map, its bias and the gains of heads.
    fn run(self, inputs: Vec<Rows>) -> (Array2<f32>, Back) {
        let ([x, cos, sin], of_groups) = inputs.split_first_chunk().expect("rows and angles");
        let groups = self.groups(of_groups);
        let mut rows = Array2::zeros([x.nrows(), self.widths[2]]);
        let before = run_each(&self.n_rows, &groups, &mut rows, |which, of, mut out| {
            if let Some(bias) = of.bias {
                out += &bias.row(0);
            }
            let normed = norm::norm(part(x.view(), 0, which), of.gain, self.epsilon);
            let (normed, map) = (normed.view(), of.map.view());
            self.packed.add_product(normed, map, out.view_mut());
            self.norm_heads(of.heads, out)
        });
        self.apply_rotary(&mut rows, cos, sin, false);
        let back = move |flow: Flow<'_>| self.back(&inputs, &before, flow);
        (rows, Box::new(back))
    }

    /// Norms heads and gives what they were, range by range.
    fn norm_heads(&self, gains: &[Rows], mut out: ArrayViewMut2<f32>) -> Vec<Array2<f32>> {
        let ranges = self.normed.iter().zip(gains);
        let norm = |(columns, gain): (&Range<usize>, &Rows)| {
            let heads = to_heads(out.view(), columns, gain.ncols());
            let normed = norm::norm(heads.view(), gain, self.epsilon);
            from_heads(normed, columns, out.view_mut());
            heads
        };
        ranges.map(norm).collect()
    }

    /// The reverse, of gradients; `before` is what heads were. Returns the gradients of gains.
    fn back_heads(
        &self,
        gains: &[Rows],
        before: &[Array2<f32>],
        mut gradient: ArrayViewMut2<f32>,
    ) -> Vec<Gradient> {
        let ranges = self.normed.iter().zip(gains).zip(before);
        let back = |((columns, gain), before): ((&Range<usize>, &Rows), &Array2<f32>)| {
            let mut heads = to_heads(gradient.view(), columns, gain.ncols());
            let of_gain = norm::back(before.view(), gain, self.epsilon, heads.view_mut(), None);
            from_heads(heads, columns, gradient.view_mut());
            of_gain
        };
        ranges.map(back).collect()
    }

    fn back(
        &self,
        inputs: &[Rows],
        before: &[Vec<Array2<f32>>],
        flow: Flow<'_>,
    ) -> Vec<Option<Gradient>> {
        let Flow {
            gradient, wanted, ..
        } = flow;
        let ([x, cos, sin], of_groups) = inputs.split_first_chunk().expect("rows and angles");
        let groups = self.groups(of_groups);
        let wanted_of_groups = wanted[3..].chunks_exact(self.n_inputs());
        let mut gradient = gradient.into_owned();
        self.apply_rotary(&mut gradient, cos, sin, true);
        let of = groups.iter().zip(before);
        let of_heads = run_each(
            &self.n_rows,
            of,
            &mut gradient,
            |_, (of, before), gradient| self.back_heads(of.heads, before, gradient),
        );
        let gradient = gradient.into_shared();
        let mut of_x = Array2::zeros(x.dim());
        let of = groups.iter().zip(wanted_of_groups).zip(of_heads);
        let of_groups = run_each(
            &self.n_rows,
            of,
            &mut of_x,
            |which, ((of, wanted_of_group), of_heads), mut out| {
                let gradient = share(&gradient, which.clone());
                let x = part(x.view(), 0, which);
                let of_gain = (wanted[0] || wanted_of_group[0]).then(|| {
                    let (gradient, map) = (gradient.view(), of.map.t());
                    self.packed.add_product(gradient, map, out.view_mut());
                    norm::back(x, of.gain, self.epsilon, out, None)
                });
                let of_bias = of.bias.map(|_| {
                    let sum = gradient.sum_axis(Axis(0));
                    Some(sum.insert_axis(Axis(0)).into())
                });
                let of_map = wanted_of_group[1].then(|| {
                    let normed = norm::norm(x, of.gain, self.epsilon).into_shared();
                    Gradient::Product(normed, gradient)
                });
                let of_heads = of_heads.into_iter().map(Some);
                let rest = of_bias.into_iter().chain(of_heads);
                [of_gain, of_map]
                    .into_iter()
                    .chain(rest)
                    .collect::<Vec<_>>()
            },
        );
        let of_first_three = [Some(of_x.into()), None, None];
        let of_groups = of_groups.into_iter().flatten();
        of_first_three.into_iter().chain(of_groups).collect()
    }
}

/// Some columns, a row for each head.
fn to_heads(rows: ArrayView2<f32>, columns: &Range<usize>, d_head: usize) -> Array2<f32> {
    let part = part(rows, 1, columns.clone());
    let part = part.as_standard_layout().into_owned();
    let n_heads = part.len() / d_head;
    let heads = part.into_shape_with_order([n_heads, d_head]);
    heads.expect("whole heads")
}

/// The inverse, written into the columns.
fn from_heads(heads: Array2<f32>, columns: &Range<usize>, rows: ArrayViewMut2<f32>) {
    let dims = [rows.nrows(), columns.len()];
    let heads = heads.into_shape_with_order(dims).expect("whole heads");
    part(rows, 1, columns.clone()).assign(&heads);
}

//! What attention starts from: `norm(x) W`, queries scaled, queries and keys turned to their positions.

use super::node::{Gradient, Pass, Rows, input, run};
use super::norm;
use super::numeric::{flat, flat_mut, product, rows_per_task, vectorised};
use burn::nn::RmsNorm;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;
use rayon::prelude::*;
use std::sync::Arc;

/// What the columns of a map are: queries, then keys, then values, of `d_model` columns each where they are there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Columns {
    /// All three.
    All,
    /// Queries.
    Queries,
    /// Keys and values.
    KeysValues,
}

impl Columns {
    /// How many parts of `d_model` columns are scaled, turned, and there at all: each the first ones.
    pub fn parts(self) -> [usize; 3] {
        match self {
            Self::All => [1, 2, 3],
            Self::Queries => [1, 1, 1],
            Self::KeysValues => [0, 1, 2],
        }
    }
}

/// Rows of queries, keys and values of tokens. `angles` are cosines and sines of all positions, and where each token stands among
/// them; if nothing is said, at all positions in order, again and again.
///
/// # Shapes
/// `[n, d_model]`, `[d_model, d_out]` and `[n_positions, d_head / 2]` to `[n, d_out]`
pub(crate) fn project<B: Backend>(
    x: &Tensor<B, 2>,
    norm: &RmsNorm<B>,
    map: &Tensor<B, 2>,
    columns: Columns,
    (tables, places): ([Tensor<B, 2>; 2], Option<&[usize]>),
) -> Option<Tensor<B, 2>> {
    let pass = Project {
        columns,
        epsilon: norm.epsilon as f32,
        places: places.map(Arc::from),
    };
    let [cos, sin] = tables.map(|table| input(&table));
    let inputs = [input(x), input(&norm.gamma.val()), input(map), cos, sin];
    run(pass, inputs)
}

#[derive(Clone, Debug)]
struct Project {
    columns: Columns,
    epsilon: f32,
    /// Where each token stands; see [`project`].
    places: Option<Arc<[usize]>>,
}

impl Project {
    /// Turns and scales rows, or, with the gradient of what that gives, takes it back.
    fn turn(&self, rows: &mut Array2<f32>, d_model: usize, cos: &Rows, sin: &Rows, back: bool) {
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
}

impl Pass<5> for Project {
    type Kept = ();

    fn forward(&self, [x, gain, map, cos, sin]: &[Rows; 5]) -> (Array2<f32>, ()) {
        let normed = norm::norm(x, gain, self.epsilon);
        let mut rows = product(normed.view(), map.view());
        self.turn(&mut rows, x.ncols(), cos, sin, false);
        (rows, ())
    }

    fn backward(
        &self,
        [x, gain, map, cos, sin]: &[Rows; 5],
        (): (),
        gradient: Rows,
        wanted: [bool; 5],
    ) -> [Option<Gradient>; 5] {
        let mut gradient = gradient.into_owned();
        self.turn(&mut gradient, x.ncols(), cos, sin, true);
        let gradient = gradient.into_shared();
        let of_map = wanted[2].then(|| {
            let normed = norm::norm(x, gain, self.epsilon).into_shared();
            Gradient::Product(normed, gradient.clone())
        });
        let [of_x, of_gain] = match wanted[0] || wanted[1] {
            true => {
                let of_normed = product(gradient.view(), map.t());
                norm::back(x, gain, self.epsilon, of_normed, None).map(Some)
            }
            false => [None, None],
        };
        [of_x, of_gain, of_map, None, None]
    }
}

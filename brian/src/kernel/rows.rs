//! Some rows of a tensor, any of them any number of times, and others in their place.

use super::node::{Gradient, Pass, Rows, SomeRows, input, run};
use super::numeric::{flat, flat_mut};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::Array2;

/// The rows `which`.
///
/// # Shapes
/// `[n, width]` to `[which, width]`
pub(crate) fn rows<B: Backend>(from: &Tensor<B, 2>, which: &[usize]) -> Option<Tensor<B, 2>> {
    let which = which.to_vec();
    run(Select { which }, [input(from)])
}

/// `into` with `rows` in the places `which`; where one place gets several, with their sum.
///
/// # Shapes
/// `[n, width]` and `[which, width]` to `[n, width]`
pub(crate) fn replace<B: Backend>(
    into: &Tensor<B, 2>,
    which: &[usize],
    rows: &Tensor<B, 2>,
) -> Option<Tensor<B, 2>> {
    let which = which.to_vec();
    run(Replace { which }, [input(into), input(rows)])
}

/// Rows that lie in several tensors `[…, width]`.
#[derive(Clone, Debug)]
pub(crate) struct Parts<B: Backend> {
    pub parts: Vec<Tensor<B, 2>>,
    /// Where each lies; no two in one place.
    pub places: Vec<Place>,
}

/// A row of one of several tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub part: usize,
    pub row: usize,
}

impl<B: Backend> Parts<B> {
    /// All of one tensor.
    pub fn one(part: Tensor<B, 2>) -> Self {
        let [n_rows, _] = part.dims();
        Self {
            parts: vec![part],
            places: (0..n_rows).map(|row| Place { part: 0, row }).collect(),
        }
    }
}

fn pick(from: &Rows, which: &[usize]) -> Array2<f32> {
    let width = from.ncols();
    let from = flat(from);
    let mut rows = Vec::with_capacity(which.len() * width);
    for &row in which {
        rows.extend_from_slice(&from[row * width..][..width]);
    }
    Array2::from_shape_vec([which.len(), width], rows).expect("so many rows")
}

#[derive(Clone, Debug)]
struct Select {
    which: Vec<usize>,
}

impl Pass<1> for Select {
    type Kept = ();

    fn forward(&self, [from]: &[Rows; 1]) -> (Array2<f32>, ()) {
        (pick(from, &self.which), ())
    }

    fn backward(
        &self,
        _: &[Rows; 1],
        (): (),
        gradient: Rows,
        _: [bool; 1],
    ) -> [Option<Gradient>; 1] {
        let places = self.which.iter().enumerate();
        [Some(Gradient::Some(SomeRows {
            rows: gradient,
            places: places.map(|(which, &place)| [which, place]).collect(),
        }))]
    }
}

#[derive(Clone, Debug)]
struct Replace {
    which: Vec<usize>,
}

impl Pass<2> for Replace {
    type Kept = ();

    fn forward(&self, [into, rows]: &[Rows; 2]) -> (Array2<f32>, ()) {
        let width = into.ncols();
        let mut replaced = into.to_owned();
        let mut is_first = vec![true; into.nrows()];
        let to = flat_mut(&mut replaced);
        for (from, &row) in flat(rows).chunks_exact(width.max(1)).zip(&self.which) {
            let to = &mut to[row * width..][..width];
            match std::mem::take(&mut is_first[row]) {
                true => to.copy_from_slice(from),
                false => to.iter_mut().zip(from).for_each(|(sum, from)| *sum += from),
            }
        }
        (replaced, ())
    }

    fn backward(
        &self,
        _: &[Rows; 2],
        (): (),
        gradient: Rows,
        wanted: [bool; 2],
    ) -> [Option<Gradient>; 2] {
        let of_rows = wanted[1].then(|| pick(&gradient, &self.which).into());
        let of_into = wanted[0].then(|| {
            let width = gradient.ncols();
            let mut gradient = gradient.into_owned();
            let of_into = flat_mut(&mut gradient);
            let rows = self.which.iter();
            rows.for_each(|row| of_into[row * width..][..width].fill(0.0));
            gradient.into()
        });
        [of_into, of_rows]
    }
}

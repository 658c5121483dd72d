//! Fused gather and scatter on the host: selected rows, replaced rows, selected columns.

use super::custom_op::{FusedPass, MOST_INPUTS, input, run, run_many};
use super::gradient::{Gradient, SomeRows};
use super::numeric::{Rows, copied, filled, flat, flat_mut};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayBase, Data, Ix2};
use std::ops::Range;

/// The rows `which`.
///
/// # Shapes
/// `[n, width]` to `[which, width]`
pub(crate) fn rows<B: Backend>(from: &Tensor<B, 2>, which: &[usize]) -> Option<Tensor<B, 2>> {
    let which = which.to_vec();
    run(Select { which }, [input(from)])
}

/// `into` with the rows `which` replaced by those of the parts, one part after another. Where several rows go to one place, it
/// gets their sum.
///
/// # Shapes
/// `[n, width]` and `[…, width]`, `which` in all, to `[n, width]`
pub(crate) fn replace<B: Backend>(
    into: &Tensor<B, 2>,
    which: &[usize],
    parts: &[Tensor<B, 2>],
) -> Option<Tensor<B, 2>> {
    if parts.len() >= MOST_INPUTS {
        return replace(into, which, &[Tensor::cat(parts.to_vec(), 0)]);
    }
    let which = which.to_vec();
    let parts = parts.iter().map(input);
    run_many(
        Replace { which },
        [input(into)].into_iter().chain(parts).collect(),
    )
}

/// The rows `which`.
pub(super) fn pick(from: &Rows, which: &[usize]) -> Array2<f32> {
    let (width, from) = (from.ncols(), flat(from));
    filled([which.len(), width], |row, to| {
        to.copy_from_slice(&from[which[row] * width..][..width]);
    })
}

/// Selected columns.
pub(super) fn cut(
    from: &ArrayBase<impl Data<Elem = f32>, Ix2>,
    which: Range<usize>,
) -> Array2<f32> {
    let (n_rows, width) = from.dim();
    let from = flat(from);
    filled([n_rows, which.len()], |row, to| {
        to.copy_from_slice(&from[row * width..][which.clone()]);
    })
}

/// The gradient of the tensor that rows were [picked](pick) from.
pub(super) fn put_back(gradient: Rows, which: &[usize]) -> Gradient {
    let places = which.iter().enumerate();
    Gradient::Some(SomeRows {
        rows: gradient,
        places: places.map(|(which, &place)| [which, place]).collect(),
    })
}

#[derive(Clone, Debug)]
struct Select {
    which: Vec<usize>,
}

impl FusedPass<1> for Select {
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
        [Some(put_back(gradient, &self.which))]
    }
}

/// A tensor, then parts of what replaces its rows.
#[derive(Clone, Debug)]
struct Replace {
    which: Vec<usize>,
}

impl<const N: usize> FusedPass<N> for Replace {
    type Kept = ();

    fn forward(&self, inputs: &[Rows; N]) -> (Array2<f32>, ()) {
        let (into, parts) = inputs.split_first().expect("a tensor");
        let width = into.ncols();
        let mut replaced = copied(into);
        let mut is_first = vec![true; into.nrows()];
        let to = flat_mut(&mut replaced);
        let rows = parts.iter().flat_map(|part| flat(part).chunks_exact(width));
        for (from, &row) in rows.zip(&self.which) {
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
        inputs: &[Rows; N],
        (): (),
        gradient: Rows,
        wanted: [bool; N],
    ) -> [Option<Gradient>; N] {
        let mut left = self.which.as_slice();
        let mut found: [Option<Gradient>; N] = std::array::from_fn(|index| {
            let n_rows = match index {
                0 => 0,
                _ => inputs[index].nrows().min(left.len()),
            };
            let (which, others) = left.split_at(n_rows);
            left = others;
            (n_rows > 0 && wanted[index]).then(|| pick(&gradient, which).into())
        });
        if wanted[0] {
            let width = gradient.ncols();
            let mut gradient = gradient.into_owned();
            let of_into = flat_mut(&mut gradient);
            let rows = self.which.iter();
            rows.for_each(|row| of_into[row * width..][..width].fill(0.0));
            found[0] = Some(gradient.into());
        }
        found
    }
}

/// Columns of a matrix from `first` on.
///
/// # Shapes
/// `[d_in, d_out]` to `[d_in, n]`
pub(crate) fn columns<B: Backend>(
    map: &Tensor<B, 2>,
    first: usize,
    n: usize,
) -> Option<Tensor<B, 2>> {
    run(Columns { first, n }, [input(map)])
}

#[derive(Clone, Debug)]
struct Columns {
    first: usize,
    n: usize,
}

impl FusedPass<1> for Columns {
    type Kept = ();

    fn forward(&self, [map]: &[Rows; 1]) -> (Array2<f32>, ()) {
        (cut(map, self.first..self.first + self.n), ())
    }

    fn backward(
        &self,
        _: &[Rows; 1],
        (): (),
        gradient: Rows,
        _: [bool; 1],
    ) -> [Option<Gradient>; 1] {
        [Some(Gradient::Columns(gradient, self.first))]
    }
}

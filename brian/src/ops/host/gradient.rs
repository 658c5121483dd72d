//! `Gradient`, the forms in which a fused operation returns the gradient of an input: whole, a product `leftᵀ right` not
//! multiplied yet, some rows, or some columns; each can be added to a sum.

use super::gemm::{add_product, product};
use super::numeric::{Rows, add, flat, flat_mut, part, rows_per_task};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

/// The gradient of an input.
pub(super) enum Gradient {
    /// The whole gradient.
    Whole(Rows),
    /// `leftᵀ right`, for a weight matrix: not multiplied yet, since several may be multiplied at once.
    Product(Rows, Rows),
    /// The gradient of some rows; that of all others is zero.
    Some(SomeRows),
    /// The gradient of the columns from one on; that of all others is zero.
    Columns(Rows, usize),
}

impl Gradient {
    /// Adds it to a sum.
    pub fn add_to(self, sum: &mut Array2<f32>) {
        match self {
            Self::Whole(whole) => add(flat_mut(sum), flat(&whole)),
            Self::Product(left, right) => add_product(left.t(), right.view(), sum.view_mut()),
            Self::Some(some) => some.add_to(sum),
            Self::Columns(columns, first) => {
                let which = first..first + columns.ncols();
                let mut sum = part(sum.view_mut(), 1, which);
                sum += &columns;
            }
        }
    }
}

/// Rows to be added to rows of a sum; `places` are pairs of a row here and a row there.
pub(super) struct SomeRows {
    pub rows: Rows,
    pub places: Vec<[usize; 2]>,
}

impl SomeRows {
    fn add_to(&self, sum: &mut Array2<f32>) {
        let width = sum.ncols();
        let n_rows = rows_per_task(width);
        let from = flat(&self.rows);
        let tasks = flat_mut(sum).par_chunks_mut(n_rows * width).enumerate();
        tasks.for_each(|(task, to)| {
            let own = self
                .places
                .iter()
                .filter(|[_, place]| place / n_rows == task);
            for &[which, place] in own {
                let row = &from[which * width..][..width];
                let sums = to[place % n_rows * width..][..width].iter_mut();
                sums.zip(row).for_each(|(sum, value)| *sum += value);
            }
        });
    }
}

impl From<Array2<f32>> for Gradient {
    fn from(whole: Array2<f32>) -> Self {
        Self::Whole(whole.into_shared())
    }
}

/// `a b`, where it is wanted.
pub(super) fn product_if(wanted: bool, a: ArrayView2<f32>, b: ArrayView2<f32>) -> Option<Gradient> {
    wanted.then(|| product(a, b).into())
}

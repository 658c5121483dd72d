//! Some rows of a tensor, any of them any number of times.

use super::node::{Gradient, Pass, Rows, input, run};
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

/// Rows that lie in one or two tensors `[…, width]`.
pub(crate) struct Parts<B: Backend> {
    pub parts: Vec<Tensor<B, 2>>,
    /// Where each lies, counted through all parts; none twice.
    pub rows: Vec<usize>,
}

impl<B: Backend> Parts<B> {
    /// All of one tensor.
    pub fn one(part: Tensor<B, 2>) -> Self {
        let [n_rows, _] = part.dims();
        Self {
            parts: vec![part],
            rows: (0..n_rows).collect(),
        }
    }
}

#[derive(Clone, Debug)]
struct Select {
    which: Vec<usize>,
}

impl Pass<1> for Select {
    type Kept = ();

    fn forward(&self, [from]: &[Rows; 1]) -> (Array2<f32>, ()) {
        let width = from.ncols();
        let from = flat(from);
        let mut rows = Vec::with_capacity(self.which.len() * width);
        for &row in &self.which {
            rows.extend_from_slice(&from[row * width..][..width]);
        }
        let rows = Array2::from_shape_vec([self.which.len(), width], rows);
        (rows.expect("so many rows"), ())
    }

    fn backward(
        &self,
        [from]: &[Rows; 1],
        (): (),
        gradient: Rows,
        _: [bool; 1],
    ) -> [Option<Gradient>; 1] {
        let width = from.ncols();
        let mut sums = Array2::zeros(from.dim());
        let to = flat_mut(&mut sums);
        for (from, &row) in flat(&gradient).chunks_exact(width.max(1)).zip(&self.which) {
            for (sum, from) in to[row * width..][..width].iter_mut().zip(from) {
                *sum += from;
            }
        }
        [Some(sums.into())]
    }
}

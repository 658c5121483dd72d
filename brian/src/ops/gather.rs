//! Gather and scatter: selected rows of one tensor or of several, replaced rows, selected columns.

use super::cat::cat;
use super::{fused, gpu, host};
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData};
use std::ops::Range;

/// Indices on the device.
pub(crate) fn indices<B: Backend>(rows: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let n_rows = rows.len();
    Tensor::from_data(TensorData::new(rows, [n_rows]), device)
}

/// Selected rows, in the given order; a row may occur several times.
///
/// # Shapes
/// `[n, width]` to `[which, width]`
pub(crate) fn rows<B: Backend>(from: Tensor<B, 2>, which: &[usize]) -> Tensor<B, 2> {
    let indices = || indices(which, &from.device());
    fused(&[&|| host::gather::rows(&from, which), &|| {
        gpu::rows(&from, indices)
    }])
    .unwrap_or_else(|| from.clone().select(0, indices()))
}

/// Selected rows; the tensor itself if all are selected in their order.
pub(crate) fn some<B: Backend>(all: Tensor<B, 2>, which: &[usize]) -> Tensor<B, 2> {
    match which.iter().copied().eq(0..all.dims()[0]) {
        true => all,
        false => rows(all, which),
    }
}

/// `into` with the rows `which` replaced by those of the parts, one part after another. Where several rows go to one place, it
/// gets their sum.
///
/// # Shapes
/// `[n, width]` and `[…, width]`, `which` in all, to `[n, width]`
pub(crate) fn replace<B: Backend>(
    into: Tensor<B, 2>,
    which: &[usize],
    parts: Vec<Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let [n_rows, _] = into.dims();
    if which.iter().copied().eq(0..n_rows) {
        return cat(parts, 0);
    }
    fused(&[&|| host::gather::replace(&into, which, &parts)]).unwrap_or_else(|| {
        let device = into.device();
        let mut stays = vec![1.0; n_rows];
        which.iter().for_each(|&row| stays[row] = 0.0);
        let stays = Tensor::from_data(TensorData::new::<f32, _>(stays, [n_rows, 1]), &device);
        let which = indices(which, &device);
        let rows = cat(parts, 0);
        (into * stays).select_assign(0, which, rows, IndexingUpdateOp::Add)
    })
}

/// Selected columns of a matrix.
///
/// # Shapes
/// `[d_in, d_out]` to `[d_in, which]`
pub(crate) fn columns<B: Backend>(map: &Tensor<B, 2>, which: Range<usize>) -> Tensor<B, 2> {
    fused(&[&|| host::gather::columns(map, which.clone())])
        .unwrap_or_else(|| map.clone().slice_dim(1, which))
}

/// Rows that lie in several tensors `[…, width]`.
#[derive(Clone, Debug)]
pub(crate) struct Parts<B: Backend> {
    pub parts: Vec<Tensor<B, 2>>,
    /// Where each row lies; no two rows lie in one place.
    pub places: Vec<RowPlace>,
}

/// A row of one of several tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowPlace {
    pub part: usize,
    pub row: usize,
}

impl<B: Backend> Parts<B> {
    /// No rows.
    pub fn none() -> Self {
        Self {
            parts: Vec::new(),
            places: Vec::new(),
        }
    }

    /// All rows of one tensor.
    ///
    /// # Shapes
    /// `[n_rows, width]`
    pub fn one(part: Tensor<B, 2>) -> Self {
        let [n_rows, _] = part.dims();
        Self {
            parts: vec![part],
            places: (0..n_rows).map(|row| RowPlace { part: 0, row }).collect(),
        }
    }

    /// The rows in their order, as one tensor.
    ///
    /// # Shapes
    /// Returns `[places, width]`
    pub fn gather(self) -> Tensor<B, 2> {
        let lengths = self.parts.iter().map(|part| part.dims()[0]);
        let begin = |begin: &mut usize, length| Some(std::mem::replace(begin, *begin + length));
        let begins: Vec<usize> = lengths.scan(0, begin).collect();
        let places = self.places.iter();
        let which: Vec<usize> = places.map(|at| begins[at.part] + at.row).collect();
        some(cat(self.parts, 0), &which)
    }
}

/// A tensor several times, one copy behind the other along the first dimension.
///
/// Not `repeat_dim`: if that dimension is longer than 1, Burn 0.21 sums its gradient as if each entry stood beside its copies.
pub(crate) fn copies<B: Backend, const D: usize>(x: Tensor<B, D>, n: usize) -> Tensor<B, D> {
    cat(vec![x; n], 0)
}

//! Fused gather and scatter on the host: selected rows, replaced rows, selected columns.

use super::super::cat::cat;
use super::custom_op::{Flow, input, most_inputs, run, run_many};
use super::gradient::{Gradient, SomeRows};
use super::numeric::{Rows, copied, filled, flat, flat_mut};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayBase, Data, Ix2};
use std::ops::Range;

/// See [`rows`](super::super::gather::rows).
pub(crate) fn rows<B: Backend>(from: &Tensor<B, 2>, which: &[usize]) -> Option<Tensor<B, 2>> {
    let which = which.to_vec();
    run([input(from)], move |[from]| {
        let found = pick(&from, &which);
        let back = move |flow: Flow<'_>| vec![Some(put_back(flow.gradient, &which))];
        (found, Box::new(back))
    })
}

/// See [`replace`](super::super::gather::replace).
pub(crate) fn replace<B: Backend>(
    into: &Tensor<B, 2>,
    which: &[usize],
    parts: &[Tensor<B, 2>],
) -> Option<Tensor<B, 2>> {
    if parts.len() >= most_inputs::<B>() {
        return replace(into, which, &[cat(parts.to_vec(), 0)]);
    }
    let which = which.to_vec();
    let parts = parts.iter().map(input);
    let inputs = [input(into)].into_iter().chain(parts).collect();
    run_many(inputs, move |inputs| {
        let replaced = replaced(&inputs[0], &which, &inputs[1..]);
        let n_rows: Vec<usize> = inputs[1..].iter().map(Rows::nrows).collect();
        let back = move |flow: Flow<'_>| back_from_replaced(flow, &which, &n_rows);
        (replaced, Box::new(back))
    })
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

fn replaced(into: &Rows, which: &[usize], parts: &[Rows]) -> Array2<f32> {
    let width = into.ncols();
    let mut replaced = copied(into);
    let mut is_first = vec![true; into.nrows()];
    let to = flat_mut(&mut replaced);
    let rows = parts.iter().flat_map(|part| flat(part).chunks_exact(width));
    for (from, &row) in rows.zip(which) {
        let to = &mut to[row * width..][..width];
        match std::mem::take(&mut is_first[row]) {
            true => to.copy_from_slice(from),
            false => to.iter_mut().zip(from).for_each(|(sum, from)| *sum += from),
        }
    }
    replaced
}

/// The gradients of the tensor and of the parts, of `n_rows` each.
fn back_from_replaced(flow: Flow<'_>, which: &[usize], n_rows: &[usize]) -> Vec<Option<Gradient>> {
    let Flow {
        gradient, wanted, ..
    } = flow;
    let mut left = which;
    let of_parts = n_rows.iter().zip(&wanted[1..]).map(|(&n_rows, &wanted)| {
        let (which, others) = left.split_at(n_rows.min(left.len()));
        left = others;
        (wanted && !which.is_empty()).then(|| pick(&gradient, which).into())
    });
    let of_parts: Vec<_> = of_parts.collect();
    let of_into = wanted[0].then(|| {
        let width = gradient.ncols();
        let mut gradient = gradient.into_owned();
        let of_into = flat_mut(&mut gradient);
        let rows = which.iter();
        rows.for_each(|row| of_into[row * width..][..width].fill(0.0));
        gradient.into()
    });
    [of_into].into_iter().chain(of_parts).collect()
}

/// See [`columns`](super::super::gather::columns).
pub(crate) fn columns<B: Backend>(map: &Tensor<B, 2>, which: Range<usize>) -> Option<Tensor<B, 2>> {
    run([input(map)], move |[map]| {
        let first = which.start;
        let back = move |flow: Flow<'_>| vec![Some(Gradient::Columns(flow.gradient, first))];
        (cut(&map, which), Box::new(back))
    })
}

//! Rows of several groups, one group after another, each with maps of its own: all go through one pass, beside each other.
//!
//! The tokens of a step go to several blocks, few to each. Pass by pass and block by block, threads would wait for each other, and
//! the way back for the bookkeeping of as many operations.

use super::node::{MOST_INPUTS, Rows, input, rows_of};
use super::numeric::part;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use ndarray::{Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use std::ops::Range;

/// So many groups go through one pass at most: no pass takes more than four inputs of each, and one more.
const MOST: usize = (MOST_INPUTS - 1) / 4;

/// What some rows go through, those behind the rows of the groups before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<T> {
    pub of: T,
    pub n_rows: usize,
}

impl<T> Group<T> {
    /// The only one.
    pub fn only<B: Backend>(of: T, rows: &Tensor<B, 2>) -> [Self; 1] {
        let [n_rows, _] = rows.dims();
        [Self { of, n_rows }]
    }
}

/// Of groups, a part of what their rows go through.
pub(crate) fn each<'a, T, U>(groups: &'a [Group<T>], of: impl Fn(&'a T) -> U) -> Vec<Group<U>> {
    let groups = groups.iter();
    let with = |group: &'a Group<T>| Group {
        of: of(&group.of),
        n_rows: group.n_rows,
    };
    groups.map(with).collect()
}

/// How many groups go through a pass together: several only in the memory of the host.
pub(crate) fn at_once<B: Backend>(rows: &Tensor<B, 2>) -> usize {
    match rows_of::<B>(input(rows)) {
        Some(_) => MOST,
        None => 1,
    }
}

/// How many rows each group has.
pub(super) fn n_rows<T>(groups: &[Group<T>]) -> Vec<usize> {
    groups.iter().map(|group| group.n_rows).collect()
}

/// Some rows that lie in others.
pub(super) fn share(rows: &Rows, which: Range<usize>) -> Rows {
    part(rows.clone(), 0, which)
}

/// Runs something for each group beside the others: with which rows are its own, with what it has, and on its rows of `out`.
pub(super) fn run_each<T: Send, U: Send>(
    n_rows: &[usize],
    of: impl IntoIterator<Item = T>,
    out: &mut Array2<f32>,
    run: impl Fn(Range<usize>, T, ArrayViewMut2<f32>) -> U + Sync,
) -> Vec<U> {
    let (mut first, mut rest) = (0, out.view_mut());
    let mut tasks = Vec::with_capacity(n_rows.len());
    for (&n_rows, of) in n_rows.iter().zip(of) {
        let (own, others) = rest.split_at(Axis(0), n_rows);
        tasks.push((first..first + n_rows, of, own));
        (first, rest) = (first + n_rows, others);
    }
    let tasks = tasks.into_par_iter();
    tasks.map(|(which, of, own)| run(which, of, own)).collect()
}

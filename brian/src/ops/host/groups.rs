//! Runs the groups of rows of one operation in parallel, on the host.

use super::super::groups::Group;
use super::custom_op::MOST_INPUTS;
use super::numeric::{Rows, part};
use ndarray::{Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use std::ops::Range;

/// The most groups of one operation: none takes more than four inputs per group, and three more.
pub(in super::super) const MOST: usize = (MOST_INPUTS - 3) / 4;

/// How many rows each group has.
pub(super) fn n_rows<T>(groups: &[Group<T>]) -> Vec<usize> {
    groups.iter().map(|group| group.n_rows).collect()
}

/// A view of some rows.
pub(super) fn share(rows: &Rows, which: Range<usize>) -> Rows {
    part(rows.clone(), 0, which)
}

/// Runs `run` for each group in parallel, on the range of its rows, its item of `of`, and its rows of `out`.
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

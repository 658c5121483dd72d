//! Rows of several groups beside each other.

use super::super::groups::Group;
use super::custom_op::MOST_INPUTS;
use super::numeric::{Rows, part};
use ndarray::{Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use std::ops::Range;

/// So many groups go through one pass at most: no pass takes more than four inputs of each, and one more.
pub(in super::super) const MOST: usize = (MOST_INPUTS - 1) / 4;

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

//! `Group`, consecutive rows that go through weights of their own in an operation on many groups; `by_group` applies a function
//! group after group, for operations composed of tensor operations. `host::groups` runs groups in parallel.
//!
//! The tokens of a step go to several blocks, few to each. Run block by block, threads would wait for each other, and the
//! backward pass would pay the overhead of as many operations.

use super::cat::cat;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::ops::Range;

/// A group: `of` is what its rows go through; the rows follow those of the groups before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<T> {
    pub of: T,
    pub n_rows: usize,
}

impl<T> Group<T> {
    /// The only group, with all rows.
    ///
    /// # Shapes
    /// `rows`: `[n_rows, width]`
    pub fn only<B: Backend>(of: T, rows: &Tensor<B, 2>) -> [Self; 1] {
        let [n_rows, _] = rows.dims();
        [Self { of, n_rows }]
    }
}

/// The same groups with a part of what their rows go through.
pub(crate) fn each<'a, T, U>(groups: &'a [Group<T>], of: impl Fn(&'a T) -> U) -> Vec<Group<U>> {
    let groups = groups.iter();
    let with = |group: &'a Group<T>| Group {
        of: of(&group.of),
        n_rows: group.n_rows,
    };
    groups.map(with).collect()
}

/// Applies `make` to the rows of each group and joins the results; `make` is told which rows they are.
pub(crate) fn by_group<B: Backend, T, const N: usize>(
    rows: [Tensor<B, 2>; N],
    groups: &[Group<T>],
    make: impl Fn([Tensor<B, 2>; N], &T, Range<usize>) -> Tensor<B, 2>,
) -> Tensor<B, 2> {
    if let [Group { of, n_rows }] = groups {
        return make(rows, of, 0..*n_rows);
    }
    let mut first = 0;
    let made = groups.iter().map(|Group { of, n_rows }| {
        let which = first..first + n_rows;
        first = which.end;
        let own = rows.clone().map(|rows| rows.slice_dim(0, which.clone()));
        make(own, of, which)
    });
    cat(made.collect(), 0)
}

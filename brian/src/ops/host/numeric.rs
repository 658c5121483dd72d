//! Arithmetic of rows in f32: sums, dot product, maximum, exponential, sigmoid, tangent, parallel fill, copy and addition, written so
//! that compilers vectorise it; `vectorised!` compiles code for this machine's vector instructions.
//!
//! Every sum has a fixed order and chunks of a fixed size: the bits are the same for every number of threads.

use ndarray::{ArcArray2, Array2, ArrayBase, Axis, Data, DataMut, Ix2, RawData};
use rayon::prelude::*;
use std::ops::Range;

/// Numbers row by row, without gaps; a vector is one row.
pub(crate) type Rows = ArcArray2<f32>;

/// Lanes of a sum.
const LANES: usize = 8;
/// About how many numbers a task works on: fewer are not worth another thread.
const TASK: usize = 1 << 16;

/// How many rows of a width a task works on.
pub fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// Runs an expression, and what is inlined into it, with the best vector instructions of this machine, or with those given.
///
/// A macro, because only inlined code gets them, and the compiler keeps a large closure apart, with the instructions that every
/// machine has. `Once` makes the closure callable only once, and the call of such a closure cannot be kept apart.
macro_rules! vectorised {
    ($work:expr) => {
        vectorised!(pulp::Arch::new(), dispatch, $work)
    };
    ($simd:expr, $run:ident, $work:expr) => {{
        struct Once;
        let once = Once;
        $simd.$run(
            #[inline(always)]
            || {
                let _once = once;
                $work
            },
        )
    }};
}
pub(super) use vectorised;

/// All numbers of contiguous rows.
pub fn flat<S: Data<Elem = f32>>(rows: &ArrayBase<S, Ix2>) -> &[f32] {
    rows.as_slice().expect("rows without gaps")
}

/// The same, mutable.
pub fn flat_mut<S: DataMut<Elem = f32>>(rows: &mut ArrayBase<S, Ix2>) -> &mut [f32] {
    rows.as_slice_mut().expect("rows without gaps")
}

/// Rows that `fill` fills one by one.
pub fn filled([n_rows, width]: [usize; 2], fill: impl Fn(usize, &mut [f32]) + Sync) -> Array2<f32> {
    let mut rows = Array2::zeros([n_rows, width]);
    let at_once = rows_per_task(width);
    let tasks = flat_mut(&mut rows).par_chunks_mut(at_once * width);
    tasks.enumerate().for_each(|(task, rows)| {
        let rows = rows.chunks_exact_mut(width).enumerate();
        rows.for_each(|(row, to)| fill(task * at_once + row, to));
    });
    rows
}

/// A copy of rows, made by all threads if it is large.
pub fn copied<S: Data<Elem = f32>>(rows: &ArrayBase<S, Ix2>) -> Array2<f32> {
    if rows.len() <= TASK {
        return rows.to_owned();
    }
    let numbers = flat(rows).par_iter().copied().with_min_len(TASK).collect();
    Array2::from_shape_vec(rows.dim(), numbers).expect("as many numbers")
}

/// Some rows (`axis` 0) or columns (1) of a view.
pub fn part<S: RawData>(
    mut view: ArrayBase<S, Ix2>,
    axis: usize,
    which: Range<usize>,
) -> ArrayBase<S, Ix2> {
    view.slice_axis_inplace(Axis(axis), which.into());
    view
}

/// Whether matrix products use fused multiply-adds: matrixmultiply decides by the same condition.
pub fn has_fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::processor::v3().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Adds numbers to sums, element by element.
pub fn add(sums: &mut [f32], numbers: &[f32]) {
    let tasks = sums.par_chunks_mut(TASK).zip(numbers.par_chunks(TASK));
    tasks.for_each(|(sums, numbers)| {
        let pairs = sums.iter_mut().zip(numbers);
        pairs.for_each(|(sum, number)| *sum += number);
    });
}

/// The sum of all rows, as one row.
pub fn sum_rows<S: Data<Elem = f32>>(rows: &ArrayBase<S, Ix2>) -> Array2<f32> {
    let width = rows.ncols();
    let tasks = flat(rows).par_chunks(rows_per_task(width) * width);
    let of_task = |rows: &[f32]| {
        let mut sums = vec![0.0; width];
        for row in rows.chunks_exact(width) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        sums
    };
    total(tasks.map(of_task).collect())
}

/// The sum of the results of tasks, of at least one, as one row.
pub fn total(parts: Vec<Vec<f32>>) -> Array2<f32> {
    let add = |mut sums: Vec<f32>, part: Vec<f32>| {
        for (sum, part) in sums.iter_mut().zip(part) {
            *sum += part;
        }
        sums
    };
    let total = parts.into_iter().reduce(add).expect("a task");
    Array2::from_shape_vec([1, total.len()], total).expect("one row")
}

/// Dot product of two rows.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// Sum of a row.
#[inline(always)]
pub fn sum(row: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for block in blocks {
        for lane in 0..LANES {
            sums[lane] += block[lane];
        }
    }
    sums.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// Largest number of a row.
#[inline(always)]
pub fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut found = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for lane in 0..LANES {
            found[lane] = larger(found[lane], block[lane]);
        }
    }
    found
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, larger)
}

/// `e^x` for `x` of at most 0, to 2 units in the last place; below −87 the value at −87.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding this number leaves the nearest integer in the last bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let x = x - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let polynomial = 1.987_569_1e-4 * x + 1.398_199_9e-3;
    let polynomial = polynomial * x + 8.333_452e-3;
    let polynomial = polynomial * x + 4.166_579_6e-2;
    let polynomial = polynomial * x + 1.666_666_5e-1;
    let polynomial = polynomial * x + 0.5;
    let fraction = polynomial * x * x + x + 1.0;
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let tail = exp(-x.abs());
    let share = 1.0 / (1.0 + tail);
    if x < 0.0 { tail * share } else { share }
}

/// Hyperbolic tangent, to 4 units in the last place.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let tail = exp(-2.0 * size);
    let far = (1.0 - tail) / (1.0 + tail);
    // Where 1 less the tail would lose digits: Cephes' polynomial.
    let square = size * size;
    let polynomial = -5.704_988_7e-3 * square + 2.063_908_8e-2;
    let polynomial = polynomial * square - 5.373_971_6e-2;
    let polynomial = polynomial * square + 1.333_144_2e-1;
    let polynomial = polynomial * square - 3.333_328e-1;
    let near = polynomial * square * size + size;
    // What is no number stays so.
    let found = if size >= 0.625 { far } else { near };
    found.copysign(x)
}

#[cfg(test)]
mod tests;

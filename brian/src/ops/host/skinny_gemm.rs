//! The product `out + a b` for an `a` of few rows stored by columns, as in a weight's gradient, with matrixmultiply's bits.
//!
//! matrixmultiply packs the long side for a few rows of sums, and wakes its own threads for some microseconds of work. Here the
//! sums stay in registers, and both sides are read once, in place.

use super::numeric::{flat_mut, has_fused, vectorised};
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

/// A matrix with more rows is better packed.
const SLIM: usize = 32;

/// The block of sums in registers: rows, and columns.
const ROWS: usize = 4;
const COLUMNS: usize = 16;
/// Products that are summed before they are added to the output, as in matrixmultiply.
const DEPTH: usize = 256;

/// Whether this routine is for a matrix with `height` rows.
pub fn applies(height: usize) -> bool {
    height <= SLIM && has_fused()
}

/// `out + a b`; returns false, and does nothing, unless `a` has few rows and lies column by column, as in a weight's gradient.
pub fn add_product(a: ArrayView2<f32>, b: ArrayView2<f32>, out: &mut ArrayViewMut2<f32>) -> bool {
    let (height, width) = (a.nrows(), b.ncols());
    let (Some(left), Some(right)) = (a.reversed_axes().to_slice(), b.to_slice()) else {
        return false;
    };
    if !applies(height) || b.is_empty() {
        return false;
    }
    let out = flat_mut(out);
    let groups = out.par_chunks_mut(ROWS * width).enumerate();
    groups.for_each(|(group, out)| {
        let first = group * ROWS;
        vectorised!({
            let sides = left.chunks(DEPTH * height).zip(right.chunks(DEPTH * width));
            for (left, right) in sides {
                if out.len() == ROWS * width {
                    add::<ROWS>(left, [first, height], right, width, out);
                } else {
                    for (row, out) in out.chunks_mut(width).enumerate() {
                        add::<1>(left, [first + row, height], right, width, out);
                    }
                }
            }
        });
    });
    true
}

/// `N` rows of sums, those of columns of `left` from one on.
#[inline(always)]
fn add<const N: usize>(
    left: &[f32],
    [first, height]: [usize; 2],
    right: &[f32],
    width: usize,
    out: &mut [f32],
) {
    let whole = width - width % COLUMNS;
    for column in (0..whole).step_by(COLUMNS) {
        let mut sums = [[0.0f32; COLUMNS]; N];
        for (left, right) in left.chunks_exact(height).zip(right.chunks_exact(width)) {
            let factors: &[f32; N] = left[first..].first_chunk().expect("so many rows");
            let right: &[f32; COLUMNS] = right[column..].first_chunk().expect("a whole one");
            for (sums, factor) in sums.iter_mut().zip(factors) {
                for (sum, value) in sums.iter_mut().zip(right) {
                    *sum = factor.mul_add(*value, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            let out = &mut out[row * width + column..][..COLUMNS];
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
    for column in whole..width {
        for row in 0..N {
            let pairs = left.chunks_exact(height).zip(right.chunks_exact(width));
            let sum = pairs.fold(0.0f32, |sum, (left, right)| {
                left[first + row].mul_add(right[column], sum)
            });
            out[row * width + column] += sum;
        }
    }
}

//! Matrix products on the host, each by the routine that is fastest for its shape, and all with the same bits.

use super::numeric::{has_fused, vectorised};
use super::{packed_gemm, skinny_gemm};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

/// Up to this many rows are few: their sums over the columns of a task stay in the first cache.
const FEW: usize = 8;
/// Columns per task in a product with few rows.
const COLUMNS: usize = 256;

/// `a b`.
pub fn product(a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f32> {
    let mut out = Array2::zeros([a.nrows(), b.ncols()]);
    add_product(a, b, out.view_mut());
    out
}

/// `out + a b`. `b` is read once without packing if `a` has few rows, as in decoding, and is packed here if `a` has more.
///
/// The bits of a row do not depend on how many rows there are, for later tokens may not change an earlier one: all routines sum
/// in the order in which matrixmultiply sums for many rows. Where that order is not known, matrixmultiply does all products.
pub fn add_product(a: ArrayView2<f32>, b: ArrayView2<f32>, mut out: ArrayViewMut2<f32>) {
    let (depth, width) = b.dim();
    let out = &mut out;
    match (a.as_slice(), b.as_slice()) {
        (Some(a), Some(b)) if a.len() <= FEW * depth && !b.is_empty() && has_fused() => {
            let columns = out.axis_chunks_iter_mut(Axis(1), COLUMNS).enumerate();
            let columns: Vec<_> = columns.collect();
            let columns = columns.into_par_iter();
            columns.for_each(|(chunk, out)| add_lines([a, b], [depth, width], chunk, out));
        }
        _ if skinny_gemm::add_product(a, b, out) => {}
        _ if packed_gemm::add_product(a, b, out) => {}
        _ => general_mat_mul(1.0, &a, &b, 1.0, out),
    }
}

/// `out + a b`, of a chunk of columns: every line of `b` is read once, for all rows.
fn add_lines(
    [a, b]: [&[f32]; 2],
    [depth, width]: [usize; 2],
    chunk: usize,
    mut out: ArrayViewMut2<f32>,
) {
    /// matrixmultiply adds up so many products before it adds them to what is there.
    const DEPTH: usize = 256;
    const AT_ONCE: usize = 4;
    let (first, n_columns) = (chunk * COLUMNS, out.ncols());
    vectorised!({
        for (part, b) in b.chunks(DEPTH * width).enumerate() {
            let mut sums = [[0.0f32; COLUMNS]; FEW];
            for (lines, place) in b
                .chunks(AT_ONCE * width)
                .zip((part * DEPTH..).step_by(AT_ONCE))
            {
                let line = |index: usize| &lines[index * width + first..][..n_columns];
                for (row, sums) in a.chunks(depth).zip(&mut sums) {
                    let sums = &mut sums[..n_columns];
                    let factors = &row[place..depth.min(place + AT_ONCE)];
                    if let &[a, b, c, d] = factors {
                        let [of_a, of_b, of_c, of_d] = [line(0), line(1), line(2), line(3)];
                        for (index, sum) in sums.iter_mut().enumerate() {
                            let two = b.mul_add(of_b[index], a.mul_add(of_a[index], *sum));
                            *sum = d.mul_add(of_d[index], c.mul_add(of_c[index], two));
                        }
                    } else {
                        for (index, factor) in factors.iter().enumerate() {
                            for (sum, value) in sums.iter_mut().zip(line(index)) {
                                *sum = factor.mul_add(*value, *sum);
                            }
                        }
                    }
                }
            }
            for (mut out, sums) in out.rows_mut().into_iter().zip(&sums) {
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
            }
        }
    });
}

#[cfg(test)]
mod tests;

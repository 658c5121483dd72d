//! Products of attention by x86-64-v3 vector instructions: scores and weighted sums that read rows of keys and values in place.
//! Packing is not worth it for few queries, and no faster for many.
//!
//! The order of a row's sums does not depend on what is computed beside it.

use super::processor::v3;
use pulp::x86::V3;
use pulp::{cast, f32x8};
use std::array::from_fn;

/// Sums run in so many lanes.
const LANES: usize = 8;
/// Rows of the other side that are compared at once, a lane for each.
pub const COMPARED: usize = LANES;
/// Rows that are gathered at once: they stay in the first cache for all queries.
const GATHERED: usize = 16;

type Lane = [f32; LANES];

/// A row's numbers of one head, `8 N`.
pub type Row<const N: usize> = [Lane; N];

/// Rows as rows of lanes.
pub fn rows<'a, const N: usize>(rows: impl Iterator<Item = &'a [f32]>) -> Vec<&'a Row<N>> {
    let lanes = |row: &'a [f32]| row.as_chunks().0.first_chunk().expect("a head's numbers");
    rows.map(lanes).collect()
}

/// `sum + factor row`
#[inline(always)]
fn add<const N: usize>(sum: &mut Row<N>, factor: f32, row: &Row<N>) {
    for (sum, row) in sum.iter_mut().zip(row) {
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum = factor.mul_add(*value, *sum);
        }
    }
}

/// The products; there is a value only if the machine has the instructions.
#[derive(Clone, Copy)]
pub struct Products(V3);

impl Products {
    pub fn new() -> Option<Self> {
        v3().map(Self)
    }

    /// The products of every left row with the right rows that it sees, the first ones, and with some more.
    ///
    /// # Shapes
    /// `[n, 8 N]` and `[m, 8 N]` to `[n, stride]`, the stride `m` or more and a multiple of [`COMPARED`]
    #[inline(always)]
    pub fn compare<const N: usize>(
        self,
        left: &[&Row<N>],
        right: &[&Row<N>],
        visible: &[usize],
        stride: usize,
        products: &mut [f32],
    ) {
        let Self(simd) = self;
        for first in (0..right.len()).step_by(COMPARED) {
            let rows: [_; COMPARED] = from_fn(|index| right[(first + index).min(right.len() - 1)]);
            let products = products.chunks_exact_mut(stride);
            for ((left, products), &visible) in left.iter().zip(products).zip(visible) {
                if visible > first {
                    let mut sums = [simd.splat_f32x8(0.0); COMPARED];
                    for (sum, row) in sums.iter_mut().zip(rows) {
                        for (left, right) in left.iter().zip(row) {
                            *sum = simd.mul_add_f32x8(cast(*left), cast(*right), *sum);
                        }
                    }
                    products[first..first + COMPARED].copy_from_slice(&self.across(sums));
                }
            }
        }
    }

    /// The sum of the lanes of each.
    #[inline(always)]
    fn across(self, sums: [f32x8; LANES]) -> Lane {
        let avx = self.0.avx;
        let [a, b, c, d, e, f, g, h] = sums;
        let ab = avx._mm256_hadd_ps(cast(a), cast(b));
        let cd = avx._mm256_hadd_ps(cast(c), cast(d));
        let ef = avx._mm256_hadd_ps(cast(e), cast(f));
        let gh = avx._mm256_hadd_ps(cast(g), cast(h));
        let (low, high) = (avx._mm256_hadd_ps(ab, cd), avx._mm256_hadd_ps(ef, gh));
        let first = avx._mm256_permute2f128_ps::<0x20>(low, high);
        let second = avx._mm256_permute2f128_ps::<0x31>(low, high);
        cast(avx._mm256_add_ps(first, second))
    }

    /// Adds right rows, times weights, to sums; weights are zero for rows that are not seen.
    ///
    /// # Shapes
    /// `[n, stride]` and `[m, 8 N]` to `[n, 8 N]`
    #[inline(always)]
    pub fn gather<const N: usize>(
        self,
        weights: &[f32],
        right: &[&Row<N>],
        visible: &[usize],
        stride: usize,
        sums: &mut [Row<N>],
    ) {
        for (block, rows) in right.chunks(GATHERED).enumerate() {
            let first = block * GATHERED;
            let pairs = sums.chunks_mut(2).zip(weights.chunks(2 * stride));
            for ((sums, weights), visible) in pairs.zip(visible.chunks(2)) {
                let seen = visible.iter().max().map_or(0, |&seen| seen);
                let seen = seen.saturating_sub(first).min(rows.len());
                let weights = |index: usize| &weights[index * stride + first..][..seen];
                match sums {
                    [a, b] => {
                        let mut both = [*a, *b];
                        let weights = weights(0).iter().zip(weights(1));
                        for (row, (&of_a, &of_b)) in rows.iter().zip(weights) {
                            add(&mut both[0], of_a, row);
                            add(&mut both[1], of_b, row);
                        }
                        [*a, *b] = both;
                    }
                    sums => {
                        for sum in sums {
                            let mut own = *sum;
                            for (row, &weight) in rows.iter().zip(weights(0)) {
                                add(&mut own, weight, row);
                            }
                            *sum = own;
                        }
                    }
                }
            }
        }
    }

    /// Adds left rows, times weights, to sums of right rows; weights are zero for rows that are not seen.
    ///
    /// # Shapes
    /// `[n, stride]` and `[n, 8 N]` to `m` times `8 N`
    #[inline(always)]
    pub fn scatter<const N: usize>(
        self,
        weights: &[f32],
        left: &[&Row<N>],
        visible: &[usize],
        stride: usize,
        sums: &mut [&mut Row<N>],
    ) {
        for (pair, sums) in sums.chunks_mut(2).enumerate() {
            let row = 2 * pair;
            let sees = |visible: &usize| *visible > row;
            let first = visible.iter().position(sees).unwrap_or(left.len());
            let weights = weights[first * stride..].chunks_exact(stride);
            let left = left[first..].iter().zip(weights);
            match sums {
                [a, b] => {
                    let mut both = [**a, **b];
                    for (left, weights) in left {
                        let weights: &[f32; 2] = weights[row..].first_chunk().expect("both");
                        add(&mut both[0], weights[0], left);
                        add(&mut both[1], weights[1], left);
                    }
                    [**a, **b] = both;
                }
                sums => {
                    for sum in sums {
                        let mut own = **sum;
                        left.clone()
                            .for_each(|(left, weights)| add(&mut own, weights[row], left));
                        **sum = own;
                    }
                }
            }
        }
    }
}

//! Transposes f32 for packed products, 8 × 8 numbers at a time in vector registers: `to_lines` writes 16 columns as lines of
//! 16, and `to_rows` is the inverse.

use super::numeric::vectorised;
use pulp::x86::V3;
use pulp::{cast, f32x8};

/// Columns that are transposed side by side.
pub const COLUMNS: usize = 16;
/// A square is turned at once.
const SIDE: usize = 8;

/// Columns as lines: as many as a column has numbers.
pub fn to_lines(simd: V3, columns: [&[f32]; COLUMNS], lines: &mut [[f32; COLUMNS]]) {
    vectorised!(simd, vectorize, {
        let (squares, rest) = lines.as_chunks_mut::<SIDE>();
        let n_turned = squares.len() * SIDE;
        for (square, lines) in squares.iter_mut().enumerate() {
            for first in (0..COLUMNS).step_by(SIDE) {
                let mut rows = [simd.splat_f32x8(0.0); SIDE];
                for (row, column) in rows.iter_mut().zip(&columns[first..]) {
                    *row = load(&column[square * SIDE..]);
                }
                for (line, row) in lines.iter_mut().zip(transposed(simd, rows)) {
                    store(row, &mut line[first..]);
                }
            }
        }
        for (place, line) in rest.iter_mut().enumerate() {
            for (value, column) in line.iter_mut().zip(columns) {
                *value = column[n_turned + place];
            }
        }
    });
}

/// The inverse: some columns of lines of `height` numbers, those from `first` on, as rows of `depth` numbers.
pub fn to_rows(
    simd: V3,
    lines: &[f32],
    [first, height]: [usize; 2],
    rows: &mut [f32],
    depth: usize,
) {
    vectorised!(simd, vectorize, {
        let n_turned = depth - depth % SIDE;
        for (group, rows) in rows.chunks_mut(SIDE * depth).enumerate() {
            let column = first + group * SIDE;
            let is_whole = rows.len() == SIDE * depth;
            let n_turned = if is_whole { n_turned } else { 0 };
            for place in (0..n_turned).step_by(SIDE) {
                let mut square = [simd.splat_f32x8(0.0); SIDE];
                let lines = lines[place * height..].chunks(height);
                for (row, line) in square.iter_mut().zip(lines) {
                    *row = load(&line[column..]);
                }
                let square = transposed(simd, square);
                for (row, values) in rows.chunks_exact_mut(depth).zip(square) {
                    store(values, &mut row[place..]);
                }
            }
            for (index, row) in rows.chunks_exact_mut(depth).enumerate() {
                for (place, value) in row.iter_mut().enumerate().skip(n_turned) {
                    *value = lines[place * height + column + index];
                }
            }
        }
    });
}

#[inline(always)]
fn load(from: &[f32]) -> f32x8 {
    let numbers: [f32; SIDE] = *from.first_chunk().expect("eight numbers");
    cast(numbers)
}

#[inline(always)]
fn store(numbers: f32x8, to: &mut [f32]) {
    *to.first_chunk_mut::<SIDE>().expect("eight numbers") = cast(numbers);
}

/// Rows of a square as columns.
#[inline(always)]
fn transposed(simd: V3, [a, b, c, d, e, f, g, h]: [f32x8; SIDE]) -> [f32x8; SIDE] {
    let (lower, upper) = (woven(simd, [a, b, c, d]), woven(simd, [e, f, g, h]));
    let mut turned = [a; SIDE];
    for index in 0..SIDE / 2 {
        let (lower, upper) = (cast(lower[index]), cast(upper[index]));
        turned[index] = cast(simd.avx._mm256_permute2f128_ps::<0x20>(lower, upper));
        turned[SIDE / 2 + index] = cast(simd.avx._mm256_permute2f128_ps::<0x31>(lower, upper));
    }
    turned
}

/// Four rows, number by number: first pairs of rows, then both pairs. Of each result one half is from the lower four numbers of the
/// rows, one from the upper.
#[inline(always)]
fn woven(simd: V3, [a, b, c, d]: [f32x8; SIDE / 2]) -> [f32x8; SIDE / 2] {
    let avx = simd.avx;
    let (ab_low, cd_low) = (
        avx._mm256_unpacklo_ps(cast(a), cast(b)),
        avx._mm256_unpacklo_ps(cast(c), cast(d)),
    );
    let (ab_high, cd_high) = (
        avx._mm256_unpackhi_ps(cast(a), cast(b)),
        avx._mm256_unpackhi_ps(cast(c), cast(d)),
    );
    [
        cast(avx._mm256_shuffle_ps::<0x44>(ab_low, cd_low)),
        cast(avx._mm256_shuffle_ps::<0xEE>(ab_low, cd_low)),
        cast(avx._mm256_shuffle_ps::<0x44>(ab_high, cd_high)),
        cast(avx._mm256_shuffle_ps::<0xEE>(ab_high, cd_high)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::processor::v3;
    use super::*;

    #[test]
    fn columns_are_lines_and_lines_are_rows() {
        let Some(simd) = v3() else {
            return;
        };
        for depth in [1, 7, 8, 27, 64] {
            let number = |column: usize, place: usize| (column * 1000 + place) as f32;
            let columns: [Vec<f32>; COLUMNS] = std::array::from_fn(|column| {
                (0..depth).map(|place| number(column, place)).collect()
            });
            let mut lines = vec![[0.0; COLUMNS]; depth];
            to_lines(simd, columns.each_ref().map(Vec::as_slice), &mut lines);
            for (place, line) in lines.iter().enumerate() {
                let expected: [f32; COLUMNS] = std::array::from_fn(|column| number(column, place));
                assert_eq!(*line, expected, "line {place} of {depth}");
            }
            for (first, n_rows) in [(0, COLUMNS), (3, 9), (5, 8), (13, 3)] {
                let mut rows = vec![0.0; n_rows * depth];
                to_rows(
                    simd,
                    lines.as_flattened(),
                    [first, COLUMNS],
                    &mut rows,
                    depth,
                );
                assert_eq!(
                    rows,
                    columns[first..first + n_rows].concat(),
                    "{first} {n_rows} {depth}"
                );
            }
        }
    }
}

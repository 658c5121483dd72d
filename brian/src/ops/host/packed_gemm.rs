//! `out + a b` by x86-64-v3 instructions on all threads, `b` packed here or kept packed; same bits as matrixmultiply.
//! Where these routines do not apply they return `false`, and the caller uses others.
//!
//! A walk multiplies groups of some tens of rows. matrixmultiply packs both sides of every product on one thread, which takes
//! longer than such a product itself, and runs the rest on threads of its own, which compete with those of the pool. Here all
//! threads of the pool pack a matrix, or it stays packed for a whole walk; rows are read in place, and rows and columns are
//! divided between tasks.

use super::numeric::{flat_mut, vectorised};
use super::processor::v3;
// Columns of a panel: with six rows, twelve of the sixteen registers hold sums.
use super::transpose::{COLUMNS, to_lines, to_rows};
use ndarray::{ArrayView2, ArrayViewMut2};
use pulp::x86::V3;
use pulp::{cast, f32x8};
use rayon::prelude::*;
use std::ops::Range;

/// Products that are summed before they are added to the output: a panel of this depth fits the first cache.
const DEPTH: usize = 256;
/// Panels of that depth that are packed at once, if they need not stay.
const AT_ONCE: usize = 64;
/// Fewer columns than this are not worth turning into rows.
pub const NARROW: usize = 256;
/// Rows that are multiplied at once: their sums stay in registers.
const STRIP: usize = 6;
/// The most rows of a task.
const ROWS: usize = 8 * STRIP;
/// The fewest panels of a task, and the fewest panels times rows.
const PANELS: usize = 4;
const LEAST: usize = 16 * STRIP;
/// Tasks per thread; if there would be more, tasks get more panels.
const TASKS: usize = 8;

type Line = [f32; COLUMNS];

/// A matrix cut into panels of columns, each stored line by line; the last one is filled up.
#[derive(Debug)]
pub struct Packed {
    depth: usize,
    lines: Vec<Line>,
}

impl Packed {
    /// Packs a matrix; `None` if it lies neither row by row nor column by column.
    pub fn new(map: ArrayView2<f32>) -> Option<Self> {
        let (depth, width) = map.dim();
        let mut lines = vec![[0.0; COLUMNS]; width.div_ceil(COLUMNS) * depth];
        Map::new(map)?.pack(v3()?, 0..depth, 0..width, &mut lines);
        Some(Self { depth, lines })
    }
}

/// How the numbers of a matrix lie.
enum Map<'a> {
    ByRow { numbers: &'a [f32], width: usize },
    ByColumn { numbers: &'a [f32], depth: usize },
}

impl<'a> Map<'a> {
    fn new(map: ArrayView2<'a, f32>) -> Option<Self> {
        let (depth, width) = map.dim();
        let by_row = map.to_slice();
        let by_row = by_row.map(|numbers| Self::ByRow { numbers, width });
        by_row.or_else(|| {
            let numbers = map.reversed_axes().to_slice()?;
            Some(Self::ByColumn { numbers, depth })
        })
    }

    /// Some rows of some columns, panel after panel.
    fn pack(&self, simd: V3, rows: Range<usize>, columns: Range<usize>, lines: &mut [Line]) {
        let panels = lines.par_chunks_mut(rows.len()).enumerate();
        panels.for_each(|(panel, lines)| {
            let first = columns.start + panel * COLUMNS;
            let n = COLUMNS.min(columns.end - first);
            match *self {
                Self::ByRow { numbers, width } => {
                    let rows = numbers[rows.start * width..].chunks_exact(width);
                    for (line, row) in lines.iter_mut().zip(rows) {
                        let row = &row[first..first + n];
                        match row.first_chunk() {
                            Some(whole) => *line = *whole,
                            None => line[..n].copy_from_slice(row),
                        }
                    }
                }
                Self::ByColumn { numbers, depth } => {
                    // The last one fills up the last panel.
                    let column = |index: usize| {
                        let index = first + index.min(n - 1);
                        &numbers[index * depth..][rows.clone()]
                    };
                    to_lines(simd, std::array::from_fn(column), lines);
                }
            }
        });
    }
}

/// `out + a b` with a packed `b`; returns false, and does nothing, where it does not apply.
pub fn add_packed(a: ArrayView2<f32>, b: &Packed, out: &mut ArrayViewMut2<f32>) -> bool {
    let (Some(simd), Some(rows)) = (v3(), a.to_slice().filter(|rows| !rows.is_empty())) else {
        return false;
    };
    let left = Left {
        rows,
        stride: b.depth,
        first: 0,
    };
    let columns = 0..out.ncols();
    left.multiply(simd, &b.lines, b.depth, out, columns);
    true
}

/// `out + a b`; returns false, and does nothing, where it does not apply.
pub fn add_product(a: ArrayView2<f32>, b: ArrayView2<f32>, out: &mut ArrayViewMut2<f32>) -> bool {
    let Some(simd) = v3() else {
        return false;
    };
    let (Some(left), Some(right)) = (Map::new(a), Map::new(b)) else {
        return false;
    };
    let (depth, width) = b.dim();
    let is_narrow = matches!(left, Map::ByColumn { .. }) && a.nrows() < NARROW;
    if a.is_empty() || b.is_empty() || is_narrow {
        return false;
    }
    let most = AT_ONCE.min(width.div_ceil(COLUMNS)) * DEPTH.min(depth);
    let mut lines = vec![[0.0; COLUMNS]; most];
    let mut turned = Vec::new();
    for first in (0..depth).step_by(DEPTH) {
        let part = first..(first + DEPTH).min(depth);
        let left = match left {
            Map::ByRow { numbers, .. } => Left {
                rows: numbers,
                stride: depth,
                first,
            },
            Map::ByColumn { numbers, .. } => {
                turned.resize(a.nrows() * part.len(), 0.0);
                let lines = &numbers[part.start * a.nrows()..];
                by_row(simd, lines, a.nrows(), &mut turned);
                Left {
                    rows: &turned,
                    stride: part.len(),
                    first: 0,
                }
            }
        };
        for first in (0..width).step_by(AT_ONCE * COLUMNS) {
            let columns = first..(first + AT_ONCE * COLUMNS).min(width);
            let lines = &mut lines[..columns.len().div_ceil(COLUMNS) * part.len()];
            right.pack(simd, part.clone(), columns.clone(), lines);
            left.multiply(simd, lines, part.len(), out, columns);
        }
    }
    true
}

/// Row by row what lies column by column, in lines of `height`.
fn by_row(simd: V3, lines: &[f32], height: usize, rows: &mut [f32]) {
    let depth = rows.len() / height;
    let chunks = rows.par_chunks_mut(COLUMNS * depth).enumerate();
    chunks.for_each(|(chunk, rows)| to_rows(simd, lines, [chunk * COLUMNS, height], rows, depth));
}

/// Rows of which each is multiplied from one place on.
#[derive(Clone, Copy)]
struct Left<'a> {
    rows: &'a [f32],
    stride: usize,
    first: usize,
}

impl Left<'_> {
    /// Adds the product with panels to some columns.
    fn multiply(
        self,
        simd: V3,
        lines: &[Line],
        depth: usize,
        out: &mut ArrayViewMut2<f32>,
        columns: Range<usize>,
    ) {
        let width = out.ncols();
        let mut tasks = Vec::new();
        let n_rows = self.rows.len().div_ceil(self.stride);
        let at_once = n_rows
            .div_ceil(n_rows.div_ceil(ROWS))
            .next_multiple_of(STRIP);
        let chunks = self.rows.chunks(at_once * self.stride);
        let n_tasks = TASKS * rayon::current_num_threads();
        let all_panels = columns.len().div_ceil(COLUMNS);
        let n_panels = all_panels * chunks.len() / n_tasks;
        let n_panels = n_panels.max(PANELS).max(LEAST / at_once);
        let n_panels = all_panels.div_ceil(all_panels.div_ceil(n_panels));
        for (rows, out) in chunks.zip(flat_mut(out).chunks_mut(at_once * width)) {
            let first = tasks.len();
            let panels = lines.chunks(n_panels * depth);
            tasks.extend(panels.map(|panels| Task {
                left: Left { rows, ..self },
                panels,
                depth,
                out: Vec::with_capacity(ROWS),
            }));
            for row in out.chunks_mut(width) {
                let pieces = row[columns.clone()].chunks_mut(n_panels * COLUMNS);
                let tasks = tasks[first..].iter_mut();
                tasks
                    .zip(pieces)
                    .for_each(|(task, piece)| task.out.push(piece));
            }
        }
        tasks.into_par_iter().for_each(|task| task.run(simd));
    }
}

/// Some rows times some panels.
struct Task<'a> {
    left: Left<'a>,
    panels: &'a [Line],
    depth: usize,
    /// A piece of every row of the result.
    out: Vec<&'a mut [f32]>,
}

impl Task<'_> {
    fn run(self, simd: V3) {
        vectorised!(simd, vectorize, self.multiply(simd));
    }

    #[inline(always)]
    fn multiply(mut self, simd: V3) {
        let Left { rows, stride, .. } = self.left;
        for from in (0..self.depth).step_by(DEPTH) {
            let part = from..(from + DEPTH).min(self.depth);
            let rows = &rows[self.left.first + part.start..];
            for (panel, lines) in self.panels.chunks_exact(self.depth).enumerate() {
                let lines = &lines[part.clone()];
                let (mut rows, mut out) = (rows, &mut self.out[..]);
                while !out.is_empty() {
                    // Not six and few: few rows wait for each other's sums.
                    let left = out.len();
                    let n = match (STRIP + 1..=STRIP + 3).contains(&left) {
                        true => left.div_ceil(2),
                        false => left.min(STRIP),
                    };
                    let (own, others) = out.split_at_mut(n);
                    match n {
                        1 => microkernel::<1>(simd, lines, rows, stride, own, panel),
                        2 => microkernel::<2>(simd, lines, rows, stride, own, panel),
                        3 => microkernel::<3>(simd, lines, rows, stride, own, panel),
                        4 => microkernel::<4>(simd, lines, rows, stride, own, panel),
                        5 => microkernel::<5>(simd, lines, rows, stride, own, panel),
                        _ => microkernel::<STRIP>(simd, lines, rows, stride, own, panel),
                    }
                    (rows, out) = (&rows[(n * stride).min(rows.len())..], others);
                }
            }
        }
    }
}

/// `N` rows times a panel, added to what is there.
#[inline(always)]
fn microkernel<const N: usize>(
    simd: V3,
    lines: &[Line],
    left: &[f32],
    stride: usize,
    out: &mut [&mut [f32]],
    panel: usize,
) {
    let mut rows: [&[f32]; N] = [&[]; N];
    for (index, row) in rows.iter_mut().enumerate() {
        *row = &left[index * stride..][..lines.len()];
    }
    let mut sums = [[simd.splat_f32x8(0.0); 2]; N];
    for (place, line) in lines.iter().enumerate() {
        let [low, high]: [f32x8; 2] = cast(*line);
        for (row, [sum_low, sum_high]) in rows.iter().zip(&mut sums) {
            let factor = simd.splat_f32x8(row[place]);
            *sum_low = simd.mul_add_f32x8(factor, low, *sum_low);
            *sum_high = simd.mul_add_f32x8(factor, high, *sum_high);
        }
    }
    for (sums, out) in sums.into_iter().zip(out) {
        let sums: Line = cast(sums);
        let out = &mut out[panel * COLUMNS..];
        // A whole line goes by as a whole: three percent of a train step.
        match out.first_chunk_mut::<COLUMNS>() {
            Some(out) => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out += sum;
                }
            }
            None => {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out += sum;
                }
            }
        }
    }
}

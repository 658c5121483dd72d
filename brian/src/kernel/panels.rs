//! Products of some rows with a map, to the bit those of matrixmultiply.
//!
//! A walk multiplies groups of some tens of rows. matrixmultiply packs both sides of every product on one thread, which takes
//! longer than such a product itself, and shares out what is left on threads of its own, which then compete with those of the
//! pool. Here a map is packed by all threads of the pool, or stays packed for a whole walk, rows are read where they lie, and
//! rows and columns are shared out.

use super::numeric::flat_mut;
use super::pin;
use ndarray::{Array2, ArrayView2};
use pulp::x86::V3;
use pulp::{NullaryFnOnce, cast, f32x8};
use rayon::prelude::*;
use std::borrow::Cow;

/// Columns of a panel: with six rows, twelve of the sixteen registers hold sums.
const COLUMNS: usize = 16;
/// So many products are added up before they are added to what is there: a panel of them fits the first cache.
const DEPTH: usize = 256;
/// A task works on so many rows,
const ROWS: usize = 48;
/// and on so many panels at least: on more where there are so many tasks for each thread.
const PANELS: usize = 4;
const TASKS: usize = 8;

type Line = [f32; COLUMNS];

/// A map cut into panels of columns, each line by line, and its last one filled up with zeros.
#[derive(Debug)]
pub struct Packed {
    depth: usize,
    lines: Vec<Line>,
}

impl Packed {
    /// Nothing for a map that lies neither row by row nor column by column.
    pub fn new(map: ArrayView2<f32>) -> Option<Self> {
        let (depth, width) = map.dim();
        let transposed = map.t();
        let (by_row, by_column) = (map.as_slice(), transposed.as_slice());
        let mut lines = vec![[0.0; COLUMNS]; width.div_ceil(COLUMNS) * depth];
        let fill = |panel: usize, lines: &mut [Line]| {
            let first = panel * COLUMNS;
            let n = COLUMNS.min(width - first);
            if let Some(map) = by_row {
                for (line, row) in lines.iter_mut().zip(map.chunks_exact(width)) {
                    let row = &row[first..first + n];
                    match row.first_chunk() {
                        Some(whole) => *line = *whole,
                        None => line[..n].copy_from_slice(row),
                    }
                }
            } else if let Some(map) = by_column {
                turn(&map[first * depth..][..n * depth], lines);
            }
        };
        by_row.or(by_column)?;
        let panels = lines.par_chunks_mut(depth).enumerate();
        panels.for_each(|(panel, lines)| fill(panel, lines));
        Some(Self { depth, lines })
    }
}

/// Columns one after another, side by side.
fn turn(columns: &[f32], lines: &mut [Line]) {
    let depth = lines.len();
    if columns.len() == COLUMNS * depth {
        // All at once: a line is written once, as a whole.
        let columns: [&[f32]; COLUMNS] =
            std::array::from_fn(|column| &columns[column * depth..][..depth]);
        for (place, line) in lines.iter_mut().enumerate() {
            for (value, column) in line.iter_mut().zip(columns) {
                *value = column[place];
            }
        }
        return;
    }
    for (column, values) in columns.chunks_exact(depth.max(1)).enumerate() {
        let lines = lines.iter_mut().zip(values);
        lines.for_each(|(line, value)| line[column] = *value);
    }
}

/// `out + a b`; says no, and does nothing, where it does not apply.
pub fn add_product(a: ArrayView2<f32>, b: ArrayView2<f32>, out: &mut Array2<f32>) -> bool {
    let Some(simd) = V3::try_new() else {
        return false;
    };
    if a.is_empty() || b.is_empty() {
        return false;
    }
    let Some(rows) = by_row(a) else {
        return false;
    };
    let pinned = pin::find(b);
    if let Some(map) = pinned.as_ref().and_then(|pinned| pinned.packed(b)) {
        multiply(simd, &rows, map, out);
        return true;
    }
    let Some(map) = Packed::new(b) else {
        return false;
    };
    multiply(simd, &rows, &map, out);
    true
}

/// All numbers row by row; nothing of what lies neither row by row nor column by column.
fn by_row(a: ArrayView2<'_, f32>) -> Option<Cow<'_, [f32]>> {
    /// So many lines are turned at once.
    const LINES: usize = 16;
    if let Some(rows) = a.to_slice() {
        return Some(rows.into());
    }
    let (height, depth) = a.dim();
    let transposed = a.t();
    let lines = transposed.as_slice()?;
    let mut rows = vec![0.0; height * depth];
    let chunks = rows.par_chunks_mut(COLUMNS * depth).enumerate();
    chunks.for_each(|(chunk, rows)| {
        for (part, lines) in lines.chunks(LINES * height).enumerate() {
            for (row, values) in rows.chunks_exact_mut(depth).enumerate() {
                let column = chunk * COLUMNS + row;
                let lines = lines.chunks_exact(height);
                let values = values[part * LINES..].iter_mut().zip(lines);
                values.for_each(|(value, line)| *value = line[column]);
            }
        }
    });
    Some(rows.into())
}

fn multiply(simd: V3, rows: &[f32], map: &Packed, out: &mut Array2<f32>) {
    let width = out.ncols();
    let mut tasks = Vec::new();
    let chunks = rows.chunks(ROWS * map.depth);
    let n_tasks = TASKS * rayon::current_num_threads();
    let n_panels = (width.div_ceil(COLUMNS) * chunks.len() / n_tasks).max(PANELS);
    for (rows, out) in chunks.zip(flat_mut(out).chunks_mut(ROWS * width)) {
        let panels = map.lines.chunks(n_panels * map.depth);
        let first = tasks.len();
        tasks.extend(panels.map(|panels| Task {
            rows,
            panels,
            depth: map.depth,
            out: Vec::with_capacity(ROWS),
        }));
        for row in out.chunks_mut(width) {
            let pieces = row.chunks_mut(n_panels * COLUMNS);
            let tasks = tasks[first..].iter_mut();
            tasks
                .zip(pieces)
                .for_each(|(task, piece)| task.out.push(piece));
        }
    }
    tasks.into_par_iter().for_each(|task| task.run(simd));
}

/// Some rows times some panels.
struct Task<'a> {
    rows: &'a [f32],
    panels: &'a [Line],
    depth: usize,
    /// A piece of every row of the result.
    out: Vec<&'a mut [f32]>,
}

impl Task<'_> {
    fn run(self, simd: V3) {
        struct Vectorised<'a>(Task<'a>, V3);

        impl NullaryFnOnce for Vectorised<'_> {
            type Output = ();

            #[inline(always)]
            fn call(self) {
                self.0.multiply(self.1);
            }
        }

        simd.vectorize(Vectorised(self, simd));
    }

    #[inline(always)]
    fn multiply(mut self, simd: V3) {
        for from in (0..self.depth).step_by(DEPTH) {
            let part = from..(from + DEPTH).min(self.depth);
            for (panel, lines) in self.panels.chunks_exact(self.depth).enumerate() {
                let lines = &lines[part.clone()];
                let mut rows = self
                    .rows
                    .chunks_exact(self.depth)
                    .map(|row| &row[part.clone()]);
                let mut out = self.out.iter_mut().map(|row| {
                    let first = panel * COLUMNS;
                    let end = row.len().min(first + COLUMNS);
                    &mut row[first..end]
                });
                let mut left = rows.len();
                while left > 0 {
                    left -= match left {
                        1 => strip::<1>(simd, lines, &mut rows, &mut out),
                        2 => strip::<2>(simd, lines, &mut rows, &mut out),
                        3 => strip::<3>(simd, lines, &mut rows, &mut out),
                        4 => strip::<4>(simd, lines, &mut rows, &mut out),
                        5 => strip::<5>(simd, lines, &mut rows, &mut out),
                        _ => strip::<6>(simd, lines, &mut rows, &mut out),
                    };
                }
            }
        }
    }
}

/// The next `N` rows times a panel, added to what is there: `N`.
#[inline(always)]
fn strip<'a, 'b, const N: usize>(
    simd: V3,
    lines: &[Line],
    rows: &mut impl Iterator<Item = &'a [f32]>,
    out: &mut impl Iterator<Item = &'b mut [f32]>,
) -> usize {
    let depth = lines.len();
    let rows: [&[f32]; N] = [(); N].map(|()| &rows.next().expect("counted")[..depth]);
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
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
    }
    N
}

//! Device functions that the kernels share: `Φ(z)` and the slope of GELU, `W δ` of a row, and a sum over the units of a cube in
//! a fixed order; and `Shape`, how a cube divides the work on a row.

use burn_cubecl::cubecl::{self, prelude::*};

/// Lines of a row that a unit may hold in registers.
pub const FEW: usize = 12;

/// Cubes that add up the squares of all gradients; each reports a part.
pub const SQUARES: usize = 64;

/// How a cube divides the work on a row `[d + 1, d]`: its units are `[lanes, d]`, one per column in every lane, and a
/// lane takes every `lanes`-th line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Width of a signal.
    pub d: usize,
    /// Units per column.
    pub lanes: usize,
    /// Lines of a matrix that lie in shared memory at a time.
    pub strip: usize,
}

/// `e^(−z²/2)`.
#[cube]
pub fn bell(z: f32) -> f32 {
    (z * z * -0.5f32).exp()
}

/// `Φ(z)` by the formula of the host's [`gelu`](crate::ops::host::numeric::gelu), from the [`bell`] of `z`.
#[cube]
pub fn normal(z: f32, bell: f32) -> f32 {
    let t = 1.0f32 / (1.0f32 + 0.231_641_89f32 * z.abs());
    let polynomial = 1.061_405_4f32 * t - 1.453_152f32;
    let polynomial = polynomial * t + 1.421_413_7f32;
    let polynomial = polynomial * t - 0.284_496_74f32;
    let polynomial = polynomial * t + 0.254_829_6f32;
    let tail = 0.5f32 * polynomial * t * bell;
    select(z < 0.0f32, tail, 1.0f32 - tail)
}

/// The derivative of GELU, `Φ(z) + z φ(z)`.
#[cube]
pub fn slope(z: f32, bell: f32, normal: f32) -> f32 {
    normal + z * bell * 0.398_942_3f32
}

/// The sum of one number per unit, lane by lane and then column by column; the same for every unit.
///
/// `sums` and `columns` have a place per unit and per column. All units call it, and have to synchronise before they write
/// there again.
#[cube]
pub fn sum_of_units(
    value: f32,
    sums: &mut SharedMemory<f32>,
    columns: &mut SharedMemory<f32>,
    #[comptime] shape: Shape,
) -> f32 {
    let unit = UNIT_POS as usize;
    sums[unit] = value;
    sync_cube();
    if unit < shape.d {
        let mut sum = 0.0f32;
        for lane in 0..shape.lanes {
            sum += sums[lane * shape.d + unit];
        }
        columns[unit] = sum;
    }
    sync_cube();
    let mut sum = 0.0f32;
    for column in 0..shape.d {
        sum += columns[column];
    }
    sum
}

/// `W δ` of the matrix that begins at `base`: into `back`, `[d]`, which every unit may read afterwards.
///
/// `tile` is `[strip, d + 1]`: the gap avoids conflicts of units in one memory bank. With `loaded` the whole matrix lies there
/// already. The units have synchronised after `delta` was written.
#[cube]
pub fn matrix_vector(
    values: &Array<f32>,
    base: usize,
    delta: &SharedMemory<f32>,
    tile: &mut SharedMemory<f32>,
    sums: &mut SharedMemory<f32>,
    back: &mut SharedMemory<f32>,
    #[comptime] shape: Shape,
    #[comptime] loaded: bool,
) {
    let unit = UNIT_POS as usize;
    let d = comptime!(shape.d);
    let strip = comptime!(shape.strip);
    let units = comptime!(shape.d * shape.lanes);
    // Units per line of a strip.
    let parts = comptime!(shape.d * shape.lanes / shape.strip);
    let part = unit / strip;
    let line = unit % strip;
    for index in 0..comptime!(shape.d.div_ceil(shape.strip)) {
        let start = index * strip;
        if comptime!(!loaded) {
            let mut place = unit;
            while place < comptime!(shape.strip * shape.d) {
                let k = place / d;
                if start + k < d {
                    tile[k * (d + 1) + place % d] = values[base + start * d + place];
                }
                place += units;
            }
            sync_cube();
        }
        if part < parts {
            let mut sum = 0.0f32;
            let mut column = part;
            while column < d {
                sum += tile[line * (d + 1) + column] * delta[column];
                column += parts;
            }
            sums[part * strip + line] = sum;
        }
        sync_cube();
        if unit < strip && start + unit < d {
            let mut sum = 0.0f32;
            for other in 0..parts {
                sum += sums[other * strip + unit];
            }
            back[start + unit] = sum;
        }
        sync_cube();
    }
}

//! Kernels on rows of the table, with a cube per row: catching up, update, transfer.

use super::arithmetic::{FEW, SQUARES, Shape, sum_of_units};
use super::plan::Parts;
use super::score::{UNITS, tree_sum};
use burn_cubecl::cubecl::{self, prelude::*};

/// Catches up: does the steps without a gradient up to step `time`, one after the other.
///
/// # Shapes
/// - `list`: `[rows, 3]`: the row, the step its values are those of, the step of its last gradient
/// - `times`: `[steps, 3]`: what decay keeps, the corrected rate, the root of the second correction
/// - `fades`: `[faded + 1, 2]`: what is left of the first moment, the root of what is left of the second
#[cube(launch, address_type = "dynamic")]
pub fn fade(
    values: &mut Array<f32>,
    first: &Array<f32>,
    second: &Array<f32>,
    list: &Array<u32>,
    times: &Array<f32>,
    fades: &Array<f32>,
    rows: u32,
    time: u32,
    epsilon: f32,
    #[comptime] row_len: usize,
    #[comptime] faded: u32,
    #[comptime] decays: bool,
) {
    let index = CUBE_POS;
    if index >= rows as usize {
        terminate!();
    }
    let entry = index * 3;
    let base = list[entry] as usize * row_len;
    let after = list[entry + 1];
    let touched = list[entry + 2];
    let moving = select(touched > 0, min(touched + faded, time), 0u32);
    let mut place = UNIT_POS as usize;
    while place < row_len {
        let mut value = values[base + place];
        if moving > after {
            let first = first[base + place];
            let root = second[base + place].sqrt();
            for step in after..moving {
                let at = step as usize * 3;
                let left = (step + 1 - touched) as usize * 2;
                let rate = times[at + 1] * fades[left];
                let divisor = root * (times[at + 2] * fades[left + 1]) + epsilon;
                value = value * times[at] - rate * first / divisor;
            }
        }
        if comptime!(decays) {
            for step in max(after, moving)..time {
                value *= times[step as usize * 3];
            }
        }
        values[base + place] = value;
        place += CUBE_DIM as usize;
    }
}

/// Settings of AdamW, the same for every row.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Update {
    /// What decay keeps.
    pub keep: f32,
    /// Keeps the division finite.
    pub epsilon: f32,
    /// Weight of a gradient in the first moment.
    pub new_1: f32,
    /// Weight of its square in the second moment.
    pub new_2: f32,
    /// The longest gradient of a row.
    pub clip: f32,
}

/// Adds up the gradient of a row over its uses, clips it and updates the row and its moments in place.
///
/// # Shapes
/// - `directions`, `energies`: the gradient of what arrived at a use is their product
/// - `squares`: `[rows]`, of the length of the gradient before it was clipped
#[cube(launch, address_type = "dynamic")]
pub fn descend(
    values: &mut Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    plan: &Array<u32>,
    numbers: &Array<f32>,
    signals: &Array<f32>,
    directions: &Array<f32>,
    energies: &Array<f32>,
    squares: &mut Array<f32>,
    parts: &Parts,
    alike: &Update,
    #[comptime] shape: Shape,
    #[comptime] clips: bool,
    #[comptime] bias: bool,
) {
    let index = CUBE_POS;
    if index >= parts.rows as usize {
        terminate!();
    }
    let d = comptime!(shape.d);
    let lanes = comptime!(shape.lanes);
    let row_len = comptime!(shape.d * (shape.d + 1));
    let lines = comptime!((shape.d + 1).div_ceil(shape.lanes));
    // Few fit into registers. All are loaded then before one is written: what is written might be what comes next, for
    // all a compiler knows, and it would wait.
    let few = comptime!((shape.d + 1).div_ceil(shape.lanes) <= FEW);
    let unit = UNIT_POS as usize;
    let lane = unit / d;
    let column = unit % d;
    let mut sums = SharedMemory::<f32>::new(comptime!(shape.d * shape.lanes));
    let mut columns = SharedMemory::<f32>::new(shape.d);
    let base = plan[parts.row_list as usize + index] as usize * row_len;
    let begin = plan[parts.use_starts as usize + index] as usize;
    let end = plan[parts.use_starts as usize + index + 1] as usize;
    let ahead = comptime!(if few { lines } else { 1 });
    let mut gradient = Array::<f32>::new(lines);
    let mut old = Array::<f32>::new(ahead);
    let mut means = Array::<f32>::new(ahead);
    let mut squares_of = Array::<f32>::new(ahead);
    #[unroll(few)]
    for line in 0..lines {
        gradient[line] = 0.0f32;
        if comptime!(few) {
            let k = lane + line * lanes;
            if k <= d {
                let at = base + k * d + column;
                old[line] = values[at];
                means[line] = first[at];
                squares_of[line] = second[at];
            }
        }
    }
    for place in begin..end {
        let which = plan[parts.uses as usize + place] as usize;
        let delta = energies[which] * directions[which * d + column];
        let signal = plan[parts.use_signals as usize + which] as usize * d;
        #[unroll(few)]
        for line in 0..lines {
            let k = lane + line * lanes;
            if k < d {
                gradient[line] += signals[signal + k] * delta;
            } else if comptime!(bias) {
                gradient[line] += delta;
            }
        }
    }
    let mut square = 0.0f32;
    #[unroll(few)]
    for line in 0..lines {
        if lane + line * lanes <= d {
            square += gradient[line] * gradient[line];
        }
    }
    let square = sum_of_units(square, &mut sums, &mut columns, shape);
    if unit == 0 {
        squares[index] = square;
    }
    let mut scale = 1.0f32;
    if comptime!(clips) {
        let norm = square.sqrt();
        if norm > alike.clip {
            scale = alike.clip / norm;
        }
    }
    let which = plan[parts.row_steps as usize + index] as usize;
    let own = parts.steps as usize + which * 4;
    let left_1 = numbers[own];
    let left_2 = numbers[own + 1];
    let rate = numbers[own + 2];
    let root = numbers[own + 3];
    #[unroll(few)]
    for line in 0..lines {
        let k = lane + line * lanes;
        if k <= d {
            let at = base + k * d + column;
            if comptime!(!few) {
                old[0] = values[at];
                means[0] = first[at];
                squares_of[0] = second[at];
            }
            let slot = line * comptime!(if few { 1 } else { 0 });
            let gradient = gradient[line] * scale;
            let mean = left_1 * means[slot] + alike.new_1 * gradient;
            let square = left_2 * squares_of[slot] + alike.new_2 * gradient * gradient;
            first[at] = mean;
            second[at] = square;
            let divisor = square.sqrt() * root + alike.epsilon;
            values[at] = old[slot] * alike.keep - rate * mean / divisor;
        }
    }
}

/// Adds up the squares of the rows, each cube of [`SQUARES`] a part.
#[cube(launch, address_type = "dynamic")]
pub fn add_squares(squares: &Array<f32>, report: &mut Array<f32>, parts: &Parts) {
    let cube = CUBE_POS;
    if cube >= SQUARES {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let mut sum = 0.0f32;
    let mut index = cube * UNITS + UNIT_POS as usize;
    while index < parts.rows as usize {
        sum += squares[index];
        index += UNITS * SQUARES;
    }
    let total = tree_sum(sum, &mut shared);
    if UNIT_POS == 0 {
        report[parts.squares as usize + cube] = total;
    }
}

/// Writes a part of a table, from a place on.
#[cube(launch, address_type = "dynamic")]
pub fn put(table: &mut Array<f32>, part: &Array<f32>, start: usize, n: usize) {
    if ABSOLUTE_POS < n {
        table[start + ABSOLUTE_POS] = part[ABSOLUTE_POS];
    }
}

/// Makes a part of a table zero.
#[cube(launch, address_type = "dynamic")]
pub fn clear(table: &mut Array<f32>, start: usize, n: usize) {
    if ABSOLUTE_POS < n {
        table[start + ABSOLUTE_POS] = 0.0f32;
    }
}

/// Some rows of a table, side by side.
#[cube(launch, address_type = "dynamic")]
pub fn take(
    table: &Array<f32>,
    list: &Array<u32>,
    part: &mut Array<f32>,
    rows: u32,
    #[comptime] row_len: usize,
) {
    let index = CUBE_POS;
    if index >= rows as usize {
        terminate!();
    }
    let base = list[index] as usize * row_len;
    let mut place = UNIT_POS as usize;
    while place < row_len {
        part[index * row_len + place] = table[base + place];
        place += CUBE_DIM as usize;
    }
}

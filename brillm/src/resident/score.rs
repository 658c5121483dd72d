//! GPU kernels of the competition: `score` gives each candidate pair its energy, `softmax` turns the energies of a token into
//! its loss and their gradients, and `gather` sums these into gradients of the token's mix and position code.

use super::arithmetic::{FEW, Shape, bell, matrix_vector, normal, slope, sum_of_units};
use super::plan::Parts;
use burn_cubecl::cubecl::{self, prelude::*};

/// Units of a cube that reduces a list.
pub const UNITS: usize = 128;

/// The energies of all pairs, and what backward needs of a pair, before its share is known.
///
/// # Shapes
/// - `directions`: `[pairs, d]`, `O / ‖O‖ ⊙ GELU'(z)`
/// - `backs`: `[pairs, d]`, `W` times that
/// - `energies`: `[pairs]`
#[cube(launch, address_type = "dynamic")]
pub fn score(
    values: &Array<f32>,
    plan: &Array<u32>,
    numbers: &Array<f32>,
    signals: &Array<f32>,
    directions: &mut Array<f32>,
    backs: &mut Array<f32>,
    energies: &mut Array<f32>,
    parts: &Parts,
    #[comptime] shape: Shape,
) {
    let pair = CUBE_POS;
    if pair >= parts.pairs as usize {
        terminate!();
    }
    let d = comptime!(shape.d);
    let row_len = comptime!(shape.d * (shape.d + 1));
    let whole = comptime!(shape.strip == shape.d);
    let unit = UNIT_POS as usize;
    let lane = unit / d;
    let column = unit % d;
    let mut mixed = SharedMemory::<f32>::new(shape.d);
    let mut direction = SharedMemory::<f32>::new(shape.d);
    let mut columns = SharedMemory::<f32>::new(shape.d);
    let mut back = SharedMemory::<f32>::new(shape.d);
    let mut sums = SharedMemory::<f32>::new(comptime!(shape.d * shape.lanes));
    let mut tile = SharedMemory::<f32>::new(comptime!(shape.strip * (shape.d + 1)));
    let place = plan[parts.use_signals as usize + pair] as usize;
    let base = plan[parts.pair_rows as usize + pair] as usize * row_len;
    let lines = comptime!(shape.d.div_ceil(shape.lanes));
    // On their way while the signal is.
    let few = comptime!(shape.d.div_ceil(shape.lanes) <= FEW);
    let mut weights = Array::<f32>::new(comptime!(if few { lines } else { 1 }));
    if comptime!(few) {
        #[unroll]
        for line in 0..lines {
            let k = lane + line * shape.lanes;
            if k < d {
                weights[line] = values[base + k * d + column];
            }
        }
    }
    if lane == 0 {
        mixed[column] = signals[place * d + column];
    }
    sync_cube();
    let mut part = 0.0f32;
    #[unroll(few)]
    for line in 0..lines {
        let k = lane + line * shape.lanes;
        if k < d {
            if comptime!(!few) {
                weights[0] = values[base + k * d + column];
            }
            let weight = weights[line * comptime!(if few { 1 } else { 0 })];
            if comptime!(whole) {
                tile[k * (d + 1) + column] = weight;
            }
            part += mixed[k] * weight;
        }
    }
    sums[unit] = part;
    sync_cube();
    let position = place % parts.seq as usize + parts.first_hop as usize;
    let code = numbers[parts.codes as usize + position * d + column];
    let mut z = code + values[base + d * d + column];
    for other in 0..shape.lanes {
        z += sums[other * d + column];
    }
    sync_cube();
    let bell = bell(z);
    let normal = normal(z, bell);
    let arrived = z * normal;
    let square = select(lane == 0, arrived * arrived, 0.0f32);
    let energy = sum_of_units(square, &mut sums, &mut columns, shape).sqrt();
    // The gradient of a length of zero is zero.
    let inverse = select(energy > 0.0f32, 1.0f32 / energy, 0.0f32);
    if lane == 0 {
        let value = slope(z, bell, normal) * (arrived * inverse);
        direction[column] = value;
        directions[pair * d + column] = value;
    }
    if unit == 0 {
        energies[pair] = energy;
    }
    sync_cube();
    matrix_vector(
        values, base, &direction, &mut tile, &mut sums, &mut back, shape, whole,
    );
    if lane == 0 {
        backs[pair * d + column] = back[column];
    }
}

/// Turns the energies of every token into their gradients, and reports its nats `[tokens]`.
#[cube(launch, address_type = "dynamic")]
pub fn softmax(
    plan: &Array<u32>,
    numbers: &Array<f32>,
    energies: &mut Array<f32>,
    report: &mut Array<f32>,
    parts: &Parts,
    scale: f32,
) {
    let token = CUBE_POS;
    if token >= parts.tokens as usize {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let entry = parts.token_parts as usize + token * 3;
    let begin = plan[entry] as usize;
    let n = plan[entry + 1] as usize;
    let truth = plan[entry + 2] as usize;
    let weights = parts.weights as usize + begin;
    let of_truth = energies[begin + truth];
    let mut peak = f32::new(-3e38);
    let mut index = unit;
    while index < n {
        let energy = energies[begin + index];
        if numbers[weights + index] > 0.0f32 {
            peak = max(peak, energy);
        }
        index += UNITS;
    }
    shared[unit] = peak;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            shared[unit] = max(shared[unit], shared[unit + half]);
        }
        sync_cube();
        half /= 2;
    }
    let peak = shared[0];
    sync_cube();
    let mut sum = 0.0f32;
    let mut index = unit;
    while index < n {
        let weight = max(numbers[weights + index], 0.0f32);
        let energy = energies[begin + index];
        let share = weight * (select(energy < peak, energy - peak, 0.0f32)).exp();
        energies[begin + index] = share;
        sum += share;
        index += UNITS;
    }
    let total = tree_sum(sum, &mut shared);
    let mut index = unit;
    while index < n {
        let share = energies[begin + index] / total;
        let own = select(index == truth, 1.0f32, 0.0f32);
        energies[begin + index] = (share - own) * scale;
        index += UNITS;
    }
    if unit == 0 {
        let ln_weight = numbers[parts.truth_ln_weights as usize + token];
        report[parts.nats as usize + token] = peak + total.ln() - (of_truth + ln_weight);
    }
}

/// The sum of one number per unit of a cube of [`UNITS`]; every unit gets it.
#[cube]
pub fn tree_sum(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            shared[unit] = shared[unit] + shared[unit + half];
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// The gradient of every token's mix, `[tokens, d]`, and of the code it meets.
#[cube(launch, address_type = "dynamic")]
pub fn gather(
    plan: &Array<u32>,
    energies: &Array<f32>,
    directions: &Array<f32>,
    backs: &Array<f32>,
    of_mixes: &mut Array<f32>,
    report: &mut Array<f32>,
    parts: &Parts,
    #[comptime] shape: Shape,
    #[comptime] learn_codes: bool,
) {
    let token = CUBE_POS;
    if token >= parts.tokens as usize {
        terminate!();
    }
    let d = comptime!(shape.d);
    let unit = UNIT_POS as usize;
    let lane = unit / d;
    let column = unit % d;
    let mut sums = SharedMemory::<f32>::new(comptime!(shape.d * shape.lanes));
    let entry = parts.token_parts as usize + token * 3;
    let begin = plan[entry] as usize;
    let n = plan[entry + 1] as usize;
    let mut of_mix = 0.0f32;
    let mut of_code = 0.0f32;
    let mut index = lane;
    while index < n {
        let pair = begin + index;
        of_mix += energies[pair] * backs[pair * d + column];
        if comptime!(learn_codes) {
            of_code += energies[pair] * directions[pair * d + column];
        }
        index += shape.lanes;
    }
    sums[unit] = of_mix;
    sync_cube();
    if lane == 0 {
        let mut sum = 0.0f32;
        for other in 0..shape.lanes {
            sum += sums[other * d + column];
        }
        of_mixes[token * d + column] = sum;
    }
    if comptime!(learn_codes) {
        sync_cube();
        sums[unit] = of_code;
        sync_cube();
        if lane == 0 {
            let mut sum = 0.0f32;
            for other in 0..shape.lanes {
                sum += sums[other * d + column];
            }
            report[parts.of_codes as usize + token * d + column] = sum;
        }
    }
}

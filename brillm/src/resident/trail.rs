//! Kernels of the true paths, with a cube per sequence: signals forward, gradients backward.
//!
//! The mix is written as `h ← (1 − a) h + a e`, with `a = take / Z` behind the step, which depends on the weights of the
//! mix alone and comes from the host: no sum of the past grows, so f32 is enough.

use super::arithmetic::{FEW, Shape, bell, matrix_vector, normal, slope};
use super::plan::Parts;
use burn_cubecl::cubecl::{self, prelude::*};

/// Forward pass of the paths.
///
/// # Shapes
/// - `signals`: `[2, places, d]`, the mix at each place and what arrived behind it
/// - `slopes`: `[places, d]`
#[cube(launch, address_type = "dynamic")]
pub fn walk(
    values: &Array<f32>,
    plan: &Array<u32>,
    numbers: &Array<f32>,
    signals: &mut Array<f32>,
    slopes: &mut Array<f32>,
    parts: &Parts,
    #[comptime] shape: Shape,
    #[comptime] previous: bool,
) {
    let sequence = CUBE_POS;
    if sequence >= parts.sequences as usize {
        terminate!();
    }
    let d = comptime!(shape.d);
    let row_len = comptime!(shape.d * (shape.d + 1));
    let unit = UNIT_POS as usize;
    let lane = unit / d;
    let column = unit % d;
    let lines = comptime!(shape.d.div_ceil(shape.lanes));
    let few = comptime!(shape.d.div_ceil(shape.lanes) <= FEW);
    let mut travels = SharedMemory::<f32>::new(shape.d);
    let mut sums = SharedMemory::<f32>::new(comptime!(shape.d * shape.lanes));
    let begin = sequence * parts.seq as usize;
    let length = plan[parts.lengths as usize + sequence] as usize;
    let mut mixed = numbers[parts.firsts as usize + sequence * d + column];
    let mut arrived = mixed;
    for edge in 0..length {
        let place = begin + edge;
        if lane == 0 {
            signals[place * d + column] = mixed;
            if comptime!(previous) {
                travels[column] = select(edge == 0, mixed, arrived);
            } else {
                travels[column] = mixed;
            }
        }
        sync_cube();
        let base = plan[parts.path_rows as usize + place] as usize * row_len;
        let mut part = 0.0f32;
        #[unroll(few)]
        for line in 0..lines {
            let k = lane + line * shape.lanes;
            if k < d {
                part += travels[k] * values[base + k * d + column];
            }
        }
        sums[unit] = part;
        sync_cube();
        let code = parts.codes as usize + (edge + parts.first_hop as usize) * d;
        let mut z = numbers[code + column] + values[base + d * d + column];
        for other in 0..shape.lanes {
            z += sums[other * d + column];
        }
        let bell = bell(z);
        let normal = normal(z, bell);
        arrived = z * normal;
        if lane == 0 {
            signals[(parts.places as usize + place) * d + column] = arrived;
            slopes[place * d + column] = slope(z, bell, normal);
        }
        let share = numbers[parts.shares as usize + edge];
        mixed = (1.0f32 - share) * mixed + share * arrived;
    }
}

/// Backward pass of the paths: the gradients of what arrived behind each edge become further uses of rows.
///
/// # Shapes
/// - `of_mixes`: `[tokens, d]`, from the competitions
/// - `directions`, `energies`: those of the pairs, and behind them `[places, d]` and `[places]` of the paths
/// - `report`: gradients of the shares of the mix `[places]`, of the first signals `[sequences, d]`, of codes `[places, d]`
#[cube(launch, address_type = "dynamic")]
pub fn walk_back(
    values: &Array<f32>,
    plan: &Array<u32>,
    numbers: &Array<f32>,
    signals: &Array<f32>,
    slopes: &Array<f32>,
    of_mixes: &Array<f32>,
    directions: &mut Array<f32>,
    energies: &mut Array<f32>,
    report: &mut Array<f32>,
    parts: &Parts,
    #[comptime] shape: Shape,
    #[comptime] previous: bool,
    #[comptime] learn_codes: bool,
) {
    let sequence = CUBE_POS;
    if sequence >= parts.sequences as usize {
        terminate!();
    }
    let d = comptime!(shape.d);
    let row_len = comptime!(shape.d * (shape.d + 1));
    let unit = UNIT_POS as usize;
    let lane = unit / d;
    let column = unit % d;
    let mut delta = SharedMemory::<f32>::new(shape.d);
    let mut products = SharedMemory::<f32>::new(shape.d);
    let mut back = SharedMemory::<f32>::new(shape.d);
    let mut sums = SharedMemory::<f32>::new(comptime!(shape.d * shape.lanes));
    let mut tile = SharedMemory::<f32>::new(comptime!(shape.strip * (shape.d + 1)));
    let begin = sequence * parts.seq as usize;
    let length = plan[parts.lengths as usize + sequence] as usize;
    let pairs = parts.pairs as usize;
    // Of the mix behind the edge at hand, and what the next hop wants of the signal that arrived there.
    let mut of_mix = 0.0f32;
    let mut of_next = 0.0f32;
    for step in 0..length {
        let edge = length - 1 - step;
        let place = begin + edge;
        let share = numbers[parts.shares as usize + edge];
        if lane == 0 {
            let mixed = signals[place * d + column];
            let arrived = signals[(parts.places as usize + place) * d + column];
            let value = (share * of_mix + of_next) * slopes[place * d + column];
            delta[column] = value;
            products[column] = of_mix * (arrived - mixed);
            directions[(pairs + place) * d + column] = value;
            if comptime!(learn_codes) {
                report[parts.of_hops as usize + place * d + column] = value;
            }
        }
        sync_cube();
        if unit == 0 {
            let mut sum = 0.0f32;
            for k in 0..shape.d {
                sum += products[k];
            }
            report[parts.of_shares as usize + place] = sum;
            energies[pairs + place] = 1.0f32;
        }
        let base = plan[parts.path_rows as usize + place] as usize * row_len;
        matrix_vector(
            values, base, &delta, &mut tile, &mut sums, &mut back, shape, false,
        );
        let token = plan[parts.token_of as usize + place] as usize;
        let mut of_here = (1.0f32 - share) * of_mix;
        if token > 0 {
            of_here += of_mixes[(token - 1) * d + column];
        }
        let of_hop = back[column];
        if comptime!(previous) {
            of_next = select(edge == 0, 0.0f32, of_hop);
            of_mix = select(edge == 0, of_here + of_hop, of_here);
        } else {
            of_mix = of_here + of_hop;
        }
        sync_cube();
    }
    if lane == 0 {
        report[parts.of_firsts as usize + sequence * d + column] = of_mix;
    }
}

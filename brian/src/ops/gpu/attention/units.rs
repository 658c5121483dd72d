//! Causal attention kernels without tensor cores: forward, gradient of queries, gradients of keys and values. A unit works on
//! one row and loops over the rows that it sees, or that see it.
//!
//! Neighbouring units have neighbouring rows of one head, so they read the other side together.

use super::LOWEST;
use super::place::{HeadRows, Pair, head};
use burn_cubecl::cubecl::{self, prelude::*};

/// Rows of a cube.
pub const ROWS: usize = 64;

/// A unit for each row.
pub fn dim() -> CubeDim {
    CubeDim {
        x: ROWS as u32,
        y: 1,
        z: 1,
    }
}

/// The row of this unit.
#[cube]
fn own_row() -> usize {
    CUBE_POS_Y as usize * ROWS + UNIT_POS_X as usize
}

/// A row in registers.
#[cube]
fn row<F: Float>(
    from: &Array<Pair<F>>,
    place: HeadRows,
    #[comptime] pairs: usize,
) -> Array<Pair<f32>> {
    let mut row = Array::<Pair<f32>>::new(pairs);
    #[unroll]
    for pair in 0..pairs {
        row[pair] = Pair::cast_from(from[place.at + pair]);
    }
    row
}

#[cube]
fn nothing(#[comptime] pairs: usize) -> Array<Pair<f32>> {
    let mut row = Array::<Pair<f32>>::new(pairs);
    #[unroll]
    for pair in 0..pairs {
        row[pair] = Pair::new(0.0);
    }
    row
}

/// The product of a row with another.
#[cube]
fn product<F: Float>(
    row: &Array<Pair<f32>>,
    other: &Array<Pair<F>>,
    place: HeadRows,
    #[comptime] pairs: usize,
) -> f32 {
    let mut sum = Pair::<f32>::new(0.0);
    #[unroll]
    for pair in 0..pairs {
        sum += row[pair] * Pair::cast_from(other[place.at + pair]);
    }
    sum[0] + sum[1]
}

/// `sums += weight · other`
#[cube]
fn add<F: Float>(
    sums: &mut Array<Pair<f32>>,
    weight: f32,
    other: &Array<Pair<F>>,
    place: HeadRows,
    #[comptime] pairs: usize,
) {
    #[unroll]
    for pair in 0..pairs {
        sums[pair] += Pair::new(weight) * Pair::cast_from(other[place.at + pair]);
    }
}

#[cube]
fn write<F: Float>(
    sums: &Array<Pair<f32>>,
    to: &mut Array<Pair<F>>,
    place: HeadRows,
    #[comptime] pairs: usize,
) {
    #[unroll]
    for pair in 0..pairs {
        to[place.at + pair] = Pair::cast_from(sums[pair]);
    }
}

#[cube(launch, address_type = "dynamic")]
pub fn forward<F: Float>(
    packed: &Array<Pair<F>>,
    found: &mut Array<Pair<F>>,
    ends: &mut Array<f32>,
    seq: usize,
    n_heads: usize,
    #[comptime] pairs: usize,
    #[define(F)] _type: StorageType,
) {
    let query = own_row();
    if query >= seq {
        terminate!();
    }
    let head = head(seq, n_heads, pairs);
    let own = row(packed, head.packed(0, query), pairs);
    let mut sums = nothing(pairs);
    let mut most = f32::new(LOWEST);
    let mut sum = 0.0f32;
    for key in 0..query + 1 {
        let score = product(&own, packed, head.packed(1, key), pairs);
        let now = max(most, score);
        let (scale, weight) = ((most - now).exp(), (score - now).exp());
        most = now;
        sum = sum * scale + weight;
        #[unroll]
        for pair in 0..pairs {
            sums[pair] *= Pair::new(scale);
        }
        add(&mut sums, weight, packed, head.packed(2, key), pairs);
    }
    ends[head.number(query)] = most + sum.ln();
    #[unroll]
    for pair in 0..pairs {
        sums[pair] /= Pair::new(sum);
    }
    write(&sums, found, head.found(query), pairs);
}

/// With weights `p`, the gradient of a score is `p (g · v − along)`; of a query the sum of those times keys.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub fn back_queries<F: Float>(
    packed: &Array<Pair<F>>,
    gradient: &Array<Pair<F>>,
    ends: &Array<f32>,
    along: &Array<f32>,
    of_packed: &mut Array<Pair<F>>,
    seq: usize,
    n_heads: usize,
    #[comptime] pairs: usize,
    #[define(F)] _type: StorageType,
) {
    let query = own_row();
    if query >= seq {
        terminate!();
    }
    let head = head(seq, n_heads, pairs);
    let own = row(packed, head.packed(0, query), pairs);
    let own_gradient = row(gradient, head.found(query), pairs);
    let (end, along) = (ends[head.number(query)], along[head.number(query)]);
    let mut sums = nothing(pairs);
    for key in 0..query + 1 {
        let score = product(&own, packed, head.packed(1, key), pairs);
        let flowing = product(&own_gradient, packed, head.packed(2, key), pairs);
        let of_score = (score - end).exp() * (flowing - along);
        add(&mut sums, of_score, packed, head.packed(1, key), pairs);
    }
    write(&sums, of_packed, head.packed(0, query), pairs);
}

/// The same from the side of keys.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub fn back_keys<F: Float>(
    packed: &Array<Pair<F>>,
    gradient: &Array<Pair<F>>,
    ends: &Array<f32>,
    along: &Array<f32>,
    of_packed: &mut Array<Pair<F>>,
    seq: usize,
    n_heads: usize,
    #[comptime] pairs: usize,
    #[define(F)] _type: StorageType,
) {
    let key = own_row();
    if key >= seq {
        terminate!();
    }
    let head = head(seq, n_heads, pairs);
    let own = row(packed, head.packed(1, key), pairs);
    let own_values = row(packed, head.packed(2, key), pairs);
    let mut sums = nothing(pairs);
    let mut sums_of_values = nothing(pairs);
    for query in key..seq {
        let score = product(&own, packed, head.packed(0, query), pairs);
        let flowing = product(&own_values, gradient, head.found(query), pairs);
        let number = head.number(query);
        let weight = (score - ends[number]).exp();
        let of_score = weight * (flowing - along[number]);
        add(
            &mut sums_of_values,
            weight,
            gradient,
            head.found(query),
            pairs,
        );
        add(&mut sums, of_score, packed, head.packed(0, query), pairs);
    }
    write(&sums, of_packed, head.packed(1, key), pairs);
    write(&sums_of_values, of_packed, head.packed(2, key), pairs);
}

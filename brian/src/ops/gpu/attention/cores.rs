//! Causal attention kernels on tensor cores: forward, gradient of queries, gradients of keys and values. A plane works on 16
//! rows; its cube loads tiles of the other side into shared memory.

use super::LOWEST;
use super::place::{Pair, head};
use super::tile::{
    Lying, ROWS, Tile, compare, first_row, gather, lane, left, max_over_row, nothings, staged,
    sum_over_row, write,
};
use burn_cubecl::cubecl::{self, prelude::*};

/// The last rows of a sequence see most, so their blocks come first.
#[cube]
fn from_the_end(index: usize, n: usize) -> usize {
    n - 1 - index
}

#[cube(launch, address_type = "dynamic")]
pub fn forward<F: Float, T: Float>(
    packed: &Array<Pair<F>>,
    found: &mut Array<Pair<F>>,
    ends: &mut Array<f32>,
    seq: usize,
    n_heads: usize,
    #[comptime] tile: Tile,
    #[define(F, T)] _types: [StorageType; 2],
) {
    let mut keys = staged::<F>(Lying::Plain, tile);
    let mut values = staged::<F>(Lying::Turned, tile);
    let head = head(seq, n_heads, comptime!(tile.pairs));
    let (g, t) = lane();
    let block = from_the_end(CUBE_POS_Y as usize, CUBE_COUNT_Y as usize);
    let first = first_row(block);
    let queries = left(packed, head.packed(0, min(first, seq - 1)), tile);
    let mut sums = nothings(comptime!(tile.pairs / 4));
    let mut most = Array::<f32>::new(2usize);
    let mut total = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        most[half] = f32::new(LOWEST);
        total[half] = 0.0;
    }

    let last = min((block + 1) * comptime!(tile.rows()), seq);
    for index in 0..last.div_ceil(comptime!(tile.n)) {
        let begin = index * comptime!(tile.n);
        sync_cube();
        keys.bring(packed, head.packed(1, begin), tile);
        values.bring(packed, head.packed(2, begin), tile);
        sync_cube();
        if begin <= first {
            let mut scores = Sequence::<Array<Pair<f32>>>::new();
            #[unroll]
            for column in 0..comptime!(tile.n / 8) {
                scores.push(compare::<F, T>(
                    &queries,
                    &keys.plain,
                    comptime!(8 * column),
                    tile,
                ));
            }
            #[unroll]
            for half in 0..2usize {
                let query = first + g + comptime!(8 * half);
                let mut now = most[half];
                #[unroll]
                for column in 0..comptime!(tile.n / 8) {
                    let mut pair = scores.index(column)[half];
                    let key = begin + comptime!(8 * column) + 2 * t;
                    if key > query {
                        pair[0] = f32::new(LOWEST);
                    }
                    if key + 1 > query {
                        pair[1] = f32::new(LOWEST);
                    }
                    now = max(now, max(pair[0], pair[1]));
                    scores.index_mut(column)[half] = pair;
                }
                now = max_over_row(now);
                let mut sum = 0.0f32;
                #[unroll]
                for column in 0..comptime!(tile.n / 8) {
                    let weights = (scores.index(column)[half] - Pair::new(now)).exp();
                    sum += weights[0] + weights[1];
                    scores.index_mut(column)[half] = weights;
                }
                let scale = (most[half] - now).exp();
                most[half] = now;
                total[half] = total[half] * scale + sum;
                #[unroll]
                for column in 0..comptime!(tile.pairs / 4) {
                    let pair = sums.index(column)[half] * Pair::new(scale);
                    sums.index_mut(column)[half] = pair;
                }
            }
            #[unroll]
            for step in 0..comptime!(tile.n / 16) {
                let weights = side::<F>(
                    scores.index(comptime!(2 * step)),
                    scores.index(comptime!(2 * step + 1)),
                );
                gather::<F, T>(&weights, &values.turned, &mut sums, step, tile);
            }
        }
    }

    let mut factors = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        let sum = sum_over_row(total[half]);
        factors[half] = 1.0 / sum;
        let query = first + g + comptime!(8 * half);
        if t == 0 && query < seq {
            ends[head.number(query)] = most[half] + sum.ln();
        }
    }
    write(&sums, &factors, found, head.found(first), tile);
}

/// Two sums side by side as a left side.
#[cube]
fn side<F: Float>(a: &Array<Pair<f32>>, b: &Array<Pair<f32>>) -> Array<Pair<F>> {
    let mut side = Array::<Pair<F>>::new(4usize);
    #[unroll]
    for half in 0..2usize {
        side[half] = Pair::cast_from(a[half]);
        side[comptime!(half + 2)] = Pair::cast_from(b[half]);
    }
    side
}

/// No factor for any row.
#[cube]
fn ones() -> Array<f32> {
    let mut ones = Array::<f32>::new(2usize);
    ones[0] = 1.0;
    ones[1] = 1.0;
    ones
}

/// With weights `p`, the gradient of a score is `p (g · v − along)`; of a query the sum of those times keys.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub fn back_queries<F: Float, T: Float>(
    packed: &Array<Pair<F>>,
    gradient: &Array<Pair<F>>,
    ends: &Array<f32>,
    along: &Array<f32>,
    of_packed: &mut Array<Pair<F>>,
    seq: usize,
    n_heads: usize,
    #[comptime] tile: Tile,
    #[define(F, T)] _types: [StorageType; 2],
) {
    let mut keys = staged::<F>(Lying::Both, tile);
    let mut values = staged::<F>(Lying::Plain, tile);
    let head = head(seq, n_heads, comptime!(tile.pairs));
    let (g, t) = lane();
    let block = from_the_end(CUBE_POS_Y as usize, CUBE_COUNT_Y as usize);
    let first = first_row(block);
    let there = min(first, seq - 1);
    let queries = left(packed, head.packed(0, there), tile);
    let gradients = left(gradient, head.found(there), tile);
    let mut end = Array::<f32>::new(2usize);
    let mut own_along = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2usize {
        let number = head.number(min(first + g + comptime!(8 * half), seq - 1));
        end[half] = ends[number];
        own_along[half] = along[number];
    }
    let mut sums = nothings(comptime!(tile.pairs / 4));

    let last = min((block + 1) * comptime!(tile.rows()), seq);
    for index in 0..last.div_ceil(comptime!(tile.n)) {
        let begin = index * comptime!(tile.n);
        sync_cube();
        keys.bring(packed, head.packed(1, begin), tile);
        values.bring(packed, head.packed(2, begin), tile);
        sync_cube();
        #[unroll]
        for step in 0..comptime!(tile.n / ROWS) {
            if begin + comptime!(step * ROWS) <= first {
                let mut of_scores = Sequence::<Array<Pair<f32>>>::new();
                #[unroll]
                for side in 0..2usize {
                    let row = comptime!(step * ROWS + 8 * side);
                    let mut scores = compare::<F, T>(&queries, &keys.plain, row, tile);
                    let flowing = compare::<F, T>(&gradients, &values.plain, row, tile);
                    #[unroll]
                    for half in 0..2usize {
                        let query = first + g + comptime!(8 * half);
                        let key = begin + row + 2 * t;
                        let mut weights = (scores[half] - Pair::new(end[half])).exp();
                        if key > query {
                            weights[0] = 0.0;
                        }
                        if key + 1 > query {
                            weights[1] = 0.0;
                        }
                        scores[half] = weights * (flowing[half] - Pair::new(own_along[half]));
                    }
                    of_scores.push(scores);
                }
                let weights = side::<F>(of_scores.index(0usize), of_scores.index(1usize));
                gather::<F, T>(&weights, &keys.turned, &mut sums, step, tile);
            }
        }
    }
    write(&sums, &ones(), of_packed, head.packed(0, first), tile);
}

/// The same from the side of keys: rows are keys, tiles are queries.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
pub fn back_keys<F: Float, T: Float>(
    packed: &Array<Pair<F>>,
    gradient: &Array<Pair<F>>,
    ends: &Array<f32>,
    along: &Array<f32>,
    of_packed: &mut Array<Pair<F>>,
    seq: usize,
    n_heads: usize,
    #[comptime] tile: Tile,
    #[define(F, T)] _types: [StorageType; 2],
) {
    let mut queries = staged::<F>(Lying::Both, tile);
    let mut gradients = staged::<F>(Lying::Both, tile);
    let mut of_queries = SharedMemory::<f32>::new(comptime!(2 * tile.n));
    let head = head(seq, n_heads, comptime!(tile.pairs));
    let (g, t) = lane();
    let first = first_row(CUBE_POS_Y as usize);
    let there = min(first, seq - 1);
    let keys = left(packed, head.packed(1, there), tile);
    let values = left(packed, head.packed(2, there), tile);
    let mut sums = nothings(comptime!(tile.pairs / 4));
    let mut sums_of_values = nothings(comptime!(tile.pairs / 4));

    let unit = UNIT_POS as usize;
    let first_tile = CUBE_POS_Y as usize * comptime!(tile.rows()) / comptime!(tile.n);
    for index in first_tile..seq.div_ceil(comptime!(tile.n)) {
        let begin = index * comptime!(tile.n);
        sync_cube();
        queries.bring(packed, head.packed(0, begin), tile);
        gradients.bring(gradient, head.found(begin), tile);
        if unit < comptime!(tile.n) {
            let number = head.number(min(begin + unit, seq - 1));
            of_queries[2 * unit] = ends[number];
            of_queries[2 * unit + 1] = along[number];
        }
        sync_cube();
        #[unroll]
        for step in 0..comptime!(tile.n / ROWS) {
            if begin + comptime!(step * ROWS) >= first {
                let mut weights = Sequence::<Array<Pair<f32>>>::new();
                let mut of_scores = Sequence::<Array<Pair<f32>>>::new();
                #[unroll]
                for side in 0..2usize {
                    let row = comptime!(step * ROWS + 8 * side);
                    let mut scores = compare::<F, T>(&keys, &queries.plain, row, tile);
                    let mut flowing = compare::<F, T>(&values, &gradients.plain, row, tile);
                    #[unroll]
                    for half in 0..2usize {
                        let key = first + g + comptime!(8 * half);
                        let mut pair = scores[half];
                        let mut flow = flowing[half];
                        #[unroll]
                        for number in 0..2usize {
                            let column = row + 2 * t + number;
                            let query = begin + column;
                            let mut weight = 0.0f32;
                            if key <= query && query < seq {
                                weight = (pair[number] - of_queries[2 * column]).exp();
                            }
                            pair[number] = weight;
                            flow[number] = weight * (flow[number] - of_queries[2 * column + 1]);
                        }
                        scores[half] = pair;
                        flowing[half] = flow;
                    }
                    weights.push(scores);
                    of_scores.push(flowing);
                }
                let weights = side::<F>(weights.index(0usize), weights.index(1usize));
                gather::<F, T>(&weights, &gradients.turned, &mut sums_of_values, step, tile);
                let of_scores = side::<F>(of_scores.index(0usize), of_scores.index(1usize));
                gather::<F, T>(&of_scores, &queries.turned, &mut sums, step, tile);
            }
        }
    }
    write(&sums, &ones(), of_packed, head.packed(1, first), tile);
    write(
        &sums_of_values,
        &ones(),
        of_packed,
        head.packed(2, first),
        tile,
    );
}

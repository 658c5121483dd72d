//! Causal attention of whole sequences, `softmax(q kᵀ) v`, with no matrix of scores in memory (Dao et al. 2022).
//!
//! A plane has 16 rows and passes over tiles of the other side. Forward it passes twice: first for the logarithm of every row's
//! sum of exponentials, then for the weights, which are final and need no rescaling afterwards. Backward scores are made again,
//! once for the gradients of queries, once, from the keys' side, for those of keys and values.

use super::launch::{address, empty, is_known, kind, rows};
use super::node::{Kernel, State, input, run};
use super::tile::{LANES, Place, ROWS, Tile, compare, gather, load, no_sums, write};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::features::MmaConfig;
use burn_cubecl::cubecl::tf32;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

/// Without tensor cores a unit makes its products one by one; from some length on Burn's products are faster, for all that scores
/// lie in memory then.
const LONGEST_WITHOUT_CORES: usize = 256;

/// Below every score.
const LOWEST: f32 = -3.0e38;

/// What the tokens of whole sequences find; queries are scaled already.
///
/// # Shapes
/// `[batch * seq, 3 * d_model]`, queries, keys and values side by side, to `[batch * seq, d_model]`
pub(crate) fn attend_all<B: Backend>(
    packed: &Tensor<B, 2>,
    n_heads: usize,
    batch: usize,
) -> Option<Tensor<B, 2>> {
    run(Attend { n_heads, batch }, [input(packed)], None)
}

#[derive(Clone, Debug)]
struct Attend {
    n_heads: usize,
    batch: usize,
}

/// A launch over all rows of all heads of all sequences.
struct Launch {
    tile: Tile,
    types: [StorageType; 2],
    count: CubeCount,
    dim: CubeDim,
    seq: usize,
    address: AddressType,
}

impl Attend {
    /// `n` are the rows of the other side that a plane takes at a time on tensor cores.
    fn launch<R: CubeRuntime>(&self, packed: &CubeTensor<R>, n: usize) -> Launch {
        let [n_tokens, width] = rows(packed);
        let (seq, d_head) = (n_tokens / self.batch, width / 3 / self.n_heads);
        let (core, depth) = match packed.dtype {
            DType::F32 => (tf32::as_type_native_unchecked().storage_type(), 8),
            _ => (kind(packed), 16),
        };
        let config = MmaConfig {
            a_type: core,
            b_type: core,
            cd_type: f32::as_type_native_unchecked().storage_type(),
            m: ROWS as u32,
            n: ROWS as u32,
            k: depth as u32,
        };
        let properties = packed.client.properties();
        let cores = properties.features.matmul.cmma.contains(&config)
            && properties.hardware.plane_size_max as usize == LANES
            && seq % 64 == 0
            && d_head % ROWS == 0
            && d_head <= 128;
        let tile = match cores {
            true => Tile {
                cores,
                depth,
                // Results of all planes have to fit in shared memory.
                planes: if d_head <= 64 && depth == 16 { 4 } else { 2 },
                n,
                d_head,
            },
            false => Tile {
                cores,
                depth,
                planes: 1,
                n: 16,
                d_head,
            },
        };
        let core = if cores { core } else { kind(packed) };
        let blocks = seq.div_ceil(ROWS * tile.planes);
        Launch {
            tile,
            types: [kind(packed), core],
            count: CubeCount::Static(blocks as u32, self.n_heads as u32, self.batch as u32),
            dim: CubeDim {
                x: LANES as u32,
                y: tile.planes as u32,
                z: 1,
            },
            seq,
            address: address([packed]),
        }
    }
}

impl Kernel<1> for Attend {
    fn forward<R: CubeRuntime>(
        &self,
        [packed]: &[CubeTensor<R>; 1],
        _: Option<&CubeTensor<R>>,
    ) -> Option<(CubeTensor<R>, Vec<CubeTensor<R>>)> {
        if !is_known(packed) {
            return None;
        }
        let [n_tokens, width] = rows(packed);
        let launch = self.launch(packed, 64);
        let most = packed.client.properties().hardware.max_shared_memory_size;
        let is_long = !launch.tile.cores && launch.seq > LONGEST_WITHOUT_CORES;
        if is_long || launch.tile.shared_bytes(packed.dtype.size()) > most {
            return None;
        }
        let found = empty(packed, [n_tokens, width / 3], packed.dtype);
        let ends = empty(packed, [n_tokens, self.n_heads], DType::F32);
        forward::launch::<R>(
            &packed.client,
            launch.count,
            launch.dim,
            launch.address,
            packed.clone().into_array_arg(),
            found.clone().into_array_arg(),
            ends.clone().into_array_arg(),
            launch.seq,
            self.n_heads,
            launch.tile,
            launch.types,
        );
        Some((found.clone(), vec![found, ends]))
    }

    fn backward<R: CubeRuntime>(
        &self,
        state: &State<R, 1>,
        gradient: CubeTensor<R>,
    ) -> [Option<CubeTensor<R>>; 1] {
        let ([packed], [found, ends]) = (&state.inputs, &state.kept[..]) else {
            unreachable!("as forward")
        };
        let [n_tokens, _] = rows(packed);
        let along = empty(packed, [n_tokens, self.n_heads], DType::F32);
        let (count, dim) = super::launch::units(packed, n_tokens * self.n_heads);
        products::launch::<R>(
            &packed.client,
            count,
            dim,
            address([packed]),
            found.clone().into_array_arg(),
            gradient.clone().into_array_arg(),
            along.clone().into_array_arg(),
            n_tokens * self.n_heads,
            rows(found)[1] / self.n_heads,
            kind(packed),
        );
        let of_packed = empty(packed, rows(packed), packed.dtype);
        for of_queries in [true, false] {
            let launch = self.launch(packed, 32);
            let start = match of_queries {
                true => back_queries::launch::<R>,
                false => back_keys::launch::<R>,
            };
            start(
                &packed.client,
                launch.count,
                launch.dim,
                launch.address,
                packed.clone().into_array_arg(),
                gradient.clone().into_array_arg(),
                ends.clone().into_array_arg(),
                along.clone().into_array_arg(),
                of_packed.clone().into_array_arg(),
                launch.seq,
                self.n_heads,
                launch.tile,
                launch.types,
            );
        }
        [Some(of_packed)]
    }
}

/// Which rows a plane works on.
#[derive(CubeType, Clone, Copy)]
struct Work {
    /// The first row of the sequence, and of the plane in it.
    base: usize,
    first: usize,
    /// From one row of `packed` to the next, and from queries to keys to values in it.
    stride: usize,
    width: usize,
    head: usize,
}

#[cube]
impl Work {
    /// Rows of `packed` from one of the sequence on: of its queries, keys or values.
    fn packed(&self, part: usize, row: usize, seq: usize, #[comptime] tile: Tile) -> Place {
        let column = part * self.width + self.head * comptime!(tile.d_head);
        Place {
            at: (self.base + row) * self.stride + column,
            stride: self.stride,
            rows: seq - min(row, seq - 1),
        }
    }

    /// Rows of what was found, or of its gradient.
    fn found(&self, row: usize, seq: usize, #[comptime] tile: Tile) -> Place {
        Place {
            at: (self.base + row) * self.width + self.head * comptime!(tile.d_head),
            stride: self.width,
            rows: seq - min(row, seq - 1),
        }
    }
}

#[cube]
fn work(seq: usize, n_heads: usize, #[comptime] tile: Tile) -> Work {
    let width = n_heads * comptime!(tile.d_head);
    let plane = CUBE_POS_X as usize * comptime!(tile.planes) + UNIT_POS_Y as usize;
    Work {
        base: CUBE_POS_Z as usize * seq,
        first: plane * ROWS,
        stride: 3 * width,
        width,
        head: CUBE_POS_Y as usize,
    }
}

#[cube(launch, address_type = "dynamic")]
fn forward<F: Float, T: Float>(
    packed: &Array<F>,
    found: &mut Array<F>,
    ends: &mut Array<f32>,
    seq: usize,
    n_heads: usize,
    #[comptime] tile: Tile,
    #[define(F, T)] _types: [StorageType; 2],
) {
    let stride = comptime!(tile.stride());
    let mut scores =
        SharedMemory::<f32>::new_aligned(comptime!(tile.planes * ROWS * stride), 32usize);
    let weights_of_plane = comptime!(ROWS * tile.weight_stride());
    let mut weights =
        SharedMemory::<F>::new_aligned(comptime!(tile.planes * weights_of_plane), 32usize);
    let mut plain = SharedMemory::<f32>::new(comptime!(tile.sums()));
    let mut exchange = SharedMemory::<f32>::new(comptime!(2 * tile.planes * LANES));

    let plane = UNIT_POS_Y as usize;
    let scores_at = plane * comptime!(ROWS * stride);
    let weights_at = plane * weights_of_plane;
    let plain_at = plane * comptime!(ROWS * tile.d_head);
    let work = work(seq, n_heads, tile);
    // Whole planes may lie behind the end; they go along with the others and write nothing.
    let first = min(work.first, seq - 1);
    let queries = work.packed(0, first, seq, tile);
    let loaded = load::<F, T>(packed, queries, tile);
    let last = min(
        (CUBE_POS_X as usize + 1) * comptime!(tile.planes * ROWS),
        seq,
    );
    let n_tiles = last.div_ceil(comptime!(tile.n));

    // A row belongs to two units: one has its even columns, one its odd ones.
    let lane = UNIT_POS_X as usize;
    let row = lane % ROWS;
    let odd = lane / ROWS;
    let query = work.first + row;
    let row_at = scores_at + row * stride;

    let mut most = f32::new(LOWEST);
    let mut sum = 0.0f32;
    for index in 0..n_tiles {
        let begin = index * comptime!(tile.n);
        let keys = work.packed(1, begin, seq, tile);
        compare::<F, T>(
            &loaded,
            packed,
            queries,
            packed,
            keys,
            &mut scores,
            scores_at,
            tile,
        );
        sync_cube();
        let mut now = most;
        for pair in 0..comptime!(tile.n / 2) {
            let column = 2 * pair + odd;
            if begin + column <= query {
                now = max(now, scores[row_at + column]);
            }
        }
        sum *= (most - now).exp();
        for pair in 0..comptime!(tile.n / 2) {
            let column = 2 * pair + odd;
            if begin + column <= query {
                sum += (scores[row_at + column] - now).exp();
            }
        }
        most = now;
        sync_cube();
    }
    let own = 2 * (plane * LANES + lane);
    exchange[own] = most;
    exchange[own + 1] = sum;
    sync_cube();
    let other = 2 * (plane * LANES + (lane + ROWS) % LANES);
    let most_of_both = max(most, exchange[other]);
    let sum_of_other = exchange[other + 1] * (exchange[other] - most_of_both).exp();
    let end = most_of_both + (sum * (most - most_of_both).exp() + sum_of_other).ln();
    if odd == 0 && query < seq {
        ends[(work.base + query) * n_heads + work.head] = end;
    }

    let sums = no_sums(&mut plain, plain_at, tile);
    for index in 0..n_tiles {
        let begin = index * comptime!(tile.n);
        let keys = work.packed(1, begin, seq, tile);
        compare::<F, T>(
            &loaded,
            packed,
            queries,
            packed,
            keys,
            &mut scores,
            scores_at,
            tile,
        );
        sync_cube();
        for pair in 0..comptime!(tile.n / 2) {
            let column = 2 * pair + odd;
            let mut weight = 0.0f32;
            if begin + column <= query {
                weight = (scores[row_at + column] - end).exp();
            }
            let at = weights_at + row * comptime!(tile.weight_stride()) + column;
            weights[at] = F::cast_from(weight);
        }
        sync_cube();
        let values = work.packed(2, begin, seq, tile);
        gather::<F, T>(
            &weights, weights_at, packed, values, &sums, &mut plain, plain_at, tile,
        );
    }
    let mut place = work.found(work.first, seq, tile);
    if work.first >= seq {
        place.rows = 0;
    }
    write::<F>(
        &sums,
        &plain,
        plain_at,
        &mut scores,
        scores_at,
        found,
        place,
        tile,
    );
}

/// What each row's gradient and output have along each other, head by head: `[n]`.
#[cube(launch, address_type = "dynamic")]
fn products<F: Float>(
    found: &Array<F>,
    gradient: &Array<F>,
    along: &mut Array<f32>,
    n: usize,
    d_head: usize,
    #[define(F)] _type: StorageType,
) {
    if ABSOLUTE_POS >= n {
        terminate!();
    }
    let begin = ABSOLUTE_POS * d_head;
    let mut sum = 0.0f32;
    for place in begin..begin + d_head {
        sum += f32::cast_from(found[place]) * f32::cast_from(gradient[place]);
    }
    along[ABSOLUTE_POS] = sum;
}

/// With weights `p`, the gradient of a score is `p (g · v − along)`; of a query the sum of those times keys.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn back_queries<F: Float, T: Float>(
    packed: &Array<F>,
    gradient: &Array<F>,
    ends: &Array<f32>,
    along: &Array<f32>,
    of_packed: &mut Array<F>,
    seq: usize,
    n_heads: usize,
    #[comptime] tile: Tile,
    #[define(F, T)] _types: [StorageType; 2],
) {
    let stride = comptime!(tile.stride());
    let n_scores = comptime!(tile.planes * ROWS * stride);
    let mut scores = SharedMemory::<f32>::new_aligned(n_scores, 32usize);
    let mut flowing = SharedMemory::<f32>::new_aligned(n_scores, 32usize);
    let weights_of_plane = comptime!(ROWS * tile.weight_stride());
    let mut weights =
        SharedMemory::<F>::new_aligned(comptime!(tile.planes * weights_of_plane), 32usize);
    let mut plain = SharedMemory::<f32>::new(comptime!(tile.sums()));

    let plane = UNIT_POS_Y as usize;
    let scores_at = plane * comptime!(ROWS * stride);
    let weights_at = plane * weights_of_plane;
    let plain_at = plane * comptime!(ROWS * tile.d_head);
    let work = work(seq, n_heads, tile);
    let first = min(work.first, seq - 1);
    let queries = work.packed(0, first, seq, tile);
    let gradients = work.found(first, seq, tile);
    let loaded = load::<F, T>(packed, queries, tile);
    let loaded_gradients = load::<F, T>(gradient, gradients, tile);
    let last = min(
        (CUBE_POS_X as usize + 1) * comptime!(tile.planes * ROWS),
        seq,
    );
    let n_tiles = last.div_ceil(comptime!(tile.n));

    let lane = UNIT_POS_X as usize;
    let row = lane % ROWS;
    let odd = lane / ROWS;
    let query = work.first + row;
    let row_at = scores_at + row * stride;
    let of_query = (work.base + min(query, seq - 1)) * n_heads + work.head;
    let end = ends[of_query];
    let along = along[of_query];

    let sums = no_sums(&mut plain, plain_at, tile);
    for index in 0..n_tiles {
        let begin = index * comptime!(tile.n);
        let keys = work.packed(1, begin, seq, tile);
        let values = work.packed(2, begin, seq, tile);
        compare::<F, T>(
            &loaded,
            packed,
            queries,
            packed,
            keys,
            &mut scores,
            scores_at,
            tile,
        );
        compare::<F, T>(
            &loaded_gradients,
            gradient,
            gradients,
            packed,
            values,
            &mut flowing,
            scores_at,
            tile,
        );
        sync_cube();
        for pair in 0..comptime!(tile.n / 2) {
            let column = 2 * pair + odd;
            let mut of_score = 0.0f32;
            if begin + column <= query {
                let weight = (scores[row_at + column] - end).exp();
                of_score = weight * (flowing[row_at + column] - along);
            }
            let at = weights_at + row * comptime!(tile.weight_stride()) + column;
            weights[at] = F::cast_from(of_score);
        }
        sync_cube();
        gather::<F, T>(
            &weights, weights_at, packed, keys, &sums, &mut plain, plain_at, tile,
        );
    }
    let mut place = queries;
    if work.first >= seq {
        place.rows = 0;
    }
    write::<F>(
        &sums,
        &plain,
        plain_at,
        &mut scores,
        scores_at,
        of_packed,
        place,
        tile,
    );
}

/// The same from the side of keys: rows are keys, tiles are queries.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn back_keys<F: Float, T: Float>(
    packed: &Array<F>,
    gradient: &Array<F>,
    ends: &Array<f32>,
    along: &Array<f32>,
    of_packed: &mut Array<F>,
    seq: usize,
    n_heads: usize,
    #[comptime] tile: Tile,
    #[define(F, T)] _types: [StorageType; 2],
) {
    let stride = comptime!(tile.stride());
    let n_scores = comptime!(tile.planes * ROWS * stride);
    let mut scores = SharedMemory::<f32>::new_aligned(n_scores, 32usize);
    let mut flowing = SharedMemory::<f32>::new_aligned(n_scores, 32usize);
    let weights_of_plane = comptime!(ROWS * tile.weight_stride());
    let n_weights = comptime!(tile.planes * weights_of_plane);
    let mut weights = SharedMemory::<F>::new_aligned(n_weights, 32usize);
    let mut of_scores = SharedMemory::<F>::new_aligned(n_weights, 32usize);
    let mut plain = SharedMemory::<f32>::new(comptime!(tile.sums()));
    let mut plain_values = SharedMemory::<f32>::new(comptime!(tile.sums()));

    let plane = UNIT_POS_Y as usize;
    let scores_at = plane * comptime!(ROWS * stride);
    let weights_at = plane * weights_of_plane;
    let plain_at = plane * comptime!(ROWS * tile.d_head);
    let work = work(seq, n_heads, tile);
    let first = min(work.first, seq - 1);
    let keys = work.packed(1, first, seq, tile);
    let values = work.packed(2, first, seq, tile);
    let loaded = load::<F, T>(packed, keys, tile);
    let loaded_values = load::<F, T>(packed, values, tile);
    let first_tile = CUBE_POS_X as usize * comptime!(tile.planes * ROWS) / comptime!(tile.n);
    let n_tiles = seq.div_ceil(comptime!(tile.n));

    let lane = UNIT_POS_X as usize;
    let row = lane % ROWS;
    let odd = lane / ROWS;
    let key = work.first + row;
    let row_at = scores_at + row * stride;

    let sums = no_sums(&mut plain, plain_at, tile);
    let sums_of_values = no_sums(&mut plain_values, plain_at, tile);
    for index in first_tile..n_tiles {
        let begin = index * comptime!(tile.n);
        let queries = work.packed(0, begin, seq, tile);
        let gradients = work.found(begin, seq, tile);
        compare::<F, T>(
            &loaded,
            packed,
            keys,
            packed,
            queries,
            &mut scores,
            scores_at,
            tile,
        );
        compare::<F, T>(
            &loaded_values,
            packed,
            values,
            gradient,
            gradients,
            &mut flowing,
            scores_at,
            tile,
        );
        sync_cube();
        for pair in 0..comptime!(tile.n / 2) {
            let column = 2 * pair + odd;
            let query = begin + column;
            let mut weight = 0.0f32;
            let mut of_score = 0.0f32;
            if key <= query && query < seq {
                let of_query = (work.base + query) * n_heads + work.head;
                weight = (scores[row_at + column] - ends[of_query]).exp();
                of_score = weight * (flowing[row_at + column] - along[of_query]);
            }
            let at = weights_at + row * comptime!(tile.weight_stride()) + column;
            weights[at] = F::cast_from(weight);
            of_scores[at] = F::cast_from(of_score);
        }
        sync_cube();
        gather::<F, T>(
            &weights,
            weights_at,
            gradient,
            gradients,
            &sums_of_values,
            &mut plain_values,
            plain_at,
            tile,
        );
        gather::<F, T>(
            &of_scores, weights_at, packed, queries, &sums, &mut plain, plain_at, tile,
        );
    }
    let mut place = keys;
    let mut place_of_values = values;
    if work.first >= seq {
        place.rows = 0;
        place_of_values.rows = 0;
    }
    write::<F>(
        &sums,
        &plain,
        plain_at,
        &mut scores,
        scores_at,
        of_packed,
        place,
        tile,
    );
    write::<F>(
        &sums_of_values,
        &plain_values,
        plain_at,
        &mut scores,
        scores_at,
        of_packed,
        place_of_values,
        tile,
    );
}

//! Matrix products of attention on tensor cores: a plane's 16 rows times rows of the other side in shared memory.
//!
//! A tensor core of CUDA multiplies `[16, 16]` by `[16, 8]` in half precision. With `g = lane / 4` and `t = lane % 4`, a unit
//! holds the pairs `t` and `t + 4` of rows `g` and `g + 8` of the left side, the same pairs of column `g` of the right side,
//! and pair `t` of rows `g` and `g + 8` of the sums: two sums side by side form a left side. In single precision, of which it
//! uses 10 bits, a core multiplies 8 deep; the two numbers of a pair go to the same two depths on both sides, so a unit holds
//! the same numbers as before.

use super::super::launch::kind;
use super::place::{HeadRows, Pair};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::features::MmaConfig;
use burn_cubecl::cubecl::tf32;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

/// Rows of a plane.
pub const ROWS: usize = 16;
/// Units of a plane.
const LANES: usize = 32;
/// Planes of a cube; each works on rows of its own.
const PLANES: usize = 4;

/// Sums of a product, `[16, 8]` each.
pub type Sums = Sequence<Array<Pair<f32>>>;

/// How products are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// How deep a tensor core multiplies.
    pub depth: usize,
    /// Rows of the other side in shared memory at a time, a multiple of 16.
    pub n: usize,
    /// Pairs of a head.
    pub pairs: usize,
}

impl Tile {
    /// The tile for a device, and the type that its tensor cores multiply; `None` if it lacks what is needed.
    pub fn of<R: CubeRuntime>(
        packed: &CubeTensor<R>,
        d_head: usize,
    ) -> Option<(Self, StorageType)> {
        let size = packed.dtype.size();
        let (core, depth) = match size {
            4 => (tf32::as_type_native_unchecked().storage_type(), 8),
            _ => (kind(packed), 16),
        };
        let config = MmaConfig {
            a_type: core,
            b_type: core,
            cd_type: f32::as_type_native_unchecked().storage_type(),
            m: 16,
            n: 8,
            k: depth as u32,
        };
        let tile = Self {
            depth,
            n: if size == 2 && d_head <= 64 { 64 } else { 32 },
            pairs: d_head / 2,
        };
        let properties = packed.client.properties();
        let fits = properties.features.matmul.mma.contains(&config)
            && properties.hardware.plane_size_max as usize == LANES
            && d_head.is_multiple_of(16)
            && d_head <= 128
            && tile.shared_bytes(size) <= properties.hardware.max_shared_memory_size;
        fits.then_some((tile, core))
    }

    /// Rows of a cube.
    pub fn rows(&self) -> usize {
        ROWS * PLANES
    }

    /// The units of a cube.
    pub fn dim(&self) -> CubeDim {
        CubeDim {
            x: LANES as u32,
            y: PLANES as u32,
            z: 1,
        }
    }

    /// Pairs from one row in shared memory to the next: no power of two, so that rows do not meet in a memory bank.
    pub fn stride(&self) -> usize {
        self.pairs + 4
    }

    /// Pairs of a tile in shared memory.
    pub fn plain(&self) -> usize {
        self.n * self.stride()
    }

    /// The same for a transposed tile, which has a row for every number of a head, with pairs of the tile's rows.
    pub fn turned_stride(&self) -> usize {
        self.n / 2 + 4
    }

    /// Pairs of a transposed tile in shared memory.
    pub fn turned(&self) -> usize {
        2 * self.pairs * self.turned_stride()
    }

    /// Bytes of shared memory that the pass with the most of it takes.
    fn shared_bytes(&self, size: usize) -> usize {
        2 * (self.plain() + self.turned()) * 2 * size + 2 * self.n * 4
    }
}

/// The first row of this plane.
#[cube]
pub fn first_row(block: usize) -> usize {
    (block * PLANES + UNIT_POS_Y as usize) * ROWS
}

/// The place of this unit in matrices of a tensor core: `g` and `t`.
#[cube]
pub fn lane() -> (usize, usize) {
    let lane = UNIT_POS_X as usize;
    (lane / 4, lane % 4)
}

/// Loads 16 rows as left sides, one for every 16 numbers. Missing rows repeat the last one.
#[cube]
pub fn left<F: Float>(
    from: &Array<Pair<F>>,
    place: HeadRows,
    #[comptime] tile: Tile,
) -> Sequence<Array<Pair<F>>> {
    let (g, t) = lane();
    let last = max(place.rows, 1) - 1;
    let upper = place.at + min(g, last) * place.stride + t;
    let lower = place.at + min(g + 8, last) * place.stride + t;
    let mut all = Sequence::<Array<Pair<F>>>::new();
    #[unroll]
    for step in 0..comptime!(tile.pairs / 8) {
        let mut left = Array::<Pair<F>>::new(4usize);
        left[0] = from[upper + comptime!(8 * step)];
        left[1] = from[lower + comptime!(8 * step)];
        left[2] = from[upper + comptime!(8 * step + 4)];
        left[3] = from[lower + comptime!(8 * step + 4)];
        all.push(left);
    }
    all
}

/// A right side from shared memory: 8 rows from `first` on as columns, with the `step`-th 16 of their numbers.
#[cube]
pub fn right<F: Float>(
    rows: &SharedMemory<Pair<F>>,
    #[comptime] first: usize,
    #[comptime] step: usize,
    #[comptime] stride: usize,
) -> Array<Pair<F>> {
    let (g, t) = lane();
    let at = g * stride + t + comptime!(first * stride + 8 * step);
    let mut right = Array::<Pair<F>>::new(2usize);
    right[0] = rows[at];
    right[1] = rows[at + 4];
    right
}

/// `sum[16, 8] += left[16, 16] · right[16, 8]`, in halves or in the cores' type for single precision.
#[cube]
pub fn multiply<F: Float, T: Float>(
    left: &Array<Pair<F>>,
    right: &Array<Pair<F>>,
    sum: &mut Array<Pair<f32>>,
    #[comptime] tile: Tile,
) {
    if comptime!(tile.depth == 16) {
        let core = cmma::MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
        core.execute_inplace::<Const<2>, Const<2>, Const<2>>(left, right, sum);
    } else {
        let core = cmma::MmaDefinition::<T, T, f32>::new(16usize, 8usize, 8usize);
        #[unroll]
        for half in 0..2usize {
            let mut a = Array::<Vector<T, Const<1>>>::new(4usize);
            let mut b = Array::<Vector<T, Const<1>>>::new(2usize);
            #[unroll]
            for number in 0..2usize {
                a[comptime!(2 * number)] =
                    Vector::new(T::cast_from(left[comptime!(2 * half)][number]));
                a[comptime!(2 * number + 1)] =
                    Vector::new(T::cast_from(left[comptime!(2 * half + 1)][number]));
                b[number] = Vector::new(T::cast_from(right[half][number]));
            }
            core.execute_inplace::<Const<1>, Const<1>, Const<2>>(&a, &b, sum);
        }
    }
}

/// A sum of zero.
#[cube]
pub fn nothing() -> Array<Pair<f32>> {
    let mut sum = Array::<Pair<f32>>::new(2usize);
    sum[0] = Pair::new(0.0);
    sum[1] = Pair::new(0.0);
    sum
}

/// Sums of zero, side by side.
#[cube]
pub fn nothings(#[comptime] n: usize) -> Sums {
    let mut sums = Sums::new();
    #[unroll]
    for _ in 0..n {
        sums.push(nothing());
    }
    sums
}

/// Products of a plane's rows with 8 rows in shared memory, `[16, 8]`.
#[cube]
pub fn compare<F: Float, T: Float>(
    own: &Sequence<Array<Pair<F>>>,
    rows: &SharedMemory<Pair<F>>,
    #[comptime] first: usize,
    #[comptime] tile: Tile,
) -> Array<Pair<f32>> {
    let mut sum = nothing();
    #[unroll]
    for step in 0..comptime!(tile.pairs / 8) {
        let other = right(rows, first, step, comptime!(tile.stride()));
        multiply::<F, T>(own.index(step), &other, &mut sum, tile);
    }
    sum
}

/// `sums[16, d_head] += weights[16, 16] · rows`, with the `step`-th 16 rows of a transposed tile.
#[cube]
pub fn gather<F: Float, T: Float>(
    weights: &Array<Pair<F>>,
    turned: &SharedMemory<Pair<F>>,
    sums: &mut Sums,
    #[comptime] step: usize,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for column in 0..comptime!(tile.pairs / 4) {
        let other = right(
            turned,
            comptime!(8 * column),
            step,
            comptime!(tile.turned_stride()),
        );
        multiply::<F, T>(weights, &other, sums.index_mut(column), tile);
    }
}

/// A tile in shared memory: as it lies in memory, transposed, or both.
#[derive(CubeType)]
pub struct Staged<F: Float> {
    pub plain: SharedMemory<Pair<F>>,
    pub turned: SharedMemory<Pair<F>>,
    #[cube(comptime)]
    lying: Lying,
}

/// Which of both there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lying {
    Plain,
    Turned,
    Both,
}

/// Shared memory for a tile.
#[cube]
pub fn staged<F: Float>(#[comptime] lying: Lying, #[comptime] tile: Tile) -> Staged<F> {
    let plain = comptime!(if lying == Lying::Turned {
        1
    } else {
        tile.plain()
    });
    let turned = comptime!(if lying == Lying::Plain {
        1
    } else {
        tile.turned()
    });
    Staged::<F> {
        plain: SharedMemory::new(plain),
        turned: SharedMemory::new(turned),
        lying,
    }
}

#[cube]
impl<F: Float> Staged<F> {
    /// Loads a tile's rows, by all units of the cube. Missing rows are zero.
    pub fn bring(&mut self, from: &Array<Pair<F>>, place: HeadRows, #[comptime] tile: Tile) {
        // A plane takes 16 rows of 4 pairs; units next to each other, pairs of rows: in turned rows, too, they meet in no bank.
        let across = comptime!(tile.n / 16);
        let lane = UNIT_POS_X as usize;
        #[unroll]
        for turn in 0..comptime!(tile.n / 16 * (tile.pairs / 4) / PLANES) {
            let block = UNIT_POS_Y as usize + comptime!(turn * PLANES);
            let pair_of_rows = 8 * (block % across) + lane % 8;
            let pair = 4 * (block / across) + lane / 8;
            let row = 2 * pair_of_rows;
            let mut upper = Pair::<F>::new(F::from_int(0));
            let mut lower = Pair::<F>::new(F::from_int(0));
            if row < place.rows {
                upper = from[place.at + row * place.stride + pair];
            }
            if row + 1 < place.rows {
                lower = from[place.at + (row + 1) * place.stride + pair];
            }
            if comptime!(self.lying != Lying::Turned) {
                self.plain[row * comptime!(tile.stride()) + pair] = upper;
                self.plain[(row + 1) * comptime!(tile.stride()) + pair] = lower;
            }
            if comptime!(self.lying != Lying::Plain) {
                #[unroll]
                for number in 0..2usize {
                    let mut column = Pair::<F>::new(upper[number]);
                    column[1] = lower[number];
                    let row = 2 * pair + number;
                    self.turned[row * comptime!(tile.turned_stride()) + pair_of_rows] = column;
                }
            }
        }
    }
}

/// The sum of `mine` over the units that hold numbers of the same row.
#[cube]
pub fn sum_over_row(mine: f32) -> f32 {
    let pair = mine + plane_shuffle_xor(mine, 1);
    pair + plane_shuffle_xor(pair, 2)
}

/// The largest `mine` of these units.
#[cube]
pub fn max_over_row(mine: f32) -> f32 {
    let pair = max(mine, plane_shuffle_xor(mine, 1));
    max(pair, plane_shuffle_xor(pair, 2))
}

/// Writes a plane's sums to memory, each row times its factor.
#[cube]
pub fn write<F: Float>(
    sums: &Sums,
    factors: &Array<f32>,
    to: &mut Array<Pair<F>>,
    place: HeadRows,
    #[comptime] tile: Tile,
) {
    let (g, t) = lane();
    #[unroll]
    for half in 0..2usize {
        let row = g + comptime!(8 * half);
        if row < place.rows {
            let at = place.at + row * place.stride + t;
            #[unroll]
            for column in 0..comptime!(tile.pairs / 4) {
                let sum = sums.index(column)[half] * Pair::new(factors[half]);
                to[at + comptime!(4 * column)] = Pair::cast_from(sum);
            }
        }
    }
}

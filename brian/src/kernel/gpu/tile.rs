//! The products of attention, a tile at a time: 16 rows of one side with some of the other, by the units of a plane.
//!
//! On tensor cores where the device has them for the type, else unit by unit: the same sums in another order.

use burn_cubecl::cubecl::{self, prelude::*};

/// Rows that a plane works on: the edge of a matrix on tensor cores.
pub const ROWS: usize = 16;
/// Units of a plane.
pub const LANES: usize = 32;

/// How products are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// On tensor cores.
    pub cores: bool,
    /// How many products a tensor core adds up at once.
    pub depth: usize,
    /// Planes of a cube; each works on rows of its own.
    pub planes: usize,
    /// Rows of the other side at a time, a multiple of 16.
    pub n: usize,
    /// Numbers per row and head.
    pub d_head: usize,
}

impl Tile {
    /// Numbers of shared memory from a row of f32 to the next: results of a tile, or of a row. Apart from a power of two, so that
    /// rows do not meet in a bank.
    pub fn stride(&self) -> usize {
        match self.cores {
            true => self.n.max(self.d_head) + 4,
            false => self.n + 4,
        }
    }

    /// Bytes of shared memory that the pass with the most of it takes.
    pub fn shared_bytes(&self, size_of_weight: usize) -> usize {
        let scores = 4 * self.planes * ROWS * self.stride();
        let weights = size_of_weight * self.planes * ROWS * self.weight_stride();
        2 * (scores + weights + 4 * self.sums()) + 4 * 2 * self.planes * LANES
    }

    /// The same for weights.
    pub fn weight_stride(&self) -> usize {
        self.n + 8
    }

    /// Numbers of shared memory for sums that no tensor core holds.
    pub fn sums(&self) -> usize {
        match self.cores {
            true => 1,
            false => self.planes * ROWS * self.d_head,
        }
    }

    /// Matrices that hold the sums of a row's head.
    pub fn n_sums(&self) -> usize {
        match self.cores {
            true => self.d_head / ROWS,
            false => 0,
        }
    }
}

/// Where a matrix begins in memory, how far its rows lie apart, and how many there are.
#[derive(CubeType, Clone, Copy)]
pub struct Place {
    pub at: usize,
    pub stride: usize,
    pub rows: usize,
}

/// The 16 rows of a plane, as tensor cores take them.
#[cube]
pub fn load<F: Float, T: Float>(
    a: &Array<F>,
    place: Place,
    #[comptime] tile: Tile,
) -> Sequence<cmma::Matrix<T>> {
    let mut loaded = Sequence::<cmma::Matrix<T>>::new();
    if comptime!(tile.cores) {
        #[unroll]
        for step in 0..comptime!(tile.d_head / tile.depth) {
            let matrix = cmma::Matrix::<T>::from_value(
                cmma::MatrixIdent::A,
                16usize,
                16usize,
                comptime!(tile.depth),
                cmma::MatrixLayout::RowMajor,
                T::from_int(0),
            );
            let from = a.slice(place.at + comptime!(step * tile.depth), a.len());
            cmma::load(&matrix, &from, place.stride as u32);
            loaded.push(matrix);
        }
    }
    loaded
}

/// `out[16, n] = a[16, d_head] · b[n, d_head]ᵀ`, one plane's. Rows that are not there give those of the last.
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn compare<F: Float, T: Float>(
    loaded: &Sequence<cmma::Matrix<T>>,
    a: &Array<F>,
    a_place: Place,
    b: &Array<F>,
    b_place: Place,
    out: &mut SharedMemory<f32>,
    out_at: usize,
    #[comptime] tile: Tile,
) {
    let stride = comptime!(tile.stride());
    if comptime!(tile.cores) {
        #[unroll]
        for column in 0..comptime!(tile.n / ROWS) {
            let sum = zeros(tile);
            #[unroll]
            for step in 0..comptime!(tile.d_head / tile.depth) {
                let right = cmma::Matrix::<T>::from_value(
                    cmma::MatrixIdent::B,
                    16usize,
                    16usize,
                    comptime!(tile.depth),
                    cmma::MatrixLayout::ColMajor,
                    T::from_int(0),
                );
                let at = b_place.at
                    + comptime!(column * ROWS) * b_place.stride
                    + comptime!(step * tile.depth);
                cmma::load(&right, &b.slice(at, b.len()), b_place.stride as u32);
                cmma::execute::<T, T, f32, f32>(loaded.index(step), &right, &sum, &sum);
            }
            let to = out_at + comptime!(column * ROWS);
            cmma::store(
                &mut out.slice_mut(to, to + comptime!((ROWS - 1) * stride + ROWS)),
                &sum,
                comptime!(stride as u32),
                cmma::MatrixLayout::RowMajor,
            );
        }
    } else {
        let mut element = UNIT_POS_X as usize;
        while element < comptime!(ROWS * tile.n) {
            let row = element / comptime!(tile.n);
            let column = element % comptime!(tile.n);
            let left = a_place.at + min(row, a_place.rows - 1) * a_place.stride;
            let right = b_place.at + min(column, b_place.rows - 1) * b_place.stride;
            let mut sum = 0.0f32;
            for place in 0..comptime!(tile.d_head) {
                sum += f32::cast_from(a[left + place]) * f32::cast_from(b[right + place]);
            }
            out[out_at + row * stride + column] = sum;
            element += LANES;
        }
    }
}

/// `sums[16, d_head] += weights[16, n] · rows[n, d_head]`, one plane's.
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn gather<F: Float, T: Float>(
    weights: &SharedMemory<F>,
    weights_at: usize,
    rows: &Array<F>,
    place: Place,
    sums: &Sequence<cmma::Matrix<f32>>,
    plain: &mut SharedMemory<f32>,
    plain_at: usize,
    #[comptime] tile: Tile,
) {
    let stride = comptime!(tile.weight_stride());
    if comptime!(tile.cores) {
        #[unroll]
        for step in 0..comptime!(tile.n / tile.depth) {
            let left = cmma::Matrix::<T>::from_value(
                cmma::MatrixIdent::A,
                16usize,
                16usize,
                comptime!(tile.depth),
                cmma::MatrixLayout::RowMajor,
                T::from_int(0),
            );
            let from = weights_at + comptime!(step * tile.depth);
            let to = from + comptime!((ROWS - 1) * stride + tile.depth);
            cmma::load(&left, &weights.slice(from, to), comptime!(stride as u32));
            #[unroll]
            for column in 0..comptime!(tile.d_head / ROWS) {
                let right = cmma::Matrix::<T>::from_value(
                    cmma::MatrixIdent::B,
                    16usize,
                    16usize,
                    comptime!(tile.depth),
                    cmma::MatrixLayout::RowMajor,
                    T::from_int(0),
                );
                let at = place.at
                    + comptime!(step * tile.depth) * place.stride
                    + comptime!(column * ROWS);
                cmma::load(&right, &rows.slice(at, rows.len()), place.stride as u32);
                let sum = sums.index(column);
                cmma::execute::<T, T, f32, f32>(&left, &right, sum, sum);
            }
        }
    } else {
        let n = min(place.rows, comptime!(tile.n).runtime());
        let mut element = UNIT_POS_X as usize;
        while element < comptime!(ROWS * tile.d_head) {
            let row = element / comptime!(tile.d_head);
            let column = element % comptime!(tile.d_head);
            let mut sum = plain[plain_at + element];
            for other in 0..n {
                let weight = f32::cast_from(weights[weights_at + row * stride + other]);
                sum += weight * f32::cast_from(rows[place.at + other * place.stride + column]);
            }
            plain[plain_at + element] = sum;
            element += LANES;
        }
    }
}

/// Sums of nothing yet.
#[cube]
fn zeros(#[comptime] tile: Tile) -> cmma::Matrix<f32> {
    cmma::Matrix::<f32>::from_value(
        cmma::MatrixIdent::Accumulator,
        16usize,
        16usize,
        comptime!(tile.depth),
        cmma::MatrixLayout::Undefined,
        0.0,
    )
}

/// Sums of nothing yet, of a plane's rows.
#[cube]
pub fn no_sums(
    plain: &mut SharedMemory<f32>,
    plain_at: usize,
    #[comptime] tile: Tile,
) -> Sequence<cmma::Matrix<f32>> {
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(tile.n_sums()) {
        sums.push(zeros(tile));
    }
    if comptime!(!tile.cores) {
        let mut element = UNIT_POS_X as usize;
        while element < comptime!(ROWS * tile.d_head) {
            plain[plain_at + element] = 0.0;
            element += LANES;
        }
    }
    sums
}

/// A plane's sums into memory, through shared memory that holds a row of `d_head` every [`Tile::stride`].
#[cube]
#[allow(clippy::too_many_arguments)]
pub fn write<F: Float>(
    sums: &Sequence<cmma::Matrix<f32>>,
    plain: &SharedMemory<f32>,
    plain_at: usize,
    through: &mut SharedMemory<f32>,
    through_at: usize,
    to: &mut Array<F>,
    place: Place,
    #[comptime] tile: Tile,
) {
    let stride = comptime!(tile.stride());
    sync_cube();
    if comptime!(tile.cores) {
        #[unroll]
        for column in 0..comptime!(tile.n_sums()) {
            let from = through_at + comptime!(column * ROWS);
            cmma::store(
                &mut through.slice_mut(from, from + comptime!((ROWS - 1) * stride + ROWS)),
                sums.index(column),
                comptime!(stride as u32),
                cmma::MatrixLayout::RowMajor,
            );
        }
    }
    sync_cube();
    let mut element = UNIT_POS_X as usize;
    while element < comptime!(ROWS * tile.d_head) {
        let row = element / comptime!(tile.d_head);
        let column = element % comptime!(tile.d_head);
        if row < place.rows {
            let sum = if comptime!(tile.cores) {
                through[through_at + row * stride + column]
            } else {
                plain[plain_at + element]
            };
            to[place.at + row * place.stride + column] = F::cast_from(sum);
        }
        element += LANES;
    }
}

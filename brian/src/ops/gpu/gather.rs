//! Selected rows of a table. The gradient sums, for each row of the table, the places that used it, in their order and for all
//! rows in parallel; Burn's adds place after place, with one unit per column.

use super::custom_op::{Back, Call, Kernel, input, run};
use super::launch::{self, UNITS, address, cubes, empty, len, row_dim};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

/// So many places are looked through at once.
const WINDOW: usize = 1024;

/// See [`rows`](super::super::gather::rows).
pub(crate) fn rows<B: Backend>(
    table: &Tensor<B, 2>,
    which: impl FnOnce() -> Tensor<B, 1, Int>,
) -> Option<Tensor<B, 2>> {
    run(Rows, [input(table)], Some(which()))
}

#[derive(Clone, Debug)]
struct Rows;

impl Kernel<1> for Rows {
    fn forward<R: CubeRuntime>(&self, call: &mut Call<R, 1>) -> Option<CubeTensor<R>> {
        let [table] = &call.inputs;
        let which = call.indices.as_ref()?;
        if [table.dtype, which.dtype] != [DType::F32, DType::I32] {
            return None;
        }
        let ([_, width], n) = (launch::rows(table), len(which));
        let output = empty(table, [n, width], DType::F32);
        forward::launch::<R>(
            &table.client,
            cubes(n),
            row_dim(),
            address([table, &output]),
            table.clone().into_array_arg(),
            which.clone().into_array_arg(),
            output.clone().into_array_arg(),
            n,
            width,
        );
        Some(output)
    }

    fn backward<R: CubeRuntime>(&self, call: &Call<R, 1>, gradient: CubeTensor<R>) -> Back<R, 1> {
        let [table] = &call.inputs;
        let which = call.indices.as_ref().expect("as forward");
        let [n_rows, width] = launch::rows(table);
        let of_table = empty(table, [n_rows, width], DType::F32);
        back::launch::<R>(
            &table.client,
            cubes(n_rows),
            row_dim(),
            address([table, &gradient]),
            which.clone().into_array_arg(),
            gradient.into_array_arg(),
            of_table.clone().into_array_arg(),
            len(which),
            n_rows,
            width,
        );
        [Some(of_table)]
    }
}

#[cube(launch, address_type = "dynamic")]
fn forward(
    table: &Array<f32>,
    which: &Array<i32>,
    output: &mut Array<f32>,
    n: usize,
    width: usize,
) {
    let place = CUBE_POS;
    if place >= n {
        terminate!();
    }
    let begin = usize::cast_from(which[place]) * width;
    let mut column = UNIT_POS as usize;
    while column < width {
        output[place * width + column] = table[begin + column];
        column += UNITS as usize;
    }
}

/// A cube per row of the table looks for its places: reading all places for every row is less than reading the table.
#[cube(launch, address_type = "dynamic")]
fn back(
    which: &Array<i32>,
    gradient: &Array<f32>,
    of_table: &mut Array<f32>,
    n: usize,
    n_rows: usize,
    width: usize,
) {
    let row = CUBE_POS;
    if row >= n_rows {
        terminate!();
    }
    // Which places of a window are this row's, in their order, and how many each unit found before them.
    let mut found = SharedMemory::<u32>::new(WINDOW);
    let mut counts = SharedMemory::<u32>::new(comptime!(UNITS as usize));
    let mut is_any = SharedMemory::<u32>::new(1usize);
    let unit = UNIT_POS as usize;
    let each = comptime!(WINDOW / UNITS as usize);
    let mut column = unit;
    while column < width {
        of_table[row * width + column] = 0.0;
        column += UNITS as usize;
    }
    let mut begin = 0usize;
    while begin < n {
        let first = begin + unit * each;
        let mut mine = 0u32;
        for place in first..first + each {
            if place < n && usize::cast_from(which[place]) == row {
                mine += 1;
            }
        }
        sync_cube();
        counts[unit] = mine;
        if unit == 0 {
            is_any[0] = 0;
        }
        sync_cube();
        if mine > 0 {
            is_any[0] = 1;
        }
        sync_cube();
        let mut total = 0u32;
        if is_any[0] == 1 {
            let mut before = 0u32;
            for other in 0..comptime!(UNITS as usize) {
                if other == unit {
                    before = total;
                }
                total += counts[other];
            }
            for place in first..first + each {
                if place < n && usize::cast_from(which[place]) == row {
                    found[before as usize] = place as u32;
                    before += 1;
                }
            }
        }
        sync_cube();
        if total > 0 {
            let mut column = unit;
            while column < width {
                let mut sum = of_table[row * width + column];
                for index in 0..total as usize {
                    sum += gradient[found[index] as usize * width + column];
                }
                of_table[row * width + column] = sum;
                column += UNITS as usize;
            }
        }
        begin += WINDOW;
    }
}

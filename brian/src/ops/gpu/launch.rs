//! Helpers of kernel launches: numbers of cubes and units, types, memory for outputs, and sums over a cube.

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Units of a cube that works on one row.
pub const UNITS: u32 = 256;

/// Memory for an output, on the device of another tensor.
pub fn empty<R: CubeRuntime, const D: usize>(
    beside: &CubeTensor<R>,
    dims: [usize; D],
    dtype: DType,
) -> CubeTensor<R> {
    let (client, device) = (beside.client.clone(), beside.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::new(dims), dtype)
}

/// The last dimension, and the product of those before it.
pub fn rows<R: CubeRuntime>(tensor: &CubeTensor<R>) -> [usize; 2] {
    let shape = tensor.meta.shape();
    let width = *shape.last().expect("a dimension");
    [shape.num_elements() / width.max(1), width]
}

/// The number of elements.
pub fn len<R: CubeRuntime>(tensor: &CubeTensor<R>) -> usize {
    tensor.meta.shape().num_elements()
}

/// The type of the elements, for a kernel.
pub fn kind<R: CubeRuntime>(tensor: &CubeTensor<R>) -> StorageType {
    tensor.dtype.into()
}

/// Whether kernels can read the tensor: f32 or bf16.
pub fn is_known<R: CubeRuntime>(tensor: &CubeTensor<R>) -> bool {
    [DType::F32, DType::BF16].contains(&tensor.dtype)
}

/// The index type that suffices for the longest of some tensors.
pub fn address<R: CubeRuntime, const N: usize>(tensors: [&CubeTensor<R>; N]) -> AddressType {
    let all = tensors.map(CubeTensor::required_address_type);
    all.into_iter().max().unwrap_or_default()
}

/// One cube for each of `n`, at `CUBE_POS`.
pub fn cubes(n: usize) -> CubeCount {
    let across = n.clamp(1, 1 << 15);
    CubeCount::Static(across as u32, n.div_ceil(across) as u32, 1)
}

/// One unit for each of `n`, at `ABSOLUTE_POS`.
pub fn units<R: CubeRuntime>(beside: &CubeTensor<R>, n: usize) -> (CubeCount, CubeDim) {
    let dim = row_dim();
    let count = cubecl::calculate_cube_count_elemwise(&beside.client, n, dim);
    (count, dim)
}

/// The units of a cube that works on a row, or number by number.
pub fn row_dim() -> CubeDim {
    CubeDim {
        x: UNITS,
        y: 1,
        z: 1,
    }
}

/// The sum of `mine` over all units of a cube; every unit gets it.
#[cube]
pub fn sum_over_cube(mine: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = mine;
    sync_cube();
    let mut half = comptime!(UNITS as usize / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] += other;
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

/// The largest `mine` of all units of a cube; every unit gets it.
#[cube]
pub fn max_over_cube(mine: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = mine;
    sync_cube();
    let mut half = comptime!(UNITS as usize / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] = max(shared[unit], other);
        }
        sync_cube();
        half /= 2;
    }
    shared[0]
}

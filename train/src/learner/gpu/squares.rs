//! Computes the sum of squares of each of many f32 tensors on a GPU, with few launches and one read-back for all;
//! the kernel makes 128 partial sums per tensor, which the host adds up. `None` where no kernel applies.

use super::{OnGpu, UNITS, anywhere, cubes, in_turn};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Shape, Tensor, TensorPrimitive};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Sums per tensor that the host adds up, each made by a cube.
const PARTS: usize = 128;

/// The sum of squares of each tensor; `None` if no kernel applies.
pub fn squares<B: Backend>(tensors: &[Tensor<B, 1>]) -> Option<Vec<f64>> {
    if tensors.iter().any(|tensor| tensor.dtype() != DType::F32) {
        return None;
    }
    let tensors = tensors.iter().cloned();
    let given = tensors.map(|tensor| tensor.into_primitive().tensor());
    let found = anywhere::<B>(given.collect(), Squares).ok()?.pop()?;
    let sums: Tensor<B, 1> = Tensor::from_primitive(TensorPrimitive::Float(found));
    let sums: Vec<f32> = sums.into_data().iter().collect();
    let of_tensor = |parts: &[f32]| parts.iter().map(|&part| f64::from(part)).sum();
    Some(sums.chunks_exact(PARTS).map(of_tensor).collect())
}

struct Squares;

impl OnGpu for Squares {
    fn run<R: CubeRuntime>(self, given: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let Some(first) = given.first() else {
            return Vec::new();
        };
        let sums = empty_device_contiguous_dtype(
            first.client.clone(),
            first.device.clone(),
            Shape::new([given.len() * PARTS]),
            DType::F32,
        );
        let given: Vec<_> = given.into_iter().map(into_contiguous).collect();
        let mut begin = 0;
        in_turn(
            &given,
            1,
            |tensor| tensor,
            |client, address, some| {
                let (count, dim) = cubes(some.len() * PARTS);
                add_up::launch::<R>(
                    client,
                    count,
                    dim,
                    address,
                    some.iter()
                        .map(|tensor| tensor.clone().into_array_arg())
                        .collect(),
                    some.iter()
                        .map(|tensor| tensor.meta.num_elements())
                        .collect(),
                    sums.clone().into_array_arg(),
                    begin * PARTS,
                );
                begin += some.len();
            },
        );
        vec![sums]
    }
}

#[cube(launch, address_type = "dynamic")]
fn add_up(
    values: &Sequence<Array<f32>>,
    lengths: &Sequence<usize>,
    sums: &mut Array<f32>,
    begin: usize,
) {
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    #[unroll]
    for index in 0..values.len() {
        if CUBE_POS / PARTS == index {
            let values = values.index(index);
            let mut place = CUBE_POS % PARTS * UNITS + unit;
            while place < *lengths.index(index) {
                sum += values[place] * values[place];
                place += comptime!(PARTS * UNITS);
            }
        }
    }
    let mut shared = SharedMemory::<f32>::new(UNITS);
    shared[unit] = sum;
    sync_cube();
    let mut half = comptime!(UNITS / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] += other;
        }
        sync_cube();
        half /= 2;
    }
    if unit == 0 && CUBE_POS < values.len() * PARTS {
        sums[begin + CUBE_POS] = shared[0];
    }
}

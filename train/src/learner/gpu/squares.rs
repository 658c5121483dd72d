//! Sums of squares of many tensors, with one launch each and one read-back for all.

use super::{OnGpu, anywhere};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Shape, Tensor, TensorPrimitive};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Sums per tensor that the host adds up, each made by a cube.
const PARTS: usize = 128;
/// Units of a cube.
const UNITS: usize = 256;

/// The sum of the squares of each; nothing where no kernel applies.
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
        for (index, tensor) in given.into_iter().enumerate() {
            let n = tensor.meta.shape().num_elements();
            let tensor = into_contiguous(tensor);
            add_up::launch::<R>(
                &sums.client,
                CubeCount::Static(PARTS as u32, 1, 1),
                CubeDim {
                    x: UNITS as u32,
                    y: 1,
                    z: 1,
                },
                tensor.required_address_type(),
                tensor.into_array_arg(),
                sums.clone().into_array_arg(),
                n,
                index * PARTS,
            );
        }
        vec![sums]
    }
}

#[cube(launch, address_type = "dynamic")]
fn add_up(values: &Array<f32>, sums: &mut Array<f32>, n: usize, begin: usize) {
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    let mut place = CUBE_POS_X as usize * UNITS + unit;
    while place < n {
        sum += values[place] * values[place];
        place += comptime!(PARTS * UNITS);
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
    if unit == 0 {
        sums[begin + CUBE_POS_X as usize] = shared[0];
    }
}

//! Residual addition of a stream in single precision and a product in half precision.

use super::custom_op::{Back, Call, Kernel, input, run};
use super::launch::{address, empty, len, rows, units};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

/// See [`residual_add`](super::super::residual_add::residual_add).
pub(crate) fn residual_add<B: Backend>(y: &Tensor<B, 2>, x: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    run(Added, [input(y), input(x)], None)
}

#[derive(Clone, Debug)]
struct Added;

impl Kernel<2> for Added {
    fn forward<R: CubeRuntime>(&self, call: &mut Call<R, 2>) -> Option<CubeTensor<R>> {
        let [y, x] = &call.inputs;
        if [y.dtype, x.dtype] != [DType::F32, DType::BF16] {
            return None;
        }
        let output = empty(y, rows(y), y.dtype);
        let (count, dim) = units(y, len(y));
        add::launch::<R>(
            &y.client,
            count,
            dim,
            address([y]),
            y.clone().into_array_arg(),
            x.clone().into_array_arg(),
            output.clone().into_array_arg(),
            len(y),
            x.dtype.into(),
        );
        Some(output)
    }

    fn backward<R: CubeRuntime>(&self, call: &Call<R, 2>, gradient: CubeTensor<R>) -> Back<R, 2> {
        let [_, x] = &call.inputs;
        let of_x = burn_cubecl::kernel::cast(gradient.clone(), x.dtype);
        [Some(gradient), Some(of_x)]
    }
}

#[cube(launch, address_type = "dynamic")]
fn add<F: Float>(
    y: &Array<f32>,
    x: &Array<F>,
    output: &mut Array<f32>,
    n: usize,
    #[define(F)] _type: StorageType,
) {
    let place = ABSOLUTE_POS;
    if place >= n {
        terminate!();
    }
    output[place] = y[place] + f32::cast_from(x[place]);
}

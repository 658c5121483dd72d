//! Kernels of the RMS norm `x / sqrt(mean(x²) + ε) ⊙ gain`, written in the type of the product that follows, and of its
//! gradients of input and gain.

use super::custom_op::{Back, Call, Kernel, input, run};
use super::launch::{UNITS, address, cubes, empty, is_known, kind, row_dim, rows, sum_over_cube};
use burn::nn::RmsNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

/// Rows whose gradients are summed first, before all of these sums are: the order of a sum is fixed.
const ROWS: usize = 64;

/// See [`rms_norm`](super::super::rms_norm::rms_norm).
pub(crate) fn rms_norm<B: Backend, const D: usize>(
    x: &Tensor<B, D>,
    norm: &RmsNorm<B>,
    dtype: DType,
) -> Option<Tensor<B, D>> {
    let kernel = Norm {
        epsilon: norm.epsilon as f32,
        dtype,
    };
    run(kernel, [input(x), input(&norm.gamma.val())], None)
}

#[derive(Clone, Debug)]
struct Norm {
    epsilon: f32,
    dtype: DType,
}

impl Kernel<2> for Norm {
    fn forward<R: CubeRuntime>(&self, call: &mut Call<R, 2>) -> Option<CubeTensor<R>> {
        let [x, gain] = &call.inputs;
        if !is_known(x) || gain.dtype != DType::F32 {
            return None;
        }
        let [n, width] = rows(x);
        let normed = CubeTensor {
            meta: x.meta.clone(),
            ..empty(x, [n, width], self.dtype)
        };
        let scales = empty(x, [n], DType::F32);
        forward::launch::<R>(
            &x.client,
            cubes(n),
            row_dim(),
            address([x, &normed]),
            x.clone().into_array_arg(),
            gain.clone().into_array_arg(),
            normed.clone().into_array_arg(),
            scales.clone().into_array_arg(),
            n,
            width,
            self.epsilon,
            [kind(x), kind(&normed)],
        );
        call.kept = vec![scales];
        Some(normed)
    }

    fn backward<R: CubeRuntime>(&self, call: &Call<R, 2>, gradient: CubeTensor<R>) -> Back<R, 2> {
        let [x, gain] = &call.inputs;
        let scales = &call.kept[0];
        let [n, width] = rows(x);
        let of_x = CubeTensor {
            meta: x.meta.clone(),
            ..empty(x, [n, width], x.dtype)
        };
        back::launch::<R>(
            &x.client,
            cubes(n),
            row_dim(),
            address([x, &gradient]),
            x.clone().into_array_arg(),
            gain.clone().into_array_arg(),
            scales.clone().into_array_arg(),
            gradient.clone().into_array_arg(),
            of_x.clone().into_array_arg(),
            n,
            width,
            [kind(x), kind(&gradient)],
        );
        let parts = n.div_ceil(ROWS);
        let of_parts = empty(x, [parts, width], DType::F32);
        let columns = width.div_ceil(UNITS as usize);
        back_gain::launch::<R>(
            &x.client,
            CubeCount::Static(columns as u32, parts as u32, 1),
            row_dim(),
            address([x, &gradient]),
            x.clone().into_array_arg(),
            scales.clone().into_array_arg(),
            gradient.clone().into_array_arg(),
            of_parts.clone().into_array_arg(),
            n,
            width,
            ROWS,
            [kind(x), kind(&gradient)],
        );
        let of_gain = empty(x, [width], DType::F32);
        add_up::launch::<R>(
            &x.client,
            CubeCount::Static(columns as u32, 1, 1),
            row_dim(),
            of_parts.into_array_arg(),
            of_gain.clone().into_array_arg(),
            parts,
            width,
        );
        [Some(of_x), Some(of_gain)]
    }
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn forward<F: Float, G: Float>(
    x: &Array<F>,
    gain: &Array<f32>,
    normed: &mut Array<G>,
    scales: &mut Array<f32>,
    n: usize,
    width: usize,
    epsilon: f32,
    #[define(F, G)] _types: [StorageType; 2],
) {
    let row = CUBE_POS;
    if row >= n {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let begin = row * width;
    let mut square = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let value = f32::cast_from(x[begin + column]);
        square += value * value;
        column += UNITS as usize;
    }
    let square = sum_over_cube(square, &mut shared);
    let scale = 1.0 / (square / f32::cast_from(width) + epsilon).sqrt();
    let mut column = UNIT_POS as usize;
    while column < width {
        let value = f32::cast_from(x[begin + column]);
        normed[begin + column] = G::cast_from(value * scale * gain[column]);
        column += UNITS as usize;
    }
    if UNIT_POS == 0 {
        scales[row] = scale;
    }
}

/// With `n = x s` and `g` the gradient times the gain: `s (g − n mean(g ⊙ n))`.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn back<F: Float, G: Float>(
    x: &Array<F>,
    gain: &Array<f32>,
    scales: &Array<f32>,
    gradient: &Array<G>,
    of_x: &mut Array<F>,
    n: usize,
    width: usize,
    #[define(F, G)] _types: [StorageType; 2],
) {
    let row = CUBE_POS;
    if row >= n {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let begin = row * width;
    let scale = scales[row];
    let mut along = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let flowing = f32::cast_from(gradient[begin + column]) * gain[column];
        along += flowing * f32::cast_from(x[begin + column]) * scale;
        column += UNITS as usize;
    }
    let along = sum_over_cube(along, &mut shared) / f32::cast_from(width);
    let mut column = UNIT_POS as usize;
    while column < width {
        let flowing = f32::cast_from(gradient[begin + column]) * gain[column];
        let normed = f32::cast_from(x[begin + column]) * scale;
        of_x[begin + column] = F::cast_from((flowing - normed * along) * scale);
        column += UNITS as usize;
    }
}

/// Sums of `gradient ⊙ x s` over some rows, `[parts, width]`.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn back_gain<F: Float, G: Float>(
    x: &Array<F>,
    scales: &Array<f32>,
    gradient: &Array<G>,
    of_parts: &mut Array<f32>,
    n: usize,
    width: usize,
    rows: usize,
    #[define(F, G)] _types: [StorageType; 2],
) {
    let column = (CUBE_POS_X * UNITS + UNIT_POS) as usize;
    if column >= width {
        terminate!();
    }
    let part = CUBE_POS_Y as usize;
    let begin = part * rows;
    let end = min(begin + rows, n);
    let mut sum = 0.0f32;
    for row in begin..end {
        let place = row * width + column;
        sum += f32::cast_from(gradient[place]) * f32::cast_from(x[place]) * scales[row];
    }
    of_parts[part * width + column] = sum;
}

/// `[parts, width]` to `[width]`.
#[cube(launch)]
fn add_up(of_parts: &Array<f32>, sums: &mut Array<f32>, parts: usize, width: usize) {
    let column = (CUBE_POS_X * UNITS + UNIT_POS) as usize;
    if column >= width {
        terminate!();
    }
    let mut sum = 0.0f32;
    for part in 0..parts {
        sum += of_parts[part * width + column];
    }
    sums[column] = sum;
}

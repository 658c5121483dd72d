//! Cross entropy of a token: `−ln softmax(logits)[target]`, in one pass over the logits instead of seven.

use super::custom_op::{Back, Call, Kernel, input, run};
use super::launch::{
    UNITS, address, cubes, empty, is_known, kind, max_over_cube, row_dim, rows, sum_over_cube,
};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

/// Below every logit.
const LOWEST: f32 = -3.0e38;

/// See [`cross_entropy`](super::super::cross_entropy::cross_entropy).
pub(crate) fn cross_entropy<B: Backend>(
    logits: &Tensor<B, 2>,
    targets: &Tensor<B, 1, Int>,
) -> Option<Tensor<B, 1>> {
    run(Nats, [input(logits)], Some(targets.clone()))
}

#[derive(Clone, Debug)]
struct Nats;

impl Kernel<1> for Nats {
    fn forward<R: CubeRuntime>(&self, call: &mut Call<R, 1>) -> Option<CubeTensor<R>> {
        let [logits] = &call.inputs;
        let targets = call.indices.as_ref()?;
        if !is_known(logits) || targets.dtype != DType::I32 {
            return None;
        }
        let [n, width] = rows(logits);
        let [nats, ends] = [(); 2].map(|()| empty(logits, [n], DType::F32));
        forward::launch::<R>(
            &logits.client,
            cubes(n),
            row_dim(),
            address([logits]),
            logits.clone().into_array_arg(),
            targets.clone().into_array_arg(),
            nats.clone().into_array_arg(),
            ends.clone().into_array_arg(),
            n,
            width,
            kind(logits),
        );
        call.kept = vec![ends];
        Some(nats)
    }

    fn backward<R: CubeRuntime>(&self, call: &Call<R, 1>, gradient: CubeTensor<R>) -> Back<R, 1> {
        let [logits] = &call.inputs;
        let targets = call.indices.as_ref().expect("as forward");
        let [n, width] = rows(logits);
        let of_logits = empty(logits, [n, width], logits.dtype);
        back::launch::<R>(
            &logits.client,
            cubes(n),
            row_dim(),
            address([logits]),
            logits.clone().into_array_arg(),
            targets.clone().into_array_arg(),
            call.kept[0].clone().into_array_arg(),
            gradient.into_array_arg(),
            of_logits.clone().into_array_arg(),
            n,
            width,
            kind(logits),
        );
        [Some(of_logits)]
    }
}

/// `ends` are the logarithms of the sums of exponentials.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn forward<F: Float>(
    logits: &Array<F>,
    targets: &Array<i32>,
    nats: &mut Array<f32>,
    ends: &mut Array<f32>,
    n: usize,
    width: usize,
    #[define(F)] _type: StorageType,
) {
    let row = CUBE_POS;
    if row >= n {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let begin = row * width;
    // The largest so far, and the sum of exponentials less it.
    let mut most = f32::new(LOWEST);
    let mut sum = 0.0f32;
    let mut column = UNIT_POS as usize;
    while column < width {
        let value = f32::cast_from(logits[begin + column]);
        if value > most {
            sum *= (most - value).exp();
            most = value;
        }
        sum += (value - most).exp();
        column += UNITS as usize;
    }
    let most_of_all = max_over_cube(most, &mut shared);
    let sum = sum_over_cube(sum * (most - most_of_all).exp(), &mut shared);
    if UNIT_POS == 0 {
        let end = most_of_all + sum.ln();
        let target = usize::cast_from(targets[row]);
        ends[row] = end;
        nats[row] = end - f32::cast_from(logits[begin + target]);
    }
}

/// `gradient (softmax − 1 at the target)`.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn back<F: Float>(
    logits: &Array<F>,
    targets: &Array<i32>,
    ends: &Array<f32>,
    gradient: &Array<f32>,
    of_logits: &mut Array<F>,
    n: usize,
    width: usize,
    #[define(F)] _type: StorageType,
) {
    let row = CUBE_POS;
    if row >= n {
        terminate!();
    }
    let begin = row * width;
    let end = ends[row];
    let flowing = gradient[row];
    let target = usize::cast_from(targets[row]);
    let mut column = UNIT_POS as usize;
    while column < width {
        let mut share = (f32::cast_from(logits[begin + column]) - end).exp();
        if column == target {
            share -= 1.0;
        }
        of_logits[begin + column] = F::cast_from(share * flowing);
        column += UNITS as usize;
    }
}

//! SwiGLU gate of a feed-forward: `silu(gate) ⊙ up`, computed in single precision whatever type it reads.

use super::custom_op::{Back, Call, Kernel, input, run};
use super::launch::{address, empty, is_known, kind, len, rows, units};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::tensor::CubeTensor;

/// See [`gated`](super::super::swiglu::gated).
pub(crate) fn gated<B: Backend>(gate: &Tensor<B, 2>, up: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    run(Gated, [input(gate), input(up)], None)
}

#[derive(Clone, Debug)]
struct Gated;

impl Kernel<2> for Gated {
    fn forward<R: CubeRuntime>(&self, call: &mut Call<R, 2>) -> Option<CubeTensor<R>> {
        let [gate, up] = &call.inputs;
        if !is_known(gate) || gate.dtype != up.dtype {
            return None;
        }
        let output = empty(gate, rows(gate), gate.dtype);
        let (count, dim) = units(gate, len(gate));
        forward::launch::<R>(
            &gate.client,
            count,
            dim,
            address([gate]),
            gate.clone().into_array_arg(),
            up.clone().into_array_arg(),
            output.clone().into_array_arg(),
            len(gate),
            kind(gate),
        );
        Some(output)
    }

    fn backward<R: CubeRuntime>(&self, call: &Call<R, 2>, gradient: CubeTensor<R>) -> Back<R, 2> {
        let [gate, up] = &call.inputs;
        let [of_gate, of_up] = [(); 2].map(|()| empty(gate, rows(gate), gate.dtype));
        let (count, dim) = units(gate, len(gate));
        back::launch::<R>(
            &gate.client,
            count,
            dim,
            address([gate]),
            gate.clone().into_array_arg(),
            up.clone().into_array_arg(),
            gradient.into_array_arg(),
            of_gate.clone().into_array_arg(),
            of_up.clone().into_array_arg(),
            len(gate),
            kind(gate),
        );
        [Some(of_gate), Some(of_up)]
    }
}

#[cube(launch, address_type = "dynamic")]
fn forward<F: Float>(
    gate: &Array<F>,
    up: &Array<F>,
    output: &mut Array<F>,
    n: usize,
    #[define(F)] _type: StorageType,
) {
    let place = ABSOLUTE_POS;
    if place >= n {
        terminate!();
    }
    let open = f32::cast_from(gate[place]);
    let silu = open / (1.0 + (-open).exp());
    output[place] = F::cast_from(silu * f32::cast_from(up[place]));
}

/// The derivative of `z σ(z)` is `σ(z) (1 + z (1 − σ(z)))`.
#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn back<F: Float>(
    gate: &Array<F>,
    up: &Array<F>,
    gradient: &Array<F>,
    of_gate: &mut Array<F>,
    of_up: &mut Array<F>,
    n: usize,
    #[define(F)] _type: StorageType,
) {
    let place = ABSOLUTE_POS;
    if place >= n {
        terminate!();
    }
    let open = f32::cast_from(gate[place]);
    let flowing = f32::cast_from(gradient[place]);
    let sigmoid = 1.0 / (1.0 + (-open).exp());
    let slope = sigmoid * (1.0 + open * (1.0 - sigmoid));
    of_up[place] = F::cast_from(flowing * open * sigmoid);
    of_gate[place] = F::cast_from(flowing * f32::cast_from(up[place]) * slope);
}

//! AdamW of a tensor as one kernel, in place where nobody else has the memory.

use super::super::one_pass::Step;
use super::{OnGpu, anywhere};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorPrimitive};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Weights, gradient and both moments to weights and moments; as given where no kernel applies.
pub fn update<B: Backend, const D: usize>(
    step: Step,
    given: [Tensor<B, D>; 4],
) -> Result<[Tensor<B, D>; 3], [Tensor<B, D>; 4]> {
    if given.iter().any(|tensor| tensor.dtype() != DType::F32) {
        return Err(given);
    }
    let tensor = |primitive| Tensor::from_primitive(TensorPrimitive::Float(primitive));
    let given = given.map(|tensor| tensor.into_primitive().tensor());
    match anywhere::<B>(given.into(), Update(step)) {
        Ok(found) => Ok(all(found).map(tensor)),
        Err(given) => Err(all(given).map(tensor)),
    }
}

struct Update(Step);

impl OnGpu for Update {
    fn run<R: CubeRuntime>(self, given: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let Self(step) = self;
        let [weights, gradient, first, second] = all(given);
        let [weights, first, second] = [weights, first, second].map(own);
        let n = weights.meta.shape().num_elements();
        let dim = CubeDim { x: 256, y: 1, z: 1 };
        adamw::launch::<R>(
            &weights.client,
            calculate_cube_count_elemwise(&weights.client, n, dim),
            dim,
            weights.required_address_type(),
            weights.clone().into_array_arg(),
            into_contiguous(gradient).into_array_arg(),
            first.clone().into_array_arg(),
            second.clone().into_array_arg(),
            n,
            step.betas[0],
            step.betas[1],
            step.from[0],
            step.from[1],
            step.whole[0],
            step.whole[1],
            step.epsilon,
            step.keep,
            step.rate,
        );
        vec![weights, first, second]
    }
}

fn all<T, const N: usize>(found: Vec<T>) -> [T; N] {
    let found = found.try_into();
    found.unwrap_or_else(|_| unreachable!("one for each"))
}

/// Memory that may be written.
fn own<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let tensor = into_contiguous(tensor);
    match tensor.can_mut() {
        true => tensor,
        false => tensor.copy(),
    }
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn adamw(
    weights: &mut Array<f32>,
    gradient: &Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    n: usize,
    beta_1: f32,
    beta_2: f32,
    from_1: f32,
    from_2: f32,
    whole_1: f32,
    whole_2: f32,
    epsilon: f32,
    keep: f32,
    rate: f32,
) {
    let place = ABSOLUTE_POS;
    if place >= n {
        terminate!();
    }
    let slope = gradient[place];
    let mean = first[place] * beta_1 + slope * from_1;
    let square = second[place] * beta_2 + slope * slope * from_2;
    first[place] = mean;
    second[place] = square;
    let change = mean / whole_1 / ((square / whole_2).sqrt() + epsilon);
    weights[place] = weights[place] * keep - change * rate;
}

//! AdamW on a GPU, the twin of `Step::update` in `one_pass`: updates many tensors with few kernel launches, in place if a
//! tensor's memory has no other owner.

use super::super::step::{Step, Update};
use super::{CHUNK, OnGpu, UNITS, anywhere, cubes, in_turn};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorPrimitive};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Tensors of an update.
const TENSORS: usize = 4;

/// Updates weights and both moments by a gradient; gives back its input if no kernel applies. The values change only when
/// `waiting` is [launched](launch).
pub fn update<B: Backend, const D: usize>(
    step: Step,
    given: [Tensor<B, D>; TENSORS],
    waiting: &mut Vec<Update<B>>,
) -> Result<[Tensor<B, D>; 3], [Tensor<B, D>; TENSORS]> {
    if given.iter().any(|tensor| tensor.dtype() != DType::F32) {
        return Err(given);
    }
    let tensor = |primitive| Tensor::from_primitive(TensorPrimitive::Float(primitive));
    let given = given.map(|tensor| tensor.into_primitive().tensor());
    let owned = match anywhere::<B>(given.into(), Own) {
        Ok(owned) => all(owned),
        Err(given) => return Err(all(given).map(tensor)),
    };
    let [weights, _, first, second] = owned.clone();
    waiting.push((step, owned));
    Ok([weights, first, second].map(tensor))
}

/// Makes the updates that wait with as few launches as possible.
pub fn launch<B: Backend>(waiting: Vec<Update<B>>) {
    let (steps, tensors): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
    let tensors = tensors.into_iter().flatten().collect();
    // Where no kernel applies, none waits.
    anywhere::<B>(tensors, Launch(steps)).ok();
}

/// Makes memory that may be written.
struct Own;

impl OnGpu for Own {
    fn run<R: CubeRuntime>(self, given: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let [weights, gradient, first, second] = all(given);
        let own = |tensor| {
            let tensor = into_contiguous(tensor);
            match tensor.can_mut() {
                true => tensor,
                false => tensor.copy(),
            }
        };
        let [weights, first, second] = [weights, first, second].map(own);
        vec![weights, into_contiguous(gradient), first, second]
    }
}

fn all<T, const N: usize>(found: Vec<T>) -> [T; N] {
    let found = found.try_into();
    found.unwrap_or_else(|_| unreachable!("one for each"))
}

/// Updates with the same numbers go together, as many as the device takes tensors.
struct Launch(Vec<Step>);

impl OnGpu for Launch {
    fn run<R: CubeRuntime>(self, given: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let (tensors, _) = given.as_chunks::<TENSORS>();
        let mut updates: Vec<_> = self.0.into_iter().zip(tensors).collect();
        while let Some(&(step, _)) = updates.first() {
            let (alike, others) = updates.into_iter().partition(|update| update.0 == step);
            launch_alike(step, alike);
            updates = others;
        }
        Vec::new()
    }
}

fn launch_alike<R: CubeRuntime>(step: Step, updates: Vec<(Step, &[CubeTensor<R>; TENSORS])>) {
    in_turn(
        &updates,
        TENSORS,
        |(_, tensors)| &tensors[0],
        |client, address, some| {
            let tensors = |index: usize| {
                let of = some.iter().map(move |(_, tensors)| tensors[index].clone());
                of.map(CubeTensor::into_array_arg).collect()
            };
            let lengths = some
                .iter()
                .map(|(_, tensors)| tensors[0].meta.num_elements());
            let (count, dim) = cubes(lengths.clone().map(|n| n.div_ceil(CHUNK)).sum());
            adamw::launch::<R>(
                client,
                count,
                dim,
                address,
                tensors(0),
                tensors(1),
                tensors(2),
                tensors(3),
                lengths.collect(),
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
        },
    );
}

#[cube(launch, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn adamw(
    weights: &mut Sequence<Array<f32>>,
    gradient: &Sequence<Array<f32>>,
    first: &mut Sequence<Array<f32>>,
    second: &mut Sequence<Array<f32>>,
    lengths: &Sequence<usize>,
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
    let mut begin = 0usize;
    #[unroll]
    for index in 0..lengths.len() {
        let n = *lengths.index(index);
        let cubes = n.div_ceil(CHUNK);
        let cube = CUBE_POS;
        if cube >= begin && cube < begin + cubes {
            let weights = weights.index_mut(index);
            let (first, second) = (first.index_mut(index), second.index_mut(index));
            let gradient = gradient.index(index);
            let mut place = (cube - begin) * CHUNK + UNIT_POS as usize;
            let end = min(n, (cube - begin + 1) * CHUNK);
            while place < end {
                let slope = gradient[place];
                let mean = first[place] * beta_1 + slope * from_1;
                let square = second[place] * beta_2 + slope * slope * from_2;
                first[place] = mean;
                second[place] = square;
                let change = mean / whole_1 / ((square / whole_2).sqrt() + epsilon);
                weights[place] = weights[place] * keep - change * rate;
                place += UNITS;
            }
        }
        begin += cubes;
    }
}

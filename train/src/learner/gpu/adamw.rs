//! AdamW on a GPU: updates many tensors with few kernel launches, in place if a tensor's memory has no other owner.

use super::super::step::Step;
use super::{CHUNK, OnGpu, UNITS, anywhere, cubes, in_turn};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorPrimitive};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use std::any::Any;
use std::cell::RefCell;

/// Tensors of an update.
const TENSORS: usize = 4;

/// Updates weights and both moments by a gradient; gives back its input if no kernel applies. Within [`together`], the values
/// change only when it ends.
pub fn update<B: Backend, const D: usize>(
    step: Step,
    given: [Tensor<B, D>; TENSORS],
) -> Result<[Tensor<B, D>; 3], [Tensor<B, D>; TENSORS]> {
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

/// Updates that wait, and what runs them.
struct Waiting {
    updates: Box<dyn Any>,
    launch: fn(Box<dyn Any>),
}

thread_local! {
    static WAITING: RefCell<Option<Vec<Waiting>>> = const { RefCell::new(None) };
}

/// Runs `updates`, which updates many tensors, and then makes all their updates with as few launches as possible.
pub fn together<T>(updates: impl FnOnce() -> T) -> T {
    WAITING.set(Some(Vec::new()));
    let done = updates();
    for Waiting { updates, launch } in WAITING.take().into_iter().flatten() {
        launch(updates);
    }
    done
}

/// Lets an update wait for the others of [`together`]; where there is none, it runs at once.
fn wait<R: CubeRuntime>(update: Given<R>) {
    let alone = WAITING.with_borrow_mut(|waiting| {
        let Some(waiting) = waiting else {
            return Some(update);
        };
        let mut others = waiting.iter_mut().map(|waiting| &mut waiting.updates);
        match others.find_map(|others| others.downcast_mut::<Vec<Given<R>>>()) {
            Some(others) => others.push(update),
            None => waiting.push(Waiting {
                updates: Box::new(vec![update]),
                launch: |updates| {
                    launch(
                        *updates
                            .downcast::<Vec<Given<R>>>()
                            .expect("as put in above"),
                    )
                },
            }),
        }
        None
    });
    launch(alone.into_iter().collect());
}

/// Weights, gradient and moments, and the numbers of their step.
struct Given<R: CubeRuntime> {
    step: Step,
    tensors: [CubeTensor<R>; TENSORS],
}

struct Update(Step);

impl OnGpu for Update {
    fn run<R: CubeRuntime>(self, given: Vec<CubeTensor<R>>) -> Vec<CubeTensor<R>> {
        let [weights, gradient, first, second] = all(given);
        let [weights, first, second] = [weights, first, second].map(own);
        let updated = vec![weights.clone(), first.clone(), second.clone()];
        wait(Given {
            step: self.0,
            tensors: [weights, into_contiguous(gradient), first, second],
        });
        updated
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

/// Updates with the same numbers go together, as many as the device takes tensors.
fn launch<R: CubeRuntime>(updates: Vec<Given<R>>) {
    for alike in updates.chunk_by(|a, b| a.step == b.step) {
        let step = alike[0].step;
        in_turn(
            alike,
            TENSORS,
            |update| &update.tensors[0],
            |client, address, some| {
                let tensors = |index: usize| {
                    let of = some.iter().map(move |update| update.tensors[index].clone());
                    of.map(CubeTensor::into_array_arg).collect()
                };
                let lengths = some
                    .iter()
                    .map(|update| update.tensors[0].meta.num_elements());
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

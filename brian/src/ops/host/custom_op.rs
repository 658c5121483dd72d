//! `run` makes a fused operation on matrices in host memory an operation of the ndarray backend, with its gradient under
//! autodiff; `None` on others. Also reshaping, reading numbers, and tensors whose gradients are summed in one place.

use super::super::composed;
use super::gradient::Gradient;
use super::numeric::{Rows, flat};
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use ndarray::Array2;
use std::any::Any;

/// What flows back to an operation.
pub(super) struct Flow<'a> {
    /// The gradient of its output.
    pub gradient: Rows,
    /// Which inputs want theirs.
    pub wanted: Vec<bool>,
    /// The sum of an input's gradient so far, for an operation that adds to it before it gives it back.
    pub so_far: &'a dyn Fn(usize) -> Option<Array2<f32>>,
}

/// The way back of an operation, to the gradients of its inputs.
pub(super) type Back = Box<dyn FnOnce(Flow<'_>) -> Vec<Option<Gradient>> + Send>;

/// The primitive of an input.
pub(in super::super) fn input<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> FloatTensor<B> {
    tensor.clone().into_primitive().tensor()
}

/// The most inputs of a fused operation with a gradient.
pub(super) const MOST_INPUTS: usize = 35;

/// The most inputs of a fused operation on a backend: nothing counts them where there are no gradients.
pub(super) fn most_inputs<B: Backend>() -> usize {
    match host::has_gradients::<B>() {
        true => MOST_INPUTS,
        false => usize::MAX,
    }
}

/// Runs a fused operation, if its inputs are in host memory in single precision.
pub(super) fn run<B: Backend, const N: usize>(
    inputs: [FloatTensor<B>; N],
    pass: impl FnOnce([Rows; N]) -> (Array2<f32>, Back) + Clone + Send + 'static,
) -> Option<Tensor<B, 2>> {
    let all = |rows: Vec<Rows>| rows.try_into().expect("a matrix of each input");
    run_many(inputs.into(), move |rows| pass(all(rows)))
}

/// The same for as many inputs as there are, from one to [`most_inputs`]. A pass may run a second time, for its way back.
pub(super) fn run_many<B: Backend>(
    inputs: Vec<FloatTensor<B>>,
    pass: impl FnOnce(Vec<Rows>) -> (Array2<f32>, Back) + Clone + Send + 'static,
) -> Option<Tensor<B, 2>> {
    if !(1..=most_inputs::<B>()).contains(&inputs.len()) {
        return None;
    }
    let output = host::run::<B>(inputs, pass)?;
    Some(Tensor::from_primitive(TensorPrimitive::Float(output)))
}

/// The numbers of a tensor, if they lie in the memory of the host in single precision.
pub(in super::super) fn rows_of<B: Backend>(tensor: FloatTensor<B>) -> Option<Rows> {
    host::rows_of::<B>(tensor)
}

/// A copy of the numbers of a vector or matrix, under the conditions of [`rows_of`].
pub(crate) fn values<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Option<Vec<f32>> {
    Some(flat(&rows_of::<B>(input(tensor))?).to_vec())
}

/// The tensor in another shape, if it is in host memory in single precision.
pub(crate) fn reshape<B: Backend, const D: usize, const E: usize>(
    tensor: &Tensor<B, D>,
    dims: [usize; E],
) -> Option<Tensor<B, E>> {
    let reshaped = host::reshape::<B>(input(tensor), &dims)?;
    Some(Tensor::from_primitive(TensorPrimitive::Float(reshaped)))
}

/// Whether fused operations apply to a tensor.
pub(crate) fn applies<B: Backend>(tensor: &Tensor<B, 2>) -> bool {
    !composed::only() && rows_of::<B>(input(tensor)).is_some()
}

/// A tensor for several operations: its gradient is summed in one place, see [`gradient_sum`](super::gradient_sum).
pub(crate) fn shared<B: Backend, const D: usize>(map: Tensor<B, D>) -> Tensor<B, D> {
    let shared = host::shared::<B>(map.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(shared))
}

/// Casts a value to the type that it has already; gives it back if the types differ.
pub(in super::super) fn same<From: 'static, To: 'static>(value: From) -> Result<To, From> {
    let mut value = Some(value);
    match (&mut value as &mut dyn Any).downcast_mut::<Option<To>>() {
        Some(found) => Ok(found.take().expect("it was put in above")),
        None => Err(value.expect("it was put in above")),
    }
}

#[cfg(not(feature = "ndarray"))]
mod host {
    use super::{Array2, Back, Backend, FloatTensor, Rows};

    // The other one asks for the backend.
    #[allow(clippy::extra_unused_type_parameters)]
    pub fn has_gradients<B: Backend>() -> bool {
        true
    }

    pub fn rows_of<B: Backend>(_: FloatTensor<B>) -> Option<Rows> {
        None
    }

    pub fn reshape<B: Backend>(_: FloatTensor<B>, _: &[usize]) -> Option<FloatTensor<B>> {
        None
    }

    pub fn shared<B: Backend>(map: FloatTensor<B>) -> FloatTensor<B> {
        map
    }

    pub fn run<B: Backend>(
        _: Vec<FloatTensor<B>>,
        _: impl FnOnce(Vec<Rows>) -> (Array2<f32>, Back),
    ) -> Option<FloatTensor<B>> {
        None
    }
}

#[cfg(feature = "ndarray")]
mod host {
    use super::super::gradient_sum::GradientSum;
    use super::super::numeric::add;
    use super::super::recompute::{self, Part};
    use super::{Back, Backend, FloatTensor, Flow, Gradient, MOST_INPUTS, Rows, same};
    use burn::backend::Autodiff;
    use burn::backend::autodiff::NodeId;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, OpsPrep};
    use burn_ndarray::{NdArray, NdArrayTensor};
    use ndarray::{ArcArray, Array2, ArrayD, Axis, Dimension, Ix1, Ix2, IxDyn};
    use std::any::TypeId;
    use std::collections::BTreeMap;
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    type Learning = FloatTensor<Autodiff<NdArray>>;

    pub fn has_gradients<B: Backend>() -> bool {
        TypeId::of::<FloatTensor<B>>() != TypeId::of::<NdArrayTensor>()
    }

    pub fn run<B: Backend>(
        inputs: Vec<FloatTensor<B>>,
        pass: impl FnOnce(Vec<Rows>) -> (Array2<f32>, Back) + Clone + Send + 'static,
    ) -> Option<FloatTensor<B>> {
        let inputs = match same::<_, Vec<NdArrayTensor>>(inputs) {
            Ok(inputs) => {
                let inputs: Option<_> = inputs.into_iter().map(rows).collect();
                let (output, _) = pass(inputs?);
                return same(tensor(output.into_dyn())).ok();
            }
            Err(inputs) => same::<_, Vec<Learning>>(inputs).ok()?,
        };
        let nodes: Vec<_> = inputs.iter().map(|input| input.node.clone()).collect();
        // Until the output stands in the graph; see `cat`.
        let held: Vec<_> = inputs.iter().map(|input| input.rc.clone()).collect();
        let sums = nodes.iter().map(|node| sum_of(node.id)).collect();
        let ranks = inputs.iter().map(|input| rank(&input.primitive)).collect();
        let inputs = inputs.into_iter().map(|input| rows(input.primitive));
        let inputs: Vec<Rows> = inputs.collect::<Option<_>>()?;
        let dims = inputs.iter().map(Rows::dim).collect();
        let is_tracked = nodes.iter().any(|node| !node.requirement.is_none());
        let entered = recompute::open().filter(|_| is_tracked).and_then(|part| {
            let nodes: Vec<u64> = nodes.iter().map(|node| node.id.value).collect();
            let number = part.enter(Box::new(pass.clone()), &nodes, &inputs)?;
            Some((part, number))
        });
        let (output, back) = pass(inputs);
        let state = PassState {
            back: match &entered {
                Some((part, number)) => WayBack::Again(part.clone(), *number),
                None => WayBack::Kept(Arc::new(Mutex::new(Some(back)))),
            },
            dims,
            ranks,
            sums,
        };
        let output = tensor(output.into_dyn());
        let output = match nodes.len() {
            1 => finish(PassBackward.prepare(filled::<_, 1>(&nodes)), state, output),
            2 => finish(PassBackward.prepare(filled::<_, 2>(&nodes)), state, output),
            3 => finish(PassBackward.prepare(filled::<_, 3>(&nodes)), state, output),
            4..=5 => finish(PassBackward.prepare(filled::<_, 5>(&nodes)), state, output),
            6..=9 => finish(PassBackward.prepare(filled::<_, 9>(&nodes)), state, output),
            10..=17 => finish(PassBackward.prepare(filled::<_, 17>(&nodes)), state, output),
            _ => {
                let nodes = filled::<_, MOST_INPUTS>(&nodes);
                finish(PassBackward.prepare(nodes), state, output)
            }
        };
        drop(held);
        if let Some((part, number)) = entered {
            part.made(number, output.node.id.value);
        }
        same(output).ok()
    }

    /// As many as there have to be; the last one is repeated to fill up.
    fn filled<T: Clone, const N: usize>(all: &[T]) -> [T; N] {
        std::array::from_fn(|index| all[index.min(all.len() - 1)].clone())
    }

    /// An output with its way back.
    fn finish<
        S: Clone + Debug + Send + 'static,
        O: Backward<NdArray, N, State = S>,
        const N: usize,
    >(
        prepared: OpsPrep<O, NdArray, S, NoCheckpointing, N>,
        state: S,
        output: NdArrayTensor,
    ) -> Learning {
        match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(output),
            OpsKind::Tracked(prepared) => prepared.finish(state, output),
        }
    }

    /// What the backward pass needs.
    #[derive(Clone)]
    struct PassState {
        back: WayBack,
        /// Of the inputs, as rows.
        dims: Vec<(usize, usize)>,
        ranks: Vec<usize>,
        /// Where the gradients of shared maps are added up.
        sums: Vec<Option<Arc<GradientSum>>>,
    }

    /// Burn asks for what can be cloned; it is called once.
    #[derive(Clone)]
    enum WayBack {
        Kept(Arc<Mutex<Option<Back>>>),
        /// That of an operation of a part, which runs again.
        Again(Arc<Part>, usize),
    }

    impl WayBack {
        fn take(&self) -> Back {
            match self {
                Self::Kept(back) => {
                    let mut back = back.lock().unwrap_or_else(PoisonError::into_inner);
                    back.take().expect("one way back")
                }
                Self::Again(part, number) => part.back(*number),
            }
        }
    }

    impl Debug for PassState {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a way back")
        }
    }

    #[derive(Debug)]
    struct PassBackward;

    impl<const N: usize> Backward<NdArray, N> for PassBackward {
        type State = PassState;

        fn backward(self, ops: Ops<PassState, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let Ops {
                parents,
                node,
                state,
                ..
            } = ops;
            let gradient = rows(gradients.consume::<NdArray>(&node)).expect("as the output");
            let back = state.back.take();
            let n_inputs = state.dims.len();
            let wanted = parents[..n_inputs].iter().map(Option::is_some).collect();
            let so_far = |index: usize| state.sums[index].as_ref()?.total();
            let found = back(Flow {
                gradient,
                wanted,
                so_far: &so_far,
            });
            let places = state.ranks.into_iter().zip(state.sums).zip(state.dims);
            for ((parent, found), ((rank, sum), dims)) in parents.into_iter().zip(found).zip(places)
            {
                let (Some(parent), Some(found)) = (parent, found) else {
                    continue;
                };
                if let Some(sum) = sum {
                    // A gradient has to arrive for the sum to be taken: one number that stands for it.
                    if sum.add(found, dims) {
                        let one = tensor(Array2::zeros([1, 1]).into_dyn());
                        gradients.register::<NdArray>(parent.id, one);
                    }
                    continue;
                }
                let whole = match found {
                    Gradient::Whole(whole) => whole,
                    found => {
                        let mut whole = Array2::zeros(dims);
                        found.add_to(&mut whole);
                        whole.into_shared()
                    }
                };
                let whole = match rank {
                    1 => whole.index_axis_move(Axis(0), 0).into_dyn(),
                    _ => whole.into_dyn(),
                };
                let parent = Learning {
                    primitive: tensor(ArrayD::zeros(IxDyn(&[0]))),
                    rc: Arc::new(parent.id),
                    node: parent,
                };
                register(gradients, &parent, whole);
            }
        }
    }

    /// Registers what flows back to a tensor. Burn would add it to what has come before in a third place.
    fn register(gradients: &mut Gradients, to: &Learning, mut gradient: ArcArray<f32, IxDyn>) {
        match gradients.remove(to) {
            Some(NdArrayTensor::F32(before)) => {
                let before = without_gaps(before.into_shared());
                let sums = gradient.as_slice_mut().expect("rows without gaps");
                add(sums, before.as_slice().expect("rows without gaps"));
            }
            Some(before) => gradients.register::<NdArray>(to.node.id, before),
            None => {}
        }
        gradients.register::<NdArray>(to.node.id, gradient.into());
    }

    /// The sums of all shared maps whose graph is there, by a number that no other node of the process has.
    ///
    /// A sum is owned by the step of the backward pass that takes it and by those that add to it; here these find each other, as
    /// nothing of Burn 0.21 tells them: a tensor is its numbers and a node whose type has no name outside Burn and no field for
    /// others, the state of a step lies out of reach until it runs, and a module holds tensors alone.
    static SUMS: Mutex<BTreeMap<u64, Weak<GradientSum>>> = Mutex::new(BTreeMap::new());

    fn sum_of(node: NodeId) -> Option<Arc<GradientSum>> {
        let sums = SUMS.lock().unwrap_or_else(PoisonError::into_inner);
        sums.get(&node.value)?.upgrade()
    }

    pub fn shared<B: Backend>(map: FloatTensor<B>) -> FloatTensor<B> {
        match same::<_, Learning>(map) {
            Ok(map) => same(shared_map(map)).unwrap_or_else(as_it_came),
            Err(map) => map,
        }
    }

    fn shared_map(map: Learning) -> Learning {
        let NdArrayTensor::F32(_) = map.primitive else {
            return map;
        };
        let sum = Arc::new(GradientSum::default());
        let take = |sum: Arc<GradientSum>, arrived| {
            let Some(mut total) = sum.total() else {
                return arrived;
            };
            // What other operations made of the map, or the number that stands for the sum.
            if let Some(arrived) = rows(arrived)
                && arrived.dim() == total.dim()
            {
                total += &arrived;
            }
            tensor(total.into_dyn())
        };
        let from = map.node.id.value;
        let prepared = Through(take).prepare([map.node]);
        let shared = finish(prepared, sum.clone(), map.primitive);
        recompute::renamed(from, shared.node.id.value);
        let mut sums = SUMS.lock().unwrap_or_else(PoisonError::into_inner);
        sums.retain(|_, sum| sum.strong_count() > 0);
        sums.insert(shared.node.id.value, Arc::downgrade(&sum));
        shared
    }

    /// The way back of an operation on one tensor: a function from the gradient of its output to that of the tensor.
    #[derive(Debug)]
    struct Through<S>(fn(S, NdArrayTensor) -> NdArrayTensor);

    impl<S: Clone + Debug + Send + 'static> Backward<NdArray, 1> for Through<S> {
        type State = S;

        fn backward(self, ops: Ops<S, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let [Some(parent)] = ops.parents else {
                return;
            };
            let arrived = gradients.consume::<NdArray>(&ops.node);
            gradients.register::<NdArray>(parent.id, (self.0)(ops.state, arrived));
        }
    }

    pub fn reshape<B: Backend>(tensor: FloatTensor<B>, dims: &[usize]) -> Option<FloatTensor<B>> {
        let tensor = match same::<_, NdArrayTensor>(tensor) {
            Ok(NdArrayTensor::F32(storage)) => {
                return same(reshaped(storage.into_shared(), dims)).ok();
            }
            Ok(_) => return None,
            Err(tensor) => same::<_, Learning>(tensor).ok()?,
        };
        let NdArrayTensor::F32(storage) = tensor.primitive else {
            return None;
        };
        let from = storage.shape().to_vec();
        let output = reshaped(storage.into_shared(), dims);
        let back = |from: Vec<usize>, gradient| match gradient {
            NdArrayTensor::F32(gradient) => reshaped(gradient.into_shared(), &from),
            other => other,
        };
        let node = tensor.node.id.value;
        let prepared = Through(back).prepare([tensor.node]);
        let output = finish(prepared, from, output);
        recompute::renamed(node, output.node.id.value);
        same(output).ok()
    }

    fn as_it_came<From, To>(_: From) -> To {
        unreachable!("what comes as a type goes as that type")
    }

    fn reshaped(array: ArcArray<f32, IxDyn>, dims: &[usize]) -> NdArrayTensor {
        let reshaped = without_gaps(array).into_shape_with_order(dims);
        reshaped.expect("as many numbers").into()
    }

    fn without_gaps<D: Dimension>(array: ArcArray<f32, D>) -> ArcArray<f32, D> {
        match array.is_standard_layout() {
            true => array,
            false => array.as_standard_layout().into_owned().into_shared(),
        }
    }

    pub fn rows_of<B: Backend>(tensor: FloatTensor<B>) -> Option<Rows> {
        match same::<_, Learning>(tensor) {
            Ok(tensor) => rows(tensor.primitive),
            Err(tensor) => rows(same::<_, NdArrayTensor>(tensor).ok()?),
        }
    }

    fn rank(tensor: &NdArrayTensor) -> usize {
        match tensor {
            NdArrayTensor::F32(storage) => storage.ndim(),
            _ => 0,
        }
    }

    fn rows(tensor: NdArrayTensor) -> Option<Rows> {
        let NdArrayTensor::F32(storage) = tensor else {
            return None;
        };
        let array = storage.into_shared();
        let array = match array.ndim() {
            1 => {
                let vector = array.into_dimensionality::<Ix1>().ok()?;
                vector.insert_axis(Axis(0))
            }
            _ => array.into_dimensionality::<Ix2>().ok()?,
        };
        Some(without_gaps(array))
    }

    fn tensor(array: ArrayD<f32>) -> NdArrayTensor {
        array.into_shared().into()
    }
}

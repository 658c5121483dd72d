//! Makes a fused operation on the host an operation of a backend, with its gradient under autodiff.

use super::super::composed;
use super::gradient::Gradient;
use super::numeric::{Rows, flat};
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use ndarray::Array2;
use std::any::Any;
use std::fmt::Debug;

/// A function of `N` inputs and its gradient.
pub(super) trait FusedPass<const N: usize>: Clone + Debug + Send + 'static {
    /// What the gradient needs besides the inputs.
    type Kept: Clone + Debug + Send + 'static;

    /// The output.
    fn forward(&self, inputs: &[Rows; N]) -> (Array2<f32>, Self::Kept);

    /// The gradients of the inputs that want one, from that of the output.
    fn backward(
        &self,
        inputs: &[Rows; N],
        kept: Self::Kept,
        gradient: Rows,
        wanted: [bool; N],
    ) -> [Option<Gradient>; N];

    /// The same; `so_far` gives the sum of an input's gradient so far, to which the operation adds before it returns it.
    fn backward_onto(
        &self,
        inputs: &[Rows; N],
        kept: Self::Kept,
        gradient: Rows,
        wanted: [bool; N],
        _so_far: impl Fn(usize) -> Option<Array2<f32>>,
    ) -> [Option<Gradient>; N] {
        self.backward(inputs, kept, gradient, wanted)
    }
}

/// The primitive of an input.
pub(in super::super) fn input<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> FloatTensor<B> {
    tensor.clone().into_primitive().tensor()
}

/// The most inputs of a fused operation.
pub(super) const MOST_INPUTS: usize = 33;

/// Runs a fused operation on as many inputs as there are, at most [`MOST_INPUTS`]; the last one is repeated to fill up.
pub(super) fn run_many<B: Backend, P>(pass: P, inputs: Vec<FloatTensor<B>>) -> Option<Tensor<B, 2>>
where
    P: FusedPass<3> + FusedPass<5> + FusedPass<9> + FusedPass<17> + FusedPass<MOST_INPUTS>,
{
    fn filled<B: Backend, const N: usize>(inputs: Vec<FloatTensor<B>>) -> [FloatTensor<B>; N] {
        let last = inputs.len() - 1;
        std::array::from_fn(|index| inputs[last.min(index)].clone())
    }
    match inputs.len() {
        1..=3 => run(pass, filled::<B, 3>(inputs)),
        4..=5 => run(pass, filled::<B, 5>(inputs)),
        6..=9 => run(pass, filled::<B, 9>(inputs)),
        10..=17 => run(pass, filled::<B, 17>(inputs)),
        18..=MOST_INPUTS => run(pass, filled::<B, MOST_INPUTS>(inputs)),
        _ => None,
    }
}

/// The gradients of the first inputs; none for the repeated ones.
pub(super) fn of_first<const N: usize>(
    found: impl IntoIterator<Item = Option<Gradient>>,
) -> [Option<Gradient>; N] {
    let mut found = found.into_iter();
    std::array::from_fn(|_| found.next().flatten())
}

/// Runs a fused operation, if its inputs are in host memory in single precision.
pub(super) fn run<B: Backend, P: FusedPass<N>, const N: usize>(
    pass: P,
    inputs: [FloatTensor<B>; N],
) -> Option<Tensor<B, 2>> {
    let output = host::run::<B, P, N>(pass, inputs)?;
    Some(Tensor::from_primitive(TensorPrimitive::Float(output)))
}

/// The numbers of a tensor, if they lie in the memory of the host in single precision.
pub(in super::super) fn rows_of<B: Backend>(tensor: FloatTensor<B>) -> Option<Rows> {
    host::rows_of::<B>(tensor)
}

/// A copy of a tensor's numbers, under the conditions of [`rows_of`].
pub(crate) fn values<B: Backend>(tensor: &Tensor<B, 2>) -> Option<Vec<f32>> {
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
    use super::{Backend, FloatTensor, FusedPass, Rows};

    pub fn rows_of<B: Backend>(_: FloatTensor<B>) -> Option<Rows> {
        None
    }

    pub fn reshape<B: Backend>(_: FloatTensor<B>, _: &[usize]) -> Option<FloatTensor<B>> {
        None
    }

    pub fn shared<B: Backend>(map: FloatTensor<B>) -> FloatTensor<B> {
        map
    }

    pub fn run<B: Backend, P: FusedPass<N>, const N: usize>(
        _: P,
        _: [FloatTensor<B>; N],
    ) -> Option<FloatTensor<B>> {
        None
    }
}

#[cfg(feature = "ndarray")]
mod host {
    use super::super::gradient_sum::GradientSum;
    use super::super::numeric::add;
    use super::{Backend, FloatTensor, FusedPass, Gradient, Rows, same};
    use burn::backend::Autodiff;
    use burn::backend::autodiff::NodeId;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn_ndarray::{NdArray, NdArrayTensor};
    use ndarray::{ArcArray, Array2, ArrayD, Axis, Dimension, Ix1, Ix2, IxDyn};
    use std::collections::BTreeMap;
    use std::marker::PhantomData;
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    type Learning = FloatTensor<Autodiff<NdArray>>;

    pub fn run<B: Backend, P: FusedPass<N>, const N: usize>(
        pass: P,
        inputs: [FloatTensor<B>; N],
    ) -> Option<FloatTensor<B>> {
        let inputs = match same::<_, [NdArrayTensor; N]>(inputs) {
            Ok(inputs) => {
                let inputs = all_rows(inputs)?;
                let (output, _) = pass.forward(&inputs);
                return same(tensor(output.into_dyn())).ok();
            }
            Err(inputs) => inputs,
        };
        let inputs = same::<_, [Learning; N]>(inputs).ok()?;
        let ranks = inputs.each_ref().map(|input| rank(&input.primitive));
        let sums = inputs.each_ref().map(|input| sum_of(input.node.id));
        let nodes = inputs.each_ref().map(|input| input.node.clone());
        let inputs = all_rows(inputs.map(|input| input.primitive))?;
        let (output, kept) = pass.forward(&inputs);
        let output = tensor(output.into_dyn());
        let prepared = PassBackward::<P>(PhantomData).prepare::<NoCheckpointing>(nodes);
        let output = match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(output),
            OpsKind::Tracked(prepared) => {
                let state = PassState {
                    pass,
                    inputs,
                    ranks,
                    sums,
                    kept,
                };
                prepared.finish(state, output)
            }
        };
        same(output).ok()
    }

    /// What the backward pass needs.
    #[derive(Clone, Debug)]
    struct PassState<P: FusedPass<N>, const N: usize> {
        pass: P,
        inputs: [Rows; N],
        ranks: [usize; N],
        /// Where the gradients of shared maps are added up.
        sums: [Option<Arc<GradientSum>>; N],
        kept: P::Kept,
    }

    #[derive(Debug)]
    struct PassBackward<P>(PhantomData<P>);

    impl<P: FusedPass<N>, const N: usize> Backward<NdArray, N> for PassBackward<P> {
        type State = PassState<P, N>;

        fn backward(
            self,
            ops: Ops<PassState<P, N>, N>,
            gradients: &mut Gradients,
            _: &mut Checkpointer,
        ) {
            let Ops {
                parents,
                node,
                state,
                ..
            } = ops;
            let gradient = rows(gradients.consume::<NdArray>(&node)).expect("as the output");
            let wanted = parents.each_ref().map(Option::is_some);
            let so_far = |index: usize| state.sums[index].as_ref()?.total();
            let found =
                state
                    .pass
                    .backward_onto(&state.inputs, state.kept, gradient, wanted, so_far);
            let dims = state.inputs.iter().map(|input| input.dim());
            let places = state.ranks.into_iter().zip(state.sums).zip(dims);
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

    /// The sums of all shared maps whose graph is there.
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
        let prepared = Share.prepare::<NoCheckpointing>([map.node.clone()]);
        match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(map.primitive),
            OpsKind::Tracked(prepared) => {
                let sum = Arc::new(GradientSum::default());
                let shared = prepared.finish(sum.clone(), map.primitive);
                let mut sums = SUMS.lock().unwrap_or_else(PoisonError::into_inner);
                sums.retain(|_, sum| sum.strong_count() > 0);
                sums.insert(shared.node.id.value, Arc::downgrade(&sum));
                shared
            }
        }
    }

    /// A map as it is, whose gradient is a [`GradientSum`].
    #[derive(Debug)]
    struct Share;

    impl Backward<NdArray, 1> for Share {
        type State = Arc<GradientSum>;

        fn backward(
            self,
            ops: Ops<Arc<GradientSum>, 1>,
            gradients: &mut Gradients,
            _: &mut Checkpointer,
        ) {
            let [Some(parent)] = ops.parents else {
                return;
            };
            let arrived = gradients.consume::<NdArray>(&ops.node);
            let total = match ops.state.total() {
                Some(mut total) => {
                    // What other operations made of the map, or the number that stands for the sum.
                    if let Some(arrived) = rows(arrived)
                        && arrived.dim() == total.dim()
                    {
                        total += &arrived;
                    }
                    tensor(total.into_dyn())
                }
                None => arrived,
            };
            gradients.register::<NdArray>(parent.id, total);
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
        let prepared = Reshape.prepare::<NoCheckpointing>([tensor.node]);
        let output = match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(output),
            OpsKind::Tracked(prepared) => prepared.finish(from, output),
        };
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

    #[derive(Debug)]
    struct Reshape;

    impl Backward<NdArray, 1> for Reshape {
        /// The shape that it had.
        type State = Vec<usize>;

        fn backward(
            self,
            ops: Ops<Vec<usize>, 1>,
            gradients: &mut Gradients,
            _: &mut Checkpointer,
        ) {
            let [Some(parent)] = ops.parents else {
                return;
            };
            if let NdArrayTensor::F32(gradient) = gradients.consume::<NdArray>(&ops.node) {
                gradients
                    .register::<NdArray>(parent.id, reshaped(gradient.into_shared(), &ops.state));
            }
        }
    }

    pub fn rows_of<B: Backend>(tensor: FloatTensor<B>) -> Option<Rows> {
        match same::<_, Learning>(tensor) {
            Ok(tensor) => rows(tensor.primitive),
            Err(tensor) => rows(same::<_, NdArrayTensor>(tensor).ok()?),
        }
    }

    fn all_rows<const N: usize>(tensors: [NdArrayTensor; N]) -> Option<[Rows; N]> {
        let rows: Option<Vec<Rows>> = tensors.into_iter().map(rows).collect();
        rows?.try_into().ok()
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

//! A pass as an operation of a backend: computed where tensors lie in the memory of the host, with its gradient where one is wanted.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use ndarray::{ArcArray2, Array2};
use std::fmt::Debug;

/// Numbers row by row, without gaps; a vector is one row.
pub(super) type Rows = ArcArray2<f32>;

/// A function of `N` inputs and its gradient.
pub(super) trait Pass<const N: usize>: Clone + Debug + Send + 'static {
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
    ) -> [Option<Rows>; N];
}

/// The primitive of an input.
pub(super) fn input<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> FloatTensor<B> {
    tensor.clone().into_primitive().tensor()
}

/// What a pass makes of its inputs, if they lie in the memory of the host in single precision.
pub(super) fn run<B: Backend, P: Pass<N>, const N: usize>(
    pass: P,
    inputs: [FloatTensor<B>; N],
) -> Option<Tensor<B, 2>> {
    let output = host::run::<B, P, N>(pass, inputs)?;
    Some(Tensor::from_primitive(
        burn::tensor::TensorPrimitive::Float(output),
    ))
}

#[cfg(not(feature = "ndarray"))]
mod host {
    use super::{Backend, FloatTensor, Pass};

    pub fn run<B: Backend, P: Pass<N>, const N: usize>(
        _: P,
        _: [FloatTensor<B>; N],
    ) -> Option<FloatTensor<B>> {
        None
    }
}

#[cfg(feature = "ndarray")]
mod host {
    use super::{Backend, FloatTensor, Pass, Rows};
    use burn::backend::Autodiff;
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn_ndarray::{NdArray, NdArrayTensor};
    use ndarray::{ArrayD, Axis, Ix1, Ix2};
    use std::any::Any;
    use std::marker::PhantomData;

    type Learning = FloatTensor<Autodiff<NdArray>>;

    pub fn run<B: Backend, P: Pass<N>, const N: usize>(
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
        let nodes = inputs.each_ref().map(|input| input.node.clone());
        let inputs = all_rows(inputs.map(|input| input.primitive))?;
        let (output, kept) = pass.forward(&inputs);
        let output = tensor(output.into_dyn());
        let prepared = Step::<P>(PhantomData).prepare::<NoCheckpointing>(nodes);
        let output = match prepared.compute_bound().stateful() {
            OpsKind::UnTracked(prepared) => prepared.finish(output),
            OpsKind::Tracked(prepared) => {
                let state = State {
                    pass,
                    inputs,
                    ranks,
                    kept,
                };
                prepared.finish(state, output)
            }
        };
        same(output).ok()
    }

    /// What the gradient starts from.
    #[derive(Clone, Debug)]
    struct State<P: Pass<N>, const N: usize> {
        pass: P,
        inputs: [Rows; N],
        ranks: [usize; N],
        kept: P::Kept,
    }

    #[derive(Debug)]
    struct Step<P>(PhantomData<P>);

    impl<P: Pass<N>, const N: usize> Backward<NdArray, N> for Step<P> {
        type State = State<P, N>;

        fn backward(
            self,
            ops: Ops<State<P, N>, N>,
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
            let found = state
                .pass
                .backward(&state.inputs, state.kept, gradient, wanted);
            for ((parent, found), rank) in parents.into_iter().zip(found).zip(state.ranks) {
                if let (Some(parent), Some(found)) = (parent, found) {
                    let found = match rank {
                        1 => found.index_axis_move(Axis(0), 0).into_dyn(),
                        _ => found.into_dyn(),
                    };
                    let found = NdArrayTensor::from(found);
                    gradients.register::<NdArray>(parent.id, found);
                }
            }
        }
    }

    /// A value under the type that it has.
    fn same<From: 'static, To: 'static>(value: From) -> Result<To, From> {
        let mut value = Some(value);
        match (&mut value as &mut dyn Any).downcast_mut::<Option<To>>() {
            Some(found) => Ok(found.take().expect("it was put in above")),
            None => Err(value.expect("it was put in above")),
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
        Some(match array.is_standard_layout() {
            true => array,
            false => array.as_standard_layout().into_owned().into_shared(),
        })
    }

    fn tensor(array: ArrayD<f32>) -> NdArrayTensor {
        array.into_shared().into()
    }
}

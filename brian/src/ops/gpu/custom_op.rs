//! `Kernel`, a function of GPU tensors with its gradient, and `run`, which makes it an operation of the CUDA, Vulkan or wgpu
//! backend, also under autodiff; `None` on other backends.

pub(super) use super::super::host::custom_op::input;
use super::super::host::custom_op::same;
use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Int, Shape, Tensor, TensorMetadata, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use std::fmt::Debug;
use std::marker::PhantomData;

/// A function of `N` contiguous tensors, and its gradient.
pub(super) trait Kernel<const N: usize>: Clone + Debug + Send + 'static {
    /// The output; `None` if it does not apply.
    fn forward<R: CubeRuntime>(&self, call: &mut Call<R, N>) -> Option<CubeTensor<R>>;

    /// The gradients of the inputs, from that of the output.
    fn backward<R: CubeRuntime>(&self, call: &Call<R, N>, gradient: CubeTensor<R>) -> Back<R, N>;
}

/// What a kernel is called with.
#[derive(Clone, Debug)]
pub(super) struct Call<R: CubeRuntime, const N: usize> {
    pub inputs: [CubeTensor<R>; N],
    /// As given.
    pub indices: Option<CubeTensor<R>>,
    /// What the way forward leaves for the gradient.
    pub kept: Vec<CubeTensor<R>>,
}

/// The gradients of the inputs that have one.
pub(super) type Back<R, const N: usize> = [Option<CubeTensor<R>>; N];

impl<R: CubeRuntime, const N: usize> Call<R, N> {
    fn new(inputs: [CubeTensor<R>; N], indices: Option<CubeTensor<R>>) -> Self {
        Self {
            inputs: inputs.map(into_contiguous),
            indices: indices.map(into_contiguous),
            kept: Vec::new(),
        }
    }
}

/// Runs a kernel; `None` if the inputs are not in the memory of a GPU, or the kernel does not apply.
pub(super) fn run<B: Backend, K: Kernel<N>, const N: usize, const D: usize>(
    kernel: K,
    inputs: [FloatTensor<B>; N],
    indices: Option<Tensor<B, 1, Int>>,
) -> Option<Tensor<B, D>> {
    let indices = indices.map(Tensor::into_primitive);
    let output = anywhere::<B, K, N>(kernel, inputs, indices)?;
    Some(Tensor::from_primitive(TensorPrimitive::Float(output)))
}

#[allow(unused_mut, unused_variables, unused_assignments)]
fn anywhere<B: Backend, K: Kernel<N>, const N: usize>(
    kernel: K,
    inputs: [FloatTensor<B>; N],
    indices: Option<IntTensor<B>>,
) -> Option<FloatTensor<B>> {
    let is_empty = |shape: Shape| shape.num_elements() == 0;
    if inputs.iter().any(|input| is_empty(input.shape()))
        || indices.iter().any(|indices| is_empty(indices.shape()))
    {
        return None;
    }
    let mut inputs = (inputs, indices);
    #[cfg(feature = "cuda")]
    match on::<B, burn::backend::Cuda, K, N>(&kernel, inputs) {
        Ok(output) => return output,
        Err(other) => inputs = other,
    }
    #[cfg(feature = "vulkan")]
    match on::<B, burn::backend::Vulkan, K, N>(&kernel, inputs) {
        Ok(output) => return output,
        Err(other) => inputs = other,
    }
    #[cfg(feature = "wgpu")]
    match on::<B, burn::backend::Wgpu, K, N>(&kernel, inputs) {
        Ok(output) => return output,
        Err(other) => inputs = other,
    }
    None
}

/// A backend whose tensors lie in the memory of a GPU.
trait OnGpu:
    Backend<
        FloatTensorPrimitive = CubeTensor<Self::Runtime>,
        IntTensorPrimitive = CubeTensor<Self::Runtime>,
    >
{
    type Runtime: CubeRuntime;
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> OnGpu
    for CubeBackend<R, F, I, T>
{
    type Runtime = R;
}

type Given<B, const N: usize> = ([FloatTensor<B>; N], Option<IntTensor<B>>);

/// The output, if `B` is `C` or learns on it; else the inputs again.
fn on<B: Backend, C: OnGpu, K: Kernel<N>, const N: usize>(
    kernel: &K,
    given: Given<B, N>,
) -> Result<Option<FloatTensor<B>>, Given<B, N>> {
    let given = match same::<_, Given<C, N>>(given) {
        Ok((inputs, indices)) => {
            let output = kernel.forward(&mut Call::new(inputs, indices));
            return Ok(output.and_then(|output| same(output).ok()));
        }
        Err(given) => given,
    };
    let (inputs, indices) = same::<_, Given<Autodiff<C>, N>>(given)?;
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    // Until the output stands in the graph; see `cat`.
    let held = inputs.each_ref().map(|input| input.rc.clone());
    let mut call = Call::new(inputs.map(|input| input.primitive), indices);
    let Some(output) = kernel.forward(&mut call) else {
        return Ok(None);
    };
    let prepared = KernelBackward::<K, C>(PhantomData).prepare::<NoCheckpointing>(nodes);
    let output = match prepared.compute_bound().stateful() {
        OpsKind::UnTracked(prepared) => prepared.finish(output),
        OpsKind::Tracked(prepared) => prepared.finish((kernel.clone(), call), output),
    };
    drop(held);
    Ok(same(output).ok())
}

struct KernelBackward<K, C>(PhantomData<(K, C)>);

impl<K, C> Debug for KernelBackward<K, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a kernel")
    }
}

impl<C: OnGpu, K: Kernel<N>, const N: usize> Backward<C, N> for KernelBackward<K, C> {
    type State = (K, Call<C::Runtime, N>);

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (kernel, call) = ops.state;
        let gradient = into_contiguous(gradients.consume::<C>(&ops.node));
        let found = kernel.backward(&call, gradient);
        for (parent, found) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(found)) = (parent, found) {
                gradients.register::<C>(parent.id, found);
            }
        }
    }
}

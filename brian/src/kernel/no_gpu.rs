//! What [`gpu`](super) has where no backend for GPUs is compiled in: nothing applies.

use burn::nn::RmsNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};

pub(crate) fn added<B: Backend>(_: &Tensor<B, 2>, _: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    None
}

pub(crate) fn attend_all<B: Backend>(_: &Tensor<B, 2>, _: usize, _: usize) -> Option<Tensor<B, 2>> {
    None
}

pub(crate) fn rows<B: Backend>(_: &Tensor<B, 2>, _: &Tensor<B, 1, Int>) -> Option<Tensor<B, 2>> {
    None
}

pub(crate) fn gated<B: Backend>(_: &Tensor<B, 2>, _: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    None
}

pub(crate) fn nats<B: Backend>(_: &Tensor<B, 2>, _: &Tensor<B, 1, Int>) -> Option<Tensor<B, 1>> {
    None
}

pub(crate) fn norm<B: Backend, const D: usize>(
    _: &Tensor<B, D>,
    _: &RmsNorm<B>,
    _: DType,
) -> Option<Tensor<B, D>> {
    None
}

pub(crate) fn turn<B: Backend>(
    _: &Tensor<B, 2>,
    _: [Tensor<B, 2>; 2],
    _: [usize; 3],
) -> Option<Tensor<B, 2>> {
    None
}

//! Stand-ins for [`gpu`](super) where no backend for GPUs is compiled in: all return `None`. Shapes as in `gpu/`.

use super::rotary::Angles;
use burn::nn::RmsNorm;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};

pub fn causal_attention<B: Backend>(_: &Tensor<B, 2>, _: usize, _: usize) -> Option<Tensor<B, 2>> {
    None
}

pub fn cross_entropy<B: Backend>(_: &Tensor<B, 2>, _: &Tensor<B, 1, Int>) -> Option<Tensor<B, 1>> {
    None
}

pub fn rows<B: Backend>(
    _: &Tensor<B, 2>,
    _: impl FnOnce() -> Tensor<B, 1, Int>,
) -> Option<Tensor<B, 2>> {
    None
}

pub fn residual_add<B: Backend>(_: &Tensor<B, 2>, _: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    None
}

pub fn rms_norm<B: Backend>(_: &Tensor<B, 2>, _: &RmsNorm<B>, _: DType) -> Option<Tensor<B, 2>> {
    None
}

pub fn apply_rotary<B: Backend>(
    _: &Tensor<B, 2>,
    _: &Angles<B>,
    _: [usize; 2],
) -> Option<Tensor<B, 2>> {
    None
}

pub fn gated<B: Backend>(_: &Tensor<B, 2>, _: &Tensor<B, 2>) -> Option<Tensor<B, 2>> {
    None
}

//! The gated feed-forward (SwiGLU, Shazeer 2020), `down( silu(gate x) ⊙ up x )` without biases; and the same with its norm and
//! residual, `x + down( silu(gate n) ⊙ up n )` with `n = norm(x)`.

use super::groups::{Group, by_group};
use super::linear::{exact, linear};
use super::residual_add::residual_add;
use super::reuse::Packed;
use super::rms_norm::rms_norm;
use super::{fused, gpu, host};
use burn::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;
use burn::tensor::activation::silu;
use burn::tensor::backend::Backend;

/// `silu(gate) ⊙ up`, computed in single precision or better.
///
/// # Shapes
/// `[n, d_ff]` each
pub fn gated<B: Backend>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    fused(&[&|| gpu::gated(&gate, &up)]).unwrap_or_else(|| {
        let dtype = gate.dtype();
        let inside = exact(dtype);
        (silu(gate.cast(inside)) * up.cast(inside)).cast(dtype)
    })
}

/// `down( silu(gate x) ⊙ up x )`.
///
/// # Shapes
/// `[n, d_model]` to the same
pub(crate) fn swiglu<B: Backend>(
    x: Tensor<B, 2>,
    [gate, up, down]: [&Linear<B>; 3],
) -> Tensor<B, 2> {
    let (gate, up) = (linear(x.clone(), gate), linear(x, up));
    linear(gated(gate, up), down)
}

/// A norm and the weight matrices that follow it: gate, up and down.
pub(crate) type NormedMaps<'a, B> = (&'a RmsNorm<B>, [&'a Linear<B>; 3]);

/// `x + down( silu(gate n) ⊙ up n )` with `n = norm(x)`; each group of rows has its own norm and weight matrices.
///
/// # Shapes
/// `[n, d_model]` to the same
pub(crate) fn swiglu_residual<B: Backend>(
    x: Tensor<B, 2>,
    groups: &[Group<NormedMaps<'_, B>>],
    packed: &Packed,
) -> Tensor<B, 2> {
    fused(&[&|| host::swiglu::swiglu_residual(&x, groups, packed)]).unwrap_or_else(|| {
        by_group([x], groups, |[x], &(norm, maps), _| {
            let normed = rms_norm(&x, norm, maps[0].weight.val().dtype());
            residual_add(x, swiglu(normed, maps))
        })
    })
}

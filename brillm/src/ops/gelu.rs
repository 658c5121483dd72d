//! `GELU(z) = z Φ(z)`, `Φ` the distribution function of the normal distribution (Hendrycks and Gimpel 2016).
//!
//! The host's [`gelu`](super::host::numeric::gelu) gives the slope as well.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::f64::consts::FRAC_1_SQRT_2;

/// `z Φ(z)`. Burn's own activation has the derivative of another function, the approximation by tanh: gradients would be
/// off by some 1e-4 of the largest.
pub(super) fn gelu<B: Backend, const D: usize>(z: Tensor<B, D>) -> Tensor<B, D> {
    z.clone() * ((z * FRAC_1_SQRT_2).erf() + 1.0) * 0.5
}

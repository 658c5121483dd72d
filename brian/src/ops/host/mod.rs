//! Operations in the memory of the host: the same mathematics in few passes over it, with gradients written by hand.
//!
//! | file | what |
//! |---|---|
//! | `custom_op` | how a pass becomes an operation of a backend that learns; the only file that names one |
//! | `gradient` | gradients of a pass's inputs, and how they add up |
//! | `gradient_sum` | the gradient of a map, or of rows, that many passes use |
//! | `groups` | rows of several groups beside each other |
//! | `numeric` | arithmetic of rows, written so that compilers vectorise it |
//! | `gemm` | products of matrices, by one of the next three or by matrixmultiply |
//! | `packed_gemm` | some rows times a map that all threads pack |
//! | `skinny_gemm` | gradients of maps with few rows |
//! | `packed` | maps that stay packed while a walk is underway |
//! | `transpose` | columns to rows, in registers |
//! | `head_products` | the products of attention, with keys and values where they lie |
//! | `processor` | which vector instructions may be used |
//!
//! All others are the pass of the operation of that name.
#![cfg_attr(not(feature = "ndarray"), allow(dead_code))]

pub(super) mod attention;
pub(super) mod cross_entropy;
pub(super) mod custom_op;
pub(super) mod gather;
mod gemm;
mod gradient;
mod gradient_sum;
pub(super) mod groups;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_head_products.rs")]
mod head_products;
pub(super) mod linear;
mod numeric;
pub(super) mod packed;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_packed_gemm.rs")]
mod packed_gemm;
/// What other machines have in place of `head_products` and `packed_gemm`, beside those.
#[cfg(all(test, target_arch = "x86_64"))]
#[expect(dead_code, reason = "what nobody can have multiplies nothing")]
#[path = "no_head_products.rs"]
mod portable_head_products;
#[cfg(all(test, target_arch = "x86_64"))]
#[path = "no_packed_gemm.rs"]
mod portable_packed_gemm;
#[cfg(target_arch = "x86_64")]
mod processor;
pub(super) mod rms_norm;
pub(super) mod rotary_projection;
pub(super) mod router_scores;
mod skinny_gemm;
pub(super) mod softmax;
pub(super) mod straight_through;
pub(super) mod swiglu;
#[cfg(all(test, feature = "ndarray"))]
mod tests;
#[cfg(target_arch = "x86_64")]
mod transpose;

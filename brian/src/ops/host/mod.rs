//! Fused operations on the host: the same mathematics in few passes over memory, with gradients written by hand.
//!
//! | file | what |
//! |---|---|
//! | `custom_op` | makes a fused operation an operation of a backend with autodiff; the only file that names one |
//! | `recompute` | parts of a pass that run again on the way back |
//! | `gradient` | gradients of an operation's inputs, and how they add up |
//! | `gradient_sum` | the gradient of a tensor that many operations use |
//! | `groups` | groups of rows in parallel |
//! | `numeric` | arithmetic of rows, written so that compilers vectorise it |
//! | `gemm` | matrix products, by one of the next three or by matrixmultiply |
//! | `packed_gemm` | some rows times a matrix that all threads pack |
//! | `skinny_gemm` | gradients of maps with few rows |
//! | `packed` | weight matrices that stay packed during a walk |
//! | `transpose` | columns to rows, in registers |
//! | `head_products` | the products of attention, with keys and values in place |
//! | `processor` | which vector instructions may be used |
//!
//! Every other file is the fused version of the operation of that name.
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
pub(super) mod log_sum_exp;
mod numeric;
pub(super) mod packed;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_packed_gemm.rs")]
mod packed_gemm;
/// The stand-ins of other machines for `head_products` and `packed_gemm`, compiled beside these for tests.
#[cfg(all(test, target_arch = "x86_64"))]
#[expect(dead_code, reason = "what nobody can have multiplies nothing")]
#[path = "no_head_products.rs"]
mod portable_head_products;
#[cfg(all(test, target_arch = "x86_64"))]
#[path = "no_packed_gemm.rs"]
mod portable_packed_gemm;
#[cfg(target_arch = "x86_64")]
mod processor;
pub(super) mod recompute;
pub(super) mod rms_norm;
pub(super) mod rotary_projection;
pub(super) mod router_scores;
mod skinny_gemm;
pub(super) mod soft_cap;
pub(super) mod softmax;
pub(super) mod straight_through;
pub(super) mod swiglu;
#[cfg(all(test, feature = "ndarray"))]
mod tests;
#[cfg(target_arch = "x86_64")]
mod transpose;

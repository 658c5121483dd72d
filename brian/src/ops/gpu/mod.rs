//! Fused operations on a GPU: kernels in CubeCL for CUDA, WGSL and SPIR-V, where Burn's operations would make more passes over
//! memory, or keep tensors that grow with the square of a length.
//!
//! As on the host, every function returns `None` where it does not apply, and then the definition runs, which stands in `ops`
//! and to which `tests` holds the kernel. Matrix products outside attention are always Burn's. No kernel uses atomics: the same
//! inputs give the same bits.
//!
//! | file | kernel |
//! |---|---|
//! | `custom_op` | makes a kernel an operation of a backend with autodiff; the only file that names backends |
//! | `launch` | cubes, types and memory for a launch; sums over a cube |
//! | `rms_norm` | `x / rms(x) ⊙ gain` |
//! | `rotary` | scaled queries, queries and keys rotated to their positions |
//! | `attention` | causal `softmax(q kᵀ) v` without the matrix of scores in memory, on tensor cores where there are |
//! | `swiglu` | `silu(gate) ⊙ up` |
//! | `residual_add` | `y + x` in the type of `y` |
//! | `cross_entropy` | `−ln softmax(logits)[target]` |
//! | `gather` | selected rows, and the gradient as a sum for each row |

mod attention;
mod cross_entropy;
mod custom_op;
mod gather;
mod launch;
mod residual_add;
mod rms_norm;
mod rotary;
mod swiglu;
#[cfg(all(test, feature = "ndarray", any(feature = "wgpu", feature = "cuda")))]
mod tests;

pub(super) use attention::causal_attention;
pub(super) use cross_entropy::cross_entropy;
pub(super) use gather::rows;
pub(super) use residual_add::residual_add;
pub(super) use rms_norm::rms_norm;
pub(super) use rotary::apply_rotary;
pub(super) use swiglu::gated;

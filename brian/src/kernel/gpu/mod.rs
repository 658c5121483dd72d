//! What blocks compute, where tensors lie in the memory of a GPU: kernels in CubeCL for CUDA, WGSL and SPIR-V, where Burn's
//! operations would walk over memory more often, or keep what grows with the square of a length.
//!
//! As on the host, everything here answers `None` where it does not apply, and then the definition runs, composed of Burn's
//! operations; products of matrices are Burn's in any case. No kernel uses atomics: the same inputs give the same bits.
//!
//! | file | kernel |
//! |---|---|
//! | `node` | how kernels become an operation of a backend that learns; the only file that names backends |
//! | `launch` | cubes, types and memory for a launch; sums over a cube |
//! | `norm` | `x / rms(x) ⊙ gain` |
//! | `turn` | queries scaled, queries and keys turned to their positions |
//! | `attend` | causal `softmax(q kᵀ) v` without the matrix of scores in memory, on tensor cores where there are |
//! | `gated` | `silu(gate) ⊙ up` |
//! | `added` | a stream with what a product gave |
//! | `nats` | `−ln softmax(logits)[target]` |
//! | `rows` | some rows, and the gradient as a sum for each row |

mod added;
mod attend;
mod gated;
mod launch;
mod nats;
mod node;
mod norm;
mod rows;
#[cfg(all(test, feature = "ndarray", any(feature = "wgpu", feature = "cuda")))]
mod tests;
mod turn;

pub(crate) use added::added;
pub(crate) use attend::attend_all;
pub(crate) use gated::gated;
pub(crate) use nats::nats;
pub(crate) use norm::norm;
pub(crate) use rows::rows;
pub(crate) use turn::turn;

//! The operations that models are made of, one per file: equation, source, shapes, definition composed of Burn's elementary
//! operations, and faster versions. `fused`, in this file, returns the result of the first faster version that applies.
//!
//! Callers do not know where an operation runs. A fused version returns `None` where it does not apply (another backend,
//! another precision, `NERVE_COMPOSED=1`), and then the definition runs.
//!
//! | file | operation |
//! |---|---|
//! | `embedding` | rows of a table by tokens |
//! | `rms_norm` | `x / sqrt(mean(x²) + ε) ⊙ gain` |
//! | `linear` | `x W`, `x Wᵀ`, `y + x W` |
//! | `rotary` | angles of positions, and pairs rotated by them |
//! | `rotary_projection` | `norm(x) W`, queries scaled, queries and keys rotated to their positions |
//! | `attention_spans` | which keys each query sees |
//! | `attention` | `softmax(q kᵀ) v` over the keys that each query sees |
//! | `swiglu` | `silu(gate) ⊙ up`, and with its norm and maps `x + down(silu(gate n) ⊙ up n)`, `n = norm(x)` |
//! | `router_scores` | `silu([h, P] W1 + b1) W2 + b2` |
//! | `softmax` | `softmax` of rows, and the probability of one chosen entry |
//! | `soft_cap` | `cap tanh(x / cap)` |
//! | `log_sum_exp` | `ln Σ exp(x)` of rows |
//! | `cross_entropy` | `−ln softmax(logits)[target]` |
//! | `straight_through` | a gain of value zero, with its gradient |
//! | `gather` | selected rows of one tensor or of several, replaced rows, selected columns |
//! | `residual_add` | `y + x` in the type of the residual stream `y` |
//! | `cat` | tensors one behind the other |
//! | `reshape` | reshapes without a copy, and values on the host |
//! | `reuse` | tensors that several operations share: summed gradients, packed weights |
//! | `recompute` | what is computed again in the backward pass instead of kept |
//! | `groups` | groups of rows, each with its own weights, through one operation |
//! | `composed` | the switch that makes every definition run |
//! | `host/` | fused versions on the host, with gradients written by hand |
//! | `gpu/` | fused versions on a GPU: kernels in CubeCL |

pub(crate) mod attention;
pub(crate) mod attention_spans;
pub(crate) mod cat;
pub(crate) mod composed;
pub(crate) mod cross_entropy;
pub mod embedding;
pub(crate) mod gather;
#[cfg(feature = "cube")]
mod gpu;
#[cfg(not(feature = "cube"))]
#[path = "no_gpu.rs"]
mod gpu;
pub(crate) mod groups;
pub(crate) mod host;
pub(crate) mod linear;
pub(crate) mod log_sum_exp;
pub mod recompute;
pub(crate) mod reshape;
pub mod residual_add;
pub(crate) mod reuse;
pub mod rms_norm;
pub mod rotary;
pub(crate) mod rotary_projection;
pub(crate) mod router_scores;
pub(crate) mod soft_cap;
pub(crate) mod softmax;
pub(crate) mod straight_through;
pub mod swiglu;
#[cfg(test)]
pub(crate) mod tests;

/// The result of the first fused version that applies; `None` if the definition has to run. No other place chooses.
pub(crate) fn fused<T>(versions: &[&dyn Fn() -> Option<T>]) -> Option<T> {
    if composed::only() {
        return None;
    }
    let found = versions.iter().find_map(|version| version())?;
    #[cfg(test)]
    tests::count_fused();
    Some(found)
}

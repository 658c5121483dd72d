//! The operations that models are made of. One file is one operation: its equation, its source, its shapes, its definition, composed
//! of Burn's elementary operations, and the faster versions of the same numbers.
//!
//! Nobody who calls an operation knows where it runs. A version answers `None` where it does not apply (another backend, another
//! precision, `NERVE_COMPOSED=1`), and then the definition runs.
//!
//! | file | operation |
//! |---|---|
//! | `embedding` | rows of a table by tokens |
//! | `rms_norm` | `x / sqrt(mean(x²) + ε) ⊙ gain` |
//! | `linear` | `x W`, `x Wᵀ`, `y + x W` |
//! | `rotary` | angles of positions, and pairs turned by them |
//! | `rotary_projection` | `norm(x) W`, queries scaled, queries and keys turned to their positions |
//! | `attention_spans` | which keys each query sees |
//! | `attention` | `softmax(q kᵀ) v` over the keys that each query sees |
//! | `swiglu` | `silu(gate) ⊙ up`, and with its norm and maps `x + down(silu(gate n) ⊙ up n)`, `n = norm(x)` |
//! | `router_scores` | `silu([h, P] W1 + b1) W2 + b2` |
//! | `softmax` | `softmax` of rows, and one share of it |
//! | `cross_entropy` | `−ln softmax(logits)[target]` |
//! | `straight_through` | a gain of value zero, with its gradient |
//! | `gather` | some rows, rows out of several tensors, rows in the place of others, some columns |
//! | `residual_add` | a stream with what a product gave |
//! | `reshape` | the same numbers in another shape, and on the host |
//! | `reuse` | what many operations of a pass use again |
//! | `groups` | rows of several groups, each with maps of its own, through one operation |
//! | `composed` | whether every definition is to run |
//! | `host/` | fused versions in the memory of the host, with gradients written by hand |
//! | `gpu/` | kernels in the memory of a GPU |

pub(crate) mod attention;
pub(crate) mod attention_spans;
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
pub(crate) mod reshape;
pub mod residual_add;
pub(crate) mod reuse;
pub mod rms_norm;
pub mod rotary;
pub(crate) mod rotary_projection;
pub(crate) mod router_scores;
pub(crate) mod softmax;
pub(crate) mod straight_through;
pub mod swiglu;
#[cfg(test)]
pub(crate) mod tests;

/// What the first of the fused versions that applies gives: the only place that chooses. Where none does, the definition runs.
pub(crate) fn fused<T>(versions: &[&dyn Fn() -> Option<T>]) -> Option<T> {
    if composed::only() {
        return None;
    }
    let found = versions.iter().find_map(|version| version())?;
    #[cfg(test)]
    tests::count_fused();
    Some(found)
}

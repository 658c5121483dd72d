//! What blocks compute, where tensors lie in the memory of the host: the same mathematics in few passes over it, with gradients
//! written by hand.
//!
//! The blocks composed of tensor operations are the definition; a test holds both equal. Everything here answers `None` where it
//! does not apply (another backend, another precision, `NERVE_COMPOSED=1`), and then the definition runs. No model knows which
//! backend it has.
//!
//! | file | pass |
//! |---|---|
//! | `composed` | whether nothing here is to apply |
//! | `node` | how a pass becomes an operation of a backend that learns; the only file that names one |
//! | `groups` | rows of several groups, each with maps of its own, through one pass |
//! | `sum` | the gradient of a map, or of rows, that many passes use |
//! | `numeric` | arithmetic of rows, written so that compilers vectorise it |
//! | `panels` | products of some rows with a map that all threads pack |
//! | `transpose` | columns to rows, in registers |
//! | `slim` | gradients of maps with few rows |
//! | `pin` | maps that stay packed while a walk is underway |
//! | `norm` | `x / rms(x) ⊙ gain` and back |
//! | `rows` | some rows, others in their place, some columns |
//! | `router` | `silu([h, P] W1 + b1) W2 + b2` |
//! | `product` | `x W`, `x Wᵀ`, `y + x W` |
//! | `project` | `norm(x) W`, queries scaled, queries and keys turned to their positions |
//! | `sight` | which keys each query sees |
//! | `attend` | `softmax(q kᵀ) v` over the keys each query sees, without the matrix of scores in memory |
//! | `lines` | the products of attention, with keys and values where they lie |
//! | `feed_forward` | `x + down( silu(gate n) ⊙ up n )`, `n = norm(x)` |
//! | `softmax` | `softmax` of rows, one share of it, `−ln softmax(logits)[target]` |
//! | `processor` | which vector instructions may be used |
//! | `straight` | a gain of value zero, with its gradient |
//! | `gpu` | the same where tensors lie in the memory of a GPU |
#![cfg_attr(not(feature = "ndarray"), allow(dead_code))]

pub(crate) mod attend;
pub(crate) mod composed;
pub(crate) mod feed_forward;
#[cfg(feature = "cube")]
pub(crate) mod gpu;
#[cfg(not(feature = "cube"))]
#[path = "no_gpu.rs"]
pub(crate) mod gpu;
pub(crate) mod groups;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_lines.rs")]
mod lines;
pub(crate) mod node;
pub(crate) mod norm;
mod numeric;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_panels.rs")]
mod panels;
pub(crate) mod pin;
/// What other machines have in place of `lines` and `panels`, beside those.
#[cfg(all(test, target_arch = "x86_64"))]
#[expect(dead_code, reason = "what nobody can have multiplies nothing")]
#[path = "no_lines.rs"]
mod portable_lines;
#[cfg(all(test, target_arch = "x86_64"))]
#[path = "no_panels.rs"]
mod portable_panels;
#[cfg(target_arch = "x86_64")]
mod processor;
pub(crate) mod product;
pub(crate) mod project;
pub(crate) mod router;
pub(crate) mod rows;
pub(crate) mod sight;
mod slim;
pub(crate) mod softmax;
pub(crate) mod straight;
mod sum;
#[cfg(all(test, feature = "ndarray"))]
pub(crate) mod tests;
#[cfg(target_arch = "x86_64")]
mod transpose;

//! Why a token came next: the path of a signal made visible, without approximation where that is possible.
//!
//! | file | what |
//! |---|---|
//! | `walk` | a text, step by step: the signal, who competed, what came true |
//! | `odds` | energies as probabilities and ranks |
//! | `attribution` | an energy, split into what every earlier signal added to it |
//! | `edge` | one edge: its size, its dead outputs, another one in its place |
//! | `opposition` | which edges training can lower, and which it only ever raised |
//!
//! Specification §9 and §18. What is said of the mix is honest about one thing: its weights do not depend on the text.

mod attribution;
mod edge;
mod odds;
mod opposition;
#[cfg(test)]
mod tests;
mod walk;

pub use attribution::{Attribution, Split};
pub use edge::{DEAD, DeadOutputs, EdgeSize, Replacement, replace, write_row};
pub use odds::{Odds, Placed};
pub use opposition::{Opposition, RaisedOnly, opposition, raised_only};
pub use walk::{TracedStep, Tracer};

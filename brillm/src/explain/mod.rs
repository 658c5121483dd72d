//! Explanations of predictions: traces, parts of an energy, single edges; without approximation where that is possible.
//!
//! | file | what |
//! |---|---|
//! | `walk` | the trace of a text, step by step: signal, candidates, truth |
//! | `odds` | energies as probabilities and ranks |
//! | `attribution` | an energy, split into what every earlier signal added to it |
//! | `edge` | one edge: its size, its dead outputs, replacing it |
//! | `opposition` | which edges training can lower, and which it only ever raised |
//!
//! The weights of the mix do not depend on the text.

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

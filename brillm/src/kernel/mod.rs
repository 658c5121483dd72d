//! The passes on the host: the same as [`crate::composed`], but in place, grouped by source, and without a gradient of the
//! table's size.
//!
//! | file | phase |
//! |---|---|
//! | `numeric` | arithmetic of one row |
//! | `trail` | the true path: the only part that is sequential, forward and backward |
//! | `signals` | the signals of a batch, from which candidates are scored |
//! | `score` | all candidates of a group: energies, softmax, gradients, update of rows that no path uses |
//! | `pass` | the phases in order: evaluation, one training step |

pub mod numeric;
pub mod pass;
mod score;
mod signals;
#[cfg(test)]
mod tests;
mod trail;

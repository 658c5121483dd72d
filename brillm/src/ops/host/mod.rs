//! Passes and steps on the host: the same as the definitions in [`super`], but in place, grouped by source, and without a
//! gradient of the table's size. Phases hand each other what backward needs, so they answer for a whole pass alone.
//!
//! | file | phase |
//! |---|---|
//! | `numeric` | arithmetic of one row |
//! | `walked` | the rows along the true paths, brought here where they lie in other processes |
//! | `trail` | the true path: the only part that is sequential, forward and backward |
//! | `signals` | the signals of a batch, from which candidates are scored |
//! | `score` | all candidates of a group: energies, softmax, gradients, update of rows that no path uses |
//! | `pass` | the phases in order: evaluation, one training step |

pub mod numeric;
pub mod pass;
mod score;
#[cfg(test)]
mod shard_tests;
mod signals;
#[cfg(test)]
pub(super) mod tests;
mod trail;
mod walked;

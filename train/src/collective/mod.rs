//! `Collective`: how the ranks of a job, one process each, exchange bytes; `Ranks`, what a training does with it: gather, agree on an
//! outcome, compare what it begins with; `Job`, which a process joins.
//!
//! There is one primitive, an exchange of slices whose lengths both sides know, and no sum: MPI's sums have another order for every
//! number of ranks. Who sums does it in an order of his own (docs/distributed.md).

mod handshake;
mod job;
#[cfg(feature = "mpi")]
mod mpi;
mod ranks;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub mod threads;

pub use handshake::Facts;
pub use job::on_ranks;
pub use ranks::{Alone, Collective, OF_RANK, Ranks};

//! Recomputation of activations: of a block only its inputs are kept, and what its operations need for their gradients is made
//! again when the backward pass comes to it (Chen et al. 2016, "Training deep nets with sublinear memory cost").
//!
//! The graph of a pass, the order of its sums and every number in it are those without. Only fused operations on the host are run
//! again: a definition composed of Burn's operations keeps what it keeps.

use super::host;
use serde::Deserialize;

#[cfg(test)]
pub(crate) use host::recompute::tests::n_entered;

/// What a training pass computes again instead of keeping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// What blocks compute: of each execution only the inputs are kept, and the block runs again in the backward pass.
    Blocks,
}

impl Recompute {
    /// Runs a block.
    pub(crate) fn block<T>(asked: Option<Self>, run: impl FnOnce() -> T) -> T {
        match asked {
            Some(Self::Blocks) => host::recompute::run_part(run),
            None => run(),
        }
    }
}

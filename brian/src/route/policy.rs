//! Who chooses the path.

use serde::Deserialize;

/// A rule that gives every token its next action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Every block of the pool once, in order, then OUT: the baseline's own path.
    Sequential,
}

impl Policy {
    /// The actions of a pass, one per step, for a pool of `n_pool` blocks; OUT is `n_pool`.
    pub fn path(self, n_pool: usize) -> Vec<usize> {
        match self {
            Self::Sequential => (0..=n_pool).collect(),
        }
    }
}

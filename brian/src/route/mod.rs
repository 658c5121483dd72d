//! Where a walk goes: the state (hidden, position), the actions `0..n_pool` (run that block) and OUT = `n_pool`.

pub mod policy;
pub mod position;
pub mod router;
pub mod walk;

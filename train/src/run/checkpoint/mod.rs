//! Checkpoints of a run: saving, listing, verifying, loading and deleting them; each holds everything that an exact resume
//! needs.
//!
//! One directory per step, written under another name and renamed into place; see the picture in [`crate::run`].

mod glance;
mod list;
mod manifest;
pub mod prune;
mod restore;
mod retention;
mod save;
mod state;

pub use glance::{Glance, glance, glance_at, weights_sha256};
pub(crate) use list::{entries, file_name};
pub use list::{list, remove_stale};
pub(super) use manifest::{FileRecord, TensorRecord};
pub use restore::{Loaded, at_step_without, latest, latest_without, load, verify};
pub use save::save;
pub use state::{Best, CheckpointState, Earlier, STATE_FORMAT, Snapshot};

#[cfg(test)]
mod faults;

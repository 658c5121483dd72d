//! Runs on disk: the run directory, its lock and its checkpoints.
//!
//! ```text
//! runs/tiny/
//!   recipe.toml      the complete, resolved recipe; `fit --resume` reads nothing else
//!   run.json         what the run is and how it stands: see `RunInfo`
//!   metrics.jsonl    one JSON object per line and logged step
//!   samples.jsonl    one JSON object per generated text
//!   inputs.json      where the run was started, and path and hash of every file that the recipe names
//!   inputs/          copies: tokenizer.json, bigrams.safetensors, difficulty.json; data stay where they are
//!   extensions.jsonl extensions of finished stages: see `Extension`
//!   import.json      only where `nerve import` made the run: what became of every tensor of the checkpoint
//!   tokenizer.json, bigrams.safetensors   only where `nerve import` made them: the recipe names them here
//!   LOCK             held by the kernel for the life of the process; its text says who holds it
//!   ckpt/
//!     step-00001200/               complete: it was renamed into place
//!       model-00001-of-00001.safetensors   shards of at most 1 GiB, dtype F32
//!       optim-00001-of-00001.safetensors
//!       average-00001-of-00001.safetensors   where the recipe keeps an average of the weights
//!       state.json                 counters, schedule position, hook state, hashes: see `checkpoint::CheckpointState`
//!       manifest.json              written last: size, SHA-256 and tensors of every file
//!     step-00001300.tmp-…/         being written, or left by a killed process; removed at the next start
//!     step-00001100.corrupt-…/     did not verify when that step was saved again; kept for inspection
//!     .trash-…/                    being deleted
//!     LATEST                       the name of the newest checkpoint; a hint, never trusted
//! ```
//!
//! Whatever the moment of a kill, the newest directory whose manifest verifies is the run's state. The log
//! files are cut back to the lengths that state remembers, and the lines after them are written again.

mod append;
pub mod checkpoint;
mod directory;
mod disk;
mod elsewhere;
mod extension;
mod find;
mod info;
mod inputs;
mod json;
mod lock;
mod resume;
mod tensors;
mod time;

pub use append::AppendLog;
pub use directory::RunDirectory;
pub use disk::{Disk, System};
pub use elsewhere::Elsewhere;
pub use extension::{Extension, MOST_STEPS};
pub use find::{FoundRuns, find, list_runs};
pub use info::{RunInfo, StartedFrom, Status};
pub use inputs::{InputFile, InputRecord, NewInputs, file_sha256};
pub use lock::Lock;
pub use resume::resume;
pub use tensors::{HostTensor, TensorMap, Values, read_tensors, require_finite};
pub use time::{now_s, utc_text};

use crate::error::Error;
use std::path::Path;

/// Writes a file atomically, and replaces an existing one.
///
/// # Errors
/// `Resource` if the disk says no.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    // A bare name lies in the folder where the program runs.
    let in_folder = path
        .parent()
        .is_some_and(|folder| !folder.as_os_str().is_empty());
    match in_folder {
        true => disk::replace(&disk::System, path, content),
        false => disk::replace(&disk::System, &Path::new(".").join(path), content),
    }
}

//! Reads a checkpoint without its tensors: its state, the hash of its weights, and the number of its parameters.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::list::list;
use super::manifest::{Flaw, Manifest};
use super::restore::read_state;
use super::state::CheckpointState;
use crate::error::{Error, Problem};
use crate::hash::hexadecimal;
use crate::run::directory::RunDirectory;

/// A checkpoint whose manifest and state verified; its tensors were not read.
#[derive(Clone, Debug)]
pub struct Glance {
    /// Its directory.
    pub path: PathBuf,
    /// Its counters and hashes.
    pub state: CheckpointState,
    /// Identifies the weights: equal for equal bytes, whatever else the checkpoints hold.
    pub weights_sha256: String,
    /// The number of values in the tensors of the model.
    pub parameters: u64,
}

/// The newest checkpoint whose manifest and state verify; `None` if the run has no checkpoint yet.
///
/// # Errors
/// `Invalid` if there are checkpoints but of none these verify, naming the newest and what is wrong with it.
pub fn glance(run: &RunDirectory) -> Result<Option<Glance>, Error> {
    let mut first = None;
    for (_, path) in list(run)?.into_iter().rev() {
        match of(&path) {
            Ok(glance) => return Ok(Some(glance)),
            Err(problem) => drop(first.get_or_insert(problem)),
        }
    }
    first.map_or(Ok(None), |problem| Err(Error::Invalid(problem)))
}

/// The same for the checkpoint of a step; `None` if there is none of it.
///
/// # Errors
/// `Invalid` for the first thing in its manifest or state that is wrong.
pub fn glance_at(run: &RunDirectory, step: u64) -> Result<Option<Glance>, Error> {
    let found = list(run)?.into_iter().find(|(of, _)| *of == step);
    let glance = found.map(|(_, path)| of(&path));
    glance.transpose().map_err(Error::Invalid)
}

/// The hash that identifies the weights of a checkpoint.
///
/// # Errors
/// `Invalid` for the first thing in its manifest or state that is wrong.
pub fn weights_sha256(checkpoint: &Path) -> Result<String, Error> {
    let glance = of(checkpoint).map_err(Error::Invalid)?;
    Ok(glance.weights_sha256)
}

/// Reads one checkpoint.
///
/// # Errors
/// The first thing in its manifest or state that is wrong.
pub(super) fn of(checkpoint: &Path) -> Result<Glance, Problem> {
    let manifest = Manifest::read(checkpoint)?;
    let (mut hash, mut parameters) = (Sha256::new(), 0u64);
    for name in manifest.shards("model") {
        let record = &manifest.files[name];
        hash.update(format!("{} {name}\n", record.sha256));
        let sizes = record.tensors.values().map(|tensor| {
            let lengths = tensor.shape.iter().map(|&length| length as u64);
            lengths.fold(1u64, u64::saturating_mul)
        });
        parameters = sizes.fold(parameters, u64::saturating_add);
    }
    Ok(Glance {
        path: checkpoint.to_path_buf(),
        state: read_state(&manifest, checkpoint).map_err(Flaw::problem)?,
        weights_sha256: hexadecimal(&hash.finalize()),
        parameters,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::faults::{run_in, snapshot};
    use super::super::save;
    use super::*;

    #[test]
    fn equal_weights_have_one_identity_and_a_broken_state_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        assert!(glance(&run).unwrap().is_none());
        let mut second = snapshot(2);
        second.model = snapshot(1).model;
        let first = save(&run, &snapshot(1), 5).unwrap();
        save(&run, &second, 5).unwrap();
        let newest = glance(&run).unwrap().unwrap();
        assert_eq!(newest.state, second.state);
        assert_eq!(newest.weights_sha256, of(&first).unwrap().weights_sha256);
        let third = save(&run, &snapshot(3), 5).unwrap();
        assert_ne!(of(&third).unwrap().weights_sha256, newest.weights_sha256);
        let of_model = snapshot(3).model;
        let numbers = of_model
            .values()
            .map(|tensor| tensor.shape.iter().product::<usize>() as u64);
        assert_eq!(newest.parameters, numbers.sum::<u64>());
        fs::write(third.join("state.json"), "{}").unwrap();
        assert_eq!(glance(&run).unwrap().unwrap().state.step, 2);
    }
}

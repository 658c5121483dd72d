//! Lists the checkpoints that `nerve runs prune` may delete (older than the newest that verifies, and not the best), and
//! deletes a checkpoint or a whole run.

use std::fs;
use std::path::{Path, PathBuf};

use super::list::list;
use super::manifest::Manifest;
use super::retention::delete;
use super::state::Best;
use crate::error::{Error, Problem};
use crate::run::directory::RunDirectory;
use crate::run::disk::System;
use crate::run::lock::Lock;

/// The checkpoints that are older than the newest one that verifies, except the best one, oldest first. Empty if none verifies.
///
/// A link is no checkpoint of ours: neither the link nor its target is touched.
///
/// # Errors
/// `Resource` if the directory cannot be listed.
pub fn unneeded(run: &RunDirectory, best: Option<Best>) -> Result<Vec<PathBuf>, Error> {
    if !is_directory(&run.checkpoints()) {
        return Ok(Vec::new());
    }
    let mut checkpoints = list(run)?;
    checkpoints.retain(|(_, path)| is_directory(path));
    while let Some((_, newest)) = checkpoints.pop() {
        if Manifest::verifies(&newest) {
            checkpoints.retain(|(step, _)| best.is_none_or(|best| best.step != *step));
            return Ok(checkpoints.into_iter().map(|(_, path)| path).collect());
        }
    }
    Ok(Vec::new())
}

/// Removes a checkpoint; the lock proves that no process trains in the run.
///
/// # Errors
/// `Resource` if it cannot be removed.
pub fn remove(checkpoint: &Path, _held: &Lock) -> Result<(), Error> {
    delete(&System, checkpoint)
}

/// Removes a whole run. `run.json` is removed first, so that what a kill leaves is no run any more.
///
/// # Errors
/// `Invalid` if the run is a link; `Resource` if something in it cannot be removed.
pub fn remove_run(run: &RunDirectory, held: Lock) -> Result<(), Error> {
    let path = run.path();
    if !is_directory(path) {
        let problem = Problem::new(path, "", "a link to a run", "the run itself");
        return Err(Error::Invalid(
            problem.advise("name the run by its own path"),
        ));
    }
    let removed = fs::remove_file(path.join("run.json")).and_then(|()| fs::remove_dir_all(path));
    drop(held);
    removed.map_err(|source| Error::resource(path, "remove", source))
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::super::faults::{run_in, snapshot, steps};
    use super::super::save;
    use super::*;

    #[test]
    fn the_newest_that_verifies_and_the_best_are_needed() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        let saved: Vec<PathBuf> = (1..=6)
            .map(|step| save(&run, &snapshot(step), 10).unwrap())
            .collect();
        let best = Some(Best {
            step: 2,
            value: 1.0,
        });
        let unneeded_now = || unneeded(&run, best).unwrap();
        let of = |steps: &[usize]| -> Vec<PathBuf> {
            steps.iter().map(|&step| saved[step - 1].clone()).collect()
        };
        assert_eq!(unneeded_now(), of(&[1, 3, 4, 5]));
        // The newest is broken: the one before is what a resume needs, and the broken one is kept for the reader.
        fs::write(saved[5].join("model-00001-of-00001.safetensors"), "").unwrap();
        assert_eq!(unneeded_now(), of(&[1, 3, 4]));
        let lock = Lock::acquire(&run).unwrap();
        for path in unneeded_now() {
            remove(&path, &lock).unwrap();
        }
        assert_eq!(steps(&run), [2, 5, 6]);
        assert_eq!(unneeded_now(), Vec::<PathBuf>::new());
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(&root.path().join("a"));
        let other = run_in(&root.path().join("b"));
        let elsewhere = save(&other, &snapshot(1), 10).unwrap();
        let link = run.checkpoints().join("step-00000001");
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        save(&run, &snapshot(2), 10).unwrap();
        assert_eq!(unneeded(&run, None).unwrap(), Vec::<PathBuf>::new());
        let linked = root.path().join("linked");
        std::os::unix::fs::symlink(other.path(), &linked).unwrap();
        let linked = RunDirectory::open(&linked).unwrap();
        let lock = Lock::acquire(&linked).unwrap();
        assert_eq!(remove_run(&linked, lock).unwrap_err().exit_code(), 3);
        let lock = Lock::acquire(&run).unwrap();
        remove_run(&run, lock).unwrap();
        assert!(!run.path().exists() && elsewhere.exists());
    }

    #[test]
    fn without_a_best_one_only_the_newest_is_needed() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        let saved: Vec<PathBuf> = (1..=3)
            .map(|step| save(&run, &snapshot(step), 10).unwrap())
            .collect();
        assert_eq!(unneeded(&run, None).unwrap(), saved[..2]);
        let best = Some(Best {
            step: 3,
            value: 1.0,
        });
        assert_eq!(unneeded(&run, best).unwrap(), saved[..2]);
    }
}

//! Deletes checkpoints after a save, all but the newest that verify, the best one, and the last of each stage;
//! those that do not verify are left alone.

use std::path::{Path, PathBuf};

use super::list::{file_name, list};
use super::manifest::Manifest;
use super::state::CheckpointState;
use crate::error::Error;
use crate::run::directory::RunDirectory;
use crate::run::disk::{self, Disk};

/// Whatever is asked for, a flipped bit in the newest must leave one to fall back to.
const KEEP_AT_LEAST: usize = 2;

/// Deletes checkpoints that are not needed any more. `state` is that of the newest one, just saved.
///
/// Checkpoints that do not verify are neither counted nor deleted, so damage never empties the directory.
pub fn apply(
    disk: &dyn Disk,
    run: &RunDirectory,
    state: &CheckpointState,
    keep_last: usize,
) -> Result<(), Error> {
    let mut verified = 0;
    let mut last_of_stage = None;
    for (step, path) in list(run)?.into_iter().rev() {
        let Ok(manifest) = Manifest::read(&path) else {
            continue;
        };
        let ends_a_stage = last_of_stage != Some(manifest.stage_index);
        last_of_stage = Some(manifest.stage_index);
        let best = state.best.is_some_and(|best| best.step == step);
        let enough = verified >= keep_last.max(KEEP_AT_LEAST);
        if enough && (best || ends_a_stage) {
            continue;
        }
        // The one just saved was hashed on its way to the disk; the others may have suffered since.
        if step != state.step && manifest.check_hashes(&path).is_err() {
            continue;
        }
        match enough {
            true => delete(disk, &path)?,
            false => verified += 1,
        }
    }
    Ok(())
}

/// Deletes by renaming first, so that a kill half-way leaves no directory that looks like a checkpoint.
pub(super) fn delete(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let trash: PathBuf =
        path.with_file_name(format!(".trash-{}-{}", file_name(path), disk::nonce()));
    disk::rename(disk, path, &trash)?;
    disk.remove(&trash)
        .map_err(|source| Error::resource(&trash, "remove", source))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::faults::{run_in, snapshot, steps};
    use super::super::{Best, save};

    #[test]
    fn the_newest_the_best_and_the_last_of_each_stage_stay() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        for step in 1..=12 {
            let mut snapshot = snapshot(step);
            snapshot.state.stage_index = step as usize / 5;
            snapshot.state.best = Some(Best {
                step: 6,
                value: 1.0,
            });
            save(&run, &snapshot, 3).unwrap();
        }
        assert_eq!(steps(&run), [4, 6, 9, 10, 11, 12]);
    }

    #[test]
    fn what_does_not_verify_is_neither_counted_nor_deleted() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        let saved = |step| save(&run, &snapshot(step), 0).unwrap();
        (1..=3).for_each(|step| drop(saved(step)));
        assert_eq!(steps(&run), [2, 3]);
        fs::write(saved(3).join("model-00001-of-00001.safetensors"), "").unwrap();
        saved(4);
        assert_eq!(steps(&run), [2, 3, 4]);
        saved(5);
        assert_eq!(steps(&run), [3, 4, 5]);
    }

    #[test]
    fn as_many_stay_as_were_asked_for_and_the_best_of_before_goes_with_its_rank() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        let saved = |step: u64, keep_last, best: Option<u64>| {
            let mut snapshot = snapshot(step);
            snapshot.state.best = best.map(|step| Best { step, value: 1.0 });
            save(&run, &snapshot, keep_last).unwrap();
            steps(&run)
        };
        for step in 1..=4 {
            saved(step, 4, None);
        }
        assert_eq!(saved(5, 4, None), [2, 3, 4, 5]);
        assert_eq!(saved(6, 3, Some(2)), [2, 4, 5, 6]);
        assert_eq!(saved(7, 3, Some(2)), [2, 5, 6, 7]);
        // Another is the best now; at least two stay, whatever was asked for.
        assert_eq!(saved(8, 3, Some(8)), [6, 7, 8]);
        assert_eq!(saved(9, 1, Some(8)), [8, 9]);
    }
}

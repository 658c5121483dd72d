//! Saves a checkpoint, so that no kill and no full disk costs more than the steps since the last one.
//!
//! Order: check of free space → files, synced → manifest, synced → directory synced → renamed into place → parent synced
//! → `LATEST` → retention. Before the rename nothing of it counts, after the rename all of it does.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::list::file_name;
use super::manifest::{FileRecord, MANIFEST, MANIFEST_FORMAT, Manifest, STATE};
use super::retention;
use super::state::Snapshot;
use crate::error::Error;
use crate::run::directory::RunDirectory;
use crate::run::disk::{self, Disk, System};
use crate::run::json;
use crate::run::tensors::{TensorMap, value_bytes, write_shards};

/// Saves a snapshot as the checkpoint of its step and returns its directory.
///
/// A checkpoint of that step that verifies is left as it is; one that does not is moved aside. Of the others, the
/// last `keep_last` (at least 2) that verify stay, the best one, and the last of each finished stage.
///
/// # Errors
/// `Invalid` if the checkpoint directory is a link. `Resource` if the disk refuses: earlier ones stay, and no half-written one.
/// `Numerical` if a number of the state is not finite.
pub fn save(run: &RunDirectory, snapshot: &Snapshot, keep_last: usize) -> Result<PathBuf, Error> {
    save_on(&System, run, snapshot, keep_last)
}

/// [`save`] on a given disk: the tests bring one that fails.
pub fn save_on(
    disk: &dyn Disk,
    run: &RunDirectory,
    snapshot: &Snapshot,
    keep_last: usize,
) -> Result<PathBuf, Error> {
    if let Some(field) = snapshot.state.not_finite() {
        let step = snapshot.state.step;
        let text = format!("step {step}: the checkpoint's {field} is not finite");
        return Err(Error::Numerical(text));
    }
    let parent = run.own_checkpoints()?;
    let target = parent.join(format!("step-{:08}", snapshot.state.step));
    if !already_saved(disk, &target)? {
        write_new(disk, &parent, &target, snapshot)?;
    }
    let latest = format!("{}\n", file_name(&target));
    disk::replace(disk, &parent.join("LATEST"), latest.as_bytes())?;
    retention::apply(disk, run, &snapshot.state, keep_last)?;
    Ok(target)
}

/// Whether a checkpoint of that step is there and verifies. One that does not makes room, but is not deleted.
fn already_saved(disk: &dyn Disk, target: &Path) -> Result<bool, Error> {
    if !target.exists() {
        return Ok(false);
    }
    if Manifest::verifies(target) {
        return Ok(true);
    }
    let aside = format!("{}.corrupt-{}", file_name(target), disk::nonce());
    disk::rename(disk, target, &target.with_file_name(aside))?;
    Ok(false)
}

fn write_new(
    disk: &dyn Disk,
    parent: &Path,
    target: &Path,
    snapshot: &Snapshot,
) -> Result<(), Error> {
    let needed = needed_bytes(snapshot);
    let free = free_bytes(disk, parent)?;
    if free < needed {
        let doing = format!("write a checkpoint ({needed} bytes needed, {free} free)");
        let full = io::ErrorKind::StorageFull.into();
        return Err(Error::resource(parent, doing, full));
    }
    let name = format!("{}.tmp-{}", file_name(target), disk::nonce());
    let temporary = target.with_file_name(name);
    let written = write_files(disk, &temporary, snapshot)
        .and_then(|()| disk::rename(disk, &temporary, target));
    if let Err(error) = written {
        // If even this fails, the next start removes it; the first error is the one to report.
        let _ = disk.remove(&temporary);
        return Err(with_figures(error, needed, free_bytes(disk, parent)));
    }
    disk::sync_directory(disk, parent)
}

fn write_files(disk: &dyn Disk, directory: &Path, snapshot: &Snapshot) -> Result<(), Error> {
    disk.create_directory(directory)
        .map_err(|source| Error::resource(directory, "create the directory", source))?;
    let mut files = write_shards(disk, directory, "model", &snapshot.model)?;
    files.extend(write_shards(disk, directory, "optim", &snapshot.optimizer)?);
    if !snapshot.average.is_empty() {
        files.extend(write_shards(disk, directory, "average", &snapshot.average)?);
    }
    let state = write_json(disk, &directory.join(STATE), &snapshot.state)?;
    files.insert(STATE.to_string(), state);
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        step: snapshot.state.step,
        stage_index: snapshot.state.stage_index,
        files,
    };
    write_json(disk, &directory.join(MANIFEST), &manifest)?;
    disk::sync_directory(disk, directory)
}

fn write_json(
    disk: &dyn Disk,
    path: &Path,
    content: &impl serde::Serialize,
) -> Result<FileRecord, Error> {
    let text = json::to_bytes(content).expect("maps have text keys");
    let (bytes, sha256) = disk::write_file(disk, path.to_path_buf(), &text)?;
    Ok(FileRecord {
        bytes,
        sha256,
        tensors: BTreeMap::new(),
    })
}

/// 1.1 times what the values take, and room for headers, state and manifest, which name every tensor.
fn needed_bytes(snapshot: &Snapshot) -> u64 {
    let all = [&snapshot.model, &snapshot.optimizer, &snapshot.average];
    let values: u64 = all.map(value_bytes).into_iter().sum();
    let tensors: usize = all.map(TensorMap::len).into_iter().sum();
    values + values / 10 + 512 * tensors as u64 + (64 << 10)
}

fn free_bytes(disk: &dyn Disk, path: &Path) -> Result<u64, Error> {
    disk.free_bytes(path)
        .map_err(|source| Error::resource(path, "ask for the free space", source))
}

/// Adds to an error about room how much there was and how much it takes.
fn with_figures(error: Error, needed: u64, free: Result<u64, Error>) -> Error {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    match (error, free) {
        (
            Error::Resource {
                path,
                doing,
                source,
            },
            Ok(free),
        ) if matches!(source.kind(), StorageFull | QuotaExceeded) => {
            let doing = format!("{doing} (the checkpoint takes {needed} bytes, {free} are free)");
            Error::resource(path, doing, source)
        }
        (error, _) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::faults::{run_in, snapshot, steps};
    use super::super::{latest, verify};
    use super::*;

    #[test]
    fn a_step_reached_again_is_left_as_it_is_if_it_verifies() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        let path = save(&run, &snapshot(1), 2).unwrap();
        let before = fs::metadata(path.join(MANIFEST))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(save(&run, &snapshot(1), 2).unwrap(), path);
        let after = fs::metadata(path.join(MANIFEST))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(before, after);
    }

    #[test]
    fn a_corrupt_one_is_moved_aside_and_written_anew() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        let path = save(&run, &snapshot(1), 2).unwrap();
        fs::write(path.join(STATE), "{}").unwrap();
        save(&run, &snapshot(1), 2).unwrap();
        assert_eq!((verify(&path), steps(&run)), (vec![], vec![1]));
        let entries = fs::read_dir(run.checkpoints()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.contains(".corrupt-")).count(), 1);
    }

    #[test]
    fn an_average_lies_in_files_of_its_own_that_are_verified_like_the_others() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        let mut with = snapshot(1);
        with.average = snapshot(7).model;
        let path = save(&run, &with, 2).unwrap();
        assert_eq!(latest(&run).unwrap().unwrap().snapshot, with);
        let file = path.join("average-00001-of-00001.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(latest(&run).is_err() && !verify(&path).is_empty());
        // One without has no such file.
        let path = save(&run, &snapshot(2), 2).unwrap();
        let names = fs::read_dir(path).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!names.any(|name| name.contains("average")));
    }

    #[test]
    fn a_number_that_json_would_lose_is_refused_before_anything_is_written() {
        let root = tempfile::tempdir().unwrap();
        let run = run_in(root.path());
        let mut bad = snapshot(1);
        bad.state.wall_s = f64::NAN;
        assert_eq!(save(&run, &bad, 2).unwrap_err().exit_code(), 6);
        assert!(latest(&run).unwrap().is_none());
    }
}

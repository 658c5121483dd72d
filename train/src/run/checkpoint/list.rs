//! Lists the complete checkpoints in `ckpt/` by step, and removes the half-written and half-deleted ones that killed processes
//! left.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::run::directory::RunDirectory;
use crate::run::disk::{Disk, System};
use crate::run::lock::Lock;

/// The run's complete checkpoints as (step, directory), oldest first, verified or not.
///
/// # Errors
/// `Resource` if the directory cannot be listed.
pub fn list(run: &RunDirectory) -> Result<Vec<(u64, PathBuf)>, Error> {
    let paths = entries(&run.checkpoints())?.into_iter();
    let steps = paths.filter_map(|path| Some((step_of(&path)?, path)));
    let mut checkpoints: Vec<(u64, PathBuf)> = steps.collect();
    checkpoints.sort();
    Ok(checkpoints)
}

/// Removes what killed processes left half-written or half-deleted; returns the paths, for a line each on stderr.
/// The lock proves that no running process uses them.
///
/// # Errors
/// `Invalid` if the directory of checkpoints is a link, `Resource` if one cannot be removed.
pub fn remove_stale(run: &RunDirectory, _held: &Lock) -> Result<Vec<PathBuf>, Error> {
    let mut stale = entries(&run.own_checkpoints()?)?;
    stale.extend(entries(run.path())?);
    stale.retain(|path| {
        let name = file_name(path);
        name.contains(".tmp-") || name.starts_with(".trash-")
    });
    for path in &stale {
        System
            .remove(path)
            .map_err(|source| Error::resource(path, "remove", source))?;
    }
    Ok(stale)
}

/// The step that a checkpoint's directory is named after; `None` for temporary, corrupt and foreign entries.
pub fn step_of(path: &Path) -> Option<u64> {
    let digits = file_name(path).strip_prefix("step-")?.to_string();
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| digits.parse().ok()).flatten()
}

/// The paths of what is in a directory, in any order.
pub fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::resource(directory, "list", source);
    let entries = fs::read_dir(directory).map_err(failed)?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}

/// The last part of a path; empty if it is not text.
pub fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("")
}

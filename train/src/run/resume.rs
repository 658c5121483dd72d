//! `resume`: loads the newest checkpoint of a run that verifies, and refuses it if the recipe, the tokenizer or the data are
//! not those that it was saved with.

use super::RunDirectory;
use super::checkpoint::{CheckpointState, Loaded};
use crate::error::{Error, Problem};
use crate::say::note;
use std::path::Path;

/// The newest checkpoint of a run, as it was loaded, compared with `now`: what a program would train with. Its state counts
/// `now`'s threads. `None` if the run has no checkpoint yet.
///
/// # Errors
/// `Invalid` if tokenizer or data differ from the checkpoint's; `Config` if the recipe does. A program
/// with a recipe of its own hashes everything that decides its training.
pub fn resume(
    run: &RunDirectory,
    newest: Option<Loaded>,
    now: &CheckpointState,
    tokenizer: &Path,
) -> Result<Option<Loaded>, Error> {
    let Some(mut loaded) = newest else {
        return Ok(None);
    };
    for problem in &loaded.skipped {
        note(&format!("{problem}; it is passed over"));
    }
    loaded.snapshot.state = unchanged(run, now, loaded.snapshot.state, tokenizer)?;
    Ok(Some(loaded))
}

fn unchanged(
    run: &RunDirectory,
    now: &CheckpointState,
    saved: CheckpointState,
    tokenizer: &Path,
) -> Result<CheckpointState, Error> {
    let changed = |file: &Path, advice: &str| {
        let found = "content that changed since the checkpoint was saved";
        Problem::new(file, "", found, "the same content").advise(advice.to_string())
    };
    if now.recipe_sha256 != saved.recipe_sha256 {
        let advice = "put it back, or start a new run with the changed recipe";
        return Err(Error::config(changed(&run.recipe(), advice)));
    }
    if now.tokenizer_sha256 != saved.tokenizer_sha256 {
        return Err(Error::Invalid(changed(
            tokenizer,
            "put the old tokenizer back",
        )));
    }
    for (path, sha256) in &saved.data_sha256 {
        if now.data_sha256.get(path) != Some(sha256) {
            let problem = changed(Path::new(path), "put the old data back");
            return Err(Error::Invalid(problem));
        }
    }
    if now.threads != saved.threads {
        note(&format!(
            "{} threads instead of the checkpoint's {}: the run goes on; equal bits are promised for the same number only",
            now.threads, saved.threads
        ));
    }
    Ok(CheckpointState {
        threads: now.threads,
        ..saved
    })
}

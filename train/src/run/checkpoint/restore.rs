//! Loads the newest checkpoint that verifies (`latest`) or a given one (`load`), and lists all problems of one (`verify`).
//! Nothing is used before its hash has been verified.

use std::path::{Path, PathBuf};

use super::list::list;
use super::manifest::{Flaw, Manifest, STATE};
use super::state::{CheckpointState, STATE_FORMAT, Snapshot};
use crate::error::{Error, Problem};
use crate::run::directory::RunDirectory;
use crate::run::json;
use crate::run::tensors::{self, TensorMap, require_finite};

/// A checkpoint that verified, and the newer ones that did not.
#[derive(Debug)]
pub struct Loaded {
    /// Its directory.
    pub path: PathBuf,
    /// Its content.
    pub snapshot: Snapshot,
    /// The problems of the newer ones that were skipped: lines for stderr.
    pub skipped: Vec<Problem>,
}

/// The newest checkpoint that verifies; `None` if the run has no checkpoint yet.
///
/// # Errors
/// `Invalid` if there are checkpoints but none verifies, naming the newest and what is wrong with it; or if one is intact
/// but is no checkpoint of ours.
pub fn latest(run: &RunDirectory) -> Result<Option<Loaded>, Error> {
    latest_without(run, &[])
}

/// The same, with the values of some tensors left on the disk: each name stands for what follows it and a dot too.
///
/// # Errors
/// As [`latest`].
pub fn latest_without(run: &RunDirectory, tables: &[&str]) -> Result<Option<Loaded>, Error> {
    let mut skipped = Vec::new();
    for (_, path) in list(run)?.into_iter().rev() {
        match read(&path, tables) {
            Ok(snapshot) => {
                return Ok(Some(Loaded {
                    path,
                    snapshot,
                    skipped,
                }));
            }
            Err(Flaw::Damage(problem)) => skipped.push(problem),
            Err(Flaw::Content(problem)) => return Err(Error::Invalid(problem)),
        }
    }
    let advice = "no older checkpoint verifies; restore one, or start a new run";
    match skipped.into_iter().next() {
        Some(newest) => Err(Error::Invalid(newest.advise(advice))),
        None => Ok(None),
    }
}

/// The checkpoint of a step, with the values of some tensors left on the disk; `None` if there is none of it.
///
/// # Errors
/// `Invalid` naming the first file that is not what the manifest says.
pub fn at_step_without(
    run: &RunDirectory,
    step: u64,
    tables: &[&str],
) -> Result<Option<Loaded>, Error> {
    let found = list(run)?.into_iter().find(|(of, _)| *of == step);
    let loaded = found.map(|(_, path)| {
        let snapshot = read(&path, tables)?;
        let skipped = Vec::new();
        Ok(Loaded {
            path,
            snapshot,
            skipped,
        })
    });
    loaded
        .transpose()
        .map_err(|flaw: Flaw| Error::Invalid(flaw.problem()))
}

/// Loads one checkpoint by its directory.
///
/// # Errors
/// `Invalid` naming the first file that is not what the manifest says.
pub fn load(checkpoint: &Path) -> Result<Snapshot, Error> {
    read(checkpoint, &[]).map_err(|flaw| Error::Invalid(flaw.problem()))
}

/// Reads every file of a checkpoint again and returns all problems.
pub fn verify(checkpoint: &Path) -> Vec<Problem> {
    let manifest = match Manifest::read(checkpoint) {
        Ok(manifest) => manifest,
        Err(problem) => return vec![problem],
    };
    let tensors = ["model", "optim", "average"].into_iter().flat_map(|stem| {
        let shards = manifest.shards(stem).into_iter();
        shards.filter_map(
            |name| match manifest.tensors(checkpoint, name, &|_| false) {
                Ok(found) => require_finite(&found, &checkpoint.join(name)).err(),
                Err(flaw) => Some(flaw.problem()),
            },
        )
    });
    let state = read_state(&manifest, checkpoint).err().map(Flaw::problem);
    tensors.chain(state).collect()
}

fn read(checkpoint: &Path, tables: &[&str]) -> Result<Snapshot, Flaw> {
    let manifest = Manifest::read(checkpoint)?;
    let stays = |name: &str| {
        let begins = |rest: &str| rest.is_empty() || rest.starts_with(['.', '@']);
        tables
            .iter()
            .any(|table| name.strip_prefix(table).is_some_and(begins))
    };
    let tensors = |stem: &str| {
        let mut all = TensorMap::new();
        for name in manifest.shards(stem) {
            let mut shard = manifest.tensors(checkpoint, name, &stays)?;
            if let Some(twice) = shard.keys().find(|tensor| all.contains_key(*tensor)) {
                let (file, place) = (checkpoint.join(name), format!("tensor {twice}"));
                let expected = "each tensor in one shard";
                let problem =
                    Problem::new(file, place, "the same name as in a shard before", expected);
                return Err(Flaw::Content(problem));
            }
            all.append(&mut shard);
        }
        tensors::join(checkpoint, all).map_err(Flaw::Content)
    };
    Ok(Snapshot {
        state: read_state(&manifest, checkpoint)?,
        model: tensors("model")?,
        optimizer: tensors("optim")?,
        average: tensors("average")?,
    })
}

pub(super) fn read_state(manifest: &Manifest, checkpoint: &Path) -> Result<CheckpointState, Flaw> {
    let path = checkpoint.join(STATE);
    let bytes = manifest.bytes(checkpoint, STATE)?;
    let state: CheckpointState =
        json::parse(&path, &bytes, "the state of a run").map_err(Flaw::Content)?;
    let differs = |place: &str, found: String, expected: String| {
        Err(Flaw::Content(Problem::new(&path, place, found, expected)))
    };
    if state.format != STATE_FORMAT {
        return differs("format", state.format.to_string(), STATE_FORMAT.to_string());
    }
    if (state.step, state.stage_index) != (manifest.step, manifest.stage_index) {
        let says = |step, stage_index| format!("step {step} of stage {stage_index}");
        let expected = says(manifest.step, manifest.stage_index);
        return differs("step", says(state.step, state.stage_index), expected);
    }
    if let Some((field, found, expected)) = state.impossible() {
        return differs(field, found, expected);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::faults::{run_in, snapshot};
    use super::super::save;
    use super::*;

    const MODEL: &str = "model-00001-of-00001.safetensors";

    /// A run with checkpoints of steps 1 and 2, and the directories of both.
    fn two(root: &Path) -> (RunDirectory, PathBuf, PathBuf) {
        let run = run_in(root);
        let first = save(&run, &snapshot(1), 2).unwrap();
        let second = save(&run, &snapshot(2), 2).unwrap();
        (run, first, second)
    }

    fn files(checkpoint: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(checkpoint).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Holds while one thing is wrong with the newer checkpoint: it is refused by name, the older one is used.
    fn falls_back(run: &RunDirectory, second: &Path, file: &Path) {
        let loaded = latest(run).unwrap().unwrap();
        assert_eq!(loaded.snapshot, snapshot(1), "{}", file.display());
        let named = Path::new(&loaded.skipped[0].file);
        assert!(named.starts_with(second), "{}", named.display());
        assert_eq!(load(second).unwrap_err().exit_code(), 3);
        assert!(!verify(second).is_empty(), "{}", file.display());
    }

    #[test]
    fn a_new_run_has_none_and_an_intact_one_the_newest() {
        let root = tempfile::tempdir().unwrap();
        assert!(latest(&run_in(root.path())).unwrap().is_none());
        let (run, _, second) = two(&root.path().join("runs"));
        let loaded = latest(&run).unwrap().unwrap();
        assert_eq!(
            (loaded.snapshot, loaded.path),
            (snapshot(2), second.clone())
        );
        assert_eq!(verify(&second), []);
    }

    #[test]
    fn a_checkpoint_cut_anywhere_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (run, _, second) = two(root.path());
        for file in files(&second) {
            let whole = fs::read(&file).unwrap();
            let lengths = (0..whole.len() - 1).step_by(7);
            for length in lengths.chain([1, whole.len() - 2]) {
                fs::write(&file, &whole[..length]).unwrap();
                falls_back(&run, &second, &file);
            }
            fs::remove_file(&file).unwrap();
            falls_back(&run, &second, &file);
            fs::write(&file, &whole).unwrap();
        }
        assert_eq!(verify(&second), []);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let (_, _, second) = two(root.path());
        for file in files(&second) {
            let whole = fs::read(&file).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, &flipped).unwrap();
                let read = load(&second);
                assert!(read.is_err(), "bit {bit} of {}", file.display());
            }
            fs::write(&file, &whole).unwrap();
        }
        assert_eq!(load(&second).unwrap(), snapshot(2));
    }

    #[test]
    fn files_and_directories_that_changed_places_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        let (run, first, second) = two(root.path());
        for file in files(&second) {
            let own = fs::read(&file).unwrap();
            fs::copy(first.join(file.file_name().unwrap()), &file).unwrap();
            falls_back(&run, &second, &file);
            fs::write(&file, own).unwrap();
        }
        let extra = second.join("model-00002-of-00002.safetensors");
        fs::copy(first.join(MODEL), &extra).unwrap();
        falls_back(&run, &second, &extra);
        fs::remove_file(&extra).unwrap();
        let renamed = second.with_file_name("step-00000009");
        fs::rename(&second, &renamed).unwrap();
        falls_back(&run, &renamed, &renamed);
    }

    #[test]
    fn a_tensor_that_is_missing_extra_or_of_another_shape_is_named() {
        let root = tempfile::tempdir().unwrap();
        let (_, _, second) = two(root.path());
        let manifest = second.join("manifest.json");
        let text = fs::read_to_string(&manifest).unwrap();
        let shape =
            "\"a\": {\n          \"dtype\": \"F32\",\n          \"shape\": [\n            2,";
        for (from, to, expected) in [
            (
                "\"a\": {",
                "\"c\": {",
                "tensor c: found none, expected F32 [2, 2]",
            ),
            (
                shape,
                &shape.replace("2,", "3,"),
                "tensor a: found F32 [2, 2], expected F32 [3, 2]",
            ),
        ] {
            assert!(text.contains(from), "{text}");
            fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
            let message = load(&second).unwrap_err().to_string();
            assert!(
                message.contains(&format!("{MODEL}: {expected}")),
                "{message}"
            );
        }
    }

    #[test]
    fn when_none_verifies_the_newest_is_named_and_nothing_is_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (run, first, second) = two(root.path());
        for checkpoint in [&first, &second] {
            fs::write(checkpoint.join(MODEL), "").unwrap();
        }
        let error = latest(&run).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(
            error
                .to_string()
                .starts_with(&second.join(MODEL).display().to_string())
        );
        assert_eq!(list(&run).unwrap().len(), 2);
    }
}

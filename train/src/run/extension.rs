//! `extensions.jsonl`: extensions of finished stages of a run, one per line. A resume reads it; the recipe stays unchanged.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::directory::RunDirectory;
use super::disk::{self, System};
use super::time::{now_s, utc_text};
use crate::error::{Error, Problem};

/// The most bytes of `extensions.jsonl`; each line has a few hundred.
const MOST_BYTES: u64 = 1 << 20;

/// The most steps of a stage, as in a recipe.
pub const MOST_STEPS: u64 = 1 << 50;

/// An extension of a stage beyond the end that its recipe gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// The stage's name.
    pub stage: String,
    /// The stage's steps before.
    pub from_step: u64,
    /// The stage's steps now.
    pub to_step: u64,
    /// The learning rate of all these steps: that of the last step before.
    pub learning_rate: f64,
    /// When it was asked for, as UTC text.
    pub created: String,
    /// The program that began it.
    pub nerve_version: String,
}

impl Extension {
    /// An extension that is requested now.
    pub fn new(stage: &str, from_step: u64, to_step: u64, learning_rate: f64) -> Self {
        Self {
            stage: stage.to_string(),
            from_step,
            to_step,
            learning_rate,
            created: utc_text(now_s()),
            nerve_version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    /// Reads the extensions of a run, oldest first; empty without such a file.
    ///
    /// # Errors
    /// `Invalid` with the line that is not what this program writes.
    pub fn read(run: &RunDirectory) -> Result<Vec<Self>, Error> {
        let path = file(run);
        let expected = "a list of extensions";
        let invalid = |place: String, found: String| {
            Error::Invalid(Problem::new(&path, place, found, expected))
        };
        if path.symlink_metadata().is_err() {
            return Ok(Vec::new());
        }
        let text = crate::file::read_regular(&path, expected, MOST_BYTES)?;
        let lines = text.split(|byte| *byte == b'\n').enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty());
        let mut read: Vec<Self> = Vec::new();
        for (index, line) in lines {
            let place = format!("line {}", index + 1);
            let extension: Self = serde_json::from_slice(line)
                .map_err(|cause| invalid(place.clone(), crate::text::json_complaint(&cause)))?;
            let before = read.iter().rfind(|one| one.stage == extension.stage);
            let continues = before.is_none_or(|one| one.to_step == extension.from_step);
            let rises = extension.from_step < extension.to_step && extension.to_step <= MOST_STEPS;
            if !continues || !rises {
                let (from, to) = (extension.from_step, extension.to_step);
                return Err(invalid(place, format!("steps {from} to {to}")));
            }
            read.push(extension);
        }
        Ok(read)
    }

    /// Adds this extension to those of a run, atomically.
    ///
    /// # Errors
    /// `Resource` if it cannot be written; the old list is still there then.
    pub fn record(&self, run: &RunDirectory) -> Result<(), Error> {
        let mut all = Self::read(run)?;
        all.push(self.clone());
        let line = |one: &Self| serde_json::to_string(one).expect("a rate is finite") + "\n";
        let text: String = all.iter().map(line).collect();
        disk::replace(&System, &file(run), text.as_bytes())
    }
}

fn file(run: &RunDirectory) -> PathBuf {
    run.path().join("extensions.jsonl")
}

#[cfg(test)]
mod tests {
    use super::super::RunInfo;
    use super::*;

    #[test]
    fn extensions_are_read_as_they_were_recorded_and_must_follow_each_other() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(root.path(), "a", "", RunInfo::new("x")).unwrap();
        assert_eq!(Extension::read(&run).unwrap(), []);
        let first = Extension::new("fixed", 8, 12, 1e-4);
        let second = Extension::new("fixed", 12, 20, 1e-4);
        first.record(&run).unwrap();
        second.record(&run).unwrap();
        assert_eq!(Extension::read(&run).unwrap(), [first.clone(), second]);
        Extension::new("fixed", 8, 30, 1e-4).record(&run).unwrap();
        let error = Extension::read(&run).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(
            error.to_string().contains("line 3: found steps 8 to 30"),
            "{error}"
        );
    }

    #[test]
    fn an_extension_rises_and_stays_below_the_most_steps() {
        let root = tempfile::tempdir().unwrap();
        for (index, (from, to, holds)) in [
            (8, 9, true),
            (8, 8, false),
            (8, 7, false),
            (8, MOST_STEPS, true),
            (8, MOST_STEPS + 1, false),
        ]
        .into_iter()
        .enumerate()
        {
            let run =
                RunDirectory::create(root.path(), &format!("r{index}"), "", RunInfo::new("x"))
                    .unwrap();
            Extension::new("other", 1, 2, 1e-4).record(&run).unwrap();
            Extension::new("fixed", from, to, 1e-4)
                .record(&run)
                .unwrap();
            assert_eq!(Extension::read(&run).is_ok(), holds, "{from} to {to}");
        }
    }
}

//! `RunInfo`: the content of `run.json` (id, time, status, stage, step, best validation, versions, git commit, hashes), for
//! people, `runs list` and other tools. A resume does not need it; `directory` reads and writes it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checkpoint::Best;
use super::time::{now_s, utc_text};
use crate::file::read_text;
use crate::keys::distinct;
use crate::text::shortened;

/// The longest text in `run.json`.
const TEXT_BYTES: usize = 1000;
/// The longest file of git that is looked into.
const GIT_BYTES: u64 = 64 << 20;

/// The content of `run.json`, replaced at every checkpoint and at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// 1.
    pub schema: u32,
    /// The name of the run's directory when it was made.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created_s: f64,
    /// The same as UTC text.
    pub created: String,
    /// How it stands.
    pub status: Status,
    /// The stage it is in, or ended in; empty before the first.
    pub stage: String,
    /// The step of the last checkpoint.
    pub step: u64,
    /// The best validation so far.
    pub best: Option<Best>,
    /// Versions of the program and of what computes: `nerve`, `burn`.
    pub versions: BTreeMap<String, String>,
    /// The backend it runs on.
    pub backend: String,
    /// The commit checked out where it was started, if that was a git repository.
    pub git: Option<String>,
    /// Hash of the tokenizer's file.
    #[serde(default)]
    pub tokenizer_sha256: String,
    /// Hash of each data file, by the path in the recipe.
    #[serde(default, deserialize_with = "distinct")]
    pub data_sha256: BTreeMap<String, String>,
    /// The weights that stages took from other runs, by the stage's name.
    #[serde(default, deserialize_with = "distinct")]
    pub starts: BTreeMap<String, StartedFrom>,
}

/// Weights that came from another run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedFrom {
    /// The run, as the recipe names it.
    pub path: String,
    /// The step of the checkpoint.
    pub step: u64,
    /// Identifies the weights: [`super::checkpoint::Glance::weights_sha256`].
    pub weights_sha256: String,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A process trains it, or was killed while it did: the lock tells which.
    Running,
    /// A signal stopped it after it was saved.
    Stopped,
    /// All stages are through.
    Done,
    /// An error or a gate ended it.
    Failed,
}

impl RunInfo {
    /// A run that begins now; `RunDirectory::create` fills in the id.
    pub fn new(backend: &str) -> Self {
        let created_s = now_s();
        let nerve = ["nerve", env!("CARGO_PKG_VERSION")].map(str::to_string);
        let place = std::env::current_dir().ok();
        Self {
            schema: 1,
            id: String::new(),
            created_s,
            created: utc_text(created_s),
            status: Status::Running,
            stage: String::new(),
            step: 0,
            best: None,
            versions: BTreeMap::from([nerve.into()]),
            backend: backend.to_string(),
            git: place.and_then(|place| git_revision(&place)),
            tokenizer_sha256: String::new(),
            data_sha256: BTreeMap::new(),
            starts: BTreeMap::new(),
        }
    }

    /// The first field that this program does not write so: its name, what it holds and what it should hold.
    pub(super) fn strange(&self) -> Option<(String, String, String)> {
        if self.schema != 1 {
            let found = format!("schema {}", self.schema);
            return Some(("schema".to_string(), found, "schema 1".to_string()));
        }
        let fixed = [
            ("id", &self.id),
            ("created", &self.created),
            ("stage", &self.stage),
            ("backend", &self.backend),
            ("tokenizer_sha256", &self.tokenizer_sha256),
        ];
        let fixed = fixed.map(|(name, text)| (name.to_string(), text));
        let git = self.git.iter().map(|text| ("git".to_string(), text));
        let versions = self.versions.iter();
        let versions = versions.map(|(name, text)| (format!("versions.{}", shortened(name)), text));
        let starts = self.starts.iter().flat_map(|(stage, start)| {
            let field = format!("starts.{}", shortened(stage));
            [(field.clone(), &start.path), (field, &start.weights_sha256)]
        });
        let mut texts = fixed.into_iter().chain(git).chain(versions).chain(starts);
        let (field, text) = texts.find(|(_, text)| text.len() > TEXT_BYTES)?;
        let found = format!("a text of {} bytes", text.len());
        Some((field, found, format!("at most {TEXT_BYTES} bytes")))
    }
}

impl Status {
    /// The word in `run.json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// The commit checked out at or above a directory, read from git's files so that no git need be installed.
fn git_revision(place: &Path) -> Option<String> {
    let mut folders = place.ancestors().map(|place| place.join(".git"));
    let git = folders.find(|git| git.is_dir())?;
    let read = |name: &str| read_text(&git.join(name), "a file of git", GIT_BYTES).ok();
    let head = read("HEAD")?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else {
        return Some(head.trim().to_string());
    };
    if let Some(revision) = read(reference) {
        return Some(revision.trim().to_string());
    }
    let packed = read("packed-refs")?;
    let end = format!(" {reference}");
    let line = packed.lines().find(|line| line.ends_with(&end))?;
    Some(line.split(' ').next()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_revision_is_found_detached_loose_and_packed() {
        let place = tempfile::tempdir().unwrap();
        let git = place.path().join(".git");
        fs::create_dir_all(git.join("refs/heads")).unwrap();
        let inner = place.path().join("a/b");
        fs::write(git.join("HEAD"), "0123\n").unwrap();
        assert_eq!(git_revision(&inner).unwrap(), "0123");
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        assert_eq!(git_revision(&inner), None);
        fs::write(git.join("packed-refs"), "# pack\n4567 refs/heads/main\n").unwrap();
        assert_eq!(git_revision(&inner).unwrap(), "4567");
        fs::write(git.join("refs/heads/main"), "89ab\n").unwrap();
        assert_eq!(git_revision(&inner).unwrap(), "89ab");
    }

    #[test]
    fn a_text_that_is_too_long_and_another_schema_are_strange() {
        let field = |change: &dyn Fn(&mut RunInfo)| {
            let mut info = RunInfo::new("x");
            info.git = None;
            change(&mut info);
            info.strange().map(|(field, ..)| field)
        };
        let text = |n: usize| "a".repeat(n);
        assert_eq!(field(&|_| ()), None);
        assert_eq!(field(&|info| info.schema = 2).as_deref(), Some("schema"));
        assert_eq!(field(&|info| info.stage = text(1000)), None);
        assert_eq!(
            field(&|info| info.stage = text(1001)).as_deref(),
            Some("stage")
        );
        assert_eq!(
            field(&|info| info.git = Some(text(1001))).as_deref(),
            Some("git")
        );
        let started = StartedFrom {
            path: text(1001),
            step: 1,
            weights_sha256: String::new(),
        };
        let starts = |info: &mut RunInfo| _ = info.starts.insert("a".to_string(), started.clone());
        assert_eq!(field(&starts).as_deref(), Some("starts.a"));
        let words = [
            Status::Running,
            Status::Stopped,
            Status::Done,
            Status::Failed,
        ]
        .map(Status::word);
        assert_eq!(words, ["running", "stopped", "done", "failed"]);
    }
}

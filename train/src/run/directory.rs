//! `RunDirectory`: creates the directory of a run atomically under a free name, opens one, names its files, and reads and
//! replaces its `run.json`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::checkpoint::file_name;
use super::disk::{self, System};
use super::info::RunInfo;
use super::inputs::NewInputs;
use super::json;
use crate::error::{Error, Problem};
use crate::file::{kind, read_regular};

const NAME_BYTES: usize = 100;
/// The longest `run.json` that is read; this program writes a few hundred bytes and a line per data file.
const INFO_BYTES: u64 = 1 << 20;

/// A directory that holds a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Makes the directory of a new run: `root/name`, or `root/name-2`, `-3` … if that exists. No run is overwritten.
    ///
    /// It appears atomically with `recipe.toml`, `run.json` and an empty `ckpt/`, so a kill leaves no half of a run.
    ///
    /// # Errors
    /// `Config` if the name is more than letters, digits, `.`, `_`, `-`; `Resource` if the root cannot be written.
    pub fn create(root: &Path, name: &str, recipe: &str, info: RunInfo) -> Result<Self, Error> {
        Self::create_with(root, name, recipe, info, &NewInputs::default())
    }

    /// The same with copies of files that its recipe needs, and a record of all files.
    ///
    /// # Errors
    /// As [`Self::create`]; `Invalid` if a file to copy is not there.
    pub fn create_with(
        root: &Path,
        name: &str,
        recipe: &str,
        info: RunInfo,
        inputs: &NewInputs,
    ) -> Result<Self, Error> {
        check_name(name)?;
        fs::create_dir_all(root)
            .map_err(|source| Error::resource(root, "create the directory", source))?;
        let staging = root.join(format!(".new-{}", disk::nonce()));
        let created =
            fill(&staging, recipe, inputs).and_then(|()| settle(&staging, root, name, info));
        if created.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_dir_all(&staging);
        }
        created
    }

    /// Opens the directory of a run that exists.
    ///
    /// # Errors
    /// `Invalid` if there is none, it is a file, or it holds no `run.json`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let expected = "a run directory";
        let found = |found: &str| Err(Error::Invalid(Problem::new(path, "", found, expected)));
        match fs::metadata(path) {
            Err(source) => Err(Error::unreadable(path, expected, source)),
            Ok(metadata) if !metadata.is_dir() => found("a file"),
            Ok(_) if !path.join("run.json").exists() => found("a directory without run.json"),
            Ok(_) => Ok(Self {
                path: path.to_path_buf(),
            }),
        }
    }

    /// A run that is not written: its path only stands in messages.
    pub fn unwritten(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
        }
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        file_name(&self.path)
    }

    /// The path of the complete, resolved recipe.
    pub fn recipe(&self) -> PathBuf {
        self.path.join("recipe.toml")
    }

    /// The path of the log: one JSON object per logged step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The path of the samples: one JSON object per generated text.
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples.jsonl")
    }

    /// The path of the tokenizer of an imported run.
    pub fn tokenizer(&self) -> PathBuf {
        self.path.join("tokenizer.json")
    }

    /// The path of the counts of an imported graph.
    pub fn bigrams(&self) -> PathBuf {
        self.path.join("bigrams.safetensors")
    }

    /// The directory of its checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("ckpt")
    }

    /// The directory of its checkpoints, to write or delete in it. Links are not followed: their targets are not the run's.
    ///
    /// # Errors
    /// `Invalid` if it is anything but a directory; `Resource` if the system does not say.
    pub fn own_checkpoints(&self) -> Result<PathBuf, Error> {
        let path = self.checkpoints();
        let expected = "a directory of the run";
        let metadata = fs::symlink_metadata(&path)
            .map_err(|cause| Error::unreadable(&path, expected, cause))?;
        match metadata.is_dir() {
            true => Ok(path),
            false => {
                let problem = Problem::new(&path, "", kind(metadata.file_type()), expected);
                let advice = "link the whole run instead, or set run.root";
                Err(Error::Invalid(problem.advise(advice)))
            }
        }
    }

    /// The file that the training process locks.
    pub fn lock(&self) -> PathBuf {
        self.path.join("LOCK")
    }

    /// Reads `run.json`.
    ///
    /// # Errors
    /// `Invalid` if it is absent or not what this program writes.
    pub fn info(&self) -> Result<RunInfo, Error> {
        let path = self.path.join("run.json");
        let expected = "the description of a run";
        let text = read_regular(&path, expected, INFO_BYTES)?;
        let info: RunInfo = json::parse(&path, &text, expected).map_err(Error::Invalid)?;
        match info.strange() {
            None => Ok(info),
            Some((field, found, expected)) => {
                Err(Error::Invalid(Problem::new(&path, field, found, expected)))
            }
        }
    }

    /// Changes `run.json` atomically.
    ///
    /// # Errors
    /// `Invalid` if it is broken, `Resource` if it cannot be written; the old one is still there then.
    pub fn change_info(&self, change: impl FnOnce(&mut RunInfo)) -> Result<(), Error> {
        let mut info = self.info()?;
        change(&mut info);
        self.write_info(&info)
    }

    /// Replaces `run.json` atomically.
    ///
    /// # Errors
    /// `Resource` if it cannot be written; the old one is still there then.
    pub fn write_info(&self, info: &RunInfo) -> Result<(), Error> {
        let text = json::to_bytes(info).expect("maps have text keys");
        disk::replace(&System, &self.path.join("run.json"), &text)
    }
}

/// Everything but `run.json`, which needs the final name.
fn fill(staging: &Path, recipe: &str, inputs: &NewInputs) -> Result<(), Error> {
    fs::create_dir_all(staging.join("ckpt"))
        .map_err(|source| Error::resource(staging, "create the directory", source))?;
    disk::write_file(&System, staging.join("recipe.toml"), recipe.as_bytes())?;
    inputs.fill(staging)
}

/// Moves the directory to the first free name.
fn settle(
    staging: &Path,
    root: &Path,
    name: &str,
    mut info: RunInfo,
) -> Result<RunDirectory, Error> {
    for attempt in 1.. {
        info.id = match attempt {
            1 => name.to_string(),
            _ => format!("{name}-{attempt}"),
        };
        let path = root.join(&info.id);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        let staged = RunDirectory {
            path: staging.to_path_buf(),
        };
        staged.write_info(&info)?;
        match fs::rename(staging, &path) {
            Ok(()) => {
                disk::sync_directory(&System, root)?;
                return Ok(RunDirectory { path });
            }
            // Another process took the name in between: a rename never replaces a directory that holds something.
            Err(error) if is_taken(&error) => {}
            Err(source) => return Err(Error::resource(&path, "create the directory", source)),
        }
    }
    unreachable!("the numbers do not end")
}

fn is_taken(error: &std::io::Error) -> bool {
    use ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(
        error.kind(),
        AlreadyExists | DirectoryNotEmpty | NotADirectory
    )
}

fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=NAME_BYTES).contains(&name.len()) && !name.starts_with(['.', '-']);
    if fits && name.bytes().all(allowed) {
        return Ok(());
    }
    let expected = "1 to 100 of A-Z a-z 0-9 . _ - beginning with a letter or digit";
    let problem = Problem::new("recipe", "run.name", format!("{name:?}"), expected);
    Err(Error::config(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_exists_gets_a_number_and_nothing_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let create = |recipe| RunDirectory::create(root.path(), "tiny", recipe, RunInfo::new("x"));
        let names = ["a", "b", "c"].map(|recipe| create(recipe).unwrap().name().to_string());
        assert_eq!(names, ["tiny", "tiny-2", "tiny-3"]);
        assert_eq!(
            fs::read_to_string(root.path().join("tiny/recipe.toml")).unwrap(),
            "a"
        );
        let second = RunDirectory::open(&root.path().join("tiny-2")).unwrap();
        assert_eq!(second.info().unwrap().id, "tiny-2");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
    }

    #[test]
    fn names_cannot_leave_the_root() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "",
            "..",
            "../x",
            "/x",
            "a/b",
            ".hidden",
            "-x",
            "a b",
            &"x".repeat(101),
        ] {
            let created = RunDirectory::create(root.path(), name, "", RunInfo::new("x"));
            assert_eq!(created.unwrap_err().exit_code(), 2, "{name}");
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn paths_that_cannot_be_a_run_say_what_they_are() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let missing = RunDirectory::open(&place.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("no such file"), "{missing}");
        for path in [&file, place.path()] {
            assert_eq!(RunDirectory::open(path).unwrap_err().exit_code(), 3);
        }
        let below = RunDirectory::create(&file.join("runs"), "x", "", RunInfo::new("x"));
        assert_eq!(below.unwrap_err().exit_code(), 4);
    }
}

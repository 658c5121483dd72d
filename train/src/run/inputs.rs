//! The input files of a run, so that it can be moved: small files are copied into it, data are recognised by their hash.
//!
//! ```text
//! inputs.json   where the run was started, and every file that its recipe names: path, hash, copy
//! inputs/       the copies
//! ```
//!
//! The recipe stays as it was written: its paths are the names by which `inputs.json` knows the files.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::directory::RunDirectory;
use super::disk::{self, HashedFile, System};
use super::json;
use crate::error::{Error, Problem};
use crate::file;

/// The version of `inputs.json`.
const FORMAT: u32 = 1;

/// The most bytes of `inputs.json`: a line for every file of a recipe, which has at most a megabyte itself.
const MOST_BYTES: u64 = 8 << 20;

/// The content of `inputs.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRecord {
    /// 1.
    pub format: u32,
    /// The directory from which relative paths were meant when the run was made.
    pub directory: PathBuf,
    /// The files that the recipe names.
    pub files: Vec<InputFile>,
}

/// One file that the recipe names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// The path in the recipe.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its copy, from the run's directory; nothing for data, which stay where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<PathBuf>,
}

/// The input files of a new run.
#[derive(Clone, Debug, Default)]
pub struct NewInputs {
    /// Files that stay where they are, with their hashes.
    pub known: Vec<(PathBuf, String)>,
    /// Files that are copied, with the names of their copies.
    pub copied: Vec<(PathBuf, &'static str)>,
}

impl NewInputs {
    /// Bytes of the copies.
    pub fn bytes(&self) -> u64 {
        let sizes = self.copied.iter().map(|(path, _)| fs::metadata(path));
        sizes.flatten().map(|metadata| metadata.len()).sum()
    }

    /// Writes copies and record into a directory that is not a run yet.
    pub(super) fn fill(&self, staging: &Path) -> Result<(), Error> {
        let folder = staging.join("inputs");
        fs::create_dir(&folder)
            .map_err(|source| Error::resource(&folder, "create the directory", source))?;
        let known = self.known.iter().map(|(path, sha256)| InputFile {
            path: path.clone(),
            sha256: sha256.clone(),
            copy: None,
        });
        let mut files: Vec<InputFile> = known.collect();
        for (path, name) in &self.copied {
            files.push(InputFile {
                path: path.clone(),
                sha256: copy(path, &folder.join(name))?,
                copy: Some(Path::new("inputs").join(name)),
            });
        }
        disk::sync_directory(&System, &folder)?;
        let record = InputRecord {
            format: FORMAT,
            directory: std::env::current_dir().unwrap_or_default(),
            files,
        };
        let text = json::to_bytes(&record).map_err(|cause| {
            // Only a path that is no text cannot be written.
            let problem = Problem::new(staging, "", cause.to_string(), "paths in UTF-8");
            Error::Invalid(problem)
        })?;
        disk::write_file(&System, staging.join("inputs.json"), &text).map(drop)
    }
}

impl InputRecord {
    /// Reads `inputs.json`; `None` in older runs without it.
    ///
    /// # Errors
    /// `Invalid` if it is not what this program writes.
    pub fn read(run: &RunDirectory) -> Result<Option<Self>, Error> {
        let path = run.path().join("inputs.json");
        let expected = "the record of a run's inputs";
        let invalid = |problem: Problem| {
            let advice = "put the file back as the run was made with it";
            Error::Invalid(problem.advise(advice))
        };
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let text = file::read_regular(&path, expected, MOST_BYTES)?;
        let record: Self = json::parse(&path, &text, expected).map_err(invalid)?;
        let wrong = |place, found| Err(invalid(Problem::new(&path, place, found, expected)));
        if record.format != FORMAT {
            return wrong("format", record.format.to_string());
        }
        let leaves = |copy: &PathBuf| {
            let mut parts = copy.components();
            !parts.all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        let mut copies = record.files.iter().filter_map(|file| file.copy.as_ref());
        if let Some(copy) = copies.find(|copy| leaves(copy)) {
            return wrong("copy", format!("the path {}", copy.display()));
        }
        Ok(Some(record))
    }

    /// The record of a path of the recipe, if any.
    pub fn of(&self, path: &Path) -> Option<&InputFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// SHA-256 of a regular file, in hexadecimal; `None` for anything else, or if it cannot be read.
pub fn file_sha256(path: &Path) -> Option<String> {
    let file = file::open_regular(path, "a file").ok()?;
    disk::sha256(file).ok()
}

/// Copies a file and makes the copy durable; returns its hash.
fn copy(from: &Path, to: &Path) -> Result<String, Error> {
    let expected = "a file to copy into the run";
    let failed = |source| Error::unreadable(from, expected, source);
    let mut source = file::open_regular(from, expected)?;
    let mut target = HashedFile::create(&System, to.to_path_buf())?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer).map_err(failed)? {
            0 => return target.finish().map(|(_, sha256)| sha256),
            read => target.write(&buffer[..read])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RunInfo;
    use super::*;

    #[test]
    fn a_run_appears_with_its_copies_and_their_hashes_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let (root, source) = (place.path().join("runs"), place.path().join("t.json"));
        fs::write(&source, "abc").unwrap();
        let create = |path: &Path| {
            let inputs = NewInputs {
                known: vec![("d/train.bin".into(), "00".into())],
                copied: vec![(path.to_path_buf(), "tokenizer.json")],
            };
            RunDirectory::create_with(&root, "a", "", RunInfo::new("x"), &inputs)
        };
        assert_eq!(
            create(&place.path().join("none")).unwrap_err().exit_code(),
            3
        );
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        let run = create(&source).unwrap();
        let record = InputRecord::read(&run).unwrap().unwrap();
        // The hash of `abc` as FIPS 180 gives it.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let copy = record.of(&source).unwrap();
        assert_eq!(copy.sha256, hash);
        let path = run.path().join(copy.copy.as_ref().unwrap());
        assert_eq!(file_sha256(&path).as_deref(), Some(hash));
        assert_eq!(record.of(Path::new("d/train.bin")).unwrap().sha256, "00");
        assert_eq!(record.directory, std::env::current_dir().unwrap());
    }

    #[test]
    fn a_record_that_names_files_outside_the_run_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(place.path(), "a", "", RunInfo::new("x")).unwrap();
        let write = |text: &str| fs::write(run.path().join("inputs.json"), text).unwrap();
        for text in [
            r#"{"format":1,"directory":"/","files":[{"path":"t","sha256":"0","copy":"../t"}]}"#,
            r#"{"format":1,"directory":"/","files":[{"path":"t","sha256":"0","copy":"/etc/t"}]}"#,
            r#"{"format":2,"directory":"/","files":[]}"#,
            "{",
        ] {
            write(text);
            assert_eq!(
                InputRecord::read(&run).unwrap_err().exit_code(),
                3,
                "{text}"
            );
        }
    }
}

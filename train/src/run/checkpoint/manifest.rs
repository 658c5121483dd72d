//! `Manifest`: the content of `manifest.json`, the files of a checkpoint with size, SHA-256 and tensors of each; it is read
//! here, and the files are read and verified against it. `save` writes it.
//!
//! It is written last, so its presence says that the rest was written; its hashes say that the rest is still the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::list::step_of;
use crate::error::Problem;
use crate::file;
use crate::hash::hexadecimal;
use crate::keys::distinct;
use crate::run::tensors::{self, TensorMap};
use crate::run::{disk, json};

/// Name of the manifest inside a checkpoint.
pub const MANIFEST: &str = "manifest.json";
/// Name of the state inside a checkpoint.
pub const STATE: &str = "state.json";
/// The layout of a checkpoint this program writes and reads.
pub const MANIFEST_FORMAT: u32 = 1;
/// What is expected of every file.
const READABLE: &str = "a readable file of this checkpoint";
/// The longest manifest that is read: a million tensors.
const MANIFEST_BYTES: u64 = 256 << 20;

/// The content of `manifest.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The step the checkpoint was saved after.
    pub step: u64,
    /// Position of its stage in the ladder; retention keeps the last checkpoint of each.
    pub stage_index: usize,
    /// Every other file of the checkpoint, by name.
    #[serde(deserialize_with = "distinct")]
    pub files: BTreeMap<String, FileRecord>,
}

/// What the manifest says of one file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Its tensors by name; empty for a file that is not safetensors.
    #[serde(deserialize_with = "distinct")]
    pub tensors: BTreeMap<String, TensorRecord>,
}

/// What is wrong with a checkpoint.
#[derive(Debug)]
pub enum Flaw {
    /// It is damaged: an older checkpoint may be used instead.
    Damage(Problem),
    /// It is intact by its hashes, but cannot be used: no other checkpoint is used instead.
    Content(Problem),
}

impl Flaw {
    /// The problem, of either kind.
    pub fn problem(self) -> Problem {
        match self {
            Self::Damage(problem) | Self::Content(problem) => problem,
        }
    }
}

impl From<Problem> for Flaw {
    fn from(problem: Problem) -> Self {
        Self::Damage(problem)
    }
}

/// What the manifest says of one tensor.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// `F32` or `BF16`.
    pub dtype: String,
    /// The lengths of its dimensions.
    pub shape: Vec<usize>,
}

impl TensorRecord {
    /// The record of a tensor.
    pub fn new(dtype: Dtype, shape: &[usize]) -> Self {
        Self {
            dtype: format!("{dtype:?}"),
            shape: shape.to_vec(),
        }
    }
}

impl Manifest {
    /// Reads the manifest of a checkpoint and compares it with the directory's name and listing.
    pub fn read(checkpoint: &Path) -> Result<Self, Problem> {
        let path = checkpoint.join(MANIFEST);
        let expected = "a manifest";
        let bytes = file::read_regular(&path, expected, MANIFEST_BYTES)
            .map_err(|error| file::problem(error, &path, expected))?;
        let manifest: Self = json::parse(&path, &bytes, expected)?;
        let differs = |place: &str, found: u64, expected: u64| {
            let [found, expected] = [found, expected].map(|number| number.to_string());
            Err(Problem::new(&path, place, found, expected))
        };
        if manifest.format != MANIFEST_FORMAT {
            return differs("format", manifest.format.into(), MANIFEST_FORMAT.into());
        }
        match step_of(checkpoint) {
            Some(step) if step != manifest.step => return differs("step", manifest.step, step),
            _ => {}
        }
        let outside = |name: &&String| name.contains('/') || name.starts_with('.');
        if let Some(name) = manifest.files.keys().find(outside) {
            let expected = "names inside the checkpoint";
            return Err(Problem::new(&path, "files", name, expected));
        }
        manifest.nothing_beside_it(checkpoint)?;
        Ok(manifest)
    }

    /// The bytes of one file, after checking size and hash.
    pub fn bytes(&self, checkpoint: &Path, name: &str) -> Result<Vec<u8>, Problem> {
        let record = self.record(checkpoint, name)?;
        let path = checkpoint.join(name);
        let mut file = open(&path, record.bytes)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(|error| unreadable(&path, &error))?;
        same_hash(&path, &hexadecimal(&Sha256::digest(&bytes)), &record.sha256)?;
        Ok(bytes)
    }

    /// The tensors of one file, after checking size, hash, names and shapes; the values of those named by `stays` are left on the disk.
    pub fn tensors(
        &self,
        checkpoint: &Path,
        name: &str,
        stays: &dyn Fn(&str) -> bool,
    ) -> Result<TensorMap, Flaw> {
        let record = self.record(checkpoint, name)?;
        let path = checkpoint.join(name);
        let file = open(&path, record.bytes)?;
        let found = disk::sha256(&file).map_err(|error| unreadable(&path, &error))?;
        same_hash(&path, &found, &record.sha256)?;
        let found = tensors::parse(&path, &file, stays).map_err(Flaw::Content)?;
        self.as_listed(checkpoint, name, found)
    }

    /// Tensors of a file, if they are those that are listed.
    fn as_listed(
        &self,
        checkpoint: &Path,
        name: &str,
        found: TensorMap,
    ) -> Result<TensorMap, Flaw> {
        let path = checkpoint.join(name);
        let expected = &self.record(checkpoint, name)?.tensors;
        for (tensor, record) in expected {
            let found = found
                .get(tensor)
                .map(|tensor| TensorRecord::new(tensor.dtype(), &tensor.shape));
            if found.as_ref() != Some(record) {
                let found = found.map_or("none".to_string(), |found| found.to_string());
                let place = format!("tensor {tensor}");
                return Err(Problem::new(&path, place, found, record.to_string()).into());
            }
        }
        if let Some(extra) = found.keys().find(|tensor| !expected.contains_key(*tensor)) {
            let place = format!("tensor {extra}");
            let expected = "what the manifest lists";
            return Err(Problem::new(&path, place, "an extra tensor", expected).into());
        }
        Ok(found)
    }

    /// Hashes every file without keeping it in memory; the first difference is returned.
    pub fn check_hashes(&self, checkpoint: &Path) -> Result<(), Problem> {
        for (name, record) in &self.files {
            let path = checkpoint.join(name);
            let file = open(&path, record.bytes)?;
            let found = disk::sha256(file).map_err(|error| unreadable(&path, &error))?;
            same_hash(&path, &found, &record.sha256)?;
        }
        Ok(())
    }

    /// Whether the manifest of a checkpoint can be read and all files are as it says.
    pub fn verifies(checkpoint: &Path) -> bool {
        Self::read(checkpoint).is_ok_and(|manifest| manifest.check_hashes(checkpoint).is_ok())
    }

    /// The names of the shards of `model`, `optim` or `average`.
    pub fn shards(&self, stem: &str) -> Vec<&str> {
        let of_stem = |name: &&String| {
            let rest = name.strip_prefix(stem);
            rest.is_some_and(|rest| rest.starts_with('-') && rest.ends_with(".safetensors"))
        };
        self.files
            .keys()
            .filter(of_stem)
            .map(String::as_str)
            .collect()
    }

    fn record(&self, checkpoint: &Path, name: &str) -> Result<&FileRecord, Problem> {
        let manifest = checkpoint.join(MANIFEST);
        let absent = || Problem::new(manifest, "files", format!("no {name}"), name);
        self.files.get(name).ok_or_else(absent)
    }

    /// A shard the manifest does not know comes from another checkpoint; other stray files do no harm.
    fn nothing_beside_it(&self, checkpoint: &Path) -> Result<(), Problem> {
        let entries = fs::read_dir(checkpoint).map_err(|error| unreadable(checkpoint, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(checkpoint, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".safetensors") && !self.files.contains_key(&name) {
                let expected = "only the files of manifest.json";
                return Err(Problem::new(entry.path(), "", "an extra file", expected));
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for TensorRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

fn open(path: &Path, expected_bytes: u64) -> Result<File, Problem> {
    let file =
        file::open_regular(path, READABLE).map_err(|error| file::problem(error, path, READABLE))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    let bytes = metadata.len();
    if bytes != expected_bytes {
        let place = format!("byte {}", bytes.min(expected_bytes));
        let (found, expected) = (format!("{bytes} bytes"), format!("{expected_bytes} bytes"));
        return Err(Problem::new(path, place, found, expected));
    }
    Ok(file)
}

fn same_hash(path: &Path, found: &str, expected: &str) -> Result<(), Problem> {
    match found == expected {
        true => Ok(()),
        false => {
            let found = format!("SHA-256 {found}");
            let expected = format!("{expected} as the manifest says");
            Err(Problem::new(path, "", found, expected))
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::new(path, "", error.to_string(), READABLE)
}

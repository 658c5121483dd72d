//! `Directory`: which files of a Hugging Face directory are read: `config.json`, the weights in one file or in shards, and
//! `generation_config.json` and `tokenizer.json` where they are there.

use super::config::is_described;
use crate::error::{Error, Problem};
use std::path::{Path, PathBuf};

/// The files of weights, the first that there is; with the pattern that all shards follow.
const WEIGHTS: [[&str; 2]; 2] = [
    ["model.safetensors", "model.safetensors.index.json"],
    ["pytorch_model.bin", "pytorch_model.bin.index.json"],
];

/// A directory that describes a model in a `config.json`.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory, if it is one of a model as Hugging Face describes them.
    ///
    /// # Errors
    /// `Invalid` if its `config.json` cannot be read.
    pub fn of(paths: &[PathBuf]) -> Result<Option<Self>, Error> {
        let [path] = paths else {
            return Ok(None);
        };
        let config = path.join("config.json");
        // A checkpoint of ours has a manifest, and no such file.
        let is_it = path.is_dir() && config.exists() && is_described(&config)?;
        Ok(is_it.then(|| Self { path: path.clone() }))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The description of the model.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.json")
    }

    /// The description of how it generates, if there is one.
    pub fn generation(&self) -> Option<PathBuf> {
        self.optional("generation_config.json")
    }

    /// The tokenizer, if there is one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        self.optional("tokenizer.json")
    }

    /// The weights: a file, or an index of shards.
    ///
    /// # Errors
    /// `Invalid` if there are none, or both.
    pub fn weights(&self) -> Result<PathBuf, Error> {
        for pair in WEIGHTS {
            match pair.map(|name| self.optional(name)) {
                [Some(_), Some(index)] => {
                    let found = "an index of shards beside a whole model";
                    let problem = Problem::new(&index, "", found, "one of the two");
                    let advice = "remove the one that is not meant: only one of them can count";
                    return Err(Error::Invalid(problem.advise(advice)));
                }
                [Some(file), None] | [None, Some(file)] => return Ok(file),
                [None, None] => {}
            }
        }
        let expected = WEIGHTS.concat().join(", ");
        let problem = Problem::new(&self.path, "", "no weights", format!("one of {expected}"));
        Err(Error::Invalid(problem))
    }

    /// Files of weights that lie there and are not among those that are read.
    pub fn others(&self, read: &[PathBuf]) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let is_weights = |name: &String| {
            name.ends_with(".safetensors") || name.ends_with(".bin") || name.ends_with(".pth")
        };
        let is_read = |name: &String| read.contains(&self.path.join(name));
        let mut others: Vec<String> = names
            .filter(|name| is_weights(name) && !is_read(name))
            .collect();
        others.sort();
        others
    }

    fn optional(&self, name: &str) -> Option<PathBuf> {
        let path = self.path.join(name);
        path.exists().then_some(path)
    }
}

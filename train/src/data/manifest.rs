//! `manifest.json`: what a data directory holds, from what it was made, and the hash of every file in it.
//!
//! It holds no time and no machine, so the same inputs give the same bytes. It is written last.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::document::{ReadCounts, ReadRules};
use super::prepare::SplitRule;
use super::tokenizer::{Kind, Specials};
use crate::error::{Error, Problem};
use crate::text::json_complaint;

/// The version of the directory's layout.
pub const FORMAT: u32 = 1;

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the program that wrote it.
    pub nerve_version: String,
    /// The tokenizer that made the ids.
    pub tokenizer: TokenizerFacts,
    /// How documents were found.
    pub reading: ReadRules,
    /// How documents were divided into training and validation.
    pub split: SplitFacts,
    /// Whether every document ends with `</s>`.
    pub end_of_document: bool,
    /// The files given, in their order.
    pub sources: Vec<SourceFacts>,
    /// `train`, and `valid` if there is one.
    pub splits: BTreeMap<String, SplitCounts>,
    /// Every other file of the directory.
    pub files: BTreeMap<String, FileFacts>,
}

/// What a split must know of its tokenizer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerFacts {
    /// Of the file `tokenizer.json`.
    pub sha256: String,
    /// What a token stands for.
    pub kind: Kind,
    /// One more than the highest id.
    pub vocabulary_size: usize,
    /// The ids of the special tokens.
    pub specials: Specials,
}

/// How documents were divided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitFacts {
    /// By which rule.
    pub rule: SplitRule,
    /// The share asked for validation.
    pub valid_fraction: f64,
    /// The seed of the rule `hash`.
    pub seed: u64,
}

/// One input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// As the user named it.
    pub path: String,
    /// Of the file.
    pub sha256: String,
    /// Of the file.
    pub bytes: u64,
    /// In all splits together.
    pub documents: u64,
    /// In all splits together.
    pub tokens: u64,
    /// What was changed or left out.
    #[serde(flatten)]
    pub counts: ReadCounts,
}

/// How much a split holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// Documents.
    pub documents: u64,
    /// Tokens, ends of documents included.
    pub tokens: u64,
    /// Bytes of UTF-8 of the documents.
    pub bytes: u64,
}

/// One file of the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Its size.
    pub bytes: u64,
    /// Its hash, in hexadecimal.
    pub sha256: String,
}

/// One line of `train.documents.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentEntry {
    /// The position of its first token in the split.
    pub start: u64,
    /// Its tokens, the end of the document included.
    pub tokens: u64,
    /// Its bytes of UTF-8.
    pub bytes: u64,
    /// The position of its file in `sources`.
    pub source: usize,
    /// Its number within the file.
    pub index: u64,
    /// Its task, if the source names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Its difficulty, if the source names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difficulty: Option<u32>,
}

impl Manifest {
    /// Reads the manifest of a directory.
    ///
    /// # Errors
    /// `Invalid` if it is missing, is no manifest or has another format.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let path = directory.as_ref().join("manifest.json");
        let expected = "a manifest of `nerve data prepare`";
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            ErrorKind::NotADirectory => {
                let found = "a file";
                let expected = "a directory of `nerve data prepare`";
                Error::Invalid(Problem::new(directory.as_ref(), "", found, expected))
            }
            ErrorKind::IsADirectory => {
                Error::Invalid(Problem::new(&path, "", "a directory", expected))
            }
            _ => Error::unreadable(&path, expected, e),
        })?;
        let invalid = |e: serde_json::Error| {
            let place = format!("line {}, column {}", e.line(), e.column());
            Error::Invalid(Problem::new(&path, place, json_complaint(&e), expected))
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(invalid)?;
        if value["format"] != FORMAT {
            let found = format!("format {}", value["format"]);
            let problem = Problem::new(&path, "format", found, format!("format {FORMAT}"));
            return Err(Error::Invalid(problem.advise("prepare the data again")));
        }
        // From the text again, so that an error knows its line.
        serde_json::from_slice(&bytes).map_err(invalid)
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a manifest has text keys and finite numbers")
            + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_data_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file.txt");
        fs::write(&file, "text").unwrap();
        fs::create_dir_all(directory.path().join("a/manifest.json")).unwrap();
        let cases = [
            (file, "file.txt: found a file, expected a directory"),
            (directory.path().join("a"), "json: found a directory"),
            (directory.path().join("b"), "json: found no such file"),
        ];
        for (path, expected) in cases {
            let error = Manifest::load(path).unwrap_err();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

//! `Manifest`: the `manifest.json` of a data directory (settings, sources, counts, file hashes), loaded, checked, or as JSON.
//!
//! It records neither time nor machine, so equal inputs give equal bytes. It is written last.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::document::{ReadCounts, ReadRules};
use super::prepare::SplitRule;
use super::tokenizer::{Kind, Specials, SpelledSpecials};
use crate::error::{Error, Problem};
use crate::file::read_regular;
use crate::keys::distinct;
use crate::text::{json_complaint, shortened};

/// The version of the directory's layout.
pub const FORMAT: u32 = 1;
/// The largest vocabulary that is believed: several lists of this length are made before any token is read.
const VOCABULARY_MAX: usize = 1 << 24;
/// The longest manifest that is read: a hundred thousand sources and more.
pub(super) const BYTES_MAX: u64 = 64 << 20;

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
    /// What specials were where a text spells them out; parsed in directories that were made before this was kept.
    #[serde(default = "parsed")]
    pub specials: SpelledSpecials,
    /// Whether the list of documents says of every token that stands for another number of bytes of the source than the
    /// tokenizer says; not so in directories that were made before this was kept.
    #[serde(default)]
    pub has_spans: bool,
    /// The files given, in their order.
    pub sources: Vec<SourceFacts>,
    /// `train`, and `valid` if there is one.
    #[serde(deserialize_with = "distinct")]
    pub splits: BTreeMap<String, SplitCounts>,
    /// Every other file of the directory.
    #[serde(deserialize_with = "distinct")]
    pub files: BTreeMap<String, FileFacts>,
}

/// Facts about the tokenizer that made the ids.
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

/// How documents were divided into training and validation.
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
    /// Of the file, compressed if it is.
    pub bytes: u64,
    /// In all splits together.
    pub documents: u64,
    /// In all splits together.
    pub tokens: u64,
    /// How often the text spells out a special token.
    #[serde(default)]
    pub specials_in_text: u64,
    /// What else there is to know of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
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
    /// Tokens that are `<unk>`.
    #[serde(default)]
    pub unknown: u64,
    /// Documents whose tokens another document before them in this split has too.
    #[serde(default)]
    pub duplicates: u64,
    /// Documents whose tokens a training document has too; 0 for `train` itself.
    #[serde(default)]
    pub also_in_train: u64,
}

impl fmt::Display for SplitCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (documents, tokens, bytes) = (self.documents, self.tokens, self.bytes);
        write!(f, "{documents} documents, {tokens} tokens, {bytes} bytes")
    }
}

fn parsed() -> SpelledSpecials {
    SpelledSpecials::Parse
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
    /// Its tokens that stand for another number of bytes of the source than the tokenizer says (unknown characters,
    /// full-width forms): position among its tokens, rising, and bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<(u64, u64)>,
}

impl DocumentEntry {
    /// The positions of its tokens in the split.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.tokens) as usize
    }
}

impl Manifest {
    /// Reads the manifest of a directory.
    ///
    /// # Errors
    /// `Invalid` if it is missing, is no manifest or has another format.
    pub fn load(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let path = directory.as_ref().join("manifest.json");
        let expected = "a manifest of `nerve data prepare`";
        if directory.as_ref().is_file() {
            let expected = "a directory of `nerve data prepare`";
            let problem = Problem::new(directory, "", "a file", expected);
            return Err(Error::Invalid(problem));
        }
        let bytes = read_regular(&path, expected, BYTES_MAX)?;
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
        let manifest: Self = serde_json::from_slice(&bytes).map_err(invalid)?;
        // No token takes less than a byte of its tokenizer's file, so the lists made for a vocabulary are bounded by a file.
        let beside = std::fs::metadata(path.with_file_name("tokenizer.json"));
        let tokenizer_bytes = beside.map_or(VOCABULARY_MAX, |file| file.len() as usize);
        let most_tokens = tokenizer_bytes.min(VOCABULARY_MAX);
        if let Some((place, found, expected)) = manifest.impossible(most_tokens) {
            let problem = Problem::new(&path, place, found, expected);
            return Err(Error::Invalid(problem.advise("prepare the data again")));
        }
        Ok(manifest)
    }

    /// The first fact that no preparation of ours could have left: its place, what it is and what it should be.
    fn impossible(&self, most_tokens: usize) -> Option<(String, String, String)> {
        let size = self.tokenizer.vocabulary_size;
        if !(1..=most_tokens).contains(&size) {
            let place = "tokenizer.vocabulary_size".to_string();
            return Some((place, size.to_string(), format!("1 to {most_tokens}")));
        }
        let specials = self.tokenizer.specials.named();
        let outside = |(_, id): &(&str, Option<u32>)| id.is_some_and(|id| id as usize >= size);
        if let Some((name, id)) = specials.into_iter().find(outside) {
            let place = format!("tokenizer.specials.{name}");
            let expected = format!("an id below the vocabulary of {size}");
            return Some((place, format!("{}", id.unwrap_or_default()), expected));
        }
        let names = self.splits.keys().map(|name| ("splits", name));
        let mut names = names.chain(self.files.keys().map(|name| ("files", name)));
        let (place, name) =
            names.find(|(_, name)| name.is_empty() || name.contains(['/', '\0']))?;
        let found = format!("{:?}", shortened(name));
        let expected = "names inside the directory".to_string();
        Some((place.to_string(), found, expected))
    }

    /// The content of the file.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a manifest has text keys and finite numbers")
            + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn facts_that_cannot_be_are_named() {
        let path = super::super::shard::tests::split_of_lines(&["ab"]);
        let file = path.with_file_name("manifest.json");
        let text = fs::read_to_string(&file).unwrap();
        let cases = [
            (
                "260",
                "1099511627776",
                "tokenizer.vocabulary_size: found 1099511627776, expected 1 to",
            ),
            (
                "260",
                "0",
                "tokenizer.vocabulary_size: found 0, expected 1 to",
            ),
            (
                "260",
                "16777216",
                "tokenizer.vocabulary_size: found 16777216, expected 1 to",
            ),
            (
                "\"end\": 257",
                "\"end\": 260",
                "tokenizer.specials.end: found 260, expected an id below",
            ),
            (
                "\"train.bin\": {",
                "\"../x\": {",
                "files: found \"../x\", expected names inside",
            ),
            (
                "\"seed\": 1",
                "\"seed\": 1, \"seed\": 2",
                "duplicate field `seed`",
            ),
            (
                "\"train\": {",
                "\"train\": {\"documents\":0,\"tokens\":0,\"bytes\":0}, \"train\": {",
                "the key \"train\" twice",
            ),
        ];
        for (from, to, expected) in cases {
            assert!(text.contains(from), "{from}: {text}");
            fs::write(&file, text.replacen(from, to, 1)).unwrap();
            let error = Manifest::load(path.parent().unwrap()).unwrap_err();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

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

    #[test]
    fn a_directory_of_before_says_nothing_of_spans_and_parsed_its_specials() {
        let path = super::super::shard::tests::split_of_lines(&["ab"]);
        let file = path.with_file_name("manifest.json");
        let written = Manifest::load(path.parent().unwrap()).unwrap();
        assert_eq!(
            (written.has_spans, written.specials),
            (true, SpelledSpecials::Text)
        );
        let mut value: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let object = value.as_object_mut().unwrap();
        assert!(object.remove("has_spans").is_some() && object.remove("specials").is_some());
        fs::write(&file, value.to_string()).unwrap();
        let older = Manifest::load(path.parent().unwrap()).unwrap();
        assert_eq!(
            (older.has_spans, older.specials),
            (false, SpelledSpecials::Parse)
        );
    }
}

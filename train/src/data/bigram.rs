//! Counts ordered token pairs of a split; encodes and loads them as `bigrams.safetensors`, in compressed sparse rows.
//!
//! The file says which tokenizer and which split it was made from, and holds a hash of its own values.

use crate::data::shard::Split;
use crate::error::{Error, Problem};
use crate::file::read_regular;
use crate::hash::hexadecimal;
use crate::keys::require_distinct_tensors;
use brillm::counts::PairCounts;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// The version of the file.
const FORMAT: u32 = 1;
/// The key of the header under which the origin is kept.
const ORIGIN: &str = "nerve.bigrams";

/// Counts of token pairs, with the tokenizer and the split they were made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Bigrams {
    /// The counts.
    pub counts: PairCounts,
    /// Hash of the tokenizer whose ids are counted.
    pub tokenizer_sha256: String,
    /// Hash of the split that was counted.
    pub split_sha256: String,
    /// The start symbol that was put before each document; `None` in files older than this choice.
    pub start: Option<u32>,
}

impl Bigrams {
    /// Counts a split. Each document begins with the start symbol, if any; pairs across two documents are not counted.
    pub fn count(split: &Split, start: Option<u32>) -> Self {
        let documents = split.documents().iter();
        let documents = documents.map(|document| split.tokens(document.range()));
        Self {
            counts: PairCounts::behind(start, split.vocabulary_size(), documents),
            tokenizer_sha256: split.tokenizer_sha256().to_string(),
            split_sha256: split.sha256().to_string(),
            start,
        }
    }

    /// The content of the file; equal counts give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let PairCounts {
            first,
            targets,
            counts,
            tokens,
        } = &self.counts;
        let values = [
            to_bytes(first, u64::to_le_bytes),
            to_bytes(targets, u32::to_le_bytes),
            to_bytes(counts, u32::to_le_bytes),
            to_bytes(tokens, u64::to_le_bytes),
        ];
        let lengths = [first.len(), targets.len(), counts.len(), tokens.len()];
        let lists = NAMES.into_iter().zip(&values).zip(lengths);
        let views = lists.map(|(((name, dtype), values), length)| {
            let view = TensorView::new(dtype, vec![length], values);
            (name, view.expect("as many bytes as the values take"))
        });
        let origin = json!({
            "format": FORMAT,
            "split_sha256": self.split_sha256,
            "start": self.start,
            "tokenizer_sha256": self.tokenizer_sha256,
            "values_sha256": hash(&values),
        });
        // One key: a map of several would be written in another order each time.
        let metadata = HashMap::from([(ORIGIN.to_string(), origin.to_string())]);
        safetensors::serialize(views, Some(metadata)).expect("four plain tensors")
    }

    /// Reads the file and checks all of it.
    ///
    /// # Errors
    /// `Invalid`, naming what is wrong; `Resource` if it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = read_regular(path, "the counts of `nerve data bigrams`", u64::MAX)?;
        Self::parse(path, &bytes).map_err(|problem| {
            Error::Invalid(problem.advise("make it again with `nerve data bigrams`"))
        })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Problem> {
        let wrong = |place: &str, found: String, expected: &str| {
            Problem::new(path, place.to_string(), found, expected)
        };
        let parsed = SafeTensors::read_metadata(bytes)
            .and_then(|(_, metadata)| Ok((metadata, SafeTensors::deserialize(bytes)?)));
        let (metadata, file) =
            parsed.map_err(|error| wrong("", error.to_string(), "a safetensors file"))?;
        require_distinct_tensors(path, bytes)?;
        let origin = metadata
            .metadata()
            .as_ref()
            .and_then(|facts| facts.get(ORIGIN));
        let origin: Value = origin
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let fact = |name: &str| origin[name].as_str().unwrap_or_default().to_string();
        if origin["format"] != FORMAT {
            return Err(wrong("format", origin["format"].to_string(), "1"));
        }
        let mut lists = Vec::new();
        for (name, dtype) in NAMES {
            let view = file
                .tensor(name)
                .map_err(|error| wrong(name, error.to_string(), "a list of numbers"))?;
            if view.dtype() != dtype || view.shape().len() != 1 {
                let found = format!("{:?} {:?}", view.dtype(), view.shape());
                return Err(wrong(name, found, "a list of whole numbers"));
            }
            lists.push(view.data());
        }
        if hash(&lists) != fact("values_sha256") {
            let found = "values of another hash".to_string();
            return Err(wrong("", found, "those that were written"));
        }
        let counts = PairCounts {
            first: from_bytes(lists[0], u64::from_le_bytes),
            targets: from_bytes(lists[1], u32::from_le_bytes),
            counts: from_bytes(lists[2], u32::from_le_bytes),
            tokens: from_bytes(lists[3], u64::from_le_bytes),
        };
        counts
            .check()
            .map_err(|found| wrong("", found, "rows of rising targets"))?;
        Ok(Self {
            counts,
            tokenizer_sha256: fact("tokenizer_sha256"),
            split_sha256: fact("split_sha256"),
            start: origin["start"].as_u64().and_then(|id| id.try_into().ok()),
        })
    }

    /// Hash of the counts, the tokenizer, the split and the start symbol.
    pub fn sha256(&self) -> String {
        let mut sha256 = Sha256::new();
        sha256.update(&self.tokenizer_sha256);
        sha256.update(&self.split_sha256);
        // Files of before keep the hash that runs know.
        if let Some(start) = self.start {
            sha256.update(start.to_le_bytes());
        }
        let counts = &self.counts;
        let long = counts.first.iter().chain(&counts.tokens);
        long.for_each(|value| sha256.update(value.to_le_bytes()));
        let short = counts.targets.iter().chain(&counts.counts);
        short.for_each(|value| sha256.update(value.to_le_bytes()));
        hexadecimal(&sha256.finalize())
    }

    /// The share of a split's pairs that were counted at least `min_count` times.
    pub fn coverage(&self, split: &Split, min_count: u32) -> f64 {
        let (mut seen, mut all) = (0u64, 0u64);
        for document in split.documents() {
            let tokens = split.tokens(document.range());
            let tokens: Vec<u32> = self.start.into_iter().chain(tokens).collect();
            for pair in tokens.windows(2) {
                all += 1;
                seen += u64::from(self.counts.count(pair[0], pair[1]) >= min_count);
            }
        }
        seen as f64 / all.max(1) as f64
    }
}

const NAMES: [(&str, Dtype); 4] = [
    ("first", Dtype::U64),
    ("targets", Dtype::U32),
    ("counts", Dtype::U32),
    ("tokens", Dtype::U64),
];

fn to_bytes<T: Copy, const N: usize>(values: &[T], of: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| of(*value)).collect()
}

fn from_bytes<T, const N: usize>(bytes: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| of(*bytes)).collect()
}

fn hash(values: &[impl AsRef<[u8]>]) -> String {
    let mut hash = Sha256::new();
    values.iter().for_each(|values| hash.update(values));
    hexadecimal(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::split_of_lines;
    use super::*;
    use std::fs;

    #[test]
    fn what_is_written_is_read_and_no_changed_byte_is() {
        let split = Split::open(split_of_lines(&["abracadabra", "cab", "dab"])).unwrap();
        let bigrams = Bigrams::count(&split, Some(256));
        assert_eq!(bigrams.counts.count(256, u32::from(b'c')), 1);
        assert!(bigrams.counts.pairs() > 5);
        assert_eq!(bigrams.coverage(&split, 1), 1.0);
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("bigrams.safetensors");
        fs::write(&path, bigrams.to_bytes()).unwrap();
        assert_eq!(Bigrams::load(&path).unwrap(), bigrams);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes, bigrams.to_bytes());
        for at in (0..bytes.len()).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 16;
            let read = Bigrams::parse(&path, &damaged);
            // A changed hash of the origin reads as such, and is refused by whoever compares it.
            assert!(read.is_err() || read.unwrap() != bigrams, "byte {at}");
        }
        for length in 0..bytes.len() {
            assert!(
                Bigrams::parse(&path, &bytes[..length]).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn pairs_are_counted_within_documents_and_behind_the_symbol_only() {
        let lines = ["abab", "b", "bba"];
        let split = Split::open(split_of_lines(&lines)).unwrap();
        let end = split.specials().end.unwrap();
        for start in [None, split.specials().begin, Some(end)] {
            let bigrams = Bigrams::count(&split, start);
            let mut by_hand: std::collections::BTreeMap<(u32, u32), u32> = Default::default();
            for line in lines {
                let text = line.bytes().map(u32::from).chain([end]);
                let all: Vec<u32> = start.into_iter().chain(text).collect();
                all.windows(2)
                    .for_each(|pair| *by_hand.entry((pair[0], pair[1])).or_default() += 1);
            }
            assert_eq!(bigrams.counts.pairs(), by_hand.len());
            for (&(from, to), &count) in &by_hand {
                assert_eq!(bigrams.counts.count(from, to), count, "{from} {to}");
            }
            // The symbol in front is context, and not seen.
            assert_eq!(bigrams.counts.tokens[end as usize], 3);
            assert_eq!(bigrams.counts.tokens[256], 0);
        }
        let hashes =
            [None, Some(256), Some(257)].map(|start| Bigrams::count(&split, start).sha256());
        assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    }

    #[test]
    fn coverage_is_the_share_of_pairs_that_were_seen_often_enough() {
        let counted = Split::open(split_of_lines(&["abab", "ab"])).unwrap();
        // a b, b c, c </s>; a b, b a, a b, b </s>: of seven, a b was seen three times, b a and b </s> once and twice.
        let other = Split::open(split_of_lines(&["abc", "abab"])).unwrap();
        let bigrams = Bigrams::count(&counted, None);
        let of = |min_count| bigrams.coverage(&other, min_count);
        let expected = [5.0, 4.0, 3.0, 0.0].map(|seen: f64| seen / 7.0);
        assert_eq!([1, 2, 3, 4].map(of), expected);
        // Behind the symbol each document has one pair more, and <s> a was seen twice.
        let bigrams = Bigrams::count(&counted, Some(256));
        assert_eq!(bigrams.coverage(&other, 1), 7.0 / 9.0);
        assert_eq!(bigrams.coverage(&other, 3), 3.0 / 9.0);
    }
}

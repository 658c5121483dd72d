//! Statistics of a data directory, counted from its tokens: sizes, labels, duplicates and leaks into validation.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::manifest::{Manifest, SplitCounts};
use super::shard::Split;
use super::unknown;
use crate::error::Error;

/// Statistics of a directory, as `nerve data stats --json` prints them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Statistics {
    /// The version of this format: 1.
    pub schema: u32,
    /// One more than the highest id of the tokenizer.
    pub vocabulary_size: usize,
    /// The hash of the tokenizer.
    pub tokenizer_sha256: String,
    /// The statistics of each split.
    pub splits: BTreeMap<String, SplitStatistics>,
}

/// Statistics of a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitStatistics {
    /// What the manifest has too, counted again.
    #[serde(flatten)]
    pub counts: SplitCounts,
    /// Tokens per byte.
    pub tokens_per_byte: f64,
    /// The share of `<unk>` among the tokens.
    pub unknown_share: f64,
    /// How many ids of the vocabulary occur.
    pub distinct_ids: usize,
    /// Documents per difficulty; `none` for those without.
    pub difficulties: BTreeMap<String, u64>,
    /// Documents per task; `none` for those without.
    pub tasks: BTreeMap<String, u64>,
}

/// Computes the statistics of a data directory.
///
/// # Errors
/// As [`Split::open`].
pub fn statistics(directory: &Path) -> Result<Statistics, Error> {
    let manifest = Manifest::load(directory)?;
    let mut in_train = HashSet::new();
    let mut splits = BTreeMap::new();
    // `train` sorts before `valid`, so its documents are known when those of the others are looked up.
    for name in manifest.splits.keys() {
        let split = Split::open(directory.join(format!("{name}.bin")))?;
        let (statistics, fingerprints) = split_statistics(&split, &in_train);
        splits.insert(name.clone(), statistics);
        if name == "train" {
            in_train = fingerprints;
        }
    }
    Ok(Statistics {
        schema: 1,
        vocabulary_size: manifest.tokenizer.vocabulary_size,
        tokenizer_sha256: manifest.tokenizer.sha256,
        splits,
    })
}

/// The statistics of a split, and the fingerprints of its documents.
fn split_statistics(
    split: &Split,
    in_train: &HashSet<[u8; 16]>,
) -> (SplitStatistics, HashSet<[u8; 16]>) {
    let documents = split.documents();
    let bytes: u64 = documents.iter().map(|document| document.bytes).sum();
    let (mut difficulties, mut tasks) = (BTreeMap::new(), BTreeMap::new());
    let none = || "none".to_string();
    let mut is_used = vec![false; split.vocabulary_size()];
    let mut distinct = HashSet::new();
    let (mut unknown, mut also_in_train) = (0, 0);
    for document in documents {
        let difficulty = document.difficulty.as_ref();
        let difficulty = difficulty.map_or_else(none, u32::to_string);
        *difficulties.entry(difficulty).or_default() += 1;
        let task = document.task.clone().unwrap_or_else(none);
        *tasks.entry(task).or_default() += 1;
        let mut hash = Sha256::new();
        for id in split.tokens(document.range()) {
            is_used[id as usize] = true;
            unknown += u64::from(Some(id) == split.specials().unknown);
            hash.update(id.to_le_bytes());
        }
        let digest = hash.finalize();
        let fingerprint = std::array::from_fn(|i| digest[i]);
        also_in_train += u64::from(in_train.contains(&fingerprint));
        distinct.insert(fingerprint);
    }
    let statistics = SplitStatistics {
        counts: SplitCounts {
            documents: documents.len() as u64,
            tokens: split.len() as u64,
            bytes,
            unknown,
            duplicates: (documents.len() - distinct.len()) as u64,
            also_in_train,
        },
        tokens_per_byte: split.len() as f64 / bytes as f64,
        unknown_share: unknown::share(unknown, split.len() as u64),
        distinct_ids: is_used.into_iter().filter(|is_used| *is_used).count(),
        difficulties,
        tasks,
    };
    (statistics, distinct)
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::{prepared, split_of_lines};
    use super::super::tokenizer::{Kind, Tokenizer};
    use super::*;

    #[test]
    fn repeated_documents_and_used_ids_are_counted() {
        let path = split_of_lines(&["ab", "cd", "ab", "abcd"]);
        let statistics = statistics(path.parent().unwrap()).unwrap();
        let train = &statistics.splits["train"];
        assert_eq!(
            (
                train.counts.documents,
                train.counts.tokens,
                train.counts.bytes
            ),
            (4, 14, 10)
        );
        assert_eq!((train.counts.duplicates, train.distinct_ids), (1, 5));
        assert_eq!(train.tasks["none"], 4);
    }

    #[test]
    fn a_held_out_split_is_compared_with_training_and_not_with_itself() {
        let known = std::iter::once(Ok("abcdef".to_string()));
        let tokenizer = Tokenizer::train(Kind::Character, known, None).unwrap();
        // The first, third and every other line is held out; the last three of five characters of "abxyz" are unknown.
        let lines = [
            r#"{"text": "ab", "task": "copy", "difficulty": 2}"#,
            r#"{"text": "ab", "task": "sum"}"#,
            r#"{"text": "abxyz", "task": "copy"}"#,
            r#"{"text": "cd", "difficulty": 1}"#,
            r#"{"text": "ab", "difficulty": 2}"#,
            r#"{"text": "cd", "task": "sum", "difficulty": 1}"#,
        ];
        let directory = prepared(&tokenizer, "t.jsonl", &lines.join("\n"), 0.5);
        let all = statistics(&directory).unwrap();
        let [train, valid] = ["train", "valid"].map(|name| &all.splits[name]);
        assert_eq!(
            (
                train.counts.documents,
                train.counts.tokens,
                train.counts.bytes
            ),
            (3, 9, 6)
        );
        assert_eq!(
            (
                valid.counts.documents,
                valid.counts.tokens,
                valid.counts.bytes
            ),
            (3, 12, 9)
        );
        assert_eq!(
            (train.counts.duplicates, train.counts.also_in_train),
            (1, 0)
        );
        assert_eq!(
            (valid.counts.duplicates, valid.counts.also_in_train),
            (1, 2)
        );
        assert_eq!((train.counts.unknown, valid.counts.unknown), (0, 3));
        assert_eq!((train.unknown_share, valid.unknown_share), (0.0, 0.25));
        // a b c d and the end; a b, the unknown and the end.
        assert_eq!((train.distinct_ids, valid.distinct_ids), (5, 4));
        assert_eq!(
            (train.tokens_per_byte, valid.tokens_per_byte),
            (1.5, 12.0 / 9.0)
        );
        let counts = |of: &BTreeMap<String, u64>| -> Vec<(String, u64)> {
            of.iter()
                .map(|(name, count)| (name.clone(), *count))
                .collect()
        };
        let named = |pairs: &[(&str, u64)]| -> Vec<(String, u64)> {
            pairs
                .iter()
                .map(|(name, count)| (name.to_string(), *count))
                .collect()
        };
        assert_eq!(counts(&train.tasks), named(&[("none", 1), ("sum", 2)]));
        assert_eq!(counts(&valid.tasks), named(&[("copy", 2), ("none", 1)]));
        assert_eq!(counts(&train.difficulties), named(&[("1", 2), ("none", 1)]));
        assert_eq!(counts(&valid.difficulties), named(&[("2", 2), ("none", 1)]));
        // What the manifest says is the same.
        let manifest = Manifest::load(&directory).unwrap();
        for (name, split) in &all.splits {
            let counts = manifest.splits[name];
            assert_eq!(counts.duplicates, split.counts.duplicates, "{name}");
            assert_eq!(counts.also_in_train, split.counts.also_in_train, "{name}");
            assert_eq!(counts.unknown, split.counts.unknown, "{name}");
        }
    }
}

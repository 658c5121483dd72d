//! Difficulty of documents (0 easy, 1 medium, 2 hard): read from labels or a file of losses; grades losses into thirds.

use super::shard::Split;
use crate::error::{Error, Problem};
use crate::file::read_regular;
use crate::text::json_complaint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The highest difficulty.
pub const HARD: u8 = 2;
/// The longest file of measurements that is read: ten million documents and more.
const BYTES_MAX: u64 = 1 << 30;

/// Where the difficulty of a sequence comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifficultySource {
    /// Nowhere: every sequence is medium.
    None,
    /// From the prepared data, whose documents carry it.
    Label,
    /// From a model's loss on every document, as `nerve eval --difficulty` wrote it.
    File {
        /// That file.
        path: PathBuf,
    },
    /// From the rank of the token ids within the batch: the reference's rule, which knows nothing of the text.
    TokenRank,
}

impl DifficultySource {
    /// The difficulty of every document of a split; `None` if it does not depend on the document.
    ///
    /// # Errors
    /// `Invalid` if the split has no label at all, or the file does not contain the split.
    pub fn of_documents(&self, split: &Split) -> Result<Option<Vec<Option<u8>>>, Error> {
        match self {
            Self::None | Self::TokenRank => Ok(None),
            Self::Label => labels(split).map(Some),
            Self::File { path } => Measurement::load(path)?.of(split, path).map(Some),
        }
    }
}

fn labels(split: &Split) -> Result<Vec<Option<u8>>, Error> {
    let label = |difficulty: u32| difficulty.min(u32::from(HARD)) as u8;
    let documents = split.documents().iter();
    let labels: Vec<Option<u8>> = documents.map(|entry| entry.difficulty.map(label)).collect();
    if labels.iter().all(Option::is_none) {
        let found = "documents without a difficulty";
        let expected = "a label, which data.difficulty asks for";
        let problem = Problem::new(split.path(), "", found, expected);
        let advice = "prepare data that has one (`nerve data synth routing`), or choose another data.difficulty";
        return Err(Error::Invalid(problem.advise(advice)));
    }
    Ok(labels)
}

/// The loss of a model on every document of some splits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The format of this file: 1.
    pub schema: u32,
    /// The run whose model measured.
    pub run: String,
    /// Its optimizer steps.
    pub step: u64,
    /// What was measured, by the hash of each split.
    pub splits: BTreeMap<String, MeasuredSplit>,
}

/// The measured losses of one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredSplit {
    /// Where it was.
    pub path: String,
    /// In the order of the split.
    pub documents: Vec<MeasuredDocument>,
}

/// The measured loss of one document.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredDocument {
    /// Sum of `−ln p` over its targets.
    pub nats: f64,
    /// How many targets.
    pub targets: u64,
    /// Its third by the mean of these within the split.
    pub difficulty: u8,
}

impl Measurement {
    /// The format version that is written and read.
    pub const SCHEMA: u32 = 1;

    /// Reads a file of `nerve eval --difficulty`.
    ///
    /// # Errors
    /// `Invalid` if the file is missing or has another format.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let expected = "a file of `nerve eval --difficulty`";
        let bytes = read_regular(path, expected, BYTES_MAX)?;
        let read: Result<Self, _> = serde_json::from_slice(&bytes);
        let measurement = read.map_err(|cause| {
            let place = format!("line {}, column {}", cause.line(), cause.column());
            Error::Invalid(Problem::new(path, place, json_complaint(&cause), expected))
        })?;
        if measurement.schema != Self::SCHEMA {
            let found = format!("schema {}", measurement.schema);
            let problem = Problem::new(path, "schema", found, format!("schema {}", Self::SCHEMA));
            return Err(Error::Invalid(problem.advise("measure again")));
        }
        Ok(measurement)
    }

    fn of(&self, split: &Split, path: &Path) -> Result<Vec<Option<u8>>, Error> {
        let n_documents = split.documents().len();
        let known = self.splits.get(split.sha256());
        if let Some(known) = known.filter(|known| known.documents.len() == n_documents) {
            let difficulty = |document: &MeasuredDocument| Some(document.difficulty.min(HARD));
            return Ok(known.documents.iter().map(difficulty).collect());
        }
        let measured: Vec<&str> = self.splits.values().map(|s| s.path.as_str()).collect();
        let found = format!("measurements of {}", measured.join(", "));
        let expected = format!("one of {}", split.path().display());
        let problem = Problem::new(path, "splits", found, expected);
        let advice = "measure the recipe's data again with `nerve eval RUN --difficulty FILE`";
        Err(Error::Invalid(problem.advise(advice)))
    }
}

/// Grades the documents of a split in thirds by the rank of their mean loss; equal means keep their order.
///
/// `losses`: nats and targets of each document; one without targets counts as easy.
pub fn in_thirds(losses: &[(f64, u64)]) -> Vec<MeasuredDocument> {
    let mean = |index: usize| match losses[index] {
        (_, 0) => f64::NEG_INFINITY,
        (nats, targets) => nats / targets as f64,
    };
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|&a, &b| mean(a).total_cmp(&mean(b)).then(a.cmp(&b)));
    let ungraded = |&(nats, targets): &(f64, u64)| MeasuredDocument {
        nats,
        targets,
        difficulty: 0,
    };
    let mut documents: Vec<MeasuredDocument> = losses.iter().map(ungraded).collect();
    for (rank, index) in order.into_iter().enumerate() {
        documents[index].difficulty = (3 * rank / losses.len()).min(usize::from(HARD)) as u8;
    }
    documents
}

#[cfg(test)]
mod tests {
    use super::super::shard::tests::{prepared, split_of_lines};
    use super::super::tokenizer::{Kind, Tokenizer};
    use super::*;
    use std::fs;

    #[test]
    fn thirds_follow_the_mean_loss_and_not_the_length() {
        let losses = [
            (30.0, 10),
            (2.0, 2),
            (8.0, 2),
            (9.0, 9),
            (100.0, 50),
            (0.0, 0),
        ];
        let difficulty: Vec<u8> = in_thirds(&losses).iter().map(|d| d.difficulty).collect();
        assert_eq!(difficulty, [2, 0, 2, 1, 1, 0]);
    }

    #[test]
    fn a_split_without_labels_and_a_file_about_another_split_are_refused() {
        let split = Split::open(split_of_lines(&["abc", "de"])).unwrap();
        let error = DifficultySource::Label.of_documents(&split).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(
            error.to_string().contains("documents without a difficulty"),
            "{error}"
        );

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("difficulty.json");
        let of = |hash: &str, documents: Vec<MeasuredDocument>| Measurement {
            schema: 1,
            run: "r".to_string(),
            step: 1,
            splits: [(
                hash.to_string(),
                MeasuredSplit {
                    path: "other.bin".to_string(),
                    documents,
                },
            )]
            .into(),
        };
        let documents = in_thirds(&[(1.0, 2), (9.0, 2)]);
        let source = DifficultySource::File { path: path.clone() };
        fs::write(
            &path,
            serde_json::to_string(&of("none", documents.clone())).unwrap(),
        )
        .unwrap();
        let error = source.of_documents(&split).unwrap_err().to_string();
        assert!(error.contains("measurements of other.bin"), "{error}");
        fs::write(
            &path,
            serde_json::to_string(&of(split.sha256(), documents)).unwrap(),
        )
        .unwrap();
        let known = source.of_documents(&split).unwrap();
        assert_eq!(known, Some(vec![Some(0), Some(1)]));
        fs::write(&path, "{").unwrap();
        assert_eq!(source.of_documents(&split).unwrap_err().exit_code(), 3);
    }

    #[test]
    fn labels_are_those_of_the_documents_and_none_is_above_hard() {
        let bytes = Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap();
        let record = |label: &str| format!("{{\"text\": \"ab\", \"difficulty\": {label}}}");
        let lines = ["2", "null", "0", "1", "3", "300"].map(record);
        let directory = prepared(&bytes, "t.jsonl", &lines.join("\n"), 0.0);
        let split = Split::open(directory.join("train.bin")).unwrap();
        let labels = DifficultySource::Label.of_documents(&split).unwrap();
        let expected = [Some(2), None, Some(0), Some(1), Some(2), Some(2)];
        assert_eq!(labels, Some(expected.to_vec()));
        for source in [DifficultySource::None, DifficultySource::TokenRank] {
            assert_eq!(source.of_documents(&split).unwrap(), None);
        }
    }

    #[test]
    fn thirds_are_as_even_as_they_can_be_and_rise_with_the_mean_loss() {
        for n in 1..40u64 {
            // Means in an order that is none: those of i * 7 mod 41, over as many targets as it takes.
            let mean = |i: u64| ((i * 7) % 41) as f64 + 1.0;
            let losses: Vec<(f64, u64)> = (0..n)
                .map(|i| (mean(i) * (i % 5 + 1) as f64, i % 5 + 1))
                .collect();
            let documents = in_thirds(&losses);
            let count = |grade| documents.iter().filter(|d| d.difficulty == grade).count() as u64;
            // The first of n is at rank 0, so the easy third has what is left over, then the medium one.
            assert_eq!(
                [0, 1, 2].map(count),
                [n.div_ceil(3), (n + 1) / 3, n / 3],
                "{n}"
            );
            for (i, one) in (0..).zip(&documents) {
                assert_eq!((one.nats, one.targets), losses[i]);
                for other in documents
                    .iter()
                    .filter(|other| one.difficulty < other.difficulty)
                {
                    assert!(one.nats / one.targets as f64 <= other.nats / other.targets as f64);
                }
            }
        }
    }

    #[test]
    fn a_measured_grade_is_at_most_hard_and_belongs_to_a_split_of_as_many_documents() {
        let split = Split::open(split_of_lines(&["abc", "de"])).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("difficulty.json");
        let of = |grades: &[u8]| {
            let document = |&difficulty: &u8| MeasuredDocument {
                nats: 1.0,
                targets: 2,
                difficulty,
            };
            let measured = MeasuredSplit {
                path: "a.bin".to_string(),
                documents: grades.iter().map(document).collect(),
            };
            let measurement = Measurement {
                schema: 1,
                run: "r".to_string(),
                step: 1,
                splits: [(split.sha256().to_string(), measured)].into(),
            };
            fs::write(&path, serde_json::to_string(&measurement).unwrap()).unwrap();
            DifficultySource::File { path: path.clone() }.of_documents(&split)
        };
        assert_eq!(of(&[7, 1]).unwrap(), Some(vec![Some(2), Some(1)]));
        for grades in [&[0][..], &[0, 1, 2]] {
            assert_eq!(of(grades).unwrap_err().exit_code(), 3);
        }
    }
}

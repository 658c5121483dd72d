//! Documents into a data directory, in one pass and bounded memory.
//!
//! Everything is written into `DIR.tmp-PID` and renamed at the end, so a directory that bears its final name is
//! complete. The same inputs give the same bytes.

mod place;

use std::fs;
use std::mem;
use std::path::PathBuf;

use brian::random;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::document::{Document, DocumentReader, DocumentRule, ReadRules, is_jsonl};
use super::manifest::{FORMAT, Manifest, SourceFacts, SplitFacts, TokenizerFacts};
use super::tokenizer::Tokenizer;
use super::writer::{SplitWriter, Width, file_facts};
use crate::error::{Error, Problem};
use place::Place;

/// Documents are encoded together up to this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// Who goes to validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SplitRule {
    /// Each document by a draw that depends on the seed and its number only.
    Hash,
    /// The last part of each text file, cut at exactly `floor(bytes * (1 - fraction))`, as nanoGPT does.
    Tail,
    /// Every n-th document, with n the inverse of the fraction; the first is one of them.
    Every,
}

/// What to prepare, and how.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Text and JSONL files, in order.
    pub files: Vec<PathBuf>,
    /// The directory to make.
    pub output: PathBuf,
    /// A `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// How files are read.
    pub reading: ReadRules,
    /// How validation is chosen; by default `tail` for text files read whole and `hash` for everything else.
    pub split: Option<SplitRule>,
    /// The share of validation, in `[0, 1)`; with 0 there is no validation split.
    pub valid_fraction: f64,
    /// The seed of `hash`.
    pub seed: u64,
    /// Whether documents end with `</s>`; by default all but text files read whole.
    pub end_of_document: Option<bool>,
    /// Whether an existing data directory is replaced.
    pub force: bool,
}

/// A preparation whose choices are made and whose inputs exist.
pub struct Plan {
    preparation: Preparation,
    split: SplitRule,
    end_of_document: bool,
    tokenizer: Tokenizer,
    sizes: Vec<u64>,
    place: Place,
}

impl Preparation {
    /// Checks everything that can be checked without reading the texts. Writes nothing.
    ///
    /// # Errors
    /// `Config` if options contradict each other or the output exists, `Invalid` if an input is missing or broken.
    pub fn plan(self) -> Result<Plan, Error> {
        let option = |place: &str, found: String, expected: &str| {
            Error::config(Problem::new("command line", place, found, expected))
        };
        if !(0.0..1.0).contains(&self.valid_fraction) {
            return Err(option(
                "--valid",
                self.valid_fraction.to_string(),
                "at least 0 and below 1",
            ));
        }
        let reads_whole =
            |file: &PathBuf| self.reading.document == DocumentRule::File && !is_jsonl(file);
        let all_whole = self.files.iter().all(reads_whole);
        let split = self.split.unwrap_or(if all_whole {
            SplitRule::Tail
        } else {
            SplitRule::Hash
        });
        if split == SplitRule::Tail && !all_whole {
            let expected = "hash or every, for tail needs text files and --document file";
            return Err(option("--split", "tail".into(), expected));
        }
        let place = Place::new(&self.output, self.force)?;
        let tokenizer = Tokenizer::load(&self.tokenizer)?;
        let mut sizes = Vec::new();
        for file in &self.files {
            DocumentReader::open(file, &self.reading, None)?;
            sizes.push(
                fs::metadata(file)
                    .map_err(|e| Error::resource(file, "read", e))?
                    .len(),
            );
        }
        let has_end = tokenizer.specials().end.is_some();
        if self.end_of_document == Some(true) && !has_end {
            let expected = "false: the tokenizer has no </s>";
            return Err(option("--end-of-document", "true".into(), expected));
        }
        Ok(Plan {
            split,
            end_of_document: self.end_of_document.unwrap_or(!all_whole && has_end),
            tokenizer,
            sizes,
            place,
            preparation: self,
        })
    }
}

impl Plan {
    /// The plan in words, one fact per line.
    pub fn describe(&self) -> String {
        let files = self.preparation.files.iter().zip(&self.sizes);
        let mut lines: Vec<String> = files
            .map(|(file, size)| format!("read {} ({size} bytes)", file.display()))
            .collect();
        let rule = serde_json::to_value(self.split).expect("a unit variant is a text");
        lines.push(format!(
            "tokenizer {} ({} ids), validation {} by {}, end of document {}",
            self.preparation.tokenizer.display(),
            self.tokenizer.vocabulary_size(),
            self.preparation.valid_fraction,
            rule.as_str().unwrap_or_default(),
            if self.end_of_document { "</s>" } else { "none" },
        ));
        lines.push(format!("write {}", self.preparation.output.display()));
        lines.join("\n")
    }

    /// Writes the directory.
    ///
    /// # Errors
    /// `Invalid` if an input is broken or a split would be empty, `Resource` if the disk refuses.
    pub fn run(self) -> Result<Manifest, Error> {
        let directory = self.place.start()?;
        let width = Width::of(self.tokenizer.vocabulary_size());
        let mut writers = vec![SplitWriter::create(directory, "train", width)?];
        if self.preparation.valid_fraction > 0.0 {
            writers.push(SplitWriter::create(directory, "valid", width)?);
        }
        let bar = progress_bar(self.sizes.iter().sum());
        let mut n_documents = 0;
        let mut sources = Vec::new();
        for source in 0..self.preparation.files.len() {
            sources.push(self.read(source, &mut n_documents, &mut writers, &bar)?);
        }
        bar.finish_and_clear();
        self.require_documents(&writers, n_documents)?;

        let mut manifest = self.manifest(sources);
        for (name, writer) in ["train", "valid"].into_iter().zip(writers) {
            manifest.splits.insert(name.to_string(), writer.counts());
            manifest.files.extend(writer.finish()?);
        }
        let copy = directory.join("tokenizer.json");
        self.tokenizer.save(&copy)?;
        manifest
            .files
            .insert("tokenizer.json".to_string(), file_facts(&copy)?);
        self.place.finish(&manifest.to_json())?;
        Ok(manifest)
    }

    fn read(
        &self,
        source: usize,
        n_documents: &mut u64,
        writers: &mut [SplitWriter],
        bar: &ProgressBar,
    ) -> Result<SourceFacts, Error> {
        let path = &self.preparation.files[source];
        let mut reader =
            DocumentReader::open(path, &self.preparation.reading, self.cut_at(source))?;
        let done: u64 = self.sizes[..source].iter().sum();
        let (first, mut tokens) = (*n_documents, 0);
        let mut batch: Vec<(Document, usize)> = Vec::new();
        let mut batch_bytes = 0;
        while let Some(document) = reader.next() {
            let document = document?;
            let split = self
                .split_of(&document, *n_documents)
                .min(writers.len() - 1);
            *n_documents += u64::from(document.ends);
            batch_bytes += document.text.len();
            batch.push((document, split));
            if batch_bytes >= BATCH_BYTES {
                tokens += self.write(mem::take(&mut batch), source, writers)?;
                batch_bytes = 0;
                bar.set_position(done + reader.bytes_read());
            }
        }
        tokens += self.write(batch, source, writers)?;
        if *n_documents == first {
            let problem = Problem::new(path, "", "no document in it", "at least one");
            return Err(Error::Invalid(problem.advise("leave the file out")));
        }
        Ok(SourceFacts {
            path: path.display().to_string(),
            sha256: reader.sha256(),
            bytes: reader.bytes_read(),
            documents: *n_documents - first,
            tokens,
            counts: reader.counts(),
        })
    }

    /// Encodes and writes documents; returns their tokens.
    fn write(
        &self,
        batch: Vec<(Document, usize)>,
        source: usize,
        writers: &mut [SplitWriter],
    ) -> Result<u64, Error> {
        let texts: Vec<&str> = batch
            .iter()
            .map(|(document, _)| document.text.as_str())
            .collect();
        let all_ids = self.tokenizer.encode_all(&texts);
        let mut tokens = 0;
        for ((document, split), mut ids) in batch.iter().zip(all_ids) {
            if document.ends && self.end_of_document {
                ids.extend(self.tokenizer.specials().end);
            }
            tokens += ids.len() as u64;
            writers[*split].push(document, &ids, source)?;
        }
        Ok(tokens)
    }

    /// 0 for training, 1 for validation.
    fn split_of(&self, document: &Document, number: u64) -> usize {
        let fraction = self.preparation.valid_fraction;
        let is_valid = match self.split {
            SplitRule::Hash => {
                random::uniform(random::key(self.preparation.seed, "split", number), 0) < fraction
            }
            SplitRule::Tail => document.after_cut,
            SplitRule::Every => number.is_multiple_of((1.0 / fraction).round() as u64),
        };
        usize::from(is_valid)
    }

    fn cut_at(&self, source: usize) -> Option<u64> {
        let kept = 1.0 - self.preparation.valid_fraction;
        (self.split == SplitRule::Tail && kept < 1.0)
            .then(|| (self.sizes[source] as f64 * kept).floor() as u64)
    }

    fn require_documents(&self, writers: &[SplitWriter], n_documents: u64) -> Result<(), Error> {
        for (name, writer) in ["training", "validation"].into_iter().zip(writers) {
            if writer.counts().documents == 0 {
                let found = format!("none of {n_documents} documents for {name}");
                let problem = Problem::new(&self.preparation.files[0], "", found, "at least one");
                let advice = "cut documents smaller (--document line), change --valid or --seed, or choose --split tail";
                return Err(Error::Invalid(problem.advise(advice)));
            }
        }
        Ok(())
    }

    fn manifest(&self, sources: Vec<SourceFacts>) -> Manifest {
        Manifest {
            format: FORMAT,
            nerve_version: env!("CARGO_PKG_VERSION").to_string(),
            tokenizer: TokenizerFacts {
                sha256: self.tokenizer.sha256(),
                kind: self.tokenizer.kind(),
                vocabulary_size: self.tokenizer.vocabulary_size(),
                specials: self.tokenizer.specials(),
            },
            reading: self.preparation.reading.clone(),
            split: SplitFacts {
                rule: self.split,
                valid_fraction: self.preparation.valid_fraction,
                seed: self.preparation.seed,
            },
            end_of_document: self.end_of_document,
            sources,
            splits: Default::default(),
            files: Default::default(),
        }
    }
}

/// A bar over bytes on the standard error; it hides itself where that is no terminal.
pub fn progress_bar(bytes: u64) -> ProgressBar {
    let template = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    ProgressBar::new(bytes).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::super::document::BadUtf8;
    use super::super::shard::Split;
    use super::super::tokenizer::Kind;
    use super::*;
    use std::path::Path;

    fn preparation(directory: &Path, files: &[(&str, &str)]) -> Preparation {
        let tokenizer = directory.join("byte.json");
        Tokenizer::train(Kind::Byte, std::iter::empty(), None)
            .unwrap()
            .save(&tokenizer)
            .unwrap();
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
        Preparation {
            files: files.iter().map(|(name, _)| directory.join(name)).collect(),
            output: directory.join("out"),
            tokenizer,
            reading: ReadRules {
                document: DocumentRule::File,
                field: "text".into(),
                on_bad_utf8: BadUtf8::Error,
                max_line_bytes: 1 << 20,
            },
            split: None,
            valid_fraction: 0.1,
            seed: 1,
            end_of_document: None,
            force: false,
        }
    }

    fn text_of(directory: &Path, split: &str) -> String {
        let split = Split::open(directory.join("out").join(format!("{split}.bin"))).unwrap();
        let bytes = split
            .tokens(0..split.len())
            .into_iter()
            .filter(|id| *id < 256)
            .map(|id| id as u8);
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[test]
    fn a_text_file_is_divided_at_the_byte_where_nanogpt_divides_it() {
        let directory = tempfile::tempdir().unwrap();
        let text = "All work and no play.\n".repeat(1000) + "x";
        preparation(directory.path(), &[("t.txt", &text)])
            .plan()
            .unwrap()
            .run()
            .unwrap();
        let cut = (text.len() as f64 * 0.9) as usize;
        assert_eq!(text_of(directory.path(), "train"), text[..cut]);
        assert_eq!(text_of(directory.path(), "valid"), text[cut..]);
        let train = Split::open(directory.path().join("out/train.bin")).unwrap();
        assert_eq!(train.len(), cut, "a whole file has no token for its end");
    }

    #[test]
    fn documents_are_divided_alike_whatever_else_is_chosen() {
        let lines: String = (0..500).map(|i| format!("line number {i}\n")).collect();
        let divided = |batch: &str| {
            let directory = tempfile::tempdir().unwrap();
            let mut preparation = preparation(directory.path(), &[("a.txt", batch)]);
            preparation.reading.document = DocumentRule::Line;
            preparation.plan().unwrap().run().unwrap();
            text_of(directory.path(), "valid")
        };
        let valid = divided(&lines);
        assert_eq!(valid, divided(&lines));
        assert!(divided(&(lines.clone() + "more\nlines\n")).starts_with(&valid));
        let share = valid.matches("line").count() as f64 / 500.0;
        // Four standard deviations of a binomial with p = 0.1 and n = 500.
        assert!((share - 0.1).abs() < 0.054, "{share}");
    }

    #[test]
    fn labels_ends_and_counts_reach_the_manifest() {
        let directory = tempfile::tempdir().unwrap();
        let lines =
            "{\"text\":\"ab\",\"task\":\"copy\",\"difficulty\":2}\n{\"text\":\"cde\"}\n".repeat(10);
        let mut preparation = preparation(directory.path(), &[("t.jsonl", &lines)]);
        preparation.split = Some(SplitRule::Every);
        let manifest = preparation.plan().unwrap().run().unwrap();
        let valid = Split::open(directory.path().join("out/valid.bin")).unwrap();
        assert_eq!(valid.documents().len(), 2);
        assert_eq!(valid.tokens(0..3), [97, 98, 257]);
        assert_eq!(valid.documents()[1].difficulty, Some(2));
        assert_eq!(
            (manifest.splits["train"].bytes, manifest.sources[0].tokens),
            (46, 70)
        );
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() {
        let files = |directory: &Path| {
            let mut names: Vec<PathBuf> = fs::read_dir(directory)
                .unwrap()
                .map(|e| e.unwrap().path())
                .collect();
            names.sort();
            names
                .iter()
                .map(|path| fs::read(path).unwrap())
                .collect::<Vec<_>>()
        };
        let directory = tempfile::tempdir().unwrap();
        let base = preparation(
            directory.path(),
            &[("t.txt", "some text that is long enough")],
        );
        let other = Preparation {
            output: directory.path().join("again"),
            ..base.clone()
        };
        base.clone().plan().unwrap().run().unwrap();
        other.plan().unwrap().run().unwrap();
        assert_eq!(files(&base.output), files(&directory.path().join("again")));
        assert_eq!(files(&base.output).len(), 6);
    }

    #[test]
    fn nothing_is_overwritten_without_force_and_a_failure_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let base = preparation(
            directory.path(),
            &[("t.txt", "some text that is long enough")],
        );
        base.clone().plan().unwrap().run().unwrap();
        assert_eq!(base.clone().plan().err().unwrap().exit_code(), 2);
        let forced = Preparation {
            force: true,
            valid_fraction: 0.5,
            ..base.clone()
        };
        forced.plan().unwrap().run().unwrap();
        assert_eq!(text_of(directory.path(), "train").len(), 14);

        fs::write(&base.files[0], b"broken \xff").unwrap();
        let forced = Preparation {
            force: true,
            ..base
        };
        assert_eq!(forced.plan().unwrap().run().unwrap_err().exit_code(), 3);
        assert_eq!(text_of(directory.path(), "train").len(), 14);
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 3, "only the inputs and the first result are left");
    }

    #[test]
    fn a_split_without_documents_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut preparation = preparation(directory.path(), &[("t.txt", "one document")]);
        preparation.split = Some(SplitRule::Hash);
        let error = preparation.plan().unwrap().run().unwrap_err();
        assert!(
            error.to_string().contains("found none of 1 documents"),
            "{error}"
        );
    }
}

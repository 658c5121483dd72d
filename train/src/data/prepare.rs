//! `nerve data prepare`: reads text files and writes a data directory of training and validation tokens, in one pass.
//!
//! Everything is written beside the directory and renamed at the end, so a directory with its final name is
//! complete. Equal inputs give equal bytes. Besides a few MiB, memory holds eight bytes per document.

mod place;
mod report;
mod share;

use std::mem;
use std::path::{Path, PathBuf};

use brian::random;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::document::{Document, DocumentReader, DocumentRule, ReadRules};
use super::manifest::{FORMAT, Manifest, SourceFacts, SplitFacts, TokenizerFacts};
use super::tokenizer::{SpelledSpecials, Tokenizer};
use super::writer::{SplitWriter, Width, file_facts};
use crate::error::{Error, Problem};
use crate::signal::Stop;
use place::OutputPlace;
pub use report::sentences;
use share::Share;

/// Documents are encoded together up to this many bytes, also those of several files: the cores share them.
const BATCH_BYTES: usize = 1 << 20;

/// How documents are assigned to training or validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SplitRule {
    /// Each document by a draw that depends on the seed and its number only.
    Hash,
    /// The last part of each text file, cut at exactly `floor(bytes * (1 - fraction))`, as nanoGPT does.
    Tail,
    /// At equal distances, with 0.2 every fifth document; the first is one of them. The share is exact, rounded up.
    Every,
}

/// The inputs and options of a preparation.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Text and JSONL files, pipes, `-` for the standard input, in order.
    pub files: Vec<PathBuf>,
    /// The directory to make.
    pub output: PathBuf,
    /// A `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// How files are read.
    pub reading: ReadRules,
    /// How special tokens that are spelled out in a text are read.
    pub specials: SpelledSpecials,
    /// How validation documents are chosen; by default `tail` for text files read whole and `hash` for everything else.
    pub split: Option<SplitRule>,
    /// The share of the validation split, in `[0, 1)`; with 0 there is none.
    pub valid_fraction: f64,
    /// The seed of `hash`.
    pub seed: u64,
    /// Whether documents end with `</s>`; by default all but text files read whole.
    pub end_of_document: Option<bool>,
    /// Whether an existing data directory is replaced.
    pub force: bool,
}

/// A checked preparation: its options are resolved and its inputs exist.
pub struct Plan {
    preparation: Preparation,
    split: SplitRule,
    end_of_document: bool,
    tokenizer: Tokenizer,
    sources: Vec<Source>,
    place: OutputPlace,
    stop: Stop,
}

/// A file whose kind is known.
struct Source {
    /// On the disk; a pipe has none.
    bytes: Option<u64>,
    is_jsonl: bool,
    /// Where the text is divided into training and validation.
    cut_at: Option<u64>,
    /// Of what can be opened only once, the one opened.
    stream: Option<DocumentReader>,
}

/// Documents that were read and are to be written, and what became of those before, by source.
#[derive(Default)]
struct Batch {
    documents: Vec<Waiting>,
    bytes: usize,
    written: Vec<Written>,
}

/// A document with the number of its split and of its source.
struct Waiting {
    document: Document,
    split: usize,
    source: usize,
}

/// What became of documents.
#[derive(Clone, Copy, Default)]
struct Written {
    tokens: u64,
    without_tokens: u64,
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
            let found = self.valid_fraction.to_string();
            return Err(option("--valid", found, "at least 0 and below 1"));
        }
        let place = OutputPlace::new(&self.output, self.force);
        let place = place.map_err(|e| self.with_wrong_files(e))?;
        let tokenizer = Tokenizer::load(&self.tokenizer)?.with_spelled_specials(self.specials);
        let mut sources = Vec::new();
        for file in &self.files {
            sources.push(self.source(file, &tokenizer)?);
        }
        let all_whole = self.reading.document == DocumentRule::File
            && sources.iter().all(|source| !source.is_jsonl);
        let split = self.split.unwrap_or(match all_whole {
            true => SplitRule::Tail,
            false => SplitRule::Hash,
        });
        if split == SplitRule::Tail && !all_whole {
            let expected = "hash or every, for tail needs text files and --document file";
            return Err(option("--split", "tail".into(), expected));
        }
        if split == SplitRule::Tail && self.valid_fraction > 0.0 {
            for (source, file) in sources.iter_mut().zip(&self.files) {
                // The length of a pipe is known when it has been read.
                if source.stream.is_none() {
                    let text = DocumentReader::open(file, &self.reading, None)?;
                    source.cut_at = Some(self.cut_of(text.text_bytes()?));
                }
            }
        }
        let has_end = tokenizer.specials().end.is_some();
        if self.end_of_document == Some(true) && !has_end {
            let expected = "false: the tokenizer has no token that ends documents";
            return Err(option("--end-of-document", "true".into(), expected));
        }
        Ok(Plan {
            split,
            end_of_document: self.end_of_document.unwrap_or(!all_whole && has_end),
            tokenizer,
            sources,
            place,
            stop: Stop::new(),
            preparation: self,
        })
    }

    /// What is wrong with the output, and with the files too; a pipe is not waited for.
    fn with_wrong_files(&self, error: Error) -> Error {
        let Error::Config(mut problems) = error else {
            return error;
        };
        for file in self.files.iter().filter(|file| file.is_file()) {
            if let Err(Error::Invalid(problem)) = DocumentReader::open(file, &self.reading, None) {
                problems.push(problem);
            }
        }
        Error::Config(problems)
    }

    fn open(&self, file: &Path, tokenizer: &Tokenizer) -> Result<DocumentReader, Error> {
        let reader = DocumentReader::open(file, &self.reading, None)?;
        Ok(reader.in_pieces(tokenizer.cut()).advising_options())
    }

    fn source(&self, file: &Path, tokenizer: &Tokenizer) -> Result<Source, Error> {
        let reader = self.open(file, tokenizer)?;
        Ok(Source {
            bytes: reader.file_bytes(),
            is_jsonl: reader.is_jsonl(),
            cut_at: None,
            stream: reader.file_bytes().is_none().then_some(reader),
        })
    }

    /// The byte of a text where validation begins.
    fn cut_of(&self, text_bytes: u64) -> u64 {
        (text_bytes as f64 * (1.0 - self.valid_fraction)).floor() as u64
    }
}

impl Plan {
    /// The plan in words, one fact per line.
    pub fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (file, source) in self.preparation.files.iter().zip(&self.sources) {
            let size = source.bytes.map(|bytes| format!("{bytes} bytes"));
            let size = size.unwrap_or_else(|| "a pipe".to_string());
            let kind = if source.is_jsonl { "JSONL" } else { "text" };
            lines.push(format!("read {} ({size}, {kind})", file.display()));
        }
        let rule = json!(self.split);
        lines.push(format!(
            "tokenizer {} ({} ids), validation {} by {}, end of document {}",
            self.preparation.tokenizer.display(),
            self.tokenizer.vocabulary_size(),
            self.preparation.valid_fraction,
            rule.as_str().unwrap_or_default(),
            self.end_of_document(),
        ));
        lines.push(format!("write {}", self.preparation.output.display()));
        lines.join("\n")
    }

    /// The token that ends documents, in words.
    fn end_of_document(&self) -> String {
        let end = self
            .tokenizer
            .specials()
            .end
            .filter(|_| self.end_of_document);
        end.map_or("none".to_string(), |id| self.tokenizer.token_text(id))
    }

    /// The tokenizer that makes the ids.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Lets a signal end the process; unfinished output is then removed.
    pub fn stopped_by(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Writes the directory.
    ///
    /// # Errors
    /// `Invalid` if an input is broken or a split would be empty, `Resource` if the disk refuses.
    pub fn run(mut self) -> Result<Manifest, Error> {
        let started = self.place.start(self.stop.clone())?;
        let directory = started.directory();
        let width = Width::of(self.tokenizer.vocabulary_size());
        let unknown = self.tokenizer.specials().unknown;
        let create = |name| SplitWriter::create(directory, name, width, unknown);
        let mut writers = vec![create("train")?];
        if self.preparation.valid_fraction > 0.0 {
            writers.push(create("valid")?);
        }
        let bar = progress_bar(self.sources.iter().filter_map(|source| source.bytes).sum());
        let mut n_documents = 0;
        let mut sources = Vec::new();
        let mut batch = Batch::default();
        let by_bytes = self.split == SplitRule::Tail && self.preparation.valid_fraction != 0.0;
        for source in 0..self.preparation.files.len() {
            // A pipe is read to its end first if its text is to be divided by its length.
            if let Some(stream) = self.sources[source].stream.take_if(|_| by_bytes) {
                let (stream, bytes) = stream.spooled(directory)?;
                self.sources[source].cut_at = Some(self.preparation.cut_of(bytes));
                self.sources[source].stream = Some(stream);
            }
            batch.written.push(Written::default());
            sources.push(self.read(source, &mut n_documents, &mut batch, &mut writers, &bar)?);
        }
        self.write(&mut batch, &mut writers)?;
        bar.finish_and_clear();
        for (source, written) in sources.iter_mut().zip(&batch.written) {
            source.tokens = written.tokens;
            source.counts.without_tokens = written.without_tokens;
            source.documents -= written.without_tokens;
            require_some(source)?;
        }
        self.require_documents(&writers, n_documents)?;
        let (train, others) = writers.split_at_mut(1);
        train[0].count_duplicates(None);
        for writer in others {
            writer.count_duplicates(Some(&train[0]));
        }

        let mut manifest = self.manifest(sources);
        for (name, writer) in ["train", "valid"].into_iter().zip(writers) {
            manifest.splits.insert(name.to_string(), writer.counts());
            manifest.files.extend(writer.finish()?);
        }
        let copy = directory.join("tokenizer.json");
        self.tokenizer.save(&copy)?;
        let name = "tokenizer.json".to_string();
        manifest.files.insert(name, file_facts(&copy)?);
        started.finish(&manifest.to_json())?;
        Ok(manifest)
    }

    fn read(
        &mut self,
        source: usize,
        n_documents: &mut u64,
        batch: &mut Batch,
        writers: &mut [SplitWriter],
        bar: &ProgressBar,
    ) -> Result<SourceFacts, Error> {
        let path = &self.preparation.files[source];
        let reader = match self.sources[source].stream.take() {
            Some(reader) => reader,
            None => self.preparation.open(path, &self.tokenizer)?,
        };
        let mut reader = reader.cut_at(self.sources[source].cut_at);
        let before = self.sources[..source].iter();
        let done: u64 = before.filter_map(|source| source.bytes).sum();
        let (first, mut specials_in_text) = (*n_documents, 0);
        while let Some(document) = reader.next() {
            let document = document?;
            let split = self.split_of(&document, *n_documents);
            *n_documents += u64::from(document.ends);
            batch.bytes += document.text.len();
            specials_in_text += self.tokenizer.count_spelled(&document.text);
            batch.documents.push(Waiting {
                document,
                split: split.min(writers.len() - 1),
                source,
            });
            if batch.bytes >= BATCH_BYTES {
                self.write(batch, writers)?;
                bar.set_position(done + reader.bytes_read());
            }
        }
        let facts = SourceFacts {
            path: path.display().to_string(),
            sha256: reader.sha256(),
            bytes: reader.bytes_read(),
            documents: *n_documents - first,
            // Known when the last of them has been written.
            tokens: 0,
            specials_in_text,
            notes: reader.notes().to_vec(),
            counts: reader.counts(),
        };
        require_some(&facts)?;
        Ok(facts)
    }

    /// Encodes and writes documents. One without a token is left out: only tokenizers of others that keep no white space or
    /// drop characters make such, and they encode documents whole.
    fn write(&self, batch: &mut Batch, writers: &mut [SplitWriter]) -> Result<(), Error> {
        let documents = mem::take(&mut batch.documents);
        batch.bytes = 0;
        let texts = documents
            .iter()
            .map(|waiting| waiting.document.text.as_str());
        let texts: Vec<&str> = texts.collect();
        let all = self.tokenizer.encode_spans(&texts);
        for (waiting, mut encoded) in documents.iter().zip(all) {
            let Waiting {
                document,
                split,
                source,
            } = waiting;
            let written = &mut batch.written[*source];
            if encoded.ids.is_empty() && document.begins && document.ends {
                written.without_tokens += 1;
                continue;
            }
            if document.ends && self.end_of_document {
                encoded.ids.extend(self.tokenizer.specials().end);
            }
            written.tokens += encoded.ids.len() as u64;
            writers[*split].push(document, &encoded, *source)?;
        }
        Ok(())
    }

    /// 0 for training, 1 for validation.
    fn split_of(&self, document: &Document, number: u64) -> usize {
        let fraction = self.preparation.valid_fraction;
        let is_valid = match self.split {
            SplitRule::Hash => {
                random::uniform(random::key(self.preparation.seed, "split", number), 0) < fraction
            }
            SplitRule::Tail => document.after_cut,
            SplitRule::Every => Share::new(fraction).takes(number),
        };
        usize::from(is_valid)
    }

    fn require_documents(&self, writers: &[SplitWriter], n_documents: u64) -> Result<(), Error> {
        for (name, writer) in ["training", "validation"].into_iter().zip(writers) {
            if writer.counts().documents == 0 {
                let found = format!("none of {n_documents} documents for {name}");
                let problem = Problem::new(&self.preparation.files[0], "", found, "at least one");
                let has_text = self.sources.iter().any(|source| !source.is_jsonl);
                let advice = match (self.split, has_text) {
                    (SplitRule::Tail, _) => "change --valid",
                    (_, true) => {
                        "cut documents smaller (--document line), change --valid or --seed, or choose --split tail"
                    }
                    (SplitRule::Hash, false) => "give more documents, or change --valid or --seed",
                    (SplitRule::Every, false) => "give more documents, or change --valid",
                };
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
            specials: self.tokenizer.spelled_specials(),
            has_spans: true,
            sources,
            splits: Default::default(),
            files: Default::default(),
        }
    }
}

/// Whether a source has a document.
fn require_some(source: &SourceFacts) -> Result<(), Error> {
    if source.documents > 0 {
        return Ok(());
    }
    // What was left out says why there is none.
    let mut found = vec!["no document in it".to_string()];
    found.extend(source.counts.sentences());
    let problem = Problem::new(&source.path, "", found.join(", "), "at least one");
    Err(Error::Invalid(problem.advise("leave the file out")))
}

/// A progress bar over bytes on stderr; hidden if stderr is not a terminal.
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
    use std::fs;

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
                ..ReadRules::default()
            },
            specials: SpelledSpecials::Text,
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
    fn documents_of_many_files_are_written_in_their_order_and_counted_by_file() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..30).map(|file| format!("{file:02}.txt")).collect();
        let text = |file: usize| format!("file {file}\n").repeat(1 + file % 3);
        let texts: Vec<String> = (0..30).map(text).collect();
        let files = names.iter().map(String::as_str);
        let files: Vec<(&str, &str)> = files.zip(texts.iter().map(String::as_str)).collect();
        let mut preparation = preparation(directory.path(), &files);
        preparation.reading.document = DocumentRule::Line;
        preparation.split = Some(SplitRule::Every);
        preparation.valid_fraction = 0.0;
        let manifest = preparation.plan().unwrap().run().unwrap();
        let lines = texts.concat().replace('\n', "");
        assert_eq!(text_of(directory.path(), "train"), lines);
        for (file, source) in manifest.sources.iter().enumerate() {
            let n = 1 + file as u64 % 3;
            // A line ends with a symbol instead of its break.
            assert_eq!(
                (source.documents, source.tokens),
                (n, texts[file].len() as u64)
            );
            assert!(source.path.ends_with(&names[file]));
        }
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
    fn everything_that_was_left_out_or_is_odd_is_said_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut preparation = preparation(directory.path(), &[("t.txt", "")]);
        let text = b"</s> one\ntwo\ntwo\n\nb\xc3\nthree\nthree\n";
        fs::write(&preparation.files[0], text).unwrap();
        let known = std::iter::once(Ok("ontwsh </>".to_string()));
        let characters = Tokenizer::train(Kind::Character, known, None).unwrap();
        characters.save(&preparation.tokenizer).unwrap();
        preparation.reading.document = DocumentRule::Line;
        preparation.reading.on_bad_utf8 = BadUtf8::Skip;
        preparation.split = Some(SplitRule::Every);
        preparation.valid_fraction = 0.3;
        let manifest = preparation.clone().plan().unwrap().run().unwrap();
        let source = &manifest.sources[0];
        assert_eq!(
            (source.specials_in_text, source.counts.lines_skipped),
            (1, 1)
        );
        assert_eq!((source.counts.empty_texts, source.counts.lines), (1, 7));
        // Documents 0 and 3 of 5: "</s> one" and the first "three".
        let (train, valid) = (manifest.splits["train"], manifest.splits["valid"]);
        assert_eq!(
            (train.documents, train.duplicates, train.also_in_train),
            (3, 1, 0)
        );
        assert_eq!(
            (valid.documents, valid.duplicates, valid.also_in_train),
            (2, 0, 1)
        );
        assert_eq!((train.unknown, valid.unknown), (3, 4));
        assert_eq!(train.bytes + valid.bytes, 8 + 3 + 3 + 5 + 5);
        let said = sentences(&manifest).join("\n");
        for words in [
            "1 of 7 lines left out because they are no UTF-8; first left out: line 5, found 0xc3",
            "1 of 7 lines left out because they hold no text",
            "1 special tokens, such as </s>, are spelled out in the text and read as text",
            "validation has 2 of 5 documents, which is 40.00 % where 30.00 % were asked for",
            "warning: train: 3 of 14 tokens are <unk>",
            "train: 1 of 3 documents repeat",
            "warning: valid: 1 of 2 documents are in train too",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let read: Manifest = Manifest::load(&preparation.output).unwrap();
        assert_eq!(read, manifest);
    }

    #[test]
    fn a_document_of_which_the_tokenizer_keeps_nothing_is_left_out_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let mut preparation = preparation(directory.path(), &[("t.txt", "a\n \n \t\nb a\n")]);
        let words = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": { "type": "WhitespaceSplit" }, "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "unk_token": "[UNK]", "vocab": { "[UNK]": 0, "a": 1 } }
        });
        fs::write(&preparation.tokenizer, words.to_string()).unwrap();
        preparation.reading.document = DocumentRule::Line;
        preparation.valid_fraction = 0.0;
        let manifest = preparation.clone().plan().unwrap().run().unwrap();
        let source = &manifest.sources[0];
        assert_eq!((source.documents, source.counts.without_tokens), (2, 2));
        let train = manifest.splits["train"];
        assert_eq!((train.documents, train.tokens, train.bytes), (2, 3, 4));
        let said = sentences(&manifest).join("\n");
        let words = "2 documents left out because the tokenizer keeps nothing of them";
        assert!(said.contains(words), "{said}");
        let split = Split::open(preparation.output.join("train.bin")).unwrap();
        let sizes = Tokenizer::load(&preparation.tokenizer)
            .unwrap()
            .token_bytes();
        assert_eq!(
            split.span_bytes(0..2, &sizes) + split.span_bytes(2..3, &sizes),
            4
        );
    }

    #[test]
    fn a_pipe_is_read_once_and_a_compressed_text_divided_where_it_would_be() {
        let directory = tempfile::tempdir().unwrap();
        let text = "All work and no play.\n".repeat(1000);
        let mut preparation = preparation(directory.path(), &[("t.txt", &text)]);
        preparation.clone().plan().unwrap().run().unwrap();
        let expected = ["train", "valid"].map(|split| text_of(directory.path(), split));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
        fs::write(&preparation.files[0], gzip.finish().unwrap()).unwrap();
        preparation.force = true;
        preparation.clone().plan().unwrap().run().unwrap();
        assert_eq!(
            ["train", "valid"].map(|split| text_of(directory.path(), split)),
            expected
        );

        let pipe = directory.path().join("pipe");
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        preparation.files = vec![pipe.clone()];
        let write = |text: &str| {
            let (pipe, text) = (pipe.clone(), text.to_string());
            std::thread::spawn(move || fs::write(pipe, text))
        };
        let writing = write(&text);
        preparation.clone().plan().unwrap().run().unwrap();
        assert_eq!(
            ["train", "valid"].map(|split| text_of(directory.path(), split)),
            expected
        );
        writing.join().unwrap().unwrap();
        preparation.reading.document = DocumentRule::Line;
        let writing = write(&text);
        let manifest = preparation.plan().unwrap().run().unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(manifest.sources[0].documents, 1000);
        assert_eq!(manifest.sources[0].bytes, text.len() as u64);
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

    #[test]
    fn who_goes_to_validation_depends_on_seed_and_number_and_is_the_share_asked_for() {
        let lines: String = (0..300).map(|i| format!("{i:03}\n")).collect();
        let (first, second) = lines.split_at(600);
        let held_out = |seed: u64, fraction: f64| -> Vec<u64> {
            let directory = tempfile::tempdir().unwrap();
            // Numbers go on from file to file.
            let mut preparation =
                preparation(directory.path(), &[("a.txt", first), ("b.txt", second)]);
            preparation.reading.document = DocumentRule::Line;
            (preparation.seed, preparation.valid_fraction) = (seed, fraction);
            let manifest = preparation.plan().unwrap().run().unwrap();
            let documents: Vec<u64> = manifest
                .sources
                .iter()
                .map(|source| source.documents)
                .collect();
            assert_eq!(documents, [150, 150]);
            let text = text_of(directory.path(), "valid");
            let numbers = text.as_bytes().chunks(3);
            numbers
                .map(|number| std::str::from_utf8(number).unwrap().parse().unwrap())
                .collect()
        };
        let by_hand = |seed: u64, fraction: f64| -> Vec<u64> {
            let draw =
                |number: &u64| random::uniform(random::key(seed, "split", *number), 0) < fraction;
            (0..300).filter(draw).collect()
        };
        for (seed, fraction) in [(1, 0.1), (2, 0.1), (1, 0.8)] {
            assert_eq!(held_out(seed, fraction), by_hand(seed, fraction));
        }
        // What is held out with a small share is held out with a larger one.
        let (small, large) = (by_hand(1, 0.1), by_hand(1, 0.8));
        assert!(small.iter().all(|number| large.contains(number)));
        assert_ne!(small, by_hand(2, 0.1));
    }

    #[test]
    fn files_are_whole_documents_without_an_end_and_lines_have_one_unless_it_is_said() {
        for (rule, asked, has_end) in [
            (DocumentRule::File, None, false),
            (DocumentRule::File, Some(true), true),
            (DocumentRule::Line, None, true),
            (DocumentRule::Line, Some(false), false),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let mut preparation =
                preparation(directory.path(), &[("a.txt", "ab\ncd"), ("b.txt", "e")]);
            preparation.reading.document = rule;
            preparation.end_of_document = asked;
            preparation.valid_fraction = 0.0;
            let manifest = preparation.plan().unwrap().run().unwrap();
            let split = Split::open(directory.path().join("out/train.bin")).unwrap();
            let end = [257].repeat(usize::from(has_end));
            let documents: &[&[u32]] = match rule {
                DocumentRule::Line => &[&[97, 98], &[99, 100], &[101]],
                _ => &[&[97, 98, 10, 99, 100], &[101]],
            };
            let expected: Vec<u32> = documents
                .iter()
                .flat_map(|ids| [ids, &end[..]].concat())
                .collect();
            assert_eq!(split.tokens(0..split.len()), expected);
            assert_eq!(split.documents().len(), documents.len());
            assert_eq!(
                (
                    split.documents().last().unwrap().source,
                    manifest.end_of_document
                ),
                (1, has_end)
            );
            let tokens: u64 = manifest.sources.iter().map(|source| source.tokens).sum();
            assert_eq!(tokens, expected.len() as u64);
            assert_eq!(manifest.splits.len(), 1);
        }
    }

    #[test]
    fn every_text_file_is_divided_by_its_own_length() {
        let directory = tempfile::tempdir().unwrap();
        let mut preparation = preparation(
            directory.path(),
            &[("a.txt", "abcdefghij"), ("b.txt", "uvwxyz")],
        );
        // floor(10 * 0.75) = 7 and floor(6 * 0.75) = 4 bytes for training.
        preparation.valid_fraction = 0.25;
        preparation.plan().unwrap().run().unwrap();
        assert_eq!(text_of(directory.path(), "train"), "abcdefguvwx");
        assert_eq!(text_of(directory.path(), "valid"), "hijyz");
    }

    #[test]
    fn a_document_in_pieces_is_one_document_with_one_end() {
        let directory = tempfile::tempdir().unwrap();
        let record = |text: &str| format!("{{\"text\": \"{text}\"}}\n");
        // More than a MiB of lines, so that it comes in pieces, between two short ones.
        let long = "0123456789abcde\\n".repeat(70_000);
        let text = record("a") + &record(&long) + &record("b");
        let mut preparation = preparation(directory.path(), &[("a.jsonl", &text)]);
        preparation.split = Some(SplitRule::Every);
        preparation.valid_fraction = 0.5;
        preparation.reading.max_line_bytes = 4 << 20;
        let manifest = preparation.plan().unwrap().run().unwrap();
        assert_eq!(manifest.sources[0].documents, 3);
        let open = |name: &str| Split::open(directory.path().join("out").join(name)).unwrap();
        let (train, valid) = (open("train.bin"), open("valid.bin"));
        assert_eq!(valid.tokens(0..valid.len()), [97, 257, 98, 257]);
        assert_eq!((train.documents().len(), train.len()), (1, 16 * 70_000 + 1));
        assert_eq!(train.documents()[0].bytes, 16 * 70_000);
        let ends = train
            .tokens(0..train.len())
            .into_iter()
            .filter(|id| *id == 257);
        assert_eq!(
            (ends.count(), train.tokens(train.len() - 1..train.len())),
            (1, vec![257])
        );
    }
}

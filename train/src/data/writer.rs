//! `SplitWriter`: writes encoded documents as `NAME.bin` (llm.c layout) and `NAME.documents.jsonl`, and counts duplicates.
//!
//! A `.bin` starts with 256 little-endian `i32`: magic, version, number of tokens, zeros. Then come the tokens:
//! `u16` (magic 20240520, version 1) up to 65,536 different ids, `u32` (magic 20240801, version 7) above.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::document::Document;
use super::manifest::{DocumentEntry, FileFacts, SplitCounts};
use super::tokenizer::Encoded;
use crate::error::{Error, Problem};
use crate::hash::HashedRead;

/// Bytes before the first token.
pub const HEADER_BYTES: usize = 1024;

/// The count of tokens is an `i32` in the header.
pub const TOKENS_MAX: u64 = i32::MAX as u64;

/// The width of a token in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

impl Width {
    /// The smallest width that fits a vocabulary.
    pub fn of(vocabulary_size: usize) -> Self {
        if vocabulary_size <= 1 << 16 {
            Self::U16
        } else {
            Self::U32
        }
    }

    /// Bytes per token.
    pub fn bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    /// Magic number and version of the header.
    pub fn magic(self) -> [i32; 2] {
        match self {
            Self::U16 => [20_240_520, 1],
            Self::U32 => [20_240_801, 7],
        }
    }
}

/// Writes the two files of a split.
pub struct SplitWriter {
    tokens: Output,
    documents: Output,
    width: Width,
    unknown: Option<u32>,
    counts: SplitCounts,
    open: Option<DocumentEntry>,
    hash: Sha256,
    /// Of the tokens of each document. Eight bytes: among ten million documents two have the same by accident once in
    /// hundred thousand preparations.
    fingerprints: Vec<u64>,
}

impl SplitWriter {
    /// Creates the files `NAME.bin` and `NAME.documents.jsonl`; `unknown` is the id of `<unk>`, if there is one.
    ///
    /// # Errors
    /// `Resource` if they cannot be created.
    pub fn create(
        directory: &Path,
        name: &str,
        width: Width,
        unknown: Option<u32>,
    ) -> Result<Self, Error> {
        let mut tokens = Output::create(directory.join(format!("{name}.bin")))?;
        // The header is known at the end; until then the file has none and no reader accepts it.
        tokens.write(&[0; HEADER_BYTES])?;
        Ok(Self {
            documents: Output::create(directory.join(format!("{name}.documents.jsonl")))?,
            tokens,
            width,
            unknown,
            counts: SplitCounts::default(),
            open: None,
            hash: Sha256::new(),
            fingerprints: Vec::new(),
        })
    }

    /// Appends a document or one piece of it.
    ///
    /// # Errors
    /// `Resource` if the disk refuses, `Invalid` if the split gets more tokens than its header can count.
    pub fn push(
        &mut self,
        document: &Document,
        encoded: &Encoded,
        source: usize,
    ) -> Result<(), Error> {
        let ids = &encoded.ids;
        let start = self.counts.tokens;
        let entry = self.open.get_or_insert_with(|| DocumentEntry {
            start,
            tokens: 0,
            bytes: 0,
            source,
            index: document.index,
            task: document.task.clone(),
            difficulty: document.difficulty,
            spans: Vec::new(),
        });
        let spans = encoded.spans.iter();
        let before = entry.tokens;
        entry
            .spans
            .extend(spans.map(|(position, bytes)| (before + position, *bytes)));
        entry.tokens += ids.len() as u64;
        entry.bytes += document.text.len() as u64;
        self.counts.tokens += ids.len() as u64;
        let unknown = ids.iter().filter(|id| Some(**id) == self.unknown);
        self.counts.unknown += unknown.count() as u64;
        if self.counts.tokens > TOKENS_MAX {
            let expected = format!("at most {TOKENS_MAX}");
            let problem = Problem::new(&self.tokens.path, "", "more tokens", expected);
            let advice = "prepare the sources in several directories and mix them";
            return Err(Error::Invalid(problem.advise(advice)));
        }
        let ids = ids.iter();
        let bytes: Vec<u8> = match self.width {
            Width::U16 => ids.flat_map(|id| (*id as u16).to_le_bytes()).collect(),
            Width::U32 => ids.flat_map(|id| id.to_le_bytes()).collect(),
        };
        self.hash.update(&bytes);
        self.tokens.write(&bytes)?;
        if let Some(entry) = self.open.take_if(|_| document.ends) {
            let digest = self.hash.finalize_reset();
            let fingerprint = std::array::from_fn(|i| digest[i]);
            self.fingerprints.push(u64::from_le_bytes(fingerprint));
            self.counts.documents += 1;
            self.counts.bytes += entry.bytes;
            let line = serde_json::to_string(&entry)
                .expect("an entry has text keys and whole numbers")
                + "\n";
            self.documents.write(line.as_bytes())?;
        }
        Ok(())
    }

    /// Counts of what was written so far.
    pub fn counts(&self) -> SplitCounts {
        self.counts
    }

    /// Counts documents that duplicate another of this split or one of `train`, on which this must have been called before.
    pub fn count_duplicates(&mut self, train: Option<&SplitWriter>) {
        self.fingerprints.sort_unstable();
        let is_in_train = |print: &&u64| {
            train.is_some_and(|train| train.fingerprints.binary_search(print).is_ok())
        };
        self.counts.also_in_train = self.fingerprints.iter().filter(is_in_train).count() as u64;
        let pairs = self.fingerprints.windows(2);
        self.counts.duplicates = pairs.filter(|pair| pair[0] == pair[1]).count() as u64;
    }

    /// Writes the header, syncs both files to disk and hashes them.
    ///
    /// # Errors
    /// `Resource` if the disk refuses.
    pub fn finish(mut self) -> Result<Vec<(String, FileFacts)>, Error> {
        let [magic, version] = self.width.magic();
        let header = [magic, version, self.counts.tokens as i32].map(i32::to_le_bytes);
        let rewound = self.tokens.file.rewind();
        rewound.map_err(|e| Error::resource(&self.tokens.path, "write", e))?;
        self.tokens.write(header.as_flattened())?;
        Ok(vec![self.tokens.finish()?, self.documents.finish()?])
    }
}

/// A file that is being written.
struct Output {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Output {
    fn create(path: PathBuf) -> Result<Self, Error> {
        let file = File::create_new(&path).map_err(|e| Error::resource(&path, "create", e))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { path, file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes);
        written.map_err(|e| Error::resource(&self.path, "write", e))
    }

    /// Syncs the file to disk; returns its name and facts.
    fn finish(self) -> Result<(String, FileFacts), Error> {
        let failed = |e| Error::resource(&self.path, "write", e);
        let file = self.file.into_inner();
        let file = file.map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        let name = self.path.file_name();
        let name = name.expect("the path was built from a name");
        Ok((name.to_string_lossy().into_owned(), file_facts(&self.path)?))
    }
}

/// The size and the hash of a file.
///
/// # Errors
/// `Resource` if it cannot be read.
pub fn file_facts(path: &Path) -> Result<FileFacts, Error> {
    let failed = |e| Error::resource(path, "read", e);
    let mut input = HashedRead::new(File::open(path).map_err(failed)?);
    let mut buffered = BufReader::with_capacity(1 << 18, &mut input);
    let bytes = io::copy(&mut buffered, &mut io::sink()).map_err(failed)?;
    let sha256 = input.sha256();
    Ok(FileFacts { bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hexadecimal;

    fn piece(text: &str, index: u64, ends: bool) -> Document {
        Document {
            text: text.to_string(),
            source: String::new(),
            index,
            begins: false,
            ends,
            after_cut: false,
            task: None,
            difficulty: Some(7),
        }
    }

    fn encoded(ids: &[u32], spans: &[(u64, u64)]) -> Encoded {
        Encoded {
            ids: ids.to_vec(),
            spans: spans.to_vec(),
        }
    }

    #[test]
    fn a_file_has_the_header_and_the_width_of_its_vocabulary() {
        assert_eq!([1, 1 << 16].map(Width::of), [Width::U16; 2]);
        assert_eq!(Width::of((1 << 16) + 1), Width::U32);
        for (width, magic) in [(Width::U16, [20_240_520, 1]), (Width::U32, [20_240_801, 7])] {
            let directory = tempfile::tempdir().unwrap();
            let mut writer = SplitWriter::create(directory.path(), "x", width, Some(9)).unwrap();
            let ids = [5, 9, 65_535];
            writer
                .push(&piece("abc", 0, true), &encoded(&ids, &[]), 0)
                .unwrap();
            let files = writer.finish().unwrap();
            let bytes = std::fs::read(directory.path().join("x.bin")).unwrap();
            let words = |range: std::ops::Range<usize>| -> Vec<i32> {
                let words = bytes[range].as_chunks().0.iter();
                words.map(|word| i32::from_le_bytes(*word)).collect()
            };
            assert_eq!(words(0..12), [magic[0], magic[1], 3]);
            assert!(words(12..1024).iter().all(|&word| word == 0));
            let written: Vec<u8> = match width {
                Width::U16 => ids
                    .iter()
                    .flat_map(|&id| (id as u16).to_le_bytes())
                    .collect(),
                Width::U32 => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
            };
            assert_eq!(bytes[1024..], written);
            let (name, facts) = &files[0];
            assert_eq!((name.as_str(), facts.bytes), ("x.bin", bytes.len() as u64));
            assert_eq!(facts.sha256, hexadecimal(&Sha256::digest(&bytes)));
        }
    }

    #[test]
    fn the_pieces_of_a_document_are_one_entry_with_the_spans_of_all() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = SplitWriter::create(directory.path(), "x", Width::U16, Some(9)).unwrap();
        let mut push = |document: &Document, encoded: &Encoded| {
            writer.push(document, encoded, 3).unwrap();
        };
        push(
            &piece("ab\u{e9}", 4, false),
            &encoded(&[1, 2, 9], &[(2, 2)]),
        );
        push(
            &piece("\u{8a9e}b", 4, true),
            &encoded(&[9, 2, 0], &[(0, 3)]),
        );
        push(&piece("a", 5, true), &encoded(&[1, 0], &[]));
        push(&piece("a", 6, true), &encoded(&[1, 0], &[]));
        writer.count_duplicates(None);
        let expected = SplitCounts {
            documents: 3,
            tokens: 10,
            bytes: 10,
            unknown: 2,
            duplicates: 1,
            also_in_train: 0,
        };
        assert_eq!(writer.counts(), expected);
        writer.finish().unwrap();
        let list = std::fs::read_to_string(directory.path().join("x.documents.jsonl")).unwrap();
        let entries: Vec<DocumentEntry> = list
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let facts = |entry: &DocumentEntry| {
            (
                entry.start,
                entry.tokens,
                entry.bytes,
                entry.index,
                entry.source,
            )
        };
        let facts: Vec<_> = entries.iter().map(facts).collect();
        assert_eq!(facts, [(0, 6, 8, 4, 3), (6, 2, 1, 5, 3), (8, 2, 1, 6, 3)]);
        assert_eq!(entries[0].spans, [(2, 2), (3, 3)]);
        assert_eq!(entries[0].difficulty, Some(7));
    }

    #[test]
    fn what_training_has_too_is_counted_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, documents: &[&[u32]]| {
            let mut writer =
                SplitWriter::create(directory.path(), name, Width::U16, Some(9)).unwrap();
            for ids in documents {
                writer
                    .push(&piece("a", 0, true), &encoded(ids, &[]), 0)
                    .unwrap();
            }
            writer
        };
        let mut train = write("train", &[&[4, 5], &[1], &[4, 5], &[2]]);
        let mut valid = write("valid", &[&[2], &[3], &[2], &[2], &[1], &[5, 4]]);
        train.count_duplicates(None);
        valid.count_duplicates(Some(&train));
        assert_eq!(
            (train.counts().duplicates, train.counts().also_in_train),
            (1, 0)
        );
        assert_eq!(
            (valid.counts().duplicates, valid.counts().also_in_train),
            (2, 4)
        );
    }

    #[test]
    fn a_split_holds_as_many_tokens_as_its_header_can_count() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = SplitWriter::create(directory.path(), "x", Width::U16, Some(9)).unwrap();
        // As if so many had been written before.
        writer.counts.tokens = TOKENS_MAX - 2;
        assert!(
            writer
                .push(&piece("a", 0, true), &encoded(&[1, 2], &[]), 0)
                .is_ok()
        );
        let error = writer
            .push(&piece("a", 1, true), &encoded(&[1], &[]), 0)
            .unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("at most 2147483647"), "{error}");
    }
}

//! `Split`: reads a `.bin` file of token ids and its list of documents, checks both by the manifest, and keeps them in memory;
//! files of other programs, which have neither, are held against a tokenizer and divided at its symbol that ends documents.
//!
//! Tokens keep their width on disk (two or four bytes each), so a split of a few GB needs as much memory; in return,
//! later changes of the file cannot disturb a run.

use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::manifest::{DocumentEntry, FileFacts, Manifest, SplitCounts, TokenizerFacts};
use super::token_file::{TokenFile, TokenSource};
use super::tokenizer::{Specials, Tokenizer};
use super::tokens::{OnDisk, Tokens, ids};
use super::writer::{HEADER_BYTES, Width};
use crate::error::{Error, Problem};
use crate::file::open_regular;
use crate::hash::HashedRead;
use crate::text::json_complaint;

/// A checked split in memory.
#[derive(Debug)]
pub struct Split {
    path: PathBuf,
    tokens: Tokens,
    documents: Vec<DocumentEntry>,
    ends_documents: bool,
    tokenizer: TokenizerFacts,
    sha256: String,
    /// Of the list of documents; files of other programs have none.
    list_sha256: Option<String>,
    /// How a file of another program was read.
    reading: Option<String>,
}

impl Split {
    /// Whether a source is one of our splits, and no file of another program. Ours are `.bin` files beside a `manifest.json`,
    /// or beside their list of documents if that was lost; a format that the user says is always another program's.
    pub fn is_prepared(source: TokenSource<'_>) -> bool {
        let path = source.path;
        let beside = [path.with_file_name("manifest.json"), list_of(path)];
        // What is no file is reported as it was before there were others.
        let is_ours = || !path.is_file() || beside.iter().any(|file| file.exists());
        source.may_be_prepared() && is_ours()
    }

    /// Opens one of our splits, or a file of another program whose ids the tokenizer made. Documents of the latter end behind
    /// the tokenizer's symbol that ends them; without one in the file it is one document. Bytes are those of its tokens.
    ///
    /// # Errors
    /// As [`Split::open`]; `Invalid` for another program's file whose header does not fit or that has an id beyond the
    /// vocabulary.
    pub fn open_for(source: TokenSource<'_>, tokenizer: &Tokenizer) -> Result<Self, Error> {
        if Self::is_prepared(source) {
            return Self::open(source.path);
        }
        let file = TokenFile::open(source)?;
        let kind = file.describe();
        let (tokens, sha256) = file.read(tokenizer.vocabulary_size())?;
        let end = tokenizer.specials().end;
        let documents = documents_of(&tokens, end, &tokenizer.token_bytes());
        let spelled = |id| format!("{} (id {id})", tokenizer.token_text(id));
        let ends_documents = end == Some(tokens.get(tokens.len() - 1));
        let divided = match (end, ends_documents || documents.len() > 1) {
            (Some(id), true) => format!("a document ends behind each {}", spelled(id)),
            (Some(id), false) => format!("one stream, for it has no {}", spelled(id)),
            (None, _) => "one stream, for the tokenizer has no symbol that ends documents".into(),
        };
        Ok(Self {
            path: source.path.to_path_buf(),
            documents,
            ends_documents,
            tokenizer: TokenizerFacts {
                sha256: tokenizer.sha256(),
                kind: tokenizer.kind(),
                vocabulary_size: tokenizer.vocabulary_size(),
                specials: tokenizer.specials(),
            },
            tokens,
            sha256,
            list_sha256: None,
            reading: Some(format!("read as {kind}; {divided}")),
        })
    }

    /// How a file of another program was read, for people; nothing for our own.
    pub fn reading(&self) -> Option<&str> {
        self.reading.as_deref()
    }

    /// The hashes of a source: of the file, and of the list of documents of one of our splits.
    ///
    /// # Errors
    /// As [`Split::open_for`], but ids of other programs' files are not looked at.
    pub fn hashes(source: TokenSource<'_>) -> Result<(String, Option<String>), Error> {
        match Self::is_prepared(source) {
            true => Self::open(source.path).map(|split| (split.sha256, split.list_sha256)),
            false => Ok((TokenFile::open(source)?.sha256()?, None)),
        }
    }

    /// Reads a `.bin` file and what lies beside it: `manifest.json` and the list of documents.
    ///
    /// # Errors
    /// `Invalid` with file, offset, found and expected if anything does not fit together.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_in(path.as_ref(), false)
    }

    /// The same, with the ids left on the disk: for [`Self::read`] alone.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on_disk(path: &Path) -> Result<Self, Error> {
        Self::open_in(path, true)
    }

    fn open_in(path: &Path, stays: bool) -> Result<Self, Error> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let expected = "a .bin file of `nerve data prepare`";
        open_regular(path, expected)?;
        let Some(name) = file.strip_suffix(".bin") else {
            let problem = Problem::new(path, "", "another kind of name", expected);
            return Err(Error::Invalid(problem));
        };
        let manifest = Manifest::load(directory)?;
        let file_facts = facts(&manifest, directory, &file)?;
        let tokens = read_tokens(path, file_facts, manifest.tokenizer.vocabulary_size, stays)?;
        let list = format!("{name}.documents.jsonl");
        let list_facts = facts(&manifest, directory, &list)?;
        let list = directory.join(&list);
        let documents = read_documents(&list, list_facts, tokens.len() as u64)?;
        require_counts(&documents, &manifest, &list, name)?;
        Ok(Self {
            path: path.to_path_buf(),
            sha256: file_facts.sha256.clone(),
            list_sha256: Some(list_facts.sha256.clone()),
            tokens,
            documents,
            ends_documents: manifest.end_of_document,
            tokenizer: manifest.tokenizer,
            reading: None,
        })
    }

    /// The ids in a range of positions.
    ///
    /// # Panics
    /// If the range ends beyond the split.
    pub fn tokens(&self, range: Range<usize>) -> Vec<u32> {
        self.tokens.range(range)
    }

    /// The ids in a range of positions, also of a split whose ids were left on the disk.
    ///
    /// # Errors
    /// `Resource` if they cannot be read.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<u32>, Error> {
        let read = self.tokens.read(range);
        read.map_err(|error| Error::resource(&self.path, "read", error))
    }

    /// The ids of a document in pieces of bounded length, for a document may be all of a file; also of a split whose ids were left on the
    /// disk.
    pub fn pieces(
        &self,
        document: &DocumentEntry,
    ) -> impl Iterator<Item = Result<Vec<u32>, Error>> {
        const AT_ONCE: usize = 1 << 16;
        let Range { start, end } = document.range();
        let starts = (start..end).step_by(AT_ONCE);
        starts.map(move |start| self.read(start..end.min(start + AT_ONCE)))
    }

    /// Bytes of the source that the tokens in a range stand for; `token_bytes` is the tokenizer's.
    ///
    /// A document whose whole text lies in the range counts its bytes in the source. So does a part of a document, if the
    /// directory has spans. Without spans (older directories), a part counts the bytes of its tokens, which are none for
    /// unknown characters.
    ///
    /// # Panics
    /// If the range ends beyond the split or an id has no entry in `token_bytes`.
    pub fn span_bytes(&self, range: Range<usize>, token_bytes: &[u32]) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let bytes_of = |position: usize| u64::from(token_bytes[self.tokens.get(position) as usize]);
        let first = self.document_at(range.start);
        let touched = self.documents[first..].iter();
        let touched = touched.take_while(|document| document.start < range.end as u64);
        let of_document = |document: &DocumentEntry| {
            let Range { start, end } = document.range();
            let part = range.start.max(start)..range.end.min(end);
            let text_end = end - usize::from(self.ends_documents);
            if part.start == start && part.end >= text_end {
                return document.bytes;
            }
            let from = |position: usize| {
                let spans = &document.spans;
                spans.partition_point(|(at, _)| start + (*at as usize) < position)
            };
            let spans = &document.spans[from(part.start)..from(part.end)];
            let literal: u64 = part.map(bytes_of).sum();
            let replaced = spans.iter();
            let replaced = replaced.map(|(at, _)| bytes_of(start + *at as usize));
            let bytes: u64 = spans.iter().map(|(_, bytes)| bytes).sum();
            literal - replaced.sum::<u64>() + bytes
        };
        touched.map(of_document).sum()
    }

    /// Tokens in the split.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether the split is empty; never true for a split that was opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The documents in order; together they cover the split without gaps.
    pub fn documents(&self) -> &[DocumentEntry] {
        &self.documents
    }

    /// The document that a token belongs to.
    ///
    /// # Panics
    /// If the position lies beyond the split.
    pub fn document_at(&self, position: usize) -> usize {
        let len = self.len();
        assert!(position < len, "position {position} is not below {len}");
        let starts = |document: &DocumentEntry| document.start <= position as u64;
        self.documents.partition_point(starts) - 1
    }

    /// One more than the highest id of the tokenizer.
    pub fn vocabulary_size(&self) -> usize {
        self.tokenizer.vocabulary_size
    }

    /// The ids of the special tokens.
    pub fn specials(&self) -> Specials {
        self.tokenizer.specials
    }

    /// Checks that this tokenizer made the ids; `advice` says what to do if it did not.
    ///
    /// # Errors
    /// `Invalid` if another tokenizer did, or if its size or special tokens differ from the manifest.
    pub fn require(&self, tokenizer: &Tokenizer, advice: &str) -> Result<(), Error> {
        if self.tokenizer_sha256() != tokenizer.sha256() {
            let expected = "tokens of the recipe's tokenizer.file";
            let problem = Problem::new(&self.path, "", "tokens of another tokenizer", expected);
            return Err(Error::Invalid(problem.advise(advice)));
        }
        let manifest = self.path.with_file_name("manifest.json");
        let wrong = |place: &str, found: String, expected: String| {
            let problem = Problem::new(&manifest, place, found, expected);
            Err(Error::Invalid(problem))
        };
        let (found, expected) = (self.vocabulary_size(), tokenizer.vocabulary_size());
        if found != expected {
            let expected = format!("{expected}, as the tokenizer has");
            return wrong("tokenizer.vocabulary_size", found.to_string(), expected);
        }
        let (found, expected) = (self.specials(), tokenizer.specials());
        if found != expected {
            let (found, expected) = (format!("{found:?}"), format!("{expected:?}"));
            return wrong("tokenizer.specials", found, expected);
        }
        Ok(())
    }

    /// Checks that the token ids of two splits mean the same.
    ///
    /// # Errors
    /// `Invalid` if they were made with different tokenizers, or the manifests disagree about it.
    pub fn require_like(&self, other: &Split) -> Result<(), Error> {
        let [own, others] = [self, other].map(|split| &split.tokenizer);
        if own == others {
            return Ok(());
        }
        let found = match own.sha256 == others.sha256 {
            true => format!("a tokenizer of {} tokens", own.vocabulary_size),
            false => "tokens of another tokenizer".to_string(),
        };
        let expected = format!("a split of the same tokenizer as {}", other.path.display());
        let problem = Problem::new(&self.path, "", found, expected);
        Err(Error::Invalid(problem))
    }

    /// The hash of the tokenizer that made the ids.
    pub fn tokenizer_sha256(&self) -> &str {
        &self.tokenizer.sha256
    }

    /// The hash of the `.bin` file.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The file with the list of documents, and its hash: equal ids may form other documents or stand for other bytes. Files of
    /// other programs have none.
    pub fn list(&self) -> Option<(PathBuf, &str)> {
        let sha256 = self.list_sha256.as_deref()?;
        Some((list_of(&self.path), sha256))
    }

    /// The `.bin` file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether every document ends with the symbol that ends documents.
    pub fn ends_documents(&self) -> bool {
        self.ends_documents
    }
}

/// The documents of ids, each up to and with the symbol that ends it; the last one may go on in another file.
fn documents_of(tokens: &Tokens, end: Option<u32>, token_bytes: &[u32]) -> Vec<DocumentEntry> {
    let mut documents = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for at in 0..tokens.len() {
        let id = tokens.get(at);
        bytes += u64::from(token_bytes[id as usize]);
        if Some(id) != end && at + 1 < tokens.len() {
            continue;
        }
        documents.push(DocumentEntry {
            start,
            tokens: (at + 1) as u64 - start,
            bytes,
            source: 0,
            index: documents.len() as u64,
            task: None,
            difficulty: None,
            spans: Vec::new(),
        });
        (start, bytes) = ((at + 1) as u64, 0);
    }
    documents
}

/// The path of the list of documents that belongs to a `.bin` file.
pub fn list_of(path: &Path) -> PathBuf {
    path.with_extension("documents.jsonl")
}

fn facts<'m>(manifest: &'m Manifest, directory: &Path, name: &str) -> Result<&'m FileFacts, Error> {
    manifest.files.get(name).ok_or_else(|| {
        let names: Vec<&String> = manifest.files.keys().collect();
        let (found, expected) = (format!("only {names:?}"), format!("{name:?}"));
        let file = directory.join("manifest.json");
        let advice = "if another program made that file, say its format or move it elsewhere";
        Error::Invalid(Problem::new(file, "files", found, expected).advise(advice))
    })
}

/// Whether the documents come from the sources of the manifest, and are as many and as long as it says.
fn require_counts(
    documents: &[DocumentEntry],
    manifest: &Manifest,
    list: &Path,
    name: &str,
) -> Result<(), Error> {
    let sources = manifest.sources.len();
    let stray = documents.iter().position(|entry| entry.source >= sources);
    if let Some(stray) = stray {
        let found = format!("source {}", documents[stray].source);
        let (place, expected) = (format!("line {}", stray + 1), format!("one of {sources}"));
        return Err(Error::Invalid(Problem::new(list, place, found, expected)));
    }
    let add = |sum: u64, entry: &DocumentEntry| sum.checked_add(entry.bytes);
    let known = manifest.splits.get(name).copied().unwrap_or_default();
    let counted = SplitCounts {
        documents: documents.len() as u64,
        tokens: documents.iter().map(|entry| entry.tokens).sum(),
        bytes: documents.iter().try_fold(0, add).unwrap_or(u64::MAX),
        // What the list does not tell.
        ..known
    };
    if counted == known {
        return Ok(());
    }
    let file = list.with_file_name("manifest.json");
    let (found, expected) = (known.to_string(), counted.to_string());
    let problem = Problem::new(file, format!("splits.{name}"), found, expected);
    Err(Error::Invalid(problem.advise("prepare the data again")))
}

/// A file that is not as it was prepared.
fn damaged(
    path: &Path,
    place: impl Into<String>,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> Error {
    let problem = Problem::new(path, place, found, expected);
    Error::Invalid(problem.advise("prepare the data again or restore the file"))
}

/// Whether a file that was read to its end is that of the manifest.
fn require_sha256(path: &Path, found: &str, facts: &FileFacts) -> Result<(), Error> {
    if found == facts.sha256 {
        return Ok(());
    }
    let expected = format!("{} by manifest.json", facts.sha256);
    Err(damaged(path, "", format!("the hash {found}"), expected))
}

fn read_tokens(
    path: &Path,
    facts: &FileFacts,
    vocabulary_size: usize,
    stays: bool,
) -> Result<Tokens, Error> {
    let resource = |e| Error::resource(path, "read", e);
    let file = open_regular(path, "a .bin file of `nerve data prepare`")?;
    let size = file.metadata().map_err(resource)?.len();
    if size < HEADER_BYTES as u64 {
        let expected = format!("a header of {HEADER_BYTES} bytes");
        let place = format!("byte {size}");
        return Err(damaged(path, place, "the end of the file", expected));
    }
    let mut input = HashedRead::new(file);
    let mut header = [0u8; HEADER_BYTES];
    input.read_exact(&mut header).map_err(resource)?;
    let field =
        |i: usize| i32::from_le_bytes(header[4 * i..4 * i + 4].try_into().expect("four bytes"));
    let width = Width::of(vocabulary_size);
    for (i, expected) in width.magic().into_iter().enumerate() {
        if field(i) != expected {
            let expected = format!("{expected} for {} bytes per token", width.bytes());
            let place = format!("byte {}", 4 * i);
            return Err(damaged(path, place, field(i).to_string(), expected));
        }
    }
    let n_tokens = field(2);
    if n_tokens < 1 {
        let found = format!("{n_tokens} tokens");
        return Err(damaged(path, "byte 8", found, "at least one"));
    }
    let expected_size = HEADER_BYTES as u64 + n_tokens as u64 * width.bytes() as u64;
    if size != expected_size || size != facts.bytes {
        let expected = format!(
            "{expected_size} for its {n_tokens} tokens and {} by manifest.json",
            facts.bytes
        );
        return Err(damaged(path, "", format!("{size} bytes"), expected));
    }
    let room = if stays { 0 } else { n_tokens as usize };
    let mut tokens = Tokens::with_capacity(width, room);
    let mut position = 0;
    let mut buffer = vec![0; 1 << 20];
    let mut left = n_tokens as usize * width.bytes();
    while left > 0 {
        let chunk = &mut buffer[..left.min(1 << 20)];
        input.read_exact(chunk).map_err(resource)?;
        left -= chunk.len();
        for id in ids(width, chunk) {
            if id as usize >= vocabulary_size {
                let place = format!("byte {}", HEADER_BYTES + position * width.bytes());
                let expected = format!("ids below the vocabulary of {vocabulary_size}");
                return Err(damaged(path, place, format!("id {id}"), expected));
            }
            position += 1;
        }
        match &mut tokens {
            _ if stays => {}
            Tokens::U16(tokens) => {
                tokens.extend(chunk.as_chunks().0.iter().map(|id| u16::from_le_bytes(*id)))
            }
            Tokens::U32(tokens) => {
                tokens.extend(chunk.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)))
            }
            Tokens::OnDisk(_) => unreachable!("they are put there last"),
        }
    }
    require_sha256(path, &input.sha256(), facts)?;
    if stays {
        return Ok(Tokens::OnDisk(OnDisk {
            file: open_regular(path, "a .bin file of `nerve data prepare`")?,
            offset: HEADER_BYTES as u64,
            width,
            n: n_tokens as usize,
        }));
    }
    Ok(tokens)
}

fn read_documents(
    path: &Path,
    facts: &FileFacts,
    n_tokens: u64,
) -> Result<Vec<DocumentEntry>, Error> {
    let resource = |e| Error::resource(path, "read", e);
    let mut input = BufReader::new(HashedRead::new(open_regular(
        path,
        "the list of documents",
    )?));
    let mut documents: Vec<DocumentEntry> = Vec::new();
    let mut end = 0;
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).map_err(resource)? > 0 {
        let place = format!("line {}", documents.len() + 1);
        let entry: DocumentEntry = match serde_json::from_slice(&line) {
            Ok(entry) => entry,
            Err(e) => {
                let expected = "one document per line";
                return Err(damaged(path, place, json_complaint(&e), expected));
            }
        };
        if entry.start != end || entry.tokens == 0 || entry.tokens > n_tokens - end {
            let found = format!("{} tokens from {}", entry.tokens, entry.start);
            let expected = format!("some from {end} on, within {n_tokens}");
            return Err(damaged(path, place, found, expected));
        }
        let rises = entry.spans.is_sorted_by(|one, next| one.0 < next.0);
        let bytes = entry.spans.iter().map(|(_, bytes)| *bytes);
        let sum = bytes.fold(0, u64::saturating_add);
        let last = entry.spans.last().map_or(0, |(position, _)| *position);
        if !rises || last >= entry.tokens || sum > entry.bytes {
            let found = format!(
                "{} spans of {sum} bytes up to token {last}",
                entry.spans.len()
            );
            let expected = format!(
                "rising positions within its {} tokens and {} bytes",
                entry.tokens, entry.bytes
            );
            return Err(damaged(path, place, found, expected));
        }
        end += entry.tokens;
        documents.push(entry);
        line.clear();
    }
    if end != n_tokens {
        let found = format!("documents up to token {end}");
        return Err(damaged(path, "", found, format!("up to {n_tokens}")));
    }
    let input = input.into_inner();
    require_sha256(path, &input.sha256(), facts)?;
    if input.bytes_read() != facts.bytes {
        let found = format!("{} bytes", input.bytes_read());
        let expected = format!("{} by manifest.json", facts.bytes);
        return Err(damaged(path, "", found, expected));
    }
    Ok(documents)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::document::{BadUtf8, DocumentRule, ReadRules};
    use super::super::prepare::{Preparation, SplitRule};
    use super::super::tokenizer::{Kind, Normalise, Tokenizer};
    use super::*;
    use crate::hash::hexadecimal;
    use sha2::{Digest, Sha256};
    use std::fs;

    /// The training split of some lines, with an end after each.
    pub fn split_of_lines(lines: &[&str]) -> PathBuf {
        let bytes = Tokenizer::train(Kind::Byte, std::iter::empty(), None);
        split_with(&bytes.unwrap(), lines)
    }

    /// The same by another tokenizer.
    pub fn split_with(of: &Tokenizer, lines: &[&str]) -> PathBuf {
        prepared(of, "t.txt", &lines.join("\n"), 0.0).join("train.bin")
    }

    /// The directory of a file with a document per line, of which every so many go to validation, the first among them.
    pub fn prepared(of: &Tokenizer, file: &str, text: &str, valid_fraction: f64) -> PathBuf {
        let directory = tempfile::tempdir().unwrap().keep();
        let tokenizer = directory.join("tokenizer.json");
        of.save(&tokenizer).unwrap();
        fs::write(directory.join(file), text).unwrap();
        let preparation = Preparation {
            files: vec![directory.join(file)],
            output: directory.join("out"),
            tokenizer,
            reading: ReadRules {
                document: DocumentRule::Line,
                field: "text".into(),
                on_bad_utf8: BadUtf8::Error,
                max_line_bytes: 1 << 20,
                ..ReadRules::default()
            },
            specials: Default::default(),
            split: Some(match valid_fraction {
                0.0 => SplitRule::Hash,
                _ => SplitRule::Every,
            }),
            valid_fraction,
            seed: 1,
            end_of_document: None,
            force: false,
        };
        preparation.plan().unwrap().run().unwrap();
        directory.join("out")
    }

    fn broken(change: impl Fn(&mut Vec<u8>)) -> String {
        let path = split_of_lines(&["ab", "cde"]);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let error = Split::open(&path).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        error
            .to_string()
            .split_once("train.bin: ")
            .unwrap()
            .1
            .to_string()
    }

    #[test]
    fn a_split_gives_its_tokens_and_documents() {
        let split = Split::open(split_of_lines(&["ab", "cde"])).unwrap();
        assert_eq!(split.tokens(0..7), [97, 98, 257, 99, 100, 101, 257]);
        assert_eq!(
            (
                split.len(),
                split.documents().len(),
                split.vocabulary_size()
            ),
            (7, 2, 260)
        );
        assert_eq!(
            [0, 2, 3, 6].map(|position| split.document_at(position)),
            [0, 0, 1, 1]
        );
    }

    #[test]
    fn each_way_to_be_broken_is_named_with_its_place() {
        assert!(broken(|bytes| bytes.truncate(9)).starts_with("byte 9: found the end"));
        assert!(broken(|bytes| bytes[0] = 0).starts_with("byte 0: found"));
        assert!(broken(|bytes| bytes[4] = 7).starts_with("byte 4: found 7"));
        assert!(broken(|bytes| bytes[8] = 0).starts_with("byte 8: found 0 tokens"));
        assert!(
            broken(|bytes| bytes.truncate(1035)).starts_with("found 1035 bytes, expected 1038")
        );
        assert!(broken(|bytes| bytes.extend([0, 0])).starts_with("found 1040 bytes"));
        assert!(
            broken(|bytes| bytes[1027] = 9)
                .starts_with("byte 1026: found id 2402, expected ids below")
        );
        assert!(broken(|bytes| bytes[1024] = 98).starts_with("found the hash"));
    }

    #[test]
    fn a_list_of_documents_that_disagrees_is_named() {
        let path = split_of_lines(&["ab", "cde"]);
        let list = path.with_file_name("train.documents.jsonl");
        let text = fs::read_to_string(&list).unwrap();
        let cases = [
            (
                text.replace("\"start\":3", "\"start\":4"),
                "line 2: found 4 tokens from 4",
            ),
            (
                text.replace("\"tokens\":4", "\"tokens\":400"),
                "line 2: found 400",
            ),
            (
                text.replace("\"tokens\":4", "\"tokens\":5"),
                "line 2: found 5 tokens from 3",
            ),
            (
                text.replace("\"bytes\":3", "\"bytes\":3,\"spans\":[[4,1]]"),
                "line 2: found 1 spans of 1 bytes up to token 4",
            ),
            (
                text.replace("\"bytes\":3", "\"bytes\":3,\"spans\":[[0,2],[3,2]]"),
                "line 2: found 2 spans of 4 bytes up to token 3",
            ),
            (
                text.replace("\"bytes\":3", "\"bytes\":3,\"spans\":[[1,0],[1,0]]"),
                "line 2: found 2 spans of 0 bytes up to token 1",
            ),
            (
                text.replace("\"bytes\":3", "\"bytes\":3,\"spans\":[[0,2],[3,1]]"),
                "found the hash",
            ),
            (
                text.lines().next().unwrap().to_string() + "\n",
                "found documents up to token 3",
            ),
            (text.replace("\"bytes\":3", "\"bytes\":4"), "found the hash"),
            ("{".to_string(), "line 1: found no JSON (EOF"),
        ];
        for (changed, expected) in cases {
            fs::write(&list, changed).unwrap();
            let error = Split::open(&path).unwrap_err().to_string();
            assert!(
                error.contains(&format!("train.documents.jsonl: {expected}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_part_of_a_split_counts_the_bytes_of_its_source() {
        // Of the characters only a, b and the comma are known.
        let lines = ["ab，", "é", "bξ,aξ"];
        let known = std::iter::once(Ok("ab,".to_string()));
        let characters = Tokenizer::train_characters(Normalise::HalfWidth, known, None).unwrap();
        let pairs = std::iter::once(Ok("ab,ab,".to_string()));
        let pairs = Tokenizer::train(Kind::Bpe, pairs, Some(262)).unwrap();
        let bytes = Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap();
        for tokenizer in [&characters, &pairs, &bytes] {
            let split = Split::open(split_with(tokenizer, &lines)).unwrap();
            let token_bytes = tokenizer.token_bytes();
            let of = |range| split.span_bytes(range, &token_bytes);
            let single: Vec<u64> = (0..split.len()).map(|i| of(i..i + 1)).collect();
            for start in 0..split.len() {
                for end in start..=split.len() {
                    assert_eq!(of(start..end), single[start..end].iter().sum::<u64>());
                }
            }
            assert_eq!(of(0..split.len()), 5 + 2 + 7);
            for (position, id) in split.tokens(0..split.len()).into_iter().enumerate() {
                let is_end = Some(id) == split.specials().end;
                assert_eq!(single[position] == 0, is_end, "token {position}");
            }
        }
        let path = split_with(&characters, &lines);
        let single = [1, 1, 3, 0, 2, 0, 1, 2, 1, 1, 2, 0];
        let of = |split: &Split, i: usize| split.span_bytes(i..i + 1, &characters.token_bytes());
        let split = Split::open(&path).unwrap();
        assert!((0..12).all(|i| of(&split, i) == single[i]));
        // As it was made before spans were kept: a part counts the bytes of its tokens, a document those of its source.
        let mut old = Split::open(&path).unwrap();
        old.documents
            .iter_mut()
            .for_each(|entry| entry.spans.clear());
        assert_eq!((of(&old, 2), of(&old, 4), of(&old, 7)), (1, 2, 0));
        assert_eq!(old.span_bytes(1..12, &characters.token_bytes()), 2 + 2 + 7);
    }

    #[test]
    fn a_missing_manifest_or_split_is_named() {
        let path = split_of_lines(&["ab"]);
        let error = Split::open(path.with_file_name("valid.bin")).unwrap_err();
        assert!(
            error.to_string().contains("valid.bin: found no such file"),
            "{error}"
        );
        let error = Split::open(path.with_file_name("valid")).unwrap_err();
        assert!(error.to_string().contains("valid: found no such file"));
        let error = Split::open(path.parent().unwrap()).unwrap_err();
        assert!(error.to_string().contains("out: found a directory"));
        let error = Split::open(path.with_file_name("manifest.json")).unwrap_err();
        assert!(error.to_string().contains("found another kind of name"));
        fs::remove_file(path.with_file_name("manifest.json")).unwrap();
        let error = Split::open(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("manifest.json: found no such file"),
            "{error}"
        );
    }

    #[test]
    fn ids_of_a_large_vocabulary_take_four_bytes_each() {
        let path = split_of_lines(&["ab", "cde"]);
        let at = |name: &str| path.with_file_name(name);
        // No vocabulary is believed that is larger than its file.
        fs::write(at("tokenizer.json"), " ".repeat(70_000)).unwrap();
        let ids = [97u32, 65_536, 69_999, 3, 2, 1, 0];
        let header = [20_240_801, 7, 7].map(i32::to_le_bytes).concat();
        let tokens = ids.map(u32::to_le_bytes).concat();
        let bytes = [header, vec![0; HEADER_BYTES - 12], tokens].concat();
        fs::write(&path, &bytes).unwrap();
        let text = fs::read_to_string(at("manifest.json")).unwrap();
        let mut manifest: Manifest = serde_json::from_str(&text).unwrap();
        manifest.tokenizer.vocabulary_size = 70_000;
        let facts = FileFacts {
            bytes: bytes.len() as u64,
            sha256: hexadecimal(&Sha256::digest(&bytes)),
        };
        manifest.files.insert("train.bin".to_string(), facts);
        fs::write(at("manifest.json"), manifest.to_json()).unwrap();
        let split = Split::open(&path).unwrap();
        assert_eq!((split.tokens(0..7), split.len()), (ids.to_vec(), 7));
        assert_eq!(split.tokens(1..3), ids[1..3]);
        let mut sizes = vec![1; 70_000];
        (sizes[65_536], sizes[69_999]) = (5, 9);
        assert_eq!(
            (
                split.span_bytes(1..2, &sizes),
                split.span_bytes(1..3, &sizes)
            ),
            (5, 14)
        );
        manifest.tokenizer.vocabulary_size = 69_999;
        fs::write(at("manifest.json"), manifest.to_json()).unwrap();
        let error = Split::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("byte 1032: found id 69999, expected ids below"),
            "{error}"
        );
    }

    #[test]
    fn splits_of_two_tokenizers_do_not_go_together() {
        let bytes = Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap();
        let known = std::iter::once(Ok("ab".to_string()));
        let characters = Tokenizer::train(Kind::Character, known, None).unwrap();
        let [one, same, other] = [&bytes, &bytes, &characters]
            .map(|tokenizer| Split::open(split_with(tokenizer, &["ab"])).unwrap());
        assert!(one.require_like(&same).is_ok() && one.require(&bytes, "").is_ok());
        let error = one.require_like(&other).unwrap_err().to_string();
        assert!(error.contains("tokens of another tokenizer"), "{error}");
        let mut larger = Split::open(same.path()).unwrap();
        larger.tokenizer.vocabulary_size += 1;
        let error = larger.require_like(&one).unwrap_err().to_string();
        assert!(error.contains("found a tokenizer of 261 tokens"), "{error}");
        let error = one.require(&characters, "advice").unwrap_err().to_string();
        assert!(error.ends_with("advice"), "{error}");
    }
}

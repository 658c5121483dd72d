//! Reads documents from text and JSONL files, compressed or not, and from tables (feature `parquet`), as a stream in bounded
//! memory.
//!
//! Bytes stay as they are, `\r\n` included; only a byte order mark at the start of a file is dropped. Text that is
//! dropped or replaced, and files that are read otherwise than their names say, are counted or noted.
//!
//! A document above one MiB is returned in pieces, cut where that does not change its token ids. If no such cut is known, it
//! is kept whole up to [`WHOLE_BYTES_MAX`] and refused above. Memory use is a few times the longest piece, line or whole
//! document.

mod format;
mod input;
mod line;
mod record;
#[cfg(feature = "parquet")]
mod table;
mod table_kind;

use std::collections::VecDeque;
use std::mem;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cut::{Cut, last_space};
use crate::error::{Error, Problem};
use crate::text::json_complaint;
pub use format::Format;
use input::Input;
use line::{Line, Lines};
use record::{Found, Record};

/// From this size on, a document comes in pieces.
const PIECE_BYTES: usize = 1 << 20;

/// The largest document, or run of blank lines, that is kept whole because no safe cut is known. To encode it, the library
/// needs up to 130 bytes of memory per byte, 2 GiB in all.
pub const WHOLE_BYTES_MAX: usize = 16 << 20;
/// How far a space to cut at is looked for: once for each line behind a long text.
const LOOK_BACK_BYTES: usize = 1 << 12;

/// How a text file is divided into documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DocumentRule {
    /// The whole file.
    File,
    /// What lies between blank lines, without its last line end.
    BlankLine,
    /// Each line that is not empty, without its line end.
    Line,
}

/// What happens to bytes that are no UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum BadUtf8 {
    /// Reading stops.
    Error,
    /// They become U+FFFD.
    Replace,
    /// The line is left out.
    Skip,
}

/// How files are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadRules {
    /// For text files.
    pub document: DocumentRule,
    /// The field of JSONL that holds the text; `meta.text` is the field `text` within `meta`.
    pub field: String,
    /// What happens to bytes that are no UTF-8.
    pub on_bad_utf8: BadUtf8,
    /// The longest line that is read.
    pub max_line_bytes: u64,
    /// Whether files are text or JSONL.
    #[serde(default)]
    pub format: Format,
    /// Whether records of JSONL that are broken or have no text are left out; otherwise reading stops. Those whose text is
    /// `null` are left out in any case.
    #[serde(default)]
    pub skip_bad_records: bool,
}

impl Default for ReadRules {
    /// Whole text files as documents, or the JSONL field `text`; lines up to 16 MiB.
    fn default() -> Self {
        Self {
            document: DocumentRule::File,
            field: "text".to_string(),
            on_bad_utf8: BadUtf8::Error,
            max_line_bytes: 16 << 20,
            format: Format::Auto,
            skip_bad_records: false,
        }
    }
}

/// A document, or one piece of a long one.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The text; never empty.
    pub text: String,
    /// The file as the user named it.
    pub source: String,
    /// The number of the document within its file.
    pub index: u64,
    /// Whether it is the document's first piece.
    pub begins: bool,
    /// Whether it is the document's last piece.
    pub ends: bool,
    /// Whether it lies after the position at which the file is divided.
    pub after_cut: bool,
    /// The task, if JSONL names one.
    pub task: Option<String>,
    /// The difficulty, if JSONL names one.
    pub difficulty: Option<u32>,
}

/// What was changed or left out while reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCounts {
    /// Lines of the file.
    #[serde(default)]
    pub lines: u64,
    /// Places where U+FFFD stands for bytes that were no UTF-8.
    pub characters_replaced: u64,
    /// Lines left out because of them.
    pub lines_skipped: u64,
    /// Records of JSONL left out because they are broken or have no text.
    #[serde(default)]
    pub records_skipped: u64,
    /// Why and where the first line or record was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_skipped: Option<String>,
    /// Lines that hold an empty text, or nothing though every line is a document.
    #[serde(default)]
    pub empty_texts: u64,
    /// Documents of which the tokenizer keeps nothing: they have no token.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub without_tokens: u64,
    /// Documents whose `task` is no text or whose `difficulty` is no small whole number; they are read without it.
    pub labels_ignored: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ReadCounts {
    /// One sentence for each kind of change or omission.
    pub fn sentences(&self) -> Vec<String> {
        let lines = self.lines;
        let first = self.first_skipped.as_deref().unwrap_or_default();
        let no_utf8 = format!("left out because they are no UTF-8; first left out: {first}");
        let bad_records = format!("of {lines} records left out; first left out: {first}");
        let no_text = format!("of {lines} lines left out because they hold no text");
        let odd_labels =
            "read without a label (task or difficulty) that is no text or no small whole number";
        let replaced = "places of bytes that are no UTF-8 replaced by U+FFFD";
        let sentences = [
            (self.lines_skipped, format!("of {lines} lines {no_utf8}")),
            (self.records_skipped, bad_records),
            (self.empty_texts, no_text),
            (
                self.without_tokens,
                "documents left out because the tokenizer keeps nothing of them".to_string(),
            ),
            (
                self.labels_ignored,
                format!("of {lines} records {odd_labels}"),
            ),
            (self.characters_replaced, replaced.to_string()),
        ];
        let said = sentences.iter().filter(|(count, _)| *count > 0);
        said.map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

/// Reads one file, document by document.
pub struct DocumentReader {
    lines: Lines,
    rules: ReadRules,
    is_jsonl: bool,
    cut: Cut,
    piece_bytes: usize,
    whole_bytes_max: usize,
    cut_at: Option<u64>,
    /// What has been gathered of the document that is being read.
    draft: Document,
    queue: VecDeque<Document>,
    notes: Vec<String>,
    counts: ReadCounts,
    is_finished: bool,
}

impl DocumentReader {
    /// Opens a file, a pipe, or the standard input (`-`). With `cut_at`, the document that holds this byte of the text is split
    /// in two before it, or before the next character if the byte lies inside one.
    ///
    /// Long documents are cut as tokenizers with GPT-2's pattern allow, see [`DocumentReader::in_pieces`].
    ///
    /// # Errors
    /// `Invalid` if the file is missing, empty, a directory, a device or in another format, `Resource` if the system refuses
    /// it.
    pub fn open(
        path: impl AsRef<Path>,
        rules: &ReadRules,
        cut_at: Option<u64>,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let input = Input::open(path, &rules.field)?;
        let mut notes = Vec::new();
        if let Some(compression) = input.compression() {
            notes.push(format!("decompressed by {compression}"));
        }
        if input.head().starts_with(line::BYTE_ORDER_MARK) {
            notes.push("the byte order mark at its beginning is left out".to_string());
        }
        let (is_jsonl, note) = match input.table() {
            Some(kind) => {
                let field = &rules.field;
                notes.push(format!(
                    "read as {kind} table, column {field:?}; row n is called line n"
                ));
                (true, None)
            }
            None => format::is_jsonl(path, rules.format, input.head())?,
        };
        notes.extend(note.map(str::to_string));
        Ok(Self {
            lines: Lines::new(input, path, rules.max_line_bytes),
            rules: rules.clone(),
            is_jsonl,
            cut: Cut::Words,
            piece_bytes: PIECE_BYTES,
            whole_bytes_max: WHOLE_BYTES_MAX,
            cut_at,
            draft: Document {
                text: String::new(),
                source: path.display().to_string(),
                index: 0,
                begins: true,
                ends: false,
                after_cut: false,
                task: None,
                difficulty: None,
            },
            queue: VecDeque::new(),
            notes,
            counts: ReadCounts::default(),
            is_finished: false,
        })
    }

    /// Cuts long documents only where the ids of a tokenizer stay the same, see [`super::Tokenizer::cut`].
    pub fn in_pieces(mut self, cut: Cut) -> Self {
        self.cut = cut;
        self
    }

    /// Lets error messages suggest options of `data prepare` and `tokenizer train`, which other verbs do not have.
    pub fn advising_options(mut self) -> Self {
        self.lines.advises_options = true;
        self
    }

    /// Sets the byte at which a document is split, see [`DocumentReader::open`]; only before anything was read.
    pub fn cut_at(mut self, cut_at: Option<u64>) -> Self {
        self.cut_at = cut_at;
        self
    }

    /// Copies a stream into an unnamed file in a directory; also returns its length, the bytes of the text.
    ///
    /// # Errors
    /// The errors of reading, and `Resource` if the disk refuses.
    pub fn spooled(self, directory: &Path) -> Result<(Self, u64), Error> {
        let (lines, bytes) = self.lines.spooled(directory)?;
        Ok((Self { lines, ..self }, bytes))
    }

    /// Whether the file is read as JSONL; otherwise it is text.
    pub fn is_jsonl(&self) -> bool {
        self.is_jsonl
    }

    /// The size of the file on the disk; none of an input that can be read only once.
    pub fn file_bytes(&self) -> Option<u64> {
        self.lines.input().file_bytes()
    }

    /// The length of the whole text in bytes; a compressed file is read to its end for this.
    ///
    /// # Errors
    /// `Invalid` if it cannot be decompressed, `Resource` if it cannot be read.
    pub fn text_bytes(self) -> Result<u64, Error> {
        self.lines.count_bytes()
    }

    /// Notes about how the file is read, for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What was changed or left out so far.
    pub fn counts(&self) -> ReadCounts {
        ReadCounts {
            lines: self.lines.number,
            ..self.counts.clone()
        }
    }

    /// Bytes of the file read so far.
    pub fn bytes_read(&self) -> u64 {
        self.lines.input().bytes_read()
    }

    /// SHA-256 of the bytes of the file read so far, in hexadecimal: of the whole file once the reader is exhausted.
    pub fn sha256(&self) -> String {
        self.lines.input().sha256()
    }

    fn read(&mut self) -> Result<Option<Document>, Error> {
        while self.queue.is_empty() && !self.is_finished {
            match self.lines.next()? {
                Some(line) if self.is_jsonl => self.take_json(line)?,
                Some(line) => self.take_text(line)?,
                None => {
                    self.finish_document();
                    self.is_finished = true;
                }
            }
        }
        Ok(self.queue.pop_front())
    }

    fn take_text(&mut self, line: Line) -> Result<(), Error> {
        let end = line.start + line.bytes.len() as u64;
        let Some(at) = self.cut_at.take_if(|at| *at < end) else {
            return self.take_whole_text(line);
        };
        let (head, tail) = line.divided(at);
        self.take_whole_text(head)?;
        self.finish_document();
        self.draft.after_cut = true;
        self.take_whole_text(tail)
    }

    fn take_whole_text(&mut self, line: Line) -> Result<(), Error> {
        let Some(text) = self.decoded(&line)? else {
            return Ok(());
        };
        match self.rules.document {
            DocumentRule::BlankLine if text.trim().is_empty() => self.finish_document(),
            DocumentRule::File | DocumentRule::BlankLine => self.push(&text)?,
            DocumentRule::Line => {
                let text = without_line_end(&text);
                self.counts.empty_texts += u64::from(text.is_empty());
                self.push(text)?;
                self.finish_document();
            }
        }
        Ok(())
    }

    fn take_json(&mut self, line: Line) -> Result<(), Error> {
        let Some(text) = self.decoded(&line)? else {
            return Ok(());
        };
        if text.trim().is_empty() {
            self.counts.empty_texts += 1;
            return Ok(());
        }
        let Some(record) = self.parsed(without_line_end(&text), line.number)? else {
            return Ok(());
        };
        let text = match record.text {
            Found::Text(text) => text,
            other => {
                let found = match &other {
                    Found::Missing => format!("only the fields {:?}", record.names),
                    Found::Null => "null there".to_string(),
                    _ => "another value there".to_string(),
                };
                let place = format!("line {}", line.number);
                let expected = format!("a text in the field {:?}", self.rules.field);
                let problem = Problem::new(&self.lines.path, place, found, expected);
                let is_null = other == Found::Null;
                return self.leave_out(problem, "name the field with --field", is_null);
            }
        };
        self.draft.task = record.task;
        self.draft.difficulty = record.difficulty;
        self.counts.labels_ignored += u64::from(record.has_odd_label);
        self.counts.empty_texts += u64::from(text.is_empty());
        for line in text.split_inclusive('\n') {
            self.push(line)?;
        }
        self.finish_document();
        Ok(())
    }

    /// A line of JSONL; `None` if it is to be skipped.
    fn parsed(&mut self, text: &str, number: u64) -> Result<Option<Record>, Error> {
        let error = match Record::parse(text, &self.rules.field) {
            Ok(record) => return Ok(Some(record)),
            Err(error) => error,
        };
        let place = format!("line {number}, column {}", error.column());
        let complaint = json_complaint(&error);
        let expected = "one JSON object per line";
        let problem = Problem::new(&self.lines.path, place, complaint, expected);
        // Other programs write numbers that JSON does not have, mostly in fields that nobody asks for.
        let without = record::without_odd_numbers(text);
        let text = without.as_deref().unwrap_or(text);
        if without.is_some()
            && let Ok(record) = Record::parse(text, &self.rules.field)
        {
            return Ok(Some(record));
        }
        // JSON can spell what UTF-8 cannot: one half of a surrogate pair.
        let (repaired, n_replaced) = line::without_lone_surrogates(text);
        if n_replaced > 0
            && let Ok(record) = Record::parse(&repaired, &self.rules.field)
        {
            match self.rules.on_bad_utf8 {
                BadUtf8::Replace => {
                    self.counts.characters_replaced += n_replaced;
                    return Ok(Some(record));
                }
                BadUtf8::Skip => {
                    self.skip_line(number, "half a character");
                    return Ok(None);
                }
                BadUtf8::Error => {
                    let advice = "or choose --on-bad-utf8 replace or skip";
                    return self.leave_out(problem, advice, false).map(|()| None);
                }
            }
        }
        self.leave_out(problem, "", false).map(|()| None)
    }

    /// Leaves a bad record out if it is to be, and stops otherwise.
    fn leave_out(&mut self, problem: Problem, advice: &str, always: bool) -> Result<(), Error> {
        if always || self.rules.skip_bad_records {
            let (place, found, expected) = (&problem.place, &problem.found, &problem.expected);
            let reason = || format!("{place}, found {found}, expected {expected}");
            self.counts.first_skipped.get_or_insert_with(reason);
            self.counts.records_skipped += 1;
            return Ok(());
        }
        let skip = "leave such records out with --skip-bad-records";
        let advice = match advice.is_empty() {
            true => skip.to_string(),
            false => format!("{advice}, or {skip}"),
        };
        Err(Error::Invalid(self.advised(problem, &advice, "")))
    }

    fn skip_line(&mut self, number: u64, found: &str) {
        let reason = || format!("line {number}, found {found}, expected UTF-8 text");
        self.counts.first_skipped.get_or_insert_with(reason);
        self.counts.lines_skipped += 1;
    }

    /// With advice that the verb can follow.
    fn advised(&self, problem: Problem, options: &str, otherwise: &str) -> Problem {
        problem.advise(match self.lines.advises_options {
            true => options,
            false => otherwise,
        })
    }

    fn decoded(&mut self, line: &Line) -> Result<Option<String>, Error> {
        let error = match std::str::from_utf8(&line.bytes) {
            Ok(text) => return Ok(Some(text.to_string())),
            Err(error) => error,
        };
        let at = error.valid_up_to();
        let found = format!("0x{:02x}, which is no UTF-8 there", line.bytes[at]);
        match self.rules.on_bad_utf8 {
            BadUtf8::Error => {
                let place = format!("line {}, byte {}", line.number, line.start + at as u64);
                let problem = Problem::new(&self.lines.path, place, found, "UTF-8 text");
                let options = "convert the file or choose --on-bad-utf8 replace or skip";
                let problem = self.advised(problem, options, "convert the file, as with iconv");
                Err(Error::Invalid(problem))
            }
            BadUtf8::Replace => {
                let chunks = line.bytes.utf8_chunks();
                self.counts.characters_replaced +=
                    chunks.filter(|chunk| !chunk.invalid().is_empty()).count() as u64;
                Ok(Some(String::from_utf8_lossy(&line.bytes).into_owned()))
            }
            BadUtf8::Skip => {
                self.skip_line(line.number, &found);
                Ok(None)
            }
        }
    }

    /// Appends to the document, of which a piece is handed over if it gets too long. What is left of it here is more
    /// than a line end, so that its last piece is not empty.
    fn push(&mut self, text: &str) -> Result<(), Error> {
        let gathered = &mut self.draft.text;
        let length = gathered.len() + text.len();
        let is_too_long = length > self.whole_bytes_max;
        let is_blank = text.trim().is_empty();
        if length > self.piece_bytes && !gathered.is_empty() && !text.is_empty() {
            match self.cut {
                Cut::Lines => self.emit(false),
                // Where `word_end` of the module `cut` would cut. Looking back over blank lines is cheap, for it comes
                // once: either they are cut off here, or the line that is appended now hides them, or they are too many.
                Cut::Words if is_too_long || !is_blank => {
                    let end = gathered.trim_end().len();
                    if 0 < end && end < gathered.len() {
                        let rest = gathered.split_off(end);
                        self.emit(false);
                        self.draft.text = rest;
                    }
                    if is_too_long && is_blank && end == 0 {
                        return Err(self.too_long("blank lines", "remove some"));
                    }
                }
                Cut::Spaces | Cut::Nowhere => {
                    let end = match self.cut {
                        Cut::Spaces => last_space(gathered, LOOK_BACK_BYTES),
                        _ => None,
                    };
                    if let Some(end) = end {
                        let rest = gathered.split_off(end);
                        self.emit(false);
                        self.draft.text = rest;
                    } else if is_too_long {
                        let advice = "cut documents smaller (--document line or blank_line), or use a tokenizer whose \
                                      words are those of GPT-2's pattern alone";
                        return Err(self.too_long("a document of", advice));
                    }
                }
                Cut::Words => {}
            }
        }
        self.draft.text.push_str(text);
        Ok(())
    }

    fn too_long(&self, what: &str, advice: &str) -> Error {
        let most = self.whole_bytes_max;
        let place = format!("line {}", self.lines.number);
        let found = format!("{what} more than {most} bytes");
        let expected = format!(
            "at most {most} bytes, which are encoded at once because no place is known to cut them"
        );
        let problem = Problem::new(&self.lines.path, place, found, expected);
        Error::Invalid(self.advised(problem, advice, "give a shorter text"))
    }

    fn finish_document(&mut self) {
        if self.rules.document == DocumentRule::BlankLine && !self.is_jsonl {
            let length = without_line_end(&self.draft.text).len();
            self.draft.text.truncate(length);
        }
        // Pieces are emitted when more follows, so an open document has text here.
        if !self.draft.text.is_empty() {
            self.emit(true);
            self.draft.index += 1;
        }
    }

    fn emit(&mut self, ends: bool) {
        let text = mem::take(&mut self.draft.text);
        let draft = self.draft.clone();
        self.queue.push_back(Document {
            text,
            ends,
            ..draft
        });
        self.draft.begins = ends;
    }
}

impl Iterator for DocumentReader {
    type Item = Result<Document, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        // After an error there is nothing sensible to go on with.
        self.is_finished |= read.is_err();
        read.transpose()
    }
}

fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::super::cut::tests::mixed_text;
    use super::super::tokenizer::{Kind, Tokenizer};
    use super::*;

    fn rules(document: DocumentRule, on_bad_utf8: BadUtf8) -> ReadRules {
        ReadRules {
            document,
            field: "text".into(),
            on_bad_utf8,
            max_line_bytes: 4 << 20,
            ..ReadRules::default()
        }
    }

    fn open(name: &str, bytes: &[u8], rules: &ReadRules, cut_at: Option<u64>) -> DocumentReader {
        let path = tempfile::tempdir().unwrap().keep().join(name);
        std::fs::write(&path, bytes).unwrap();
        let reader = DocumentReader::open(path, rules, cut_at).unwrap();
        reader.advising_options()
    }

    fn texts(name: &str, bytes: &[u8], rules: &ReadRules) -> Vec<String> {
        open(name, bytes, rules, None)
            .map(|document| document.unwrap().text)
            .collect()
    }

    fn failure(name: &str, bytes: &[u8], rules: &ReadRules) -> String {
        let error = open(name, bytes, rules, None)
            .find_map(Result::err)
            .unwrap();
        assert_eq!(error.exit_code(), 3);
        assert_eq!(error.to_string().lines().count(), 1);
        error
            .to_string()
            .split_once(&format!("{name}: "))
            .unwrap()
            .1
            .to_string()
    }

    const STRICT: BadUtf8 = BadUtf8::Error;

    #[test]
    fn each_rule_cuts_documents_where_it_says() {
        let file = "\u{feff}a\r\nb\n \nc\n\n\nd".as_bytes();
        assert_eq!(
            texts("t.txt", file, &rules(DocumentRule::File, STRICT)),
            ["a\r\nb\n \nc\n\n\nd"]
        );
        assert_eq!(
            texts("t.txt", file, &rules(DocumentRule::BlankLine, STRICT)),
            ["a\r\nb", "c", "d"]
        );
        assert_eq!(
            texts("t.txt", file, &rules(DocumentRule::Line, STRICT)),
            ["a", "b", " ", "c", "d"]
        );
    }

    #[test]
    fn long_documents_come_in_pieces_that_join_to_the_whole() {
        let file = "a line of text, not very long\n".repeat(120_000);
        let pieces: Vec<Document> = open(
            "t.txt",
            file.as_bytes(),
            &rules(DocumentRule::File, STRICT),
            None,
        )
        .map(Result::unwrap)
        .collect();
        assert!(pieces.len() > 3);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.text.trim_end().ends_with("long") && piece.index == 0)
        );
        let begins_and_ends: Vec<bool> = pieces
            .iter()
            .flat_map(|piece| [piece.begins, piece.ends])
            .collect();
        assert_eq!(begins_and_ends.iter().filter(|flag| **flag).count(), 2);
        assert!(begins_and_ends[0] && begins_and_ends[begins_and_ends.len() - 1]);
        assert_eq!(
            pieces
                .into_iter()
                .map(|piece| piece.text)
                .collect::<String>(),
            file
        );
    }

    #[test]
    fn pieces_of_any_text_have_the_ids_of_the_whole() {
        let trained_on = std::iter::once(Ok(mixed_text(0, 20_000)));
        let tokenizer = Tokenizer::train(Kind::Bpe, trained_on, Some(600)).unwrap();
        let whole_file = rules(DocumentRule::File, STRICT);
        for seed in 1..6 {
            let text = mixed_text(seed, 20_000);
            let mut reader = open("t.txt", text.as_bytes(), &whole_file, None);
            reader.piece_bytes = 100;
            let pieces: Vec<String> = reader.map(|piece| piece.unwrap().text).collect();
            assert!(pieces.len() > 200);
            assert_eq!(pieces.concat(), text);
            let ids: Vec<u32> = pieces.iter().flat_map(|p| tokenizer.encode(p)).collect();
            assert_eq!(ids, tokenizer.encode(&text));
        }
    }

    #[test]
    fn pieces_of_every_size_have_one_beginning_and_one_end_per_document() {
        let text = "one\n\ntwo\r\nthree \n \nfour\nfive\n\n\nsix\n";
        for rule in [
            DocumentRule::File,
            DocumentRule::BlankLine,
            DocumentRule::Line,
        ] {
            let rules = rules(rule, STRICT);
            let whole = texts("t.txt", text.as_bytes(), &rules);
            for piece_bytes in 0..20 {
                let mut reader = open("t.txt", text.as_bytes(), &rules, None);
                reader.piece_bytes = piece_bytes;
                let mut joined: Vec<String> = Vec::new();
                let mut is_open = false;
                for piece in reader.map(Result::unwrap) {
                    assert_eq!(piece.begins, !is_open);
                    is_open = !piece.ends;
                    match piece.begins {
                        true => joined.push(piece.text),
                        false => joined.last_mut().unwrap().push_str(&piece.text),
                    }
                }
                assert!(!is_open);
                assert_eq!(joined, whole);
            }
        }
    }

    #[test]
    fn a_long_line_at_the_place_of_division_ends_its_document() {
        let line = "x".repeat(PIECE_BYTES + 1) + "\n";
        let rules = rules(DocumentRule::File, STRICT);
        let cut_at = Some(line.len() as u64);
        let reader = open("t.txt", (line + "rest").as_bytes(), &rules, cut_at);
        let ends: Vec<bool> = reader.map(|piece| piece.unwrap().ends).collect();
        assert_eq!(ends, [true, true]);
    }

    #[test]
    fn what_no_place_is_known_to_cut_is_kept_whole_up_to_a_bound() {
        let reader = |text: &str, cut| {
            let whole_file = rules(DocumentRule::File, STRICT);
            let mut reader = open("t.txt", text.as_bytes(), &whole_file, None).in_pieces(cut);
            (reader.piece_bytes, reader.whole_bytes_max) = (100, 1000);
            let pieces: Result<Vec<usize>, Error> =
                reader.map(|piece| Ok(piece?.text.len())).collect();
            pieces.map_err(|error| error.to_string())
        };
        let words = "some words\n".repeat(90);
        assert_eq!(reader(&words, Cut::Nowhere), Ok(vec![990]));
        assert!(reader(&words, Cut::Words).unwrap().len() > 8);
        assert!(reader(&words, Cut::Lines).unwrap().len() > 8);
        let error = reader(&words.repeat(2), Cut::Nowhere).unwrap_err();
        assert!(
            error.contains("found a document of more than 1000 bytes"),
            "{error}"
        );
        assert!(error.contains("--document line or blank_line"), "{error}");
        // Byte pairs may join any number of line ends.
        let blank = "\n".repeat(999);
        assert_eq!(reader(&blank, Cut::Words), Ok(vec![999]));
        assert!(
            reader(&blank.repeat(2), Cut::Words)
                .unwrap_err()
                .contains("blank lines")
        );
        assert_eq!(
            reader(&blank.repeat(2), Cut::Lines)
                .unwrap()
                .iter()
                .sum::<usize>(),
            1998
        );
        let long = format!("{}\n{blank}x", "y".repeat(2000));
        assert_eq!(reader(&long, Cut::Words), Ok(vec![2000, 1001]));
    }

    #[test]
    fn a_json_error_names_one_place() {
        let found = failure("t.jsonl", b"{}{}", &rules(DocumentRule::Line, STRICT));
        assert_eq!(
            found,
            "line 1, column 3: found no JSON (trailing characters), expected one JSON object per line; \
             leave such records out with --skip-bad-records"
        );
    }

    #[test]
    fn a_cut_inside_a_character_moves_behind_it() {
        let file = "abä\ndef".as_bytes();
        for (at, head, tail) in [
            (2, "ab", "ä\ndef"),
            (3, "abä", "\ndef"),
            (5, "abä\n", "def"),
            (0, "", "abä\ndef"),
        ] {
            let reader = open("t.txt", file, &rules(DocumentRule::File, STRICT), Some(at));
            let (after, before): (Vec<_>, Vec<_>) =
                reader.map(Result::unwrap).partition(|d| d.after_cut);
            let joined = |pieces: Vec<Document>| {
                pieces
                    .into_iter()
                    .map(|piece| piece.text)
                    .collect::<String>()
            };
            assert_eq!(
                (joined(before).as_str(), joined(after).as_str()),
                (head, tail)
            );
        }
    }

    #[test]
    fn bad_utf8_stops_is_replaced_or_is_skipped() {
        let file = b"good\nb\xffd\xc3\ngood\n";
        let error = failure("t.txt", file, &rules(DocumentRule::Line, STRICT));
        assert!(error.starts_with("line 2, byte 6: found 0xff"), "{error}");
        let mut replacing = open(
            "t.txt",
            file,
            &rules(DocumentRule::Line, BadUtf8::Replace),
            None,
        );
        assert_eq!(
            replacing.by_ref().map(|d| d.unwrap().text).nth(1).unwrap(),
            "b\u{fffd}d\u{fffd}"
        );
        assert_eq!(replacing.counts().characters_replaced, 2);
        let mut skipping = open(
            "t.txt",
            file,
            &rules(DocumentRule::Line, BadUtf8::Skip),
            None,
        );
        assert_eq!(skipping.by_ref().count(), 2);
        assert_eq!(skipping.counts().lines_skipped, 1);
    }

    #[test]
    fn jsonl_keeps_labels_and_names_what_is_wrong() {
        let file = b"{\"text\":\"a\\nb\",\"task\":\"copy\",\"difficulty\":2}\n\n{\"text\":\"c\",\"difficulty\":\"B\"}\n";
        let mut reader = open("t.jsonl", file, &rules(DocumentRule::Line, STRICT), None);
        let documents: Vec<Document> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(
            (documents[0].text.as_str(), documents[0].difficulty),
            ("a\nb", Some(2))
        );
        assert_eq!(documents[0].task.as_deref(), Some("copy"));
        assert_eq!(
            (documents[1].difficulty, reader.counts().labels_ignored),
            (None, 1)
        );

        let strict = rules(DocumentRule::Line, STRICT);
        assert!(
            failure("t.jsonl", b"{\"a\":1}", &strict)
                .starts_with("line 1: found only the fields [\"a\"]")
        );
        assert!(failure("t.jsonl", b"{}\n", &strict).starts_with("line 1: found only"));
        assert!(failure("t.jsonl", b"[1]", &strict).starts_with("line 1, column"));
        assert!(failure("t.jsonl", b"{\"text\": 3}", &strict).contains("another value"));
    }

    #[test]
    fn only_the_field_that_is_asked_for_is_read_strictly() {
        let big = "9".repeat(400);
        let file = format!(
            "{{\"text\": \"a\", \"score\": NaN}}\n{{\"id\": {big}, \"text\": \"b\"}}\n\
             {{\"text\": null}}\n{{\"text\": \"\"}}\n{{\"x\": \"\\ud800\", \"text\": \"c\", \"difficulty\": 2.0}}\n"
        );
        let strict = rules(DocumentRule::Line, STRICT);
        let mut reader = open("t.JSONL", file.as_bytes(), &strict, None);
        let documents: Vec<Document> = reader.by_ref().map(Result::unwrap).collect();
        let texts: Vec<&str> = documents.iter().map(|d| d.text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "c"]);
        assert_eq!(documents[2].difficulty, Some(2));
        let counts = reader.counts();
        assert_eq!(
            (counts.lines, counts.empty_texts, counts.records_skipped),
            (5, 1, 1)
        );
        let sentences = counts.sentences();
        assert_eq!(sentences.len(), 2);
        assert!(
            sentences[0].starts_with("1 of 5 records left out; first left out: line 3, found null")
        );
        assert!(sentences[1].starts_with("1 of 5 lines left out because they hold no text"));
        let number = format!("{{\"text\": {big}}}");
        assert!(failure("t.jsonl", number.as_bytes(), &strict).contains("another value"));
    }

    #[test]
    fn bad_records_are_left_out_and_counted_if_they_are_to_be() {
        let file =
            b"{\"text\": \"a\"}\n{\"text\": 3}\n{broken\n{\"other\": \"b\"}\n{\"text\": \"c\"}\n";
        let strict = rules(DocumentRule::Line, STRICT);
        let error = failure("t.jsonl", file, &strict);
        assert!(
            error.starts_with("line 2: found another value there"),
            "{error}"
        );
        assert!(error.contains("--skip-bad-records"), "{error}");
        let skipping = ReadRules {
            skip_bad_records: true,
            ..strict
        };
        let mut reader = open("t.jsonl", file, &skipping, None);
        assert_eq!(
            reader.by_ref().map(|d| d.unwrap().text).collect::<String>(),
            "ac"
        );
        assert_eq!(reader.counts().records_skipped, 3);
        let first = reader.counts().first_skipped.unwrap();
        assert!(
            first.starts_with("line 2, found another value there"),
            "{first}"
        );
    }

    #[test]
    fn what_is_compressed_is_read_as_what_it_holds_whatever_its_name() {
        use std::io::Write;
        let text = "one line\nand another\n".repeat(5000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(text.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        // With a checksum, as the program of that name writes it.
        let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
        zstd.include_checksum(true).unwrap();
        zstd.write_all(text.as_bytes()).unwrap();
        let zstd = zstd.finish().unwrap();
        let whole_file = rules(DocumentRule::File, STRICT);
        // Programs that compress in parallel write several parts.
        for (bytes, n) in [
            (gzip.clone(), 1),
            (zstd.clone(), 1),
            ([zstd.clone(), zstd.clone()].concat(), 2),
            ([gzip.clone(), gzip.clone()].concat(), 2),
        ] {
            let mut reader = open("t.txt", &bytes, &whole_file, None);
            let read: String = reader.by_ref().map(|d| d.unwrap().text).collect();
            assert_eq!(read, text.repeat(n));
            assert_eq!(reader.bytes_read(), bytes.len() as u64);
            use sha2::{Digest, Sha256};
            assert_eq!(
                reader.sha256(),
                crate::hash::hexadecimal(&Sha256::digest(&bytes))
            );
            let reader = open("t.txt", &bytes, &whole_file, None);
            assert_eq!(reader.text_bytes().unwrap(), (text.len() * n) as u64);
        }
        // Found when the file is opened, if it is short, or when it is read.
        let broken = |bytes: &[u8]| {
            let path = tempfile::tempdir().unwrap().keep().join("t.txt");
            std::fs::write(&path, bytes).unwrap();
            let error = match DocumentReader::open(path, &whole_file, None) {
                Ok(mut reader) => reader.find_map(Result::err).unwrap(),
                Err(error) => error,
            };
            error.to_string()
        };
        for bytes in [&gzip, &zstd] {
            let cut = broken(&bytes[..bytes.len() - 9]);
            let place = format!("byte {}: ", bytes.len() - 9);
            assert!(
                cut.contains("cannot be decompressed") && cut.contains(&place),
                "{cut}"
            );
            let mut damaged = bytes.clone();
            damaged[bytes.len() / 2] ^= 0x55;
            let damaged = broken(&damaged);
            assert!(damaged.contains("cannot be decompressed"), "{damaged}");
        }
    }

    #[test]
    fn other_encodings_and_formats_are_named_with_what_to_do() {
        let utf16: Vec<u8> = "\u{feff}text"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let cases: [(&[u8], &str); 4] = [
            (
                &utf16,
                "UTF-16 by its byte order mark, expected UTF-8 text; convert it: iconv -f UTF-16",
            ),
            (b"\0\0\xfe\xff\0\0\0a", "UTF-32"),
            (b"PK\x03\x04rest", "a zip archive"),
            (b"\xfd7zXZ\0rest", "xz -dc"),
        ];
        for (bytes, expected) in cases {
            let path = tempfile::tempdir().unwrap().keep().join("t.txt");
            std::fs::write(&path, bytes).unwrap();
            let replacing = rules(DocumentRule::File, BadUtf8::Replace);
            let error = DocumentReader::open(path, &replacing, None).err().unwrap();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains(expected), "{error}");
        }
        let marked = open(
            "t.txt",
            "\u{feff}a".as_bytes(),
            &rules(DocumentRule::File, STRICT),
            None,
        );
        assert!(marked.notes()[0].contains("byte order mark"));
    }

    #[test]
    fn advice_is_only_given_where_the_verb_has_the_option() {
        let path = tempfile::tempdir().unwrap().keep().join("t.jsonl");
        for bytes in [&b"{\"text\": 3}"[..], b"\xff\n", &[b'x'; 5 << 20]] {
            std::fs::write(&path, bytes).unwrap();
            let reader = DocumentReader::open(&path, &rules(DocumentRule::Line, STRICT), None);
            let error = reader.unwrap().find_map(Result::err).unwrap();
            assert!(!error.to_string().contains("--"), "{error}");
        }
    }

    #[test]
    fn lone_surrogates_follow_the_rule_for_bad_utf8() {
        let file = br#"{"text":"a\ud800b \ud83d\ude00"}"#;
        assert!(
            failure("t.jsonl", file, &rules(DocumentRule::Line, STRICT)).contains("--on-bad-utf8")
        );
        let replaced = texts(
            "t.jsonl",
            file,
            &rules(DocumentRule::Line, BadUtf8::Replace),
        );
        assert_eq!(replaced, ["a\u{fffd}b 😀"]);
        assert!(texts("t.jsonl", file, &rules(DocumentRule::Line, BadUtf8::Skip)).is_empty());
    }

    #[test]
    fn empty_and_missing_files_are_named() {
        let rules = rules(DocumentRule::File, STRICT);
        let directory = tempfile::tempdir().unwrap().keep();
        std::fs::write(directory.join("empty.txt"), "").unwrap();
        let cases = [
            ("empty.txt", "an empty file"),
            ("missing.txt", "no such file"),
            ("", "a directory"),
        ];
        for (name, found) in cases {
            let error = DocumentReader::open(directory.join(name), &rules, None)
                .err()
                .unwrap();
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains(found), "{error}");
        }
    }

    #[test]
    fn documents_are_numbered_one_by_one_and_have_labels_of_their_own() {
        let lines = [
            r#"{"text": "a", "task": "x", "difficulty": 1}"#,
            r#"{"text": ""}"#,
            r#"{"text": "b"}"#,
            r#"{"text": "c\ud800\udfff\ud800d", "task": null, "difficulty": 0}"#,
        ];
        let rules = rules(DocumentRule::Line, BadUtf8::Replace);
        let mut reader = open("t.jsonl", lines.join("\n").as_bytes(), &rules, None);
        let documents: Vec<Document> = reader.by_ref().map(Result::unwrap).collect();
        let facts = |it: &Document| (it.index, it.text.clone(), it.task.clone(), it.difficulty);
        let found: Vec<_> = documents.iter().map(facts).collect();
        let expected = [
            (0, "a".to_string(), Some("x".to_string()), Some(1)),
            (1, "b".to_string(), None, None),
            (2, "c\u{103ff}\u{fffd}d".to_string(), None, Some(0)),
        ];
        assert_eq!(found, expected);
        let counts = reader.counts();
        assert_eq!(
            (counts.lines, counts.empty_texts, counts.characters_replaced),
            (4, 1, 1)
        );
        let twice = br#"{"text": "\ud800 \udc00"}"#;
        let mut reader = open("t.jsonl", twice, &rules, None);
        assert_eq!(reader.next().unwrap().unwrap().text, "\u{fffd} \u{fffd}");
        assert_eq!(reader.counts().characters_replaced, 2);
    }
}

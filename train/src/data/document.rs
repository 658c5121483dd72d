//! Documents out of files: plain text and JSONL, read as a stream in bounded memory.
//!
//! Bytes are kept as they are, `\r\n` included; only a byte order mark at the start of a file is left out.
//! A document above one MiB is handed over in pieces, and so is encoded in pieces. A piece ends with the last word of a
//! line, where the byte pairs of GPT-2's pattern do not notice. Only blank lines that alone exceed 8 MiB are cut all the
//! same and may get other ids there. Memory is a few times the longer of a piece and the longest line.

mod line;

use std::collections::VecDeque;
use std::fs::File;
use std::mem;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Problem};
use crate::text::json_complaint;
use line::{Line, Lines};

/// From this size on, a document comes in pieces.
const PIECE_BYTES: usize = 1 << 20;

/// At this size a piece ends between two blank lines too.
const PIECE_BYTES_MAX: usize = 8 << 20;

/// What a document is in a text file.
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
    /// The field that holds the text, for `.jsonl` and `.ndjson` files.
    pub field: String,
    /// What happens to bytes that are no UTF-8.
    pub on_bad_utf8: BadUtf8,
    /// The longest line that is read.
    pub max_line_bytes: u64,
}

/// Whether a path is read as JSONL; everything else is text.
pub fn is_jsonl(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("jsonl" | "ndjson"))
}

/// A document, or one piece of a long one.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Never empty.
    pub text: String,
    /// The file as the user named it.
    pub source: String,
    /// The number of the document within its file.
    pub index: u64,
    /// Whether it is the document's first piece.
    pub begins: bool,
    /// Whether it is the document's last piece.
    pub ends: bool,
    /// Whether it lies behind the place where the file was to be divided.
    pub after_cut: bool,
    /// The task, if JSONL names one.
    pub task: Option<String>,
    /// The difficulty, if JSONL names one.
    pub difficulty: Option<u32>,
}

/// What was changed or left out while reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCounts {
    /// Places where U+FFFD stands for bytes that were no UTF-8.
    pub characters_replaced: u64,
    /// Lines left out because of them.
    pub lines_skipped: u64,
    /// Documents whose `task` is no text or whose `difficulty` is no small number; they are read without it.
    pub labels_ignored: u64,
}

/// Reads one file, document by document.
pub struct DocumentReader {
    lines: Lines,
    path: PathBuf,
    rules: ReadRules,
    piece_bytes: usize,
    cut_at: Option<u64>,
    after_cut: bool,
    /// What has been gathered of the document that is being read.
    text: String,
    is_open: bool,
    task: Option<String>,
    difficulty: Option<u32>,
    index: u64,
    queue: VecDeque<Document>,
    counts: ReadCounts,
    is_finished: bool,
}

impl DocumentReader {
    /// Opens a file. With `cut_at`, the document that holds this byte of the file ends before it, or before the next
    /// character if it lies inside one, and the rest is another document.
    ///
    /// # Errors
    /// `Invalid` if the file is missing, empty or a directory, `Resource` if the system refuses it.
    pub fn open(
        path: impl AsRef<Path>,
        rules: &ReadRules,
        cut_at: Option<u64>,
    ) -> Result<Self, Error> {
        let path = path.as_ref();
        let expected = "a text or JSONL file";
        let file = File::open(path).map_err(|e| Error::unreadable(path, expected, e))?;
        let metadata = file
            .metadata()
            .map_err(|e| Error::unreadable(path, expected, e))?;
        if metadata.is_dir() {
            return Err(Error::Invalid(
                Problem::new(path, "", "a directory", expected).advise("name the files in it"),
            ));
        }
        if metadata.is_file() && metadata.len() == 0 {
            return Err(Error::Invalid(Problem::new(
                path,
                "",
                "an empty file",
                "some text",
            )));
        }
        Ok(Self {
            lines: Lines::new(file, path, rules.max_line_bytes),
            path: path.to_path_buf(),
            rules: rules.clone(),
            piece_bytes: PIECE_BYTES,
            cut_at,
            after_cut: false,
            text: String::new(),
            is_open: false,
            task: None,
            difficulty: None,
            index: 0,
            queue: VecDeque::new(),
            counts: ReadCounts::default(),
            is_finished: false,
        })
    }

    /// What was changed or left out so far.
    pub fn counts(&self) -> ReadCounts {
        self.counts
    }

    /// Bytes of the file read so far.
    pub fn bytes_read(&self) -> u64 {
        self.lines.offset()
    }

    /// SHA-256 of the bytes read so far, in hexadecimal: of the whole file once the reader is exhausted.
    pub fn sha256(&self) -> String {
        self.lines.sha256()
    }

    fn read(&mut self) -> Result<Option<Document>, Error> {
        while self.queue.is_empty() && !self.is_finished {
            match self.lines.next()? {
                Some(line) if is_jsonl(&self.path) => self.take_json(line)?,
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
        match self
            .cut_at
            .filter(|at| *at < line.start + line.bytes.len() as u64)
        {
            Some(at) => {
                self.cut_at = None;
                let (head, tail) = line.divided(at);
                self.take_whole_text(head)?;
                self.finish_document();
                self.after_cut = true;
                self.take_whole_text(tail)
            }
            None => self.take_whole_text(line),
        }
    }

    fn take_whole_text(&mut self, line: Line) -> Result<(), Error> {
        let Some(text) = self.decoded(&line)? else {
            return Ok(());
        };
        match self.rules.document {
            DocumentRule::File => self.push(&text),
            DocumentRule::BlankLine if text.trim().is_empty() => self.finish_document(),
            DocumentRule::BlankLine => self.push(&text),
            DocumentRule::Line => {
                self.push(without_line_end(&text));
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
            return Ok(());
        }
        let Some(object) = self.parsed(without_line_end(&text), line.number)? else {
            return Ok(());
        };
        let Some(Value::String(text)) = object.get(&self.rules.field) else {
            let names: Vec<&str> = object.keys().map(String::as_str).take(8).collect();
            let found = match object.contains_key(&self.rules.field) {
                true => "another value there".to_string(),
                false => format!("only the fields {names:?}"),
            };
            let place = format!("line {}", line.number);
            let expected = format!("a text in the field {:?}", self.rules.field);
            let problem = Problem::new(&self.path, place, found, expected);
            return Err(Error::Invalid(
                problem.advise("name the field with --field"),
            ));
        };
        self.take_labels(&object);
        text.split_inclusive('\n').for_each(|line| self.push(line));
        self.finish_document();
        Ok(())
    }

    /// A line of JSONL; `None` if it escapes half a character and such lines are to be skipped.
    fn parsed(&mut self, text: &str, number: u64) -> Result<Option<Map<String, Value>>, Error> {
        let error = match serde_json::from_str(text) {
            Ok(object) => return Ok(Some(object)),
            Err(error) => error,
        };
        // JSON can spell what UTF-8 cannot: one half of a surrogate pair.
        let (repaired, n_replaced) = line::without_lone_surrogates(text);
        if n_replaced > 0 && self.rules.on_bad_utf8 == BadUtf8::Skip {
            self.counts.lines_skipped += 1;
            return Ok(None);
        }
        if n_replaced > 0
            && self.rules.on_bad_utf8 == BadUtf8::Replace
            && let Ok(object) = serde_json::from_str(&repaired)
        {
            self.counts.characters_replaced += n_replaced;
            return Ok(Some(object));
        }
        let place = format!("line {number}, column {}", error.column());
        let problem = Problem::new(
            &self.path,
            place,
            json_complaint(&error),
            "one JSON object per line",
        );
        Err(Error::Invalid(match n_replaced {
            0 => problem,
            _ => problem.advise("or choose --on-bad-utf8 replace or skip"),
        }))
    }

    fn take_labels(&mut self, object: &Map<String, Value>) {
        self.task = object
            .get("task")
            .and_then(Value::as_str)
            .map(str::to_string);
        self.difficulty = match object.get("difficulty") {
            Some(Value::Number(number)) => number
                .as_u64()
                .and_then(|number| u32::try_from(number).ok()),
            _ => None,
        };
        let is_ignored = |name: &str, is_kept: bool| {
            !is_kept && object.get(name).is_some_and(|value| !value.is_null())
        };
        if is_ignored("task", self.task.is_some())
            || is_ignored("difficulty", self.difficulty.is_some())
        {
            self.counts.labels_ignored += 1;
        }
    }

    fn decoded(&mut self, line: &Line) -> Result<Option<String>, Error> {
        let error = match std::str::from_utf8(&line.bytes) {
            Ok(text) => return Ok(Some(text.to_string())),
            Err(error) => error,
        };
        match self.rules.on_bad_utf8 {
            BadUtf8::Error => {
                let at = error.valid_up_to();
                let place = format!("line {}, byte {}", line.number, line.start + at as u64);
                let found = format!("0x{:02x}, which is no UTF-8 there", line.bytes[at]);
                let problem = Problem::new(&self.path, place, found, "UTF-8 text");
                Err(Error::Invalid(problem.advise(
                    "convert the file or choose --on-bad-utf8 replace or skip",
                )))
            }
            BadUtf8::Replace => {
                let chunks = line.bytes.utf8_chunks();
                self.counts.characters_replaced +=
                    chunks.filter(|chunk| !chunk.invalid().is_empty()).count() as u64;
                Ok(Some(String::from_utf8_lossy(&line.bytes).into_owned()))
            }
            BadUtf8::Skip => {
                self.counts.lines_skipped += 1;
                Ok(None)
            }
        }
    }

    /// Appends to the document, of which a piece is handed over if it gets too long. What is left of it here is more
    /// than a line end, so that its last piece is not empty.
    fn push(&mut self, text: &str) {
        let length = self.text.len() + text.len();
        if length > self.piece_bytes && !text.trim().is_empty() {
            // Where `word_end` of the module `cut` would cut. Looking back over blank lines is cheap, for it comes
            // once: either they are cut off here or the line that is appended now hides them.
            let end = self.text.trim_end().len();
            if 0 < end && end < self.text.len() {
                let rest = self.text.split_off(end);
                self.emit(false);
                self.text = rest;
            }
        } else if length > PIECE_BYTES_MAX && !self.text.is_empty() && !text.is_empty() {
            self.emit(false);
        }
        self.text.push_str(text);
    }

    fn finish_document(&mut self) {
        if self.rules.document == DocumentRule::BlankLine && !is_jsonl(&self.path) {
            let length = without_line_end(&self.text).len();
            self.text.truncate(length);
        }
        // Pieces are emitted when more follows, so an open document has text here.
        if !self.text.is_empty() {
            self.emit(true);
            self.index += 1;
        }
    }

    fn emit(&mut self, ends: bool) {
        self.queue.push_back(Document {
            text: mem::take(&mut self.text),
            source: self.path.display().to_string(),
            index: self.index,
            begins: !self.is_open,
            ends,
            after_cut: self.after_cut,
            task: self.task.clone(),
            difficulty: self.difficulty,
        });
        self.is_open = !ends;
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
        }
    }

    fn open(name: &str, bytes: &[u8], rules: &ReadRules, cut_at: Option<u64>) -> DocumentReader {
        let path = tempfile::tempdir().unwrap().keep().join(name);
        std::fs::write(&path, bytes).unwrap();
        DocumentReader::open(path, rules, cut_at).unwrap()
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
    fn blank_lines_are_cut_at_the_largest_piece() {
        let text = "\n".repeat(PIECE_BYTES_MAX + 10);
        let pieces = texts("t.txt", text.as_bytes(), &rules(DocumentRule::File, STRICT));
        assert_eq!(
            pieces.iter().map(String::len).collect::<Vec<_>>(),
            [PIECE_BYTES_MAX, 10]
        );
    }

    #[test]
    fn a_json_error_names_one_place() {
        let found = failure("t.jsonl", b"{}{}", &rules(DocumentRule::Line, STRICT));
        assert_eq!(
            found,
            "line 1, column 3: found no JSON (trailing characters), expected one JSON object per line"
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
}

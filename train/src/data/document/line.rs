//! Reads lines as bytes with number and offset, up to a maximum length; also replaces lone surrogates in JSON text.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::input::Input;
use crate::error::{Error, Problem};

/// A longer line is not measured to its end: a device has none.
const MEASURED_MAX: u64 = 1 << 30;

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line, including its line end.
pub(super) struct Line {
    pub bytes: Vec<u8>,
    /// The line number, from 1.
    pub number: u64,
    /// The offset of the first byte in the file.
    pub start: u64,
}

impl Line {
    /// Splits the line at a byte of the file, or at the end of the character that the byte lies in.
    pub fn divided(mut self, at: u64) -> (Line, Line) {
        let is_inside_character = |byte: &u8| byte & 0xc0 == 0x80;
        let mut cut = at.saturating_sub(self.start) as usize;
        while self.bytes.get(cut).is_some_and(is_inside_character) {
            cut += 1;
        }
        let tail = Line {
            bytes: self.bytes.split_off(cut),
            number: self.number,
            start: self.start + cut as u64,
        };
        (self, tail)
    }
}

/// Reads lines.
pub(super) struct Lines {
    input: BufReader<Input>,
    pub path: PathBuf,
    max_line_bytes: u64,
    /// Whether error messages suggest the option for long lines.
    pub advises_options: bool,
    offset: u64,
    /// The number of the last line that was read.
    pub number: u64,
}

impl Lines {
    pub fn new(input: Input, path: &Path, max_line_bytes: u64) -> Self {
        Self {
            input: BufReader::with_capacity(1 << 16, input),
            path: path.to_path_buf(),
            max_line_bytes,
            advises_options: false,
            offset: 0,
            number: 0,
        }
    }

    pub fn input(&self) -> &Input {
        self.input.get_ref()
    }

    /// Copies the input into an unnamed file in a directory; also returns its length in bytes. Only before any line was read.
    pub fn spooled(self, directory: &Path) -> Result<(Self, u64), Error> {
        let (input, bytes) = self.input.into_inner().spooled(&self.path, directory)?;
        let input = BufReader::with_capacity(1 << 16, input);
        Ok((Self { input, ..self }, bytes))
    }

    /// Reads to the end and counts the bytes of the text.
    pub fn count_bytes(mut self) -> Result<u64, Error> {
        let counted = io::copy(&mut self.input, &mut io::sink());
        counted.map_err(|e| self.input().error(&self.path, e))
    }

    /// The next line, or `None` at the end of the file.
    pub fn next(&mut self) -> Result<Option<Line>, Error> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.input).take(self.max_line_bytes.saturating_add(1));
        let read = limited.read_until(b'\n', &mut bytes);
        read.map_err(|e| self.input().error(&self.path, e))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let length = bytes.strip_suffix(b"\n").unwrap_or(&bytes).len() as u64;
        if length > self.max_line_bytes {
            let rest = rest_of_line(&mut (&mut self.input).take(MEASURED_MAX));
            let rest = rest.map_err(|e| self.input().error(&self.path, e))?;
            let place = format!("line {}", self.number);
            let found = match rest < MEASURED_MAX {
                true => format!("{} bytes", length + rest),
                false => format!("more than {rest} bytes"),
            };
            let expected = format!("at most {}", self.max_line_bytes);
            let problem = Problem::new(&self.path, place, found, expected);
            return Err(Error::Invalid(problem.advise(match self.advises_options {
                true => "break the line or raise --max-line-bytes",
                false => "break the line",
            })));
        }
        let mut start = self.offset;
        self.offset += bytes.len() as u64;
        if start == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
            start = BYTE_ORDER_MARK.len() as u64;
        }
        Ok(Some(Line {
            bytes,
            number: self.number,
            start,
        }))
    }
}

/// Counts what is left of a line without keeping it.
fn rest_of_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut length = 0;
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(buffer.len());
        let is_last = end.is_some() || buffer.is_empty();
        length += taken as u64;
        input.consume(taken);
        if is_last {
            return Ok(length);
        }
    }
}

/// Replaces unpaired surrogates (`\ud800` to `\udfff`) in JSON text by `\ufffd`; also returns how many there were.
pub(super) fn without_lone_surrogates(json: &str) -> (String, u64) {
    let mut repaired = String::with_capacity(json.len());
    let mut n_replaced = 0;
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        repaired.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                n_replaced += 1;
                repaired.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            // Any other escape: the backslash and the character it escapes.
            _ => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        repaired.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    repaired.push_str(rest);
    (repaired, n_replaced)
}

/// The number in `\u` and four hexadecimal digits.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], max: u64) -> Result<Vec<Vec<u8>>, Error> {
        let path = tempfile::tempdir().unwrap().keep().join("t.txt");
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Lines::new(Input::open(&path, "text").unwrap(), &path, max);
        lines.advises_options = true;
        let mut all = Vec::new();
        while let Some(line) = lines.next()? {
            all.push(line.bytes);
        }
        Ok(all)
    }

    #[test]
    fn a_line_of_the_allowed_length_is_read_and_a_longer_one_is_measured() {
        assert_eq!(lines(b"1234\n1234", 4).unwrap(), [&b"1234\n"[..], b"1234"]);
        let error = lines(b"1\n123456789\n1", 4).unwrap_err().to_string();
        assert!(error.ends_with("line 2: found 9 bytes, expected at most 4; break the line or raise --max-line-bytes"), "{error}");
        assert!(
            lines(b"12345", 4)
                .unwrap_err()
                .to_string()
                .contains("found 5 bytes")
        );
    }

    #[test]
    fn only_lone_surrogates_are_replaced() {
        let cases = [
            (r"a\ud83d\ude00b", r"a\ud83d\ude00b", 0),
            (r"\ud800x\udc00", r"\ufffdx\ufffd", 2),
            (r"\\ud800 \n\", r"\\ud800 \n\", 0),
            (r"\ud800\ud83d\ude00", r"\ufffd\ud83d\ude00", 1),
            (r"\ud8", r"\ud8", 0),
            (r"\ud800ä", r"\ufffdä", 1),
        ];
        for (json, repaired, n) in cases {
            assert_eq!(without_lone_surrogates(json), (repaired.to_string(), n));
        }
    }
}

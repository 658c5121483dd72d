//! Decides whether a file is text or JSONL: as `Format` says, else by the ending of its name, else by its first line.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::error::{Error, Problem};

/// The format that a file is read as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSONL if its name ends with `.jsonl`, `.ndjson`, `.jsonlines` or `.json`, in any case and before `.gz` or `.zst`; if the name
    /// has no ending, as that of a pipe, by its first line; else text.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Jsonl,
}

/// Whether a file is read as JSONL, and a note for the user, if any. `head`: the beginning of its text.
pub(super) fn is_jsonl(
    path: &Path,
    format: Format,
    head: &[u8],
) -> Result<(bool, Option<&'static str>), Error> {
    let as_text =
        "read as text though its first line is a JSON object; --format jsonl reads a field of it";
    let as_jsonl = "read as JSONL, for its first line is a JSON object";
    Ok(match (format, ending(path).as_str()) {
        (Format::Text, _) => (false, None),
        (Format::Jsonl, _) | (_, "jsonl" | "ndjson" | "jsonlines") => (true, None),
        (_, "json") if begins_with_object(head) => (true, None),
        (_, "json") => return Err(Error::Invalid(no_lines(path, head))),
        (_, "") if begins_with_object(head) => (true, Some(as_jsonl)),
        _ if begins_with_object(head) => (false, Some(as_text)),
        _ => (false, None),
    })
}

/// The ending of a file's name in small letters, without that of a compression.
fn ending(path: &Path) -> String {
    let lower = |path: &Path| {
        let ending = path.extension().unwrap_or_default();
        ending.to_string_lossy().to_lowercase()
    };
    match lower(path).as_str() {
        "gz" | "zst" | "zstd" => lower(&path.with_extension("")),
        ending => ending.to_string(),
    }
}

/// Whether the first line that is not blank is a whole JSON object, or the beginning of one that is longer than what is
/// looked at.
fn begins_with_object(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    let text = without_blank(&text);
    match text.split_once('\n') {
        Some((line, _)) => is_object(line),
        None => is_object(text) || head.len() >= 1 << 15 && text.starts_with("{\""),
    }
}

fn without_blank(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim_start()
}

fn is_object(line: &str) -> bool {
    let repaired = super::record::without_odd_numbers(line);
    let line = repaired.as_deref().unwrap_or(line);
    Record::parse(&super::line::without_lone_surrogates(line).0, "").is_ok()
}

fn no_lines(path: &Path, head: &[u8]) -> Problem {
    let text = String::from_utf8_lossy(head);
    let (found, advice) = match without_blank(&text).chars().next() {
        Some('[') => (
            "a JSON list",
            "write its objects one per line: jq -c '.[]' FILE > FILE.jsonl",
        ),
        Some('{') => (
            "a JSON object over several lines",
            "write it in one line: jq -c . FILE > FILE.jsonl",
        ),
        _ => (
            "a first line that is no JSON object",
            "name it .jsonl if others are, or .txt if it is text",
        ),
    };
    Problem::new(path, "", found, "one JSON object per line").advise(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_lines_tell_what_a_file_is() {
        let object = b"{\"text\": \"a\", \"score\": NaN}\n{}".as_slice();
        let text = b"some {words}\n".as_slice();
        let cases = [
            ("a.jsonl", text, true, false),
            ("a.JSONL", text, true, false),
            ("a.NDJSON.GZ", text, true, false),
            ("a.json", object, true, false),
            ("a.txt", object, false, true),
            ("a.txt.gz", text, false, false),
            ("-", object, true, true),
            ("-", text, false, false),
            ("/dev/fd/63", object, true, true),
        ];
        for (name, head, expected, has_note) in cases {
            let (found, note) = is_jsonl(Path::new(name), Format::Auto, head).unwrap();
            assert_eq!((found, note.is_some()), (expected, has_note), "{name}");
            let path = Path::new(name);
            assert_eq!(is_jsonl(path, Format::Text, head).unwrap(), (false, None));
            assert_eq!(is_jsonl(path, Format::Jsonl, head).unwrap(), (true, None));
        }
        let refused = [
            ("[{}]", "jq -c '.[]'"),
            ("{\n}", "jq -c ."),
            ("words", ".txt"),
        ];
        for (head, advice) in refused {
            let error = is_jsonl(Path::new("a.json"), Format::Auto, head.as_bytes());
            assert!(error.unwrap_err().to_string().contains(advice));
        }
    }
}

//! Answers on stdout: tables, JSON, and sizes that people can read.

use std::io::{self, ErrorKind, Write};

use serde_json::Value;

use crate::error::Error;

/// A size as `12.3 MB`, in powers of 1000.
pub fn readable_bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

/// Text from a file, without what a terminal would obey, and without what turns the direction of a line.
pub fn printable(text: &str) -> String {
    let obeyed = |character: char| {
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        character.is_control() || turns
    };
    text.replace(obeyed, "?")
}

/// The cells that a terminal needs for a text: two for a wide character, none for a mark that stands on another.
pub fn cells(text: &str) -> usize {
    text.chars().map(cells_of).sum()
}

fn cells_of(character: char) -> usize {
    match u32::from(character) {
        0x300..=0x36f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
        // Hangul, Chinese, Japanese, full-width forms, pictures (Unicode's East Asian Width W and F, in blocks).
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x2_0000..=0x3_fffd => 2,
        _ => 1,
    }
}

/// A text cut to so many cells; a cut is shown.
pub fn fitted(text: &str, most: usize) -> String {
    if cells(text) <= most {
        return text.to_string();
    }
    let mut used = 0;
    let fits = |character: &char| {
        used += cells_of(*character);
        used < most
    };
    let kept: String = text.chars().take_while(fits).collect();
    kept + "…"
}

/// Rows as lines, each column as wide as its widest cell.
pub fn aligned<const COLUMNS: usize>(table: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in table {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Prints one JSON object to stdout, the answer of every `--json`.
///
/// # Errors
/// `Resource` if stdout cannot be written.
pub fn print_json(object: &Value) -> Result<(), Error> {
    print(&format!("{object:#}\n"))
}

/// Prints to stdout; a reader that has gone away, as `head` does, is no error.
///
/// # Errors
/// `Resource` if stdout cannot be written.
pub fn print(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|source| Error::resource("stdout", "write", source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let table = [["name", "step"], ["grün", "7"], ["x", ""]].map(|row| row.map(str::to_string));
        assert_eq!(aligned(&table), "name  step\ngrün  7\nx\n");
    }

    #[test]
    fn sizes_are_readable() {
        let sizes = [0, 999, 1000, 1_250_000, 3_000_000_000_000_000].map(readable_bytes);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.2 MB", "3000.0 TB"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(printable("run\x1b[2J\n"), "run?[2J?");
        assert_eq!(printable("a\u{202e}b"), "a?b");
    }

    #[test]
    fn wide_characters_take_two_cells_and_a_cut_is_seen() {
        assert_eq!(["abc", "罗马", "e\u{301}", "，"].map(cells), [3, 4, 1, 2]);
        assert_eq!(fitted("罗马描述", 8), "罗马描述");
        assert_eq!(fitted("罗马描述", 7), "罗马描…");
        assert_eq!(fitted("罗马描述", 6), "罗马…");
        assert_eq!(fitted("abcdef", 4), "abc…");
    }
}

//! Prints a command's answer to stdout: tables, JSON, and readable sizes and times.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde_json::Value;

use crate::error::Error;
use crate::escape;
use crate::say::note;

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

/// A duration in readable form.
pub fn readable_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Escapes text for one line of a terminal.
pub use crate::escape::terminal as printable;

/// The width of a text in terminal cells: two for a wide character, none for a combining mark.
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

/// A text cut to at most `most` cells; a cut is marked.
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

/// A text padded with spaces to `width` cells.
pub fn padded(text: &str, width: usize) -> String {
    text.to_string() + &" ".repeat(width.saturating_sub(cells(text)))
}

/// A value in a table; an unknown one is a dash.
pub fn maybe<T>(value: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    value.map_or("-".to_string(), shown)
}

/// Rows under a head, which is written as `name | status | step`; see [`aligned`].
///
/// # Panics
/// If the head has another number of columns than the rows.
pub fn table<const COLUMNS: usize>(
    head: &str,
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let head: Vec<String> = head.split(" | ").map(str::to_string).collect();
    let mut table = vec![head.try_into().expect("one name for each column")];
    table.extend(rows);
    aligned(&table)
}

/// Rows of equal lengths as lines, each column as wide as its widest cell; control characters of terminals are shown as
/// marks.
pub fn aligned(table: &[impl AsRef<[String]>]) -> String {
    let shown = |row: &[String]| row.iter().map(|cell| escape::terminal(cell)).collect();
    let table: Vec<Vec<String>> = table.iter().map(|row| shown(row.as_ref())).collect();
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| table.iter().map(|row| cells(&row[column])).max();
    let widths: Vec<usize> = (0..columns).filter_map(width).collect();
    let mut text = String::new();
    for row in &table {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| padded(cell, width));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Prints an answer: one JSON object if it was asked for, else text for people.
///
/// # Errors
/// `Resource` if stdout cannot be written.
pub fn give(
    as_json: bool,
    object: impl FnOnce() -> Value,
    text: impl FnOnce() -> String,
) -> Result<(), Error> {
    match as_json {
        true => print_json(&object()),
        false => print(&text()),
    }
}

/// Prints one JSON object to stdout, the answer of every `--json`.
///
/// # Errors
/// `Resource` if stdout cannot be written.
pub fn print_json(object: &Value) -> Result<(), Error> {
    write(&escape::json(&format!("{object:#}\n")))
}

/// Prints text for people to stdout. Control characters are always escaped: a file may be shown in a terminal later.
///
/// # Errors
/// `Resource` if stdout cannot be written.
pub fn print(text: &str) -> Result<(), Error> {
    write(&escape::terminal_lines(text))
}

/// Prints a text that is itself the answer, as a sample or a recipe: unchanged to a file or a pipe, escaped on a terminal.
///
/// # Errors
/// `Resource` if stdout cannot be written.
pub fn print_text(text: &str) -> Result<(), Error> {
    match io::stdout().is_terminal() {
        true => print(text),
        false => write(text),
    }
}

/// Notes that what was counted did not fit into memory, if it lies in files.
pub fn note_sorted_on_disk(n_files: usize) {
    if n_files > 0 {
        note(&format!(
            "what did not fit into memory was sorted on the disk ({n_files} files): --memory allows more"
        ));
    }
}

/// A reader that has gone away, as `head` does, is no error.
fn write(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
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
    fn what_a_terminal_would_obey_is_a_mark_and_wide_names_line_up() {
        let table = [["run\x1b[2J\n", "7"], ["罗马", "8"], ["a\u{202e}b", "9"]];
        let table = table.map(|row| row.map(str::to_string));
        assert_eq!(
            aligned(&table),
            "run␛[2J⏎    7\n罗马        8\na\\u{202e}b  9\n"
        );
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

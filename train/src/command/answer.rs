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

/// Text from a file, without what a terminal would obey.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
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
    }
}

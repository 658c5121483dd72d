//! `Table`: a title, columns, rows and notes, written as terminal text or as HTML; also formats numbers, changes and bars.

use crate::command::answer::{cells, fitted};
use crate::escape::{terminal, xml};
use std::fmt::Write;

/// The most cells of a token in a terminal, in tables with many tokens a line and with few: no line exceeds 80 cells.
const NAME: [usize; 2] = [10, 12];

/// A column: its head and its alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Words, left-aligned.
    Left(&'static str),
    /// Numbers, right-aligned.
    Right(&'static str),
    /// Tokens, shortened in a terminal.
    Token(&'static str),
}

/// Columns from their heads, written as `at> | token~ | where`: numbers end in `>`, tokens in `~`.
pub fn columns(heads: &'static str) -> Vec<Column> {
    let column = |head: &'static str| match (head.strip_suffix('>'), head.strip_suffix('~')) {
        (Some(head), _) => Column::Right(head),
        (_, Some(head)) => Column::Token(head),
        _ => Column::Left(head),
    };
    heads.split('|').map(|head| column(head.trim())).collect()
}

impl Column {
    fn head(self) -> &'static str {
        match self {
            Self::Left(head) | Self::Right(head) | Self::Token(head) => head,
        }
    }
}

/// A table with a title, columns, rows and notes.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub title: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
    /// Notes below it, one per line.
    pub notes: Vec<String>,
}

impl Table {
    /// A table without rows.
    pub fn new(title: impl Into<String>, columns: &[Column]) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        debug_assert_eq!(COLUMNS, self.columns.len());
        self.rows.push(cells.into());
    }

    /// The table as text for a terminal.
    pub fn text(&self) -> String {
        let head = self.columns.iter().map(|column| column.head().to_string());
        let mut lines: Vec<Vec<String>> = vec![head.collect()];
        lines.extend(self.rows.iter().map(|row| self.cut(row)));
        let width = |column: usize| lines.iter().map(|line| cells(&line[column])).max();
        let widths: Vec<usize> = (0..self.columns.len()).filter_map(width).collect();
        if lines[0].iter().all(String::is_empty) {
            lines.remove(0);
        }
        if self.rows.is_empty() {
            lines.clear();
        }
        let lines = lines.iter().map(|line| self.line(line, &widths));
        let notes = self.notes.iter().map(|note| wrapped(&terminal(note)));
        let title = format!("{}\n", terminal(&self.title));
        std::iter::once(title).chain(lines).chain(notes).collect()
    }

    fn cut(&self, row: &[String]) -> Vec<String> {
        let is_token = |column: &&Column| matches!(column, Column::Token(_));
        let few = self.columns.iter().filter(is_token).count() <= 2;
        let cells = row.iter().zip(&self.columns);
        let cut = cells.map(|(cell, column)| match column {
            Column::Token(_) => fitted(&terminal(cell), NAME[usize::from(few)]),
            _ => terminal(cell),
        });
        cut.collect()
    }

    fn line(&self, line: &[String], widths: &[usize]) -> String {
        let mut text = String::new();
        for ((cell, column), width) in line.iter().zip(&self.columns).zip(widths) {
            let space = " ".repeat(width - cells(cell));
            text += "  ";
            text += &match column {
                Column::Right(_) => space + cell,
                _ => cell.clone() + &space,
            };
        }
        format!("{}\n", text.trim_end())
    }

    /// The table as HTML.
    pub fn html(&self) -> String {
        let mut page = format!("<h3>{}</h3>", xml(&self.title));
        if !self.rows.is_empty() {
            page += "<div class=\"scroll\"><table>";
            if self.columns.iter().any(|column| !column.head().is_empty()) {
                let heads = self.columns.iter().map(|column| column.head());
                page += &self.html_row("th", heads);
            }
            for row in &self.rows {
                page += &self.html_row("td", row.iter().map(String::as_str));
            }
            page += "</table></div>";
        }
        for note in &self.notes {
            let _ = write!(page, "<p>{}</p>", xml(note));
        }
        page
    }

    fn html_row<'a>(&self, tag: &str, cells: impl Iterator<Item = &'a str>) -> String {
        let mut row = String::from("<tr>");
        for (cell, column) in cells.zip(&self.columns) {
            let class = match column {
                Column::Left(_) => "",
                Column::Right(_) => " class=\"number\"",
                Column::Token(_) => " class=\"text\"",
            };
            let _ = write!(row, "<{tag}{class}>{}</{tag}>", xml(cell));
        }
        row + "</tr>"
    }
}

/// A sentence in lines of at most 80 cells.
fn wrapped(note: &str) -> String {
    let mut text = String::new();
    let mut line = String::new();
    for word in note.split(' ') {
        if !line.is_empty() && cells(&line) + cells(word) + 1 > 78 {
            text += &format!("  {}\n", line.trim_end());
            line.clear();
        }
        line += word;
        line.push(' ');
    }
    text + &format!("  {}\n", line.trim_end())
}

/// Formats a number.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        ..1e-3 => format!("{value:.1e}"),
        ..1e5 => format!("{value:.3}"),
        _ => format!("{value:.3e}"),
    }
}

/// Formats a change, with its sign.
pub fn change(value: f64) -> String {
    match value >= 0.0 {
        true => format!("+{}", number(value)),
        false => number(value),
    }
}

/// A bar of at most `most` cells, with its sign in front.
pub fn bar(value: f64, largest: f64, most: usize) -> String {
    let length = (value.abs() / largest * most as f64).round() as usize;
    match (length, value >= 0.0) {
        (0, _) => String::new(),
        (length, true) => format!("+{}", "█".repeat(length.min(most))),
        (length, false) => format!("-{}", "░".repeat(length.min(most))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_under_wide_tokens_and_a_page_escapes_them() {
        let mut table = Table::new("steps", &[Column::Token("token"), Column::Right("nats")]);
        table.row(["罗马".to_string(), "1.5".to_string()]);
        table.row(["<b>".to_string(), "12.25".to_string()]);
        table.row(["x".repeat(40), "3".to_string()]);
        let text = table.text();
        let width: Vec<usize> = text.lines().skip(1).map(cells).collect();
        assert_eq!(width, [21; 4], "{text}");
        assert!(
            table
                .html()
                .contains("<td class=\"text\">&lt;b&gt;</td><td class=\"number\">12.25</td>")
        );
    }

    #[test]
    fn a_note_stays_within_the_width_and_loses_no_word() {
        let note = "an edge 罗马 competes ".repeat(12);
        let text = wrapped(note.trim_end());
        assert!(text.lines().count() > 3 && text.lines().all(|line| cells(line) <= 80));
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words.join(" "), note.trim_end());
    }

    #[test]
    fn numbers_are_short_at_every_size() {
        let all = [0.0, 1e-9, 0.25, -3.0, 1e7, f64::INFINITY].map(number);
        assert_eq!(all, ["0", "1.0e-9", "0.250", "-3.000", "1.000e7", "inf"]);
        assert_eq!(change(0.5), "+0.500");
        assert_eq!(
            (bar(-1.0, 2.0, 4), bar(f64::NAN, 0.0, 4)),
            ("-░░".to_string(), String::new())
        );
    }
}

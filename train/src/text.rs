//! Makes one short line of a `serde_json` error, without its position, and shortens texts of files, for our error messages.

use crate::error;
use crate::escape;
use serde_json::error::Category;

/// The message of a `serde_json` error, for `found …`: one line, without the position, which our errors name themselves.
pub fn json_complaint(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let complaint = text.strip_suffix(&place).unwrap_or(&text);
    // Names and values out of the file can be part of it.
    let complaint = shortened(&escape::terminal(complaint));
    match error.classify() {
        Category::Syntax | Category::Eof => format!("no JSON ({complaint})"),
        Category::Data | Category::Io => complaint,
    }
}

/// The line of a text where TOML went wrong, from 1, and the message of the error, in one line.
pub fn toml_complaint(error: &toml::de::Error, text: &str) -> (usize, String) {
    let before = error.span().map_or("", |span| &text[..span.start]);
    let complaint = error.message().replace('\n', " ");
    (1 + before.matches('\n').count(), complaint)
}

/// Where the first of some strings begins in a text.
pub fn first_of(text: &str, strings: &[String]) -> Option<usize> {
    strings.iter().filter_map(|string| text.find(string)).min()
}

/// The longest text of a file that a message repeats, in characters.
const MOST_SHOWN: usize = 200;

/// A text that fits into a line: only its beginning, if it is longer.
pub fn shortened(text: &str) -> String {
    error::shortened(text, MOST_SHOWN).into_owned()
}

/// The first `most` characters of a text, and a sign that there are more.
pub fn beginning(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(json: &str) -> String {
        json_complaint(&serde_json::from_str::<Vec<bool>>(json).unwrap_err())
    }

    #[test]
    fn a_complaint_names_no_place_and_fits_behind_found() {
        assert_eq!(complaint("text"), "no JSON (expected ident)");
        assert_eq!(complaint("[]\n1"), "no JSON (trailing characters)");
        assert_eq!(complaint(""), "no JSON (EOF while parsing a value)");
        assert_eq!(
            complaint("[1]"),
            "invalid type: integer `1`, expected a boolean"
        );
    }

    #[test]
    fn a_complaint_does_not_repeat_a_value_of_ten_megabytes() {
        let text = complaint(&format!("[\"{}\"]", "x".repeat(10 << 20)));
        assert!(text.len() < 300, "{}", text.len());
    }

    #[test]
    fn a_complaint_is_one_line() {
        let text = complaint("[\"a\\nat line 1 column 2\\u001b\"]");
        assert!(!text.contains(char::is_control), "{text}");
    }

    #[test]
    fn only_what_is_longer_than_a_line_is_cut_and_between_characters() {
        let just = "é".repeat(MOST_SHOWN);
        assert_eq!(shortened(&just), just);
        let long = format!("{just}é");
        assert_eq!(shortened(&long), format!("{just}… (402 bytes)"));
    }
}

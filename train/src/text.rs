//! Words of other libraries, made fit for our errors.

use serde_json::error::Category;

/// What `serde_json` complains about, for `found …`: one line, without the place, which our errors name themselves.
pub fn json_complaint(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let complaint = text.strip_suffix(&place).unwrap_or(&text);
    // Names out of the file can be part of it.
    let complaint = complaint.replace(char::is_control, "?");
    match error.classify() {
        Category::Syntax | Category::Eof => format!("no JSON ({complaint})"),
        Category::Data | Category::Io => complaint,
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
    fn a_complaint_is_one_line() {
        let text = complaint("[\"a\\nat line 1 column 2\\u001b\"]");
        assert!(!text.contains(char::is_control), "{text}");
    }
}

//! Messages on stderr, beside the answer on stdout; always [`escape`]d, because they contain names and texts of files.

use crate::escape;
use serde_json::Value;
use std::io::{Write, stderr};

/// Prints lines to stderr. Unlike with `eprintln!`, a closed or full stderr does not end a training.
pub fn say(lines: &str) {
    let _ = writeln!(stderr(), "{}", escape::terminal_lines(lines));
}

/// Prints a line with `nerve:` in front, so that it is not taken for the output of another program.
pub fn note(line: &str) {
    say(&format!("nerve: {}", escape::terminal(line)));
}

/// Prints a JSON object in one line, for programs.
pub fn say_json(object: &Value) {
    let _ = writeln!(stderr(), "{}", escape::json(&object.to_string()));
}

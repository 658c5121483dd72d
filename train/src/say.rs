//! What is said beside the answer, on stderr: always [`escape`]d, because names and texts of files are part of it.

use crate::escape;
use serde_json::Value;
use std::io::{Write, stderr};

/// Says lines. A stderr that is closed or full is no reason to lose a training, as it would be with `eprintln!`.
pub fn say(lines: &str) {
    let _ = writeln!(stderr(), "{}", escape::terminal_lines(lines));
}

/// Says a line that a reader could take for the output of another program.
pub fn note(line: &str) {
    say(&format!("nerve: {}", escape::terminal(line)));
}

/// Says an object to a program, in a line.
pub fn say_json(object: &Value) {
    let _ = writeln!(stderr(), "{}", escape::json(&object.to_string()));
}

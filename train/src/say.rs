//! What is said beside the answer, on stderr.

use std::io::{Write, stderr};

/// Says a line. A stderr that is closed or full is no reason to lose a training, as it would be with `eprintln!`.
pub fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Says a line that a reader could take for the output of another program.
pub fn note(line: &str) {
    say(&format!("nerve: {line}"));
}

//! Messages on stderr, beside the answer on stdout; always [`escape`]d, because they contain names and texts of files.

use crate::escape;
use serde_json::Value;
use std::io::{Write, stderr};
use std::sync::OnceLock;

/// The number of this process in a job of several.
static RANK: OnceLock<usize> = OnceLock::new();

/// Says that this process is one of several: of what all would say, only the first says it.
pub fn as_rank(rank: usize) {
    let _ = RANK.set(rank);
}

/// Prints lines of this process alone to stderr, whatever its rank, which it names.
pub fn say_own(lines: &str) {
    let rank = RANK.get().map(|rank| format!("rank {rank}: "));
    let rank = rank.unwrap_or_default();
    print(&escape::terminal_lines(&format!("{rank}{lines}")));
}

/// In one piece: other processes write to the same terminal.
fn print(lines: &str) {
    let _ = stderr().write_all(format!("{lines}\n").as_bytes());
}

fn speaks() -> bool {
    RANK.get().is_none_or(|&rank| rank == 0)
}

/// Prints lines to stderr. Unlike with `eprintln!`, a closed or full stderr does not end a training.
pub fn say(lines: &str) {
    if speaks() {
        print(&escape::terminal_lines(lines));
    }
}

/// Prints a line with `nerve:` in front, so that it is not taken for the output of another program.
pub fn note(line: &str) {
    say(&format!("nerve: {}", escape::terminal(line)));
}

/// Prints a JSON object in one line, for programs.
pub fn say_json(object: &Value) {
    if speaks() {
        print(&escape::json(&object.to_string()));
    }
}

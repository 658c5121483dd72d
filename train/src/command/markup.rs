//! Pages that need nothing else, and the files they go to.

use crate::error::Error;
use crate::say::note;
use std::fs;
use std::path::PathBuf;

const STYLE: &str = "
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { padding: .1rem .8rem .1rem 0; text-align: left; overflow-wrap: normal; }
.scroll { overflow-x: auto; }
";

/// A whole page; `body` is markup, `title` is text.
pub fn document(title: &str, style: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><title>{title}</title>\
         <style>{STYLE}{style}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )
}

/// Text that is only text in a page; what a terminal would obey is shown as a mark.
pub fn escape(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        match character {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\n' => safe += "⏎",
            character if character.is_control() => safe.push('\u{fffd}'),
            character => safe.push(character),
        }
    }
    safe
}

/// Writes what was asked for and says so.
///
/// # Errors
/// `Resource` if the file cannot be written.
pub fn write(path: Option<&PathBuf>, content: impl FnOnce() -> String) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, content()).map_err(|cause| Error::resource(path, "write", cause))?;
    note(&format!("wrote {}", path.display()));
    Ok(())
}

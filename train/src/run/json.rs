//! Parses the bytes of a run's JSON files, with line and column of what is wrong, and makes such bytes, indented for people;
//! opens no file.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Problem;
use crate::text::json_complaint;

/// The content of a file.
pub fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8], expected: &str) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Problem::new(path, place, json_complaint(&error), expected)
    })
}

/// The bytes of a file with this content.
///
/// # Errors
/// If the content holds a path that is no text.
pub fn to_bytes(content: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(content)?;
    text.push(b'\n');
    Ok(text)
}

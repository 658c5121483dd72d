//! `documents`: the questions of a task, from files of JSON lines; `Document` reads their fields.

use super::definition::Files;
use crate::error::{Error, Problem};
use crate::file::read_text;
use crate::text::json_complaint;
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

/// The largest file of questions, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// A question.
#[derive(Debug)]
pub struct Document {
    file: PathBuf,
    line: usize,
    /// All its fields.
    pub fields: Map<String, Value>,
}

/// At most `limit` questions, in the order of the files and their lines.
///
/// # Errors
/// `Invalid`, naming file and line; a pattern that no file has; no question at all.
pub fn documents(files: &Files, limit: Option<usize>) -> Result<Vec<Document>, Error> {
    let named = match files {
        Files::One(file) => std::slice::from_ref(file),
        Files::Several(files) => &files[..],
    };
    let most = limit.unwrap_or(usize::MAX);
    let mut documents = Vec::new();
    for file in named {
        for file in matching(file)? {
            let text = read_text(&file, "a file of JSON lines", MAX_BYTES)?;
            let lines = (1..).zip(text.lines());
            for (line, text) in lines.filter(|(_, text)| !text.trim().is_empty()) {
                if documents.len() == most {
                    return Ok(documents);
                }
                let fields = serde_json::from_str(text).map_err(|error| {
                    let place = format!("line {line}");
                    let found = json_complaint(&error);
                    Error::Invalid(Problem::new(&file, place, found, "a JSON object"))
                })?;
                let file = file.clone();
                documents.push(Document { file, line, fields });
            }
        }
    }
    match (documents.is_empty(), named.first()) {
        (true, first) => {
            let first = first.cloned().unwrap_or_default();
            let problem = Problem::new(first, "", "no question", "at least one line");
            Err(Error::Invalid(problem))
        }
        (false, _) => Ok(documents),
    }
}

/// The files that a name stands for, sorted.
fn matching(name: &Path) -> Result<Vec<PathBuf>, Error> {
    let last = name.file_name().unwrap_or_default().to_string_lossy();
    let Some((before, behind)) = last.split_once('*') else {
        return Ok(vec![name.to_path_buf()]);
    };
    let folder = match name.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let refused = |source| Error::resource(folder, "read the directory", source);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let fits = file.len() >= before.len() + behind.len()
            && file.starts_with(before)
            && file.ends_with(behind);
        if fits {
            found.push(entry.path());
        }
    }
    found.sort();
    match found.is_empty() {
        false => Ok(found),
        true => Err(Error::Invalid(Problem::new(
            name,
            "",
            "no such file",
            "at least one",
        ))),
    }
}

impl Document {
    fn wrong(&self, field: &str, found: &str, expected: &str) -> Error {
        let place = format!("line {}, field {field}", self.line);
        Error::Invalid(Problem::new(&self.file, place, found, expected))
    }

    /// A field that is a text.
    ///
    /// # Errors
    /// `Invalid` if it is not there or something else.
    pub fn text(&self, field: &str) -> Result<&str, Error> {
        match self.fields.get(field) {
            Some(Value::String(text)) => Ok(text),
            None => Err(self.wrong(field, "no such field", "a text")),
            Some(_) => Err(self.wrong(field, "something else", "a text")),
        }
    }

    /// A field that is a list of texts, at least one.
    ///
    /// # Errors
    /// `Invalid` if it is not.
    pub fn texts(&self, field: &str) -> Result<Vec<&str>, Error> {
        let wrong = || self.wrong(field, "something else", "a list of texts, at least one");
        let values = self.fields.get(field).and_then(Value::as_array);
        let values = values
            .filter(|values| !values.is_empty())
            .ok_or_else(wrong)?;
        values
            .iter()
            .map(|value| value.as_str().ok_or_else(wrong))
            .collect()
    }

    /// The place of the right one of some answers.
    ///
    /// # Errors
    /// `Invalid` if the field names none.
    pub fn place(&self, field: &str, answers: &[&str]) -> Result<usize, Error> {
        let place = match self.fields.get(field) {
            Some(Value::String(text)) => answers.iter().position(|answer| answer == text),
            Some(value) => value.as_u64().map(|place| place as usize),
            None => None,
        };
        let place = place.filter(|place| *place < answers.len());
        let expected = format!("one of the {} answers, or its place from 0", answers.len());
        place.ok_or_else(|| self.wrong(field, "something else", &expected))
    }

    /// An error of this question.
    pub fn problem(&self, found: String, expected: &str) -> Error {
        let place = format!("line {}", self.line);
        Error::Invalid(Problem::new(&self.file, place, found, expected))
    }
}

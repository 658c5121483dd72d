//! From a file to a checked recipe: text → overrides → tree → values → rules.

use crate::error::{Error, Problem};
use crate::file::open_stream;
use crate::hash::hexadecimal;
use crate::recipe::Recipe;
use crate::recipe::check::{check, check_run};
use crate::recipe::deserialize::deserialize;
use crate::recipe::elsewhere::Elsewhere;
use crate::recipe::report::Report;
use crate::recipe::set;
use crate::recipe::source::{MAX_BYTES, Source};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

/// A recipe that holds every rule, with the text it came from.
#[derive(Debug)]
pub struct Checked {
    recipe: Recipe,
    source: Source,
    elsewhere: Elsewhere,
}

impl Checked {
    /// The resolved text, as it is written into the run directory.
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// The SHA-256 of the resolved text.
    pub fn sha256(&self) -> String {
        hexadecimal(&Sha256::digest(self.text()))
    }

    /// Lets the recipe name its files where they are. Text and hash stay.
    pub fn relocate(&mut self, find: impl FnOnce(&mut Elsewhere)) {
        find(&mut self.elsewhere);
        self.elsewhere.apply(&mut self.recipe);
    }

    /// Where its files are, as far as that differs from the text.
    pub fn elsewhere(&self) -> &Elsewhere {
        &self.elsewhere
    }

    /// The resolved text as a tree, for those who want another form of it.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

impl Deref for Checked {
    type Target = Recipe;

    fn deref(&self) -> &Recipe {
        &self.recipe
    }
}

/// Reads a recipe, writes every `PATH=VALUE` of `sets` into it, and checks it.
///
/// # Errors
/// Everything that is wrong, at once; or what the system says about the file.
pub fn load(path: &Path, sets: &[String]) -> Result<Checked, Error> {
    let text = read(path)?;
    from_text(&path.display().to_string(), text, sets).map_err(Error::Config)
}

/// Like [`load`], for the recipe of a run, which may be older than some rules.
///
/// # Errors
/// Everything that is wrong, at once; or what the system says about the file.
pub fn load_run(path: &Path, sets: &[String]) -> Result<Checked, Error> {
    let text = read(path)?;
    by_rules(&path.display().to_string(), text, sets, check_run).map_err(Error::Config)
}

/// Like [`load`], for a text that is not in a file.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn from_text(file: &str, text: String, sets: &[String]) -> Result<Checked, Vec<Problem>> {
    by_rules(file, text, sets, check)
}

fn by_rules(
    file: &str,
    text: String,
    sets: &[String],
    check: fn(&Recipe, &Report<'_>),
) -> Result<Checked, Vec<Problem>> {
    let source = Source::parse(file, text).map_err(|problem| vec![problem])?;
    let source = set::apply(source, sets)?;
    let report = Report::new(&source);
    let recipe: Option<Recipe> = deserialize(&report);
    if let Some(recipe) = &recipe {
        check(recipe, &report);
    }
    let problems = report.into_problems();
    match recipe {
        Some(recipe) if problems.is_empty() => Ok(Checked {
            recipe,
            source,
            elsewhere: Elsewhere::default(),
        }),
        _ => Err(problems),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells too much from just enough, also where a file has no length.
    let limit = MAX_BYTES as u64 + 1;
    let file = open_stream(path, "a recipe").map_err(as_config)?;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|cause| Error::resource(path, "read", cause))?;
    let problem = |place: String, found: String, expected: String| {
        Err(Error::config(Problem::new(path, place, found, expected)))
    };
    if bytes.len() > MAX_BYTES {
        return problem(
            String::new(),
            format!("more than {MAX_BYTES} bytes"),
            format!("a recipe of at most {MAX_BYTES} bytes"),
        );
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let at = bytes.utf8_error().valid_up_to();
    let bytes = bytes.as_bytes();
    let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    problem(
        format!("line {line}, byte {at}"),
        format!("the byte 0x{:02x}", bytes[at]),
        "UTF-8".to_string(),
    )
}

/// A recipe that is not there is a mistake on the command line.
fn as_config(error: Error) -> Error {
    match error {
        Error::Invalid(problem) => Error::config(problem.advise("`nerve config new` writes one")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_of_file(content: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        std::fs::write(&path, content).unwrap();
        let error = load(&path, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error
            .to_string()
            .replace(&path.display().to_string(), "r.toml")
    }

    #[test]
    fn a_file_that_is_no_text_gives_one_line_and_exit_code_2() {
        assert_eq!(
            message_of_file(b""),
            "r.toml: found an empty file, expected a recipe; `nerve config new` writes one"
        );
        assert_eq!(
            message_of_file(b"format = 1\n# \xff"),
            "r.toml: line 2, byte 13: found the byte 0xff, expected UTF-8"
        );
        assert!(!message_of_file(&vec![b'#'; MAX_BYTES]).contains("more than"));
        assert_eq!(
            message_of_file(&vec![b'#'; MAX_BYTES + 1]),
            "r.toml: found more than 1048576 bytes, expected a recipe of at most 1048576 bytes"
        );
    }

    #[test]
    fn a_path_without_a_file_gives_one_line_and_exit_code_2() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            (folder.path().join("r.toml"), "no such file"),
            (folder.path().into(), "a directory"),
        ];
        for (path, found) in cases {
            let error = load(&path, &[]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert_eq!(
                error.to_string(),
                format!(
                    "{}: found {found}, expected a recipe; `nerve config new` writes one",
                    path.display()
                )
            );
        }
    }
}

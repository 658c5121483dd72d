//! Loads a recipe from a file or a text: parses it, applies `--set`, deserializes and checks it, into a `Checked` or a list of
//! all problems. Older formats are refused, but upgraded where the recipe is that of a run.

use crate::error::{Error, Problem};
use crate::file::open_stream;
use crate::hash::hexadecimal;
use crate::recipe::check::{check, check_run};
use crate::recipe::deserialize::deserialize;
use crate::recipe::elsewhere::Elsewhere;
use crate::recipe::open;
use crate::recipe::path::KeyPath;
use crate::recipe::report::Report;
use crate::recipe::root::Recipe;
use crate::recipe::set;
use crate::recipe::source::{MAX_BYTES, Source};
use crate::recipe::upgrade::{FORMAT, older_format, upgrade};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::ops::Deref;
use std::path::Path;

/// A recipe that holds every rule, with the text it came from.
#[derive(Debug)]
pub struct Checked {
    recipe: Recipe,
    source: Source,
    /// The text of a run's recipe in an older format: it stays what it was, and with it its hash.
    written: Option<String>,
    elsewhere: Elsewhere,
}

impl Checked {
    /// The resolved text, as it is written into the run directory.
    pub fn text(&self) -> &str {
        self.written.as_ref().unwrap_or(&self.source.text)
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
    let file = path.display().to_string();
    let older = || -> Result<_, Vec<Problem>> {
        let source = Source::parse(&file, text.clone()).map_err(|problem| vec![problem])?;
        let Some(format) = older_format(&source) else {
            return by_rules(source, sets, check_run);
        };
        let (upgraded, _) = upgrade(source, format).map_err(|problem| vec![problem])?;
        let mut checked = by_rules(upgraded, sets, check_run)?;
        checked.written = Some(text.clone());
        Ok(checked)
    };
    older().map_err(Error::Config)
}

/// Like [`load`], for a text that is not in a file.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn from_text(file: &str, text: String, sets: &[String]) -> Result<Checked, Vec<Problem>> {
    let source = Source::parse(file, text).map_err(|problem| vec![problem])?;
    if let Some(format) = older_format(&source) {
        let expected = format!("{FORMAT}, the format of this program");
        let problem = Problem::new(
            file,
            source.place(&KeyPath::default().key("format")),
            format!("integer {format}"),
            expected,
        );
        let advice =
            format!("`nerve config upgrade {file}` writes it in this format and says what it adds");
        return Err(vec![problem.advise(advice)]);
    }
    by_rules(source, sets, check)
}

fn by_rules(
    source: Source,
    sets: &[String],
    check: fn(&Recipe, &Report<'_>),
) -> Result<Checked, Vec<Problem>> {
    let source = set::apply(source, sets)?;
    let report = Report::new(&source);
    let recipe = deserialize(&report).and_then(|mut recipe: Recipe| {
        open::read(&mut recipe, &report)?;
        Some(recipe)
    });
    if let Some(recipe) = &recipe {
        check(recipe, &report);
    }
    let problems = report.into_problems();
    match recipe {
        Some(recipe) if problems.is_empty() => Ok(Checked {
            recipe,
            source,
            written: None,
            elsewhere: Elsewhere::default(),
        }),
        _ => Err(problems),
    }
}

/// The text of a recipe.
///
/// # Errors
/// What is wrong with the file.
pub fn read(path: &Path) -> Result<String, Error> {
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
    fn a_recipe_of_an_older_format_is_refused_with_the_way_to_upgrade_it_and_that_of_a_run_is_read()
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        let tiny = crate::recipe::bundled::BUNDLED[0].text;
        let lines = tiny
            .replace("format = 2", "format = 1")
            .replace("start = \"symbol\"", "# ");
        std::fs::write(&path, &lines).unwrap();
        let error = load(&path, &[]).unwrap_err();
        let file = path.display();
        assert_eq!(
            error.to_string(),
            format!(
                "{file}: line 8, format: found integer 1, expected 2, the format of this program; `nerve config upgrade \
                 {file}` writes it in this format and says what it adds"
            )
        );
        let run = load_run(&path, &["run.seed=7".to_string()]).unwrap();
        assert_eq!(run.data.start, crate::data::StartRule::FirstToken);
        // What was written stays, and its hash with it.
        assert_eq!(run.text(), lines);
        assert_eq!(run.sha256(), hexadecimal(&Sha256::digest(&lines)));
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

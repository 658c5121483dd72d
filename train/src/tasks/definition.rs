//! `Tasks`: reads and checks a file of tasks.

use crate::error::{Error, Problem};
use crate::file::read_text;
use crate::text::toml_complaint;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The format of the file.
const FORMAT: u32 = 1;

/// How large it may be, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A file of tasks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tasks {
    /// 1.
    pub format: u32,
    /// What the tasks are called together.
    pub name: String,
    /// Only so many of each task's questions, the first ones.
    pub limit: Option<usize>,
    /// The tasks.
    pub task: Vec<Task>,
}

/// A task.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// Of two texts, which is the likelier one.
    Pairs {
        /// Its name.
        name: String,
        /// Its questions.
        files: Files,
        /// The field of the text that should be.
        good: String,
        /// The field of the other.
        bad: String,
    },
    /// How likely a text goes on as it does, and whether every token of that is the likeliest.
    Continuation {
        /// Its name.
        name: String,
        /// Its questions.
        files: Files,
        /// The field of the text before.
        context: String,
        /// The field of what follows, with the space before it.
        target: String,
    },
    /// Of several answers, which is the likeliest.
    Choices {
        /// Its name.
        name: String,
        /// Its questions.
        files: Files,
        /// The field of the question.
        query: String,
        /// The field of the list of answers.
        choices: String,
        /// The field of the right one: its place from 0, or itself.
        gold: String,
        /// What stands between question and answer.
        #[serde(default = "space")]
        delimiter: String,
    },
    /// How likely texts are.
    Perplexity {
        /// Its name.
        name: String,
        /// The texts.
        files: Files,
        /// The field of the text.
        text: String,
    },
    /// How a text goes on when the likeliest token is taken each time.
    Generation {
        /// Its name.
        name: String,
        /// Its questions.
        files: Files,
        /// The field of the text before.
        prompt: String,
        /// The field of what has to follow.
        target: String,
        /// Strings that end it, without them.
        stop: Vec<String>,
        /// The most tokens.
        max_tokens: usize,
    },
}

fn space() -> String {
    " ".to_string()
}

/// Files of JSON lines: one, or several. A `*` in a file's name stands for any characters.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Files {
    /// One name.
    One(PathBuf),
    /// Several.
    Several(Vec<PathBuf>),
}

impl Task {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Pairs { name, .. }
            | Self::Continuation { name, .. }
            | Self::Choices { name, .. }
            | Self::Perplexity { name, .. }
            | Self::Generation { name, .. } => name,
        }
    }

    /// Its files.
    pub fn files(&self) -> &Files {
        match self {
            Self::Pairs { files, .. }
            | Self::Continuation { files, .. }
            | Self::Choices { files, .. }
            | Self::Perplexity { files, .. }
            | Self::Generation { files, .. } => files,
        }
    }
}

impl Tasks {
    /// Reads a file.
    ///
    /// # Errors
    /// `Config` with everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = read_text(path, "a file of tasks", MAX_BYTES)?;
        let tasks: Self = toml::from_str(&text).map_err(|cause| {
            let (line, found) = toml_complaint(&cause, &text);
            let place = format!("line {line}");
            Error::config(Problem::new(path, place, found, "a file of tasks"))
        })?;
        let problems = tasks.problems(path);
        match problems.is_empty() {
            true => Ok(tasks),
            false => Err(Error::Config(problems)),
        }
    }

    fn problems(&self, path: &Path) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |place: &str, found: String, expected: &str| {
            problems.push(Problem::new(path, place, found, expected));
        };
        if self.format != FORMAT {
            wrong("format", self.format.to_string(), "1");
        }
        if self.limit == Some(0) {
            wrong("limit", "0".to_string(), "at least 1, or no limit");
        }
        if self.task.is_empty() {
            wrong("task", "none".to_string(), "at least one [[task]]");
        }
        let mut names = BTreeSet::new();
        for task in &self.task {
            let name = task.name();
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if name.is_empty() || !name.chars().all(is_plain) || name.starts_with('.') {
                let expected = "letters, digits, `_`, `-`, `.`: files are called so";
                wrong("task.name", format!("{name:?}"), expected);
            }
            if !names.insert(name) {
                wrong("task.name", format!("{name:?} twice"), "each name once");
            }
            if let Task::Generation {
                stop, max_tokens, ..
            } = task
                && (*max_tokens == 0 || stop.iter().any(String::is_empty))
            {
                let place = format!("task {name}");
                let expected = "max_tokens of at least 1, and no empty stop";
                wrong(&place, "0 or an empty text".to_string(), expected);
            }
        }
        problems
    }
}

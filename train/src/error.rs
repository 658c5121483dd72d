//! Errors a user can meet: each names the file and the place, what was found, what was expected and what to do.
//!
//! Exit codes: 1 a gate said no · 2 usage or recipe · 3 data, tokenizer or checkpoint · 4 resources · 5 run locked ·
//! 6 numerical failure · 7 a rank of a job failed or did not come · 128 + signal after a stop that saved. A panic is a bug and exits 70.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The longest part of a message, in characters.
const MOST_SHOWN: usize = 2000;

/// One thing that is wrong, printed as one line: `file:place: found …, expected …; advice`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Problem {
    /// The file as the user named it, or `command line`.
    pub file: String,
    /// Where in it: `line 41, model.d_modl`, `byte 1024`, `tensor blocks.0.w1`; empty if the whole file is meant.
    pub place: String,
    /// What was found there.
    pub found: String,
    /// What was expected.
    pub expected: String,
    /// What to do about it; empty if the rest makes it clear.
    pub advice: String,
}

impl Problem {
    /// A problem without advice.
    pub fn new(
        file: impl AsRef<Path>,
        place: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            file: file.as_ref().display().to_string(),
            place: place.into(),
            found: found.into(),
            expected: expected.into(),
            advice: String::new(),
        }
    }

    /// A problem with what was typed, without advice.
    pub fn typed(
        place: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::new("command line", place, found, expected)
    }

    /// Says what to do about it.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if !self.place.is_empty() {
            write!(f, ": {}", self.place)?;
        }
        let [found, expected] =
            [&self.found, &self.expected].map(|text| shortened(text, MOST_SHOWN));
        write!(f, ": found {found}, expected {expected}")?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

/// A text of at most so many characters: only its beginning, if it is longer. Files may hold megabytes in a value.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => Cow::Borrowed(text),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()).into(),
    }
}

/// Everything that can stop a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe or the command line is wrong; all problems at once. Exit 2.
    #[error("{}", lines(.0))]
    Config(Vec<Problem>),
    /// A data, tokenizer or checkpoint file is not what it should be. Exit 3.
    #[error("{0}")]
    Invalid(Problem),
    /// The machine refused: disk full, no permission, no device. Exit 4.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Resource {
        /// The file or directory concerned.
        path: PathBuf,
        /// What was tried, as a verb phrase: `write`, `create the directory`.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
    /// Another process trains in this run directory. Exit 5.
    #[error("{}: found the run locked by {holder}, expected no other `fit` on it; wait for it or stop it", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as the lock file says.
        holder: String,
    },
    /// A loss or gradient is not finite. Exit 6.
    #[error("{0}")]
    Numerical(String),
    /// A gate or a verification said no. Exit 1.
    #[error("{0}")]
    Refused(String),
    /// An error that the other ranks of the job know of. Its exit code.
    #[error("{0}")]
    Agreed(Box<Error>),
    /// Another rank of the job failed, and says why. Its exit code.
    #[error("rank {rank} stopped the job")]
    OtherRank {
        /// Which.
        rank: usize,
        /// Its exit code.
        code: u8,
    },
    /// Several errors of different kinds. Exit code of the first.
    #[error("{}", lines(.0))]
    Several(Vec<Error>),
    /// A signal stopped the run after it was saved. Exit 128 + signal.
    #[error("stopped by {} after step {step} was saved; continue with: nerve fit --resume {}", signal_name(*signal), run.display())]
    Stopped {
        /// The signal's number.
        signal: i32,
        /// The step of the checkpoint.
        step: u64,
        /// The run directory.
        run: PathBuf,
    },
    /// A signal stopped a preparation; what it had begun is removed. Exit 128 + signal.
    #[error("stopped by {} before the work was done; nothing is left of it", signal_name(*signal))]
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
}

impl Error {
    /// A single problem with the recipe or the command line.
    pub fn config(problem: Problem) -> Self {
        Self::Config(vec![problem])
    }

    /// Wraps the system's error about a path.
    pub fn resource(path: impl AsRef<Path>, doing: impl Into<String>, source: io::Error) -> Self {
        Self::Resource {
            path: path.as_ref().to_path_buf(),
            doing: doing.into(),
            source,
        }
    }

    /// An input that cannot be opened: absent is the user's mistake (exit 3), refused is the machine's (exit 4).
    pub fn unreadable(path: impl AsRef<Path>, expected: &str, source: io::Error) -> Self {
        use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound};
        let found = match source.kind() {
            NotFound => "no such file".to_string(),
            IsADirectory => "a directory".to_string(),
            NotADirectory => "a path through a file".to_string(),
            InvalidFilename | InvalidInput => format!("no name of a file ({source})"),
            _ => return Self::resource(path, "read", source),
        };
        Self::Invalid(Problem::new(path, "", found, expected))
    }

    /// The printed lines, one per problem.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Config(problems) => problems.iter().map(Problem::to_string).collect(),
            Self::Refused(problems) => problems.lines().map(str::to_string).collect(),
            Self::Several(errors) => errors.iter().flat_map(Self::lines).collect(),
            Self::Agreed(error) => error.lines(),
            Self::OtherRank { .. } => Vec::new(),
            other => vec![other.to_string()],
        }
    }

    /// The error as a list of problems; an error without a place of its own gets an empty file name.
    pub fn to_problems(&self) -> Vec<Problem> {
        match self {
            Self::Config(problems) => problems.clone(),
            Self::Invalid(problem) => vec![problem.clone()],
            Self::Several(errors) => errors.iter().flat_map(Self::to_problems).collect(),
            Self::Agreed(error) => error.to_problems(),
            other => vec![Problem::new("", "", other.to_string(), "none of that")],
        }
    }

    /// Whether all ranks of a job know of the error: it comes from numbers that all have, or they agreed.
    pub fn is_shared(&self) -> bool {
        matches!(
            self,
            Self::Stopped { .. }
                | Self::Refused(_)
                | Self::Numerical(_)
                | Self::Agreed(_)
                | Self::OtherRank { .. }
        )
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Config(_) => 2,
            Self::Invalid(_) => 3,
            Self::Resource { .. } => 4,
            Self::Locked { .. } => 5,
            Self::Numerical(_) => 6,
            Self::Stopped { signal, .. } | Self::Interrupted { signal } => 128 + *signal as u8,
            Self::Agreed(error) => error.exit_code(),
            Self::OtherRank { code, .. } => *code,
            Self::Several(errors) => errors.first().map_or(1, Self::exit_code),
        }
    }
}

fn lines(all: &[impl ToString]) -> String {
    let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        15 => "SIGTERM",
        _ => "a signal",
    }
}

//! `RunRow`: a run as one line of `runs list`, with status, stage, steps, last and best losses and size; read from its lock,
//! log and files.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::answer::{maybe, printable, readable_bytes};
use super::logged::{self, Last, Line};
use crate::run::checkpoint::{self, Best};
use crate::run::{Lock, RunDirectory, RunInfo, Status};

/// The columns of `runs list`, and the first lines of `runs show`.
pub const HEAD: &str = "name | status | stage | step | saved | train loss | valid loss | bits/byte | best valid | \
                        size | created";

/// One line of `runs list`.
#[derive(Serialize)]
pub struct RunRow {
    /// The name of its directory.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// `running`, `killed`, `stopped`, `done`, `failed`.
    pub status: &'static str,
    /// The stage of the last step.
    pub stage: String,
    /// The last step in the log: how far a running training is.
    pub step: u64,
    /// The step of its newest checkpoint, where a resume goes on.
    pub saved_step: u64,
    /// The last training loss.
    pub train: Option<Loss>,
    /// The last loss on the first validation split.
    pub valid: Option<Loss>,
    /// The best validation that was saved.
    pub best: Option<Best>,
    /// The size of all its files.
    pub bytes: u64,
    /// When it was made, in UTC.
    pub created: String,
    /// Its last numbers, by split and name.
    #[serde(skip)]
    pub last: Last,
}

/// A loss, with its split, stage and step.
#[derive(Serialize)]
pub struct Loss {
    /// `train`, `valid`.
    pub split: String,
    /// The stage it was measured in.
    pub stage: String,
    /// The step it was measured after.
    pub step: u64,
    /// Mean nats per target.
    pub loss_lm: Option<f64>,
    /// The same in bits per byte of text.
    pub bits_per_byte: Option<f64>,
}

impl Loss {
    fn new(line: &Line) -> Self {
        Self {
            split: line.split.clone(),
            stage: printable(&line.stage),
            step: line.step,
            loss_lm: line.number("loss/lm"),
            bits_per_byte: line.number("bits_per_byte"),
        }
    }
}

impl RunRow {
    /// Reads the files that the line needs.
    pub fn new(run: &RunDirectory, info: &RunInfo) -> Self {
        let last = logged::last(run);
        let status = status(run, info);
        let saved = checkpoint::list(run).unwrap_or_default();
        let saved_step = saved.last().map_or(info.step, |(step, _)| *step);
        let newest = last.values().max_by_key(|line| line.step);
        let (stage, step) = match newest {
            Some(line) if line.step >= saved_step => (line.stage.clone(), line.step),
            _ => (info.stage.clone(), saved_step),
        };
        Self {
            name: printable(run.name()),
            path: run.path().to_path_buf(),
            status,
            stage: printable(&stage),
            step,
            saved_step,
            train: last.get("train").map(Loss::new),
            valid: last.get("valid").map(Loss::new),
            best: info.best,
            bytes: size_bytes(run.path()),
            created: printable(&info.created),
            last,
        }
    }

    /// One of its last numbers, by split and name: `valid/loss/lm`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (split, number) = name.split_once('/')?;
        self.last.get(split)?.number(number)
    }

    /// The names of its last numbers.
    pub fn metrics(&self) -> impl Iterator<Item = String> + '_ {
        let of_split = |(split, line): (&String, &Line)| {
            let named = line.numbers.keys().map(|name| format!("{split}/{name}"));
            named.collect::<Vec<String>>()
        };
        self.last.iter().flat_map(of_split)
    }

    /// The cells under [`HEAD`].
    pub fn cells(&self) -> [String; 11] {
        let of = |loss: &Option<Loss>| loss.as_ref().and_then(|loss| loss.loss_lm);
        let bits = self.valid.as_ref().and_then(|loss| loss.bits_per_byte);
        let best = |best: Best| format!("{:.4} at {}", best.value, best.step);
        [
            self.name.clone(),
            self.status.to_string(),
            self.stage.clone(),
            self.step.to_string(),
            self.saved_step.to_string(),
            number(of(&self.train)),
            number(of(&self.valid)),
            number(bits),
            maybe(self.best, best),
            readable_bytes(self.bytes),
            self.created.clone(),
        ]
    }
}

/// A number in a table.
pub fn number(value: Option<f64>) -> String {
    maybe(value, |value| format!("{value:.4}"))
}

/// The status of a run, by its lock before what its process last wrote: a killed process wrote nothing at its end.
pub fn status(run: &RunDirectory, info: &RunInfo) -> &'static str {
    match (Lock::is_held(run), info.status) {
        (true, _) => Status::Running.word(),
        (false, Status::Running) => "killed",
        (false, status) => status.word(),
    }
}

/// The size of all files below a directory; links are not followed, files that vanish meanwhile count nothing.
pub fn size_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_a_process_is_not_called_running() {
        let root = tempfile::tempdir().unwrap();
        let info = RunInfo::new("test");
        let run = RunDirectory::create(root.path(), "run", "", info.clone()).unwrap();
        assert_eq!(status(&run, &info), "killed");
        let _lock = Lock::acquire(&run).unwrap();
        assert_eq!(status(&run, &info), "running");
        // A stopped run that somebody goes on with.
        let stopped = RunInfo {
            status: Status::Stopped,
            ..info
        };
        assert_eq!(status(&run, &stopped), "running");
    }

    #[test]
    fn the_step_is_that_of_the_log_and_each_loss_says_of_what() {
        let root = tempfile::tempdir().unwrap();
        let info = RunInfo {
            step: 4,
            stage: "a".to_string(),
            ..RunInfo::new("test")
        };
        let run = RunDirectory::create(root.path(), "run", "", info.clone()).unwrap();
        let lines = [
            r#"{"step":5,"stage":"a","split":"valid","loss/lm":3.75,"bits_per_byte":2.5}"#,
            r#"{"step":7,"stage":"b","split":"train","loss/lm":3.25}"#,
        ];
        fs::write(run.metrics(), lines.join("\n") + "\n").unwrap();
        let row = RunRow::new(&run, &info);
        assert_eq!((row.stage.as_str(), row.step, row.saved_step), ("b", 7, 4));
        let valid = row.valid.as_ref().unwrap();
        assert_eq!(
            (valid.stage.as_str(), valid.step, valid.bits_per_byte),
            ("a", 5, Some(2.5))
        );
        assert_eq!(row.metric("train/loss/lm"), Some(3.25));
        assert_eq!(row.metric("valid/none"), None);
        assert_eq!(row.cells()[5..8], ["3.2500", "3.7500", "2.5000"]);
    }
}

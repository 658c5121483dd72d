//! `nerve runs`: list, show and verify what trainings left on the disk. Reads only.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{aligned, print, print_json, printable, readable_bytes};
use crate::cli::runs::{Args, ListArgs, RunArgs, Verb};
use crate::error::Error;
use crate::run::checkpoint::{self, Best};
use crate::run::{Lock, RunDirectory, RunInfo, Status, find, list_runs};
use crate::say::say;

/// The last loss is looked for in this much of the end of `metrics.jsonl`.
const TAIL_BYTES: u64 = 1 << 18;

/// The columns of `runs list`, and the first lines of `runs show`.
const HEAD: [&str; 8] = [
    "name", "status", "stage", "step", "loss/lm", "best", "size", "created",
];

/// Carries out one of the verbs; the answer goes to stdout.
///
/// # Errors
/// `Refused` if `verify` finds a corrupt checkpoint; else what finding and reading the run gives.
pub fn run(arguments: &Args) -> Result<(), Error> {
    match &arguments.verb {
        Verb::List(arguments) => list(arguments),
        Verb::Show(arguments) => show(arguments),
        Verb::Verify(arguments) => verify(arguments),
    }
}

/// One line of `runs list`.
#[derive(Serialize)]
struct Row {
    name: String,
    path: PathBuf,
    status: &'static str,
    stage: String,
    step: u64,
    loss_lm: Option<f64>,
    best: Option<Best>,
    bytes: u64,
    created: String,
}

impl Row {
    fn new(run: &RunDirectory, info: &RunInfo) -> Self {
        Self {
            name: printable(run.name()),
            path: run.path().to_path_buf(),
            status: status(run, info),
            stage: printable(&info.stage),
            step: info.step,
            loss_lm: last_loss(run),
            best: info.best,
            bytes: size_bytes(run.path()),
            created: printable(&info.created),
        }
    }

    fn cells(&self) -> [String; 8] {
        let number =
            |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
        let best = |best: Best| format!("{:.4} at {}", best.value, best.step);
        [
            self.name.clone(),
            self.status.to_string(),
            self.stage.clone(),
            self.step.to_string(),
            number(self.loss_lm),
            self.best.map_or("-".to_string(), best),
            readable_bytes(self.bytes),
            self.created.clone(),
        ]
    }
}

/// A checkpoint as `runs show` and `runs verify` print it.
#[derive(Serialize)]
struct CheckpointRow {
    step: u64,
    path: PathBuf,
    bytes: u64,
    /// Only `verify` looks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<Vec<String>>,
}

fn list(arguments: &ListArgs) -> Result<(), Error> {
    let runs = list_runs(&arguments.root)?;
    for problem in runs.problems {
        say(&problem.to_string());
    }
    let rows: Vec<Row> = runs
        .found
        .iter()
        .map(|(run, info)| Row::new(run, info))
        .collect();
    if arguments.json {
        return print_json(&json!({ "schema": 1, "runs": rows }));
    }
    let mut table = vec![HEAD.map(str::to_string)];
    table.extend(rows.iter().map(Row::cells));
    print(&aligned(&table))
}

fn show(arguments: &RunArgs) -> Result<(), Error> {
    let run = find(&arguments.run, &arguments.list.root)?;
    let info = run.info()?;
    let row = Row::new(&run, &info);
    let checkpoints = checkpoints(&run)?;
    if arguments.list.json {
        let object = json!({ "schema": 1, "run": row, "info": info, "checkpoints": checkpoints });
        return print_json(&object);
    }
    let mut lines: Vec<[String; 2]> = Vec::new();
    for (name, cell) in HEAD.into_iter().zip(row.cells()) {
        lines.push([name.to_string(), cell]);
    }
    let version = |(name, version): (&String, &String)| format!("{name} {version}");
    let versions: Vec<String> = info.versions.iter().map(version).collect();
    let or_dash = |text: Option<String>| text.unwrap_or("-".to_string());
    for (name, text) in [
        ("versions", versions.join(", ")),
        ("backend", info.backend),
        ("git", or_dash(info.git)),
    ] {
        lines.push([name.to_string(), printable(&text)]);
    }
    for row in checkpoints {
        let cell = format!("{}  {}", row.path.display(), readable_bytes(row.bytes));
        lines.push(["checkpoint".to_string(), cell]);
    }
    print(&aligned(&lines))
}

fn verify(arguments: &RunArgs) -> Result<(), Error> {
    let run = find(&arguments.run, &arguments.list.root)?;
    let mut rows = checkpoints(&run)?;
    for row in &mut rows {
        let problems = checkpoint::verify(&row.path);
        row.problems = Some(problems.iter().map(ToString::to_string).collect());
    }
    // A run in progress may have deleted one meanwhile.
    rows.retain(|row| row.path.exists());
    let problems: Vec<String> = rows
        .iter()
        .filter_map(|row| row.problems.clone())
        .flatten()
        .collect();
    if arguments.list.json {
        let ok = problems.is_empty();
        print_json(&json!({ "schema": 1, "run": run.path(), "ok": ok, "checkpoints": rows }))?;
    } else {
        let verdict = |row: &CheckpointRow| match row.problems.as_deref() {
            Some([]) => "ok".to_string(),
            _ => "corrupt".to_string(),
        };
        let line = |row: &CheckpointRow| [row.path.display().to_string(), verdict(row)];
        print(&aligned(&rows.iter().map(line).collect::<Vec<_>>()))?;
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Refused(problems.join("\n"))),
    }
}

fn checkpoints(run: &RunDirectory) -> Result<Vec<CheckpointRow>, Error> {
    let row = |(step, path): (u64, PathBuf)| CheckpointRow {
        step,
        bytes: size_bytes(&path),
        path,
        problems: None,
    };
    Ok(checkpoint::list(run)?.into_iter().map(row).collect())
}

/// `running` in the file and no lock on the run: the process was killed.
fn status(run: &RunDirectory, info: &RunInfo) -> &'static str {
    match info.status {
        Status::Running if !Lock::is_held(run) => "killed",
        status => status.word(),
    }
}

/// The last training loss in `metrics.jsonl`, without the validations in between.
fn last_loss(run: &RunDirectory) -> Option<f64> {
    let mut file = fs::File::open(run.metrics()).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))
        .ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let objects = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut losses = objects.filter_map(|object| {
        let training = object["split"] == "train";
        object["loss/lm"].as_f64().filter(|_| training)
    });
    losses.next()
}

/// The size of all files below a directory; links are not followed, what vanishes meanwhile counts nothing.
fn size_bytes(directory: &Path) -> u64 {
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
    fn the_last_training_loss_is_found_before_validations_and_a_torn_line() {
        let root = tempfile::tempdir().unwrap();
        let info = RunInfo::new("test");
        let run = RunDirectory::create(root.path(), "run", "", info.clone()).unwrap();
        assert_eq!(last_loss(&run), None);
        let lines = [
            r#"{"step":1,"split":"train","loss/lm":3.5}"#,
            r#"{"step":2,"split":"train","loss/lm":3.25}"#,
            r#"{"step":2,"split":"valid","loss/lm":3.75}"#,
            r#"{"step":3,"split":"tra"#,
        ];
        fs::write(run.metrics(), lines.join("\n")).unwrap();
        assert_eq!(last_loss(&run), Some(3.25));
    }

    #[test]
    fn a_run_without_a_process_is_not_called_running() {
        let root = tempfile::tempdir().unwrap();
        let info = RunInfo::new("test");
        let run = RunDirectory::create(root.path(), "run", "", info.clone()).unwrap();
        assert_eq!(status(&run, &info), "killed");
        let _lock = Lock::acquire(&run).unwrap();
        assert_eq!(status(&run, &info), "running");
    }
}

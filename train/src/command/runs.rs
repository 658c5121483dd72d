//! `nerve runs`: `list` and `verify` of runs on disk; `show`, `compare` and `prune` have files of their own. Only `prune`
//! changes anything.

mod compare;
mod logged;
mod prune;
mod row;
mod show;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{aligned, give};
use crate::cli::runs::{RunArgs, TableArgs, Verb};
use crate::error::{Error, Problem};
use crate::recipe::nearest::nearest;
use crate::run::checkpoint;
use crate::run::{RunDirectory, find, list_runs};
use crate::say::say;
use row::{HEAD, RunRow, number, size_bytes};

/// Runs a subcommand; the answer goes to stdout.
///
/// # Errors
/// `Refused` if `verify` finds a corrupt checkpoint, or `prune` is not confirmed; else errors of finding and reading runs.
pub fn run(verb: &Verb) -> Result<(), Error> {
    match verb {
        Verb::List(arguments) => list(arguments),
        Verb::Show(arguments) => show::show(arguments),
        Verb::Compare(arguments) => compare::compare(arguments),
        Verb::Verify(arguments) => verify(arguments),
        Verb::Prune(arguments) => prune::prune(arguments),
    }
}

fn list(arguments: &TableArgs) -> Result<(), Error> {
    let runs = list_runs(&arguments.list.root)?;
    for problem in runs.problems {
        say(&problem.to_string());
    }
    let found = runs.found.iter();
    let mut rows: Vec<RunRow> = found.map(|(run, info)| RunRow::new(run, info)).collect();
    let sorted_by = arguments.sort.as_ref();
    if let Some(metric) = sorted_by {
        sort(&mut rows, metric)?;
    }
    let object = |row: &RunRow| {
        let mut object = json!(row);
        if let Some(metric) = sorted_by {
            object["sorted_by"] = json!({ "name": metric, "value": row.metric(metric) });
        }
        object
    };
    let cells = |row: &RunRow| -> Vec<String> {
        let value = sorted_by.map(|metric| number(row.metric(metric)));
        value.into_iter().chain(row.cells()).collect()
    };
    let head = HEAD.split(" | ").map(str::to_string);
    let mut table: Vec<Vec<String>> = vec![sorted_by.cloned().into_iter().chain(head).collect()];
    table.extend(rows.iter().map(cells));
    give(
        arguments.list.json,
        || json!({ "schema": 1, "runs": rows.iter().map(object).collect::<Value>() }),
        || aligned(&table),
    )
}

/// Smallest first; runs without the number come last.
fn sort(rows: &mut [RunRow], metric: &str) -> Result<(), Error> {
    if !rows.iter().any(|row| row.metric(metric).is_some()) {
        let known: BTreeSet<String> = rows.iter().flat_map(RunRow::metrics).collect();
        let meant = nearest(metric, known.iter().map(String::as_str));
        let advice = meant.map(|meant| format!("did you mean {meant:?}?"));
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        let expected = match names.is_empty() {
            true => "a number that a run has logged, and none has logged any".to_string(),
            false => format!("one of {}", names.join(", ")),
        };
        let problem = Problem::typed("--sort", format!("{metric:?}"), expected);
        return Err(Error::config(problem.advise(advice.unwrap_or_default())));
    }
    let value = |row: &RunRow| row.metric(metric).unwrap_or(f64::INFINITY);
    rows.sort_by(|left, right| value(left).total_cmp(&value(right)));
    Ok(())
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

fn verify(arguments: &RunArgs) -> Result<(), Error> {
    let run = find(&arguments.run, &arguments.list.root)?;
    let mut rows = checkpoints(&run)?;
    for row in &mut rows {
        let problems = checkpoint::verify(&row.path);
        row.problems = Some(problems.iter().map(ToString::to_string).collect());
    }
    // A run in progress may have deleted one meanwhile.
    rows.retain(|row| row.path.exists());
    let problems: Vec<&str> = rows
        .iter()
        .flat_map(|row| row.problems.iter().flatten())
        .map(String::as_str)
        .collect();
    let ok = problems.is_empty();
    let line = |row: &CheckpointRow| {
        let verdict = match row.problems.as_deref() {
            Some([]) => "ok",
            _ => "corrupt",
        };
        [row.path.display().to_string(), verdict.to_string()]
    };
    give(
        arguments.list.json,
        || json!({ "schema": 1, "run": run.path(), "ok": ok, "checkpoints": rows }),
        || aligned(&rows.iter().map(line).collect::<Vec<_>>()),
    )?;
    match ok {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunInfo;
    use std::fs;

    #[test]
    fn rows_are_sorted_from_the_smallest_and_those_without_the_number_come_last() {
        let root = tempfile::tempdir().unwrap();
        let mut rows: Vec<RunRow> = [
            ("a", Some(3.5)),
            ("b", None),
            ("c", Some(-1.0)),
            ("d", Some(2.0)),
        ]
        .into_iter()
        .map(|(name, loss)| {
            let info = RunInfo::new("test");
            let run = RunDirectory::create(root.path(), name, "", info.clone()).unwrap();
            let line =
                loss.map(|loss| format!("{{\"step\":1,\"split\":\"valid\",\"loss/lm\":{loss}}}\n"));
            fs::write(run.metrics(), line.unwrap_or_default()).unwrap();
            RunRow::new(&run, &info)
        })
        .collect();
        sort(&mut rows, "valid/loss/lm").unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["c", "d", "a", "b"]);
        let error = sort(&mut rows, "valid/loss/ml").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .to_string()
                .contains("did you mean \"valid/loss/lm\"?"),
            "{error}"
        );
    }
}

//! `nerve runs prune`: deletes checkpoints that nothing needs, and runs that failed. It lists them first, then asks.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;

use super::super::answer::{aligned, print, print_json, readable_bytes};
use super::row::{size_bytes, status};
use crate::cli::runs::PruneArgs;
use crate::error::{Error, Problem};
use crate::run::checkpoint::{self, prune};
use crate::run::{Lock, RunDirectory, Status, find, list_runs};
use crate::say::{note, say};

/// Something to be removed.
#[derive(Serialize)]
struct Removal {
    /// The run it is, or is of.
    run: PathBuf,
    /// What goes: a checkpoint, or the run itself.
    path: PathBuf,
    /// Its size.
    bytes: u64,
    /// What it is, in words.
    what: &'static str,
}

/// Lists what nothing needs, asks for confirmation, and deletes it.
///
/// # Errors
/// `Config` without a terminal to ask on; `Refused` if the answer was no; `Locked` if a named run is being trained;
/// `Resource` if something cannot be removed.
pub fn prune(arguments: &PruneArgs) -> Result<(), Error> {
    let runs = runs(arguments)?;
    let mut removals = Vec::new();
    for run in &runs {
        if Lock::is_held(run) {
            let run = run.path().display();
            note(&format!("{run}: a process trains here; nothing is touched"));
            continue;
        }
        removals.extend(removals_of(run, arguments.failed)?);
    }
    let bytes: u64 = removals.iter().map(|removal| removal.bytes).sum();
    let (count, size) = (removals.len(), readable_bytes(bytes));
    if !arguments.list.json {
        let line = |removal: &Removal| {
            let (path, size) = (removal.path.display(), readable_bytes(removal.bytes));
            [path.to_string(), removal.what.to_string(), size]
        };
        print(&aligned(&removals.iter().map(line).collect::<Vec<_>>()))?;
        print(&format!("{count} to remove, {size}\n"))?;
    }
    let go = !arguments.dry_run && count > 0 && (arguments.yes || ask(count, &size)?);
    let mut removed = 0;
    if go {
        for run in &runs {
            removed += remove(run, &removals)?;
        }
        note(&format!("removed {removed} of {count}"));
    }
    if arguments.list.json {
        print_json(&json!({
            "schema": 1, "dry_run": arguments.dry_run, "bytes": bytes, "removals": removals, "removed": removed,
        }))?;
    }
    match go || arguments.dry_run || count == 0 {
        true => Ok(()),
        false => Err(Error::Refused("nothing was removed".to_string())),
    }
}

/// The runs that were named, or all under the root.
fn runs(arguments: &PruneArgs) -> Result<Vec<RunDirectory>, Error> {
    if arguments.runs.is_empty() {
        let runs = list_runs(&arguments.list.root)?;
        for problem in runs.problems {
            say(&problem.to_string());
        }
        return Ok(runs.found.into_iter().map(|(run, _)| run).collect());
    }
    let mut named: Vec<RunDirectory> = Vec::new();
    for name in &arguments.runs {
        let run = find(name, &arguments.list.root)?;
        if arguments.failed && run.info()?.status != Status::Failed {
            let found = format!("a run that is {}", status(&run, &run.info()?));
            let problem = Problem::new(run.path(), "--failed", found, "a run that failed");
            let advice = "without --failed only its old checkpoints go";
            return Err(Error::config(problem.advise(advice)));
        }
        if !named.contains(&run) {
            named.push(run);
        }
    }
    Ok(named)
}

fn removals_of(run: &RunDirectory, whole: bool) -> Result<Vec<Removal>, Error> {
    let removal = |path: PathBuf, what| Removal {
        run: run.path().to_path_buf(),
        bytes: size_bytes(&path),
        path,
        what,
    };
    if whole {
        let path = run.path().to_path_buf();
        return Ok(vec![removal(path, "the whole run, which failed")]);
    }
    let newest = match checkpoint::glance(run) {
        Ok(newest) => newest,
        Err(problem) => {
            note(&format!("{problem}; nothing of this run is touched"));
            return Ok(Vec::new());
        }
    };
    let best = newest.and_then(|newest| newest.state.best);
    let unneeded = prune::unneeded(run, best)?.into_iter();
    let what = "a checkpoint, neither the newest nor the best";
    Ok(unneeded.map(|path| removal(path, what)).collect())
}

/// Removes what was listed of a run, under its lock.
fn remove(run: &RunDirectory, removals: &[Removal]) -> Result<usize, Error> {
    let of_run = removals.iter().filter(|removal| removal.run == run.path());
    let of_run: Vec<&Removal> = of_run.collect();
    if of_run.is_empty() {
        return Ok(0);
    }
    let lock = Lock::acquire(run)?;
    if of_run.iter().any(|removal| removal.path == run.path()) {
        // While the question stood there, somebody may have gone on with it.
        if run.info()?.status != Status::Failed {
            let run = run.path().display();
            note(&format!(
                "{run}: it has not failed any more; nothing is touched"
            ));
            return Ok(0);
        }
        return prune::remove_run(run, lock).map(|()| 1);
    }
    for removal in &of_run {
        prune::remove(&removal.path, &lock)?;
    }
    Ok(of_run.len())
}

/// Asks on the terminal.
fn ask(count: usize, size: &str) -> Result<bool, Error> {
    if !stdin().is_terminal() {
        let expected = "--yes, or a terminal on which to ask";
        let problem = Problem::typed("runs prune", "nobody to ask", expected);
        return Err(Error::config(problem.advise("--dry-run only lists")));
    }
    // A question that cannot be shown is answered by what is typed, which is then no yes.
    let _ = write!(stderr(), "remove {count}, {size}? [y/N] ").and_then(|()| stderr().flush());
    let mut answer = String::new();
    let read = stdin().read_line(&mut answer);
    read.map_err(|cause| Error::resource("stdin", "read", cause))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

//! Finds and opens the run that a user names (path, name, its beginning, `last~1`), and lists all runs, newest first.

use std::fs;
use std::path::{Path, PathBuf};

use super::directory::RunDirectory;
use super::info::RunInfo;
use crate::error::{Error, Problem};

/// Finds the run that a RUN argument means.
///
/// # Errors
/// `Config` if the argument fits several runs, `Invalid` if it fits none.
pub fn find(argument: &str, root: &Path) -> Result<RunDirectory, Error> {
    if let Some(back) = steps_back(argument) {
        let runs = list_runs(root)?.found;
        let count = runs.len();
        let expected = format!("a run in {} ({count} there)", root.display());
        let run = runs.into_iter().nth(back).map(|(run, _)| run);
        return run
            .ok_or_else(|| Error::Invalid(Problem::new(argument, "", "no such run", expected)));
    }
    let as_path = Path::new(argument);
    if argument.contains('/') || as_path.is_dir() {
        return RunDirectory::open(as_path);
    }
    match by_prefix(argument, root)?.as_slice() {
        [only] => RunDirectory::open(only),
        [] => {
            let expected = format!("a path, `last`, or a run in {}", root.display());
            let problem = Problem::new(argument, "", "no such run", expected);
            Err(Error::Invalid(
                problem.advise("`nerve runs list` shows them"),
            ))
        }
        several => {
            let names: Vec<&str> = several
                .iter()
                .filter_map(|path| path.file_name()?.to_str())
                .collect();
            let found = format!("a beginning of {}", names.join(", "));
            let problem = Problem::new("command line", argument, found, "the name of one run");
            Err(Error::config(problem.advise("write more of it")))
        }
    }
}

/// The runs under a root.
#[derive(Debug)]
pub struct FoundRuns {
    /// Those whose `run.json` can be read, newest first.
    pub found: Vec<(RunDirectory, RunInfo)>,
    /// The problems of the others: lines for stderr.
    pub problems: Vec<Error>,
}

/// Lists the runs under a root.
///
/// # Errors
/// `Invalid` if the root does not exist, `Resource` if it cannot be listed.
pub fn list_runs(root: &Path) -> Result<FoundRuns, Error> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for path in directories(root)? {
        let Ok(run) = RunDirectory::open(&path) else {
            continue;
        };
        match run.info() {
            Ok(info) => found.push((run, info)),
            Err(problem) => problems.push(problem),
        }
    }
    found.sort_by(|(_, left), (_, right)| {
        let by_time = right.created_s.total_cmp(&left.created_s);
        by_time.then_with(|| right.id.cmp(&left.id))
    });
    Ok(FoundRuns { found, problems })
}

fn steps_back(argument: &str) -> Option<usize> {
    match argument.strip_prefix("last")? {
        "" => Some(0),
        rest => rest.strip_prefix('~')?.parse().ok(),
    }
}

/// The run of exactly that name, or all whose name begins so.
fn by_prefix(argument: &str, root: &Path) -> Result<Vec<PathBuf>, Error> {
    let exact = root.join(argument);
    if exact.join("run.json").exists() {
        return Ok(vec![exact]);
    }
    let mut found = directories(root)?;
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        let begins = name.is_some_and(|name| name.starts_with(argument));
        begins && path.join("run.json").exists()
    });
    Ok(found)
}

/// The directories in the root, in name order, without hidden ones.
fn directories(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let expected = "a directory of runs";
    let failed = |source| Error::unreadable(root, expected, source);
    let mut directories = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !hidden {
            directories.push(path);
        }
    }
    directories.sort();
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_by_path_name_beginning_and_age() {
        let root = tempfile::tempdir().unwrap();
        for (age, name) in ["old", "tiny", "tiny-deep", "young"]
            .into_iter()
            .enumerate()
        {
            let mut info = RunInfo::new("x");
            info.created_s = age as f64;
            RunDirectory::create(root.path(), name, "", info).unwrap();
        }
        fs::create_dir(root.path().join("not-a-run")).unwrap();
        let path = root.path().join("old").display().to_string();
        for (argument, name) in [
            (path.as_str(), "old"),
            ("o", "old"),
            ("tiny", "tiny"),
            ("tiny-", "tiny-deep"),
            ("last", "young"),
            ("last~3", "old"),
        ] {
            assert_eq!(
                find(argument, root.path()).unwrap().name(),
                name,
                "{argument}"
            );
        }
        let message = find("tin", root.path()).unwrap_err().to_string();
        assert!(message.contains("tiny, tiny-deep"), "{message}");
        for argument in ["last~4", "not", "nothing", "/nothing", "last~x"] {
            assert_eq!(
                find(argument, root.path()).unwrap_err().exit_code(),
                3,
                "{argument}"
            );
        }
        assert_eq!(
            find("last", &root.path().join("none"))
                .unwrap_err()
                .exit_code(),
            3
        );
    }
}

//! The plan of a sweep: whether the run of each row and seed is done, resumed, new or repeated; refuses runs of another
//! definition, opens all inputs before training, and estimates the time left (`Pace`).

use super::super::answer::readable_seconds;
use super::definition::{Contents, Found, named, refusal};
use super::timing;
use crate::device;
use crate::error::{Error, Problem};
use crate::ladder::{Inputs, Needs};
use crate::recipe::Checked;
use crate::recipe::sweep::Variant;
use crate::run::{RunDirectory, Status, checkpoint};
use crate::say::note;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// A run of the sweep and its status.
pub struct Planned {
    pub variant: Variant,
    pub standing: Standing,
}

/// The status of a run of a sweep.
pub enum Standing {
    /// It is done and matches its row.
    Done(RunDirectory),
    /// It matches its row, and so many steps are left.
    GoesOn(RunDirectory, u64),
    /// There is no such run yet.
    New,
    /// There is one of another definition: it stays, and a new one is trained beside it.
    Again,
}

impl Standing {
    /// The status in one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::GoesOn(..) => "go on",
            Self::New => "new",
            Self::Again => "again",
        }
    }

    /// The run, if there is one that counts.
    pub fn run(&self) -> Option<&RunDirectory> {
        match self {
            Self::Done(run) | Self::GoesOn(run, _) => Some(run),
            Self::New | Self::Again => None,
        }
    }
}

impl Planned {
    /// Steps that are left.
    pub fn steps_left(&self) -> u64 {
        let stages = self.variant.recipe.stage.iter();
        let all: u64 = stages.map(|stage| stage.steps).sum();
        match &self.standing {
            Standing::Done(_) => 0,
            Standing::GoesOn(_, done) => all.saturating_sub(*done),
            Standing::New | Standing::Again => all,
        }
    }
}

/// Determines the status of every run.
///
/// # Errors
/// `Config` with every run that does not match its row, unless it is to be trained `again`; errors of reading.
pub fn plan(variants: Vec<Variant>, again: bool) -> Result<Vec<Planned>, Error> {
    let (mut planned, mut refused) = (Vec::new(), Vec::new());
    let mut contents = Contents::default();
    for variant in variants {
        match stand(&variant, again, &mut contents)? {
            Ok(standing) => planned.push(Planned { variant, standing }),
            Err(problem) => refused.push(problem),
        }
    }
    match refused.is_empty() {
        true => Ok(planned),
        false => Err(Error::Config(refused)),
    }
}

fn stand(
    variant: &Variant,
    again: bool,
    contents: &mut Contents,
) -> Result<Result<Standing, Problem>, Error> {
    let mut newest_other = None;
    for path in candidates(&variant.recipe)? {
        let found = match Found::open(&path) {
            Ok(found) => found,
            Err(problem) => {
                newest_other.get_or_insert((path, vec![format!("it cannot be read: {problem}")]));
                continue;
            }
        };
        let mut differs = found.differs(&variant.recipe, contents)?;
        let done = found.info.status == Status::Done;
        if done && found.newest.is_none() {
            differs.push("it is done and has no checkpoint, so its numbers are gone".to_string());
        }
        if differs.is_empty() {
            let step = found.newest.map_or(0, |newest| newest.state.step);
            return Ok(Ok(match done {
                true => Standing::Done(found.run),
                false => Standing::GoesOn(found.run, step),
            }));
        }
        newest_other.get_or_insert((path, differs));
    }
    let Some((path, differs)) = newest_other else {
        return Ok(Ok(Standing::New));
    };
    let (row, seed) = (&variant.row, variant.seed);
    if !again {
        return Ok(Err(refusal(&path, row, seed, &differs)));
    }
    let (run, differs) = (path.display(), named(&differs));
    note(&format!(
        "row {row}, seed {seed}: {run} stays as it is and does not count: {differs}"
    ));
    Ok(Ok(Standing::Again))
}

/// The runs of a name, also those with a number behind it, newest first.
fn candidates(recipe: &Checked) -> Result<Vec<PathBuf>, Error> {
    let (root, name) = (&recipe.run.root, &recipe.run.name);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::resource(root, "list", cause)),
    };
    let number = |file: &str| match file.strip_prefix(name.as_str())? {
        "" => Some(1),
        rest => rest.strip_prefix('-')?.parse::<u64>().ok(),
    };
    let mut numbered = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|cause| Error::resource(root, "list", cause))?;
        let path = entry.path();
        let file = path.file_name().and_then(|file| file.to_str());
        if let Some(number) = file.and_then(number)
            && path.is_dir()
        {
            numbered.push((number, path));
        }
    }
    // A later run has a higher number, whatever the clock said.
    numbered.sort();
    Ok(numbered.into_iter().rev().map(|(_, path)| path).collect())
}

/// Opens, once per row, all inputs of runs to be trained, so that a missing input is found now and not after hours.
///
/// # Errors
/// The errors of the first row that cannot be trained.
pub fn check(planned: &[Planned]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for one in planned {
        let recipe = &one.variant.recipe;
        if one.steps_left() > 0 && seen.insert(&one.variant.row) {
            device::check_compiled("device.backend", &recipe.device.backend)?;
            let inputs = Inputs::open(recipe)?;
            Needs::of(recipe, &inputs)?.check(recipe, 1)?;
        }
    }
    Ok(())
}

/// The time of a training step, for each row.
pub struct Pace {
    seconds: BTreeMap<String, f64>,
    /// Rows that were timed on a few passes, because no run of theirs says how long a step takes.
    timed: BTreeSet<String>,
}

impl Pace {
    /// Step times of the existing runs; for rows without a run, a few passes are timed.
    pub fn of(planned: &[Planned]) -> Self {
        let mut pace = Self {
            seconds: BTreeMap::new(),
            timed: BTreeSet::new(),
        };
        for one in planned {
            if let Some(run) = one.standing.run() {
                pace.learn(&one.variant.row, run);
            }
        }
        for one in planned {
            let row = &one.variant.row;
            if one.steps_left() > 0
                && !pace.seconds.contains_key(row)
                && let Some(seconds) = timing::seconds_per_step(&one.variant.recipe)
            {
                pace.timed.insert(row.clone());
                pace.seconds.insert(row.clone(), seconds);
            }
        }
        pace
    }

    /// Takes a row's step time from a run.
    pub fn learn(&mut self, row: &str, run: &RunDirectory) {
        if let Ok(Some(newest)) = checkpoint::glance(run)
            && newest.state.step > 0
        {
            let seconds = newest.state.wall_s / newest.state.step as f64;
            self.seconds.insert(row.to_string(), seconds);
            self.timed.remove(row);
        }
    }

    /// Seconds that all these runs still take; `None` if the step time of a row is unknown.
    pub fn seconds_left(&self, planned: &[Planned]) -> Option<f64> {
        let of_one = |one: &Planned| match one.steps_left() {
            0 => Some(0.0),
            steps => Some(steps as f64 * self.seconds.get(&one.variant.row)?),
        };
        planned.iter().map(of_one).sum()
    }

    /// One line with what is left to do and how long it takes.
    pub fn summary(&self, planned: &[Planned]) -> String {
        let count = |(word, shown)| {
            let of_word = planned.iter().filter(|one| one.standing.word() == word);
            let count = of_word.count();
            (count > 0).then(|| format!("{count} {shown}"))
        };
        let words = ["done", "go on", "new"].map(|word| (word, word));
        let words = words.into_iter().chain([("again", "beside an old one")]);
        let counts = words.filter_map(count).collect::<Vec<_>>().join(", ");
        let steps: u64 = planned.iter().map(Planned::steps_left).sum();
        let head = format!("{} runs: {counts}; {steps} steps left", planned.len());
        if steps == 0 {
            return head;
        }
        let Some(seconds) = self.seconds_left(planned) else {
            return format!("{head}, and nothing tells yet how long one takes");
        };
        let timed: Vec<&str> = self.timed.iter().map(String::as_str).collect();
        let how = match timed.join(", ") {
            rows if rows.is_empty() => "by the steps of the runs that are there".to_string(),
            rows => {
                format!("by two training passes of {rows}, without validations and checkpoints")
            }
        };
        format!("{head}, about {}, {how}", readable_seconds(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use crate::run::checkpoint::{self, CheckpointState, STATE_FORMAT, Snapshot};
    use crate::run::{RunInfo, TensorMap};
    use std::path::Path;

    /// A run of 300 steps in two stages.
    fn planned(root: &Path, row: &str, standing: Standing) -> Planned {
        let tiny = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brian", "tiny"))
            .unwrap();
        let sets = [
            format!("run.root={:?}", root.display().to_string()),
            "run.name=s-a-s1".to_string(),
        ];
        Planned {
            variant: Variant {
                row: row.to_string(),
                seed: 1,
                recipe: from_text("r.toml", tiny.text.to_string(), &sets).unwrap(),
            },
            standing,
        }
    }

    /// A run that came to a step in so many seconds.
    fn run(root: &Path, name: &str, step: u64, wall_s: f64) -> RunDirectory {
        let run = RunDirectory::create(root, name, "", RunInfo::new("x")).unwrap();
        let state = CheckpointState {
            format: STATE_FORMAT,
            step,
            wall_s,
            ..CheckpointState::default()
        };
        let snapshot = Snapshot {
            state,
            model: TensorMap::new(),
            optimizer: TensorMap::new(),
            average: TensorMap::new(),
        };
        checkpoint::save(&run, &snapshot, 2).unwrap();
        run
    }

    #[test]
    fn what_is_left_is_told_by_the_steps_and_the_pace_of_each_row() {
        let root = tempfile::tempdir().unwrap();
        let done = run(root.path(), "one", 100, 50.0);
        let other = run(root.path(), "two", 40, 10.0);
        let none = run(root.path(), "three", 0, 7.0);
        let plans = [
            planned(root.path(), "a", Standing::Done(done.clone())),
            planned(root.path(), "b", Standing::GoesOn(other.clone(), 40)),
            planned(root.path(), "a", Standing::New),
            planned(root.path(), "a", Standing::Again),
        ];
        assert_eq!(
            plans.iter().map(Planned::steps_left).collect::<Vec<_>>(),
            [0, 260, 300, 300]
        );
        let mut pace = Pace {
            seconds: BTreeMap::from([("b".to_string(), 9.0)]),
            timed: BTreeSet::from(["b".to_string()]),
        };
        assert_eq!(pace.seconds_left(&plans), None);
        assert_eq!(pace.seconds_left(&plans[..1]), Some(0.0));
        for (row, run) in [("a", &done), ("b", &other), ("b", &none)] {
            pace.learn(row, run);
        }
        // Half a second a step in row a, a quarter in row b.
        assert_eq!(pace.seconds_left(&plans), Some(600.0 * 0.5 + 260.0 * 0.25));
        assert_eq!(
            pace.summary(&plans),
            "4 runs: 1 done, 1 go on, 1 new, 1 beside an old one; 860 steps left, about 6 min, by the steps of the runs \
             that are there"
        );
        assert_eq!(pace.summary(&plans[..1]), "1 runs: 1 done; 0 steps left");
    }

    #[test]
    fn the_runs_of_a_name_are_found_newest_first_and_others_are_not() {
        let root = tempfile::tempdir().unwrap();
        let recipe = planned(root.path(), "a", Standing::New).variant.recipe;
        for name in [
            "s-a-s1",
            "s-a-s1-2",
            "s-a-s1-10",
            "s-a-s11",
            "s-a-s1-x",
            "t-a-s1",
        ] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("s-a-s1-3"), "").unwrap();
        let found = candidates(&recipe).unwrap();
        let names: Vec<&str> = found
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["s-a-s1-10", "s-a-s1-2", "s-a-s1"]);
        let nowhere = planned(&root.path().join("nowhere"), "a", Standing::New)
            .variant
            .recipe;
        assert!(candidates(&nowhere).unwrap().is_empty());
    }
}

//! `nerve fit`: trains a recipe in a new run, or resumes a run. `Training`, which `nerve sweep` shares, opens inputs, checks
//! memory and disk, locks the run, trains and records its status.

use super::answer;
use super::losses::say_convention;
use super::plan::plan;
use crate::cli;
use crate::collective::{Facts, Ranks, on_ranks};
use crate::device::{self, Task};
use crate::error::Error;
use crate::ladder::{
    Checkpoints, Inputs, Ladder, Needs, Position, RequestedLength, find_inputs, first_start,
    new_inputs, survey,
};
use crate::recipe::{Checked, load, load_run, remarks};
use crate::render::Render;
use crate::run::{
    Extension, Lock, NewInputs, RunDirectory, RunInfo, Status, System, checkpoint, find,
};
use crate::say::note;
use crate::signal::{self, Stop};
use burn::tensor::backend::AutodiffBackend;
use std::path::PathBuf;
use std::time::Duration;

/// Trains, and prints the run directory to stdout.
///
/// # Errors
/// See [`Ladder::climb`]; `Config` for the recipe, `Locked` if another process trains this run.
pub fn run(arguments: &cli::Fit) -> Result<(), Error> {
    arguments.render.check()?;
    on_ranks(longest_wait(arguments), |ranks| fit(arguments, ranks))
}

#[cfg(feature = "mpi")]
fn longest_wait(arguments: &cli::Fit) -> Duration {
    Duration::from_secs(arguments.rank_timeout)
}

#[cfg(not(feature = "mpi"))]
fn longest_wait(_: &cli::Fit) -> Duration {
    Duration::MAX
}

fn fit(arguments: &cli::Fit, ranks: &Ranks) -> Result<(), Error> {
    let stop = signal::install()?;
    let longer = arguments.extend.as_deref();
    let read = || {
        let longer = longer.map(RequestedLength::read).transpose()?;
        let (recipe, existing) = match &arguments.resume {
            Some(run) => {
                let run = find(run, &arguments.root)?;
                (load_run(&run.recipe(), &[])?, Some(run))
            }
            None => (load_recipe(arguments)?, None),
        };
        Ok((longer, recipe, existing))
    };
    let (longer, recipe, existing) = ranks.agree(read())?;
    if arguments.dry_run {
        let needs = ranks.agree(survey(&recipe, ranks.size()))?;
        say_remarks(&recipe);
        let printed = ranks.by_first(|| answer::print(&plan(&recipe, &needs)));
        return printed.map(drop);
    }
    let training = Training {
        stop,
        render: match ranks.is_first() {
            true => arguments.render,
            false => Render::None,
        },
        fail_on_collapse: arguments.fail_on_collapse,
        longer,
        folders: arguments.data.clone(),
        ranks: ranks.clone(),
    };
    let run = training.run(recipe, existing)?;
    let path = run.path().display();
    let printed = ranks.by_first(|| answer::print_text(&format!("{path}\n")));
    printed.map(drop)
}

/// How a run is trained, besides its recipe.
pub(super) struct Training {
    pub stop: Stop,
    pub render: Render,
    pub fail_on_collapse: bool,
    /// Which stage goes on after its end.
    pub longer: Option<RequestedLength>,
    /// Where to look for files that are not where they were.
    pub folders: Vec<PathBuf>,
    /// Who trains together.
    pub ranks: Ranks,
}

impl Training {
    /// Trains a recipe in a new run, or resumes an existing one.
    ///
    /// # Errors
    /// See [`Ladder::climb`]; `Locked` if another process trains this run.
    pub fn run(
        self,
        mut recipe: Checked,
        existing: Option<RunDirectory>,
    ) -> Result<RunDirectory, Error> {
        let ranks = self.ranks.clone();
        let mut prepare = || {
            if let Some(run) = &existing {
                find_inputs(&mut recipe, run, &self.folders)?;
            }
            // Before anything is made: what cannot be opened shall leave no run behind.
            if let Some(error) = existing.is_none().then(|| first_start(&recipe)).flatten() {
                return Err(error);
            }
            let inputs = Inputs::open(&recipe)?;
            say_convention(&recipe.data, &inputs.tokenizer);
            let needs = Needs::of(&recipe, &inputs)?;
            needs.check(&recipe, ranks.size())?;
            device::check(&recipe.device)?;
            Ok((inputs, needs))
        };
        let (inputs, needs) = ranks.agree(prepare())?;
        ranks.compare(&facts(&recipe, &inputs, self.fail_on_collapse))?;
        let begin = || match existing {
            Some(run) => Ok(run),
            None => begin(&recipe, &inputs, &needs),
        };
        let run = of_first(&ranks, begin)?;
        let _lock = ranks.by_first(|| {
            let lock = Lock::acquire(&run)?;
            for stale in checkpoint::remove_stale(&run, &lock)? {
                let stale = stale.display();
                note(&format!(
                    "removed {stale}, left by a process that was killed"
                ));
            }
            Ok(lock)
        })?;
        let device = recipe.device.clone();
        let mut ladder = Ladder {
            recipe,
            inputs,
            run: run.clone(),
            stop: self.stop,
            render: self.render,
            fail_on_collapse: self.fail_on_collapse,
            extensions: ranks.agree(Extension::read(&run))?,
            ranks: ranks.clone(),
        };
        let start = ranks.agree(ladder.find_start(self.longer.as_ref()))?;
        ranks.compare(&ranks.agree(ladder.facts(&start))?)?;
        ranks.by_first(|| {
            let left = ladder.steps_left(&start);
            let existing = checkpoint::list(&run)?.len() as u64;
            let checkpoints = Checkpoints::of(&ladder.recipe, &left, existing);
            needs.check_space(&System, &run.checkpoints(), checkpoints, 0)?;
            run.change_info(|info| info.status = Status::Running)
        })?;
        let climbed = device::run(&device, Fit { ladder, start });
        let climbed = ranks.end_unless_shared(climbed);
        let status = match &climbed {
            Ok(()) => Status::Done,
            Err(Error::Stopped { .. }) => Status::Stopped,
            Err(_) => Status::Failed,
        };
        let noted = ranks.by_first(|| run.change_info(|info| info.status = status));
        // The first error is the one to report: a full disk may refuse the note too.
        climbed.and(noted)?;
        Ok(run)
    }
}

/// What decides the bits of a training and has to be the same on all ranks.
fn facts(recipe: &Checked, inputs: &Inputs, fail_on_collapse: bool) -> Facts {
    let mut facts = Facts::default()
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("features", device::compiled().join(" "))
        .with("processor", std::env::consts::ARCH)
        .with("recipe", recipe.sha256())
        .with("tokenizer", inputs.tokenizer.sha256())
        .with("threads", device::threads())
        .with("--fail-on-collapse", fail_on_collapse);
    for (path, sha256) in &inputs.sha256 {
        facts = facts.with(format!("data {path}"), sha256);
    }
    for name in ["NERVE_COMPOSED", "NERVE_PORTABLE"] {
        facts = facts.with(name, std::env::var(name).unwrap_or("unset".to_string()));
    }
    facts
}

/// What the first rank makes or finds, opened by the others.
fn of_first(
    ranks: &Ranks,
    find: impl FnOnce() -> Result<RunDirectory, Error>,
) -> Result<RunDirectory, Error> {
    let of_first = ranks.by_first(find)?;
    let path = of_first.as_ref().map(|run| run.path().to_path_buf());
    let path = ranks
        .gather(&path)
        .swap_remove(0)
        .expect("the first has it");
    ranks.agree(of_first.map_or_else(|| RunDirectory::open(&path), Ok))
}

/// Makes the run of a recipe, if there is room for what it will hold.
fn begin(recipe: &Checked, inputs: &Inputs, needs: &Needs) -> Result<RunDirectory, Error> {
    say_remarks(recipe);
    let steps: Vec<u64> = recipe.stage.iter().map(|stage| stage.steps).collect();
    let checkpoints = Checkpoints::of(recipe, &steps, 0);
    let files: NewInputs = new_inputs(recipe, inputs);
    needs.check_space(&System, &recipe.run.root, checkpoints, files.bytes())?;
    let info = RunInfo::new(&recipe.device.backend);
    let (root, name) = (&recipe.run.root, &recipe.run.name);
    RunDirectory::create_with(root, name, recipe.text(), info, &files)
}

fn say_remarks(recipe: &Checked) {
    for remark in remarks(recipe) {
        note(&remark);
    }
}

struct Fit {
    ladder: Ladder,
    start: Position,
}

impl Task for Fit {
    type Output = ();

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<(), Error> {
        self.ladder.climb::<B>(self.start, &device)
    }
}

fn load_recipe(arguments: &cli::Fit) -> Result<Checked, Error> {
    let mut sets = arguments.sets.clone();
    if let Some(device) = &arguments.device {
        device::check_compiled("command line: --device", device)?;
        sets.push(format!("device.backend={device}"));
    }
    let path = arguments.recipe.as_ref();
    let path = path.expect("clap requires it without --resume");
    let recipe = load(path, &sets)?;
    // A dry run says it with everything else that is missing.
    if !arguments.dry_run {
        device::check_compiled(&path.display().to_string(), &recipe.device.backend)?;
    }
    Ok(recipe)
}

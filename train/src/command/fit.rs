//! `nerve fit`: a recipe becomes a run, or a run goes on.

use super::answer;
use crate::cli;
use crate::device::{self, Task};
use crate::error::Error;
use crate::ladder::Ladder;
use crate::recipe::{Checked, load};
use crate::run::{Lock, RunDirectory, RunInfo, Status, checkpoint, find};
use crate::signal;
use burn::tensor::backend::AutodiffBackend;

/// Trains; the answer on stdout is the run directory.
///
/// # Errors
/// See [`Ladder::climb`]; `Config` for the recipe, `Locked` if another process trains this run.
pub fn run(arguments: &cli::Fit) -> Result<(), Error> {
    arguments.render.check()?;
    let stop = signal::install()?;
    let (recipe, run) = match &arguments.resume {
        Some(run) => {
            let run = find(run, &arguments.root)?;
            (load(&run.recipe(), &[])?, run)
        }
        None => {
            let recipe = load_recipe(arguments)?;
            device::check_compiled(&recipe.device.backend)?;
            if arguments.dry_run {
                return plan(&recipe);
            }
            let info = RunInfo::new(&recipe.device.backend);
            let run =
                RunDirectory::create(&recipe.run.root, &recipe.run.name, recipe.text(), info)?;
            (recipe, run)
        }
    };
    let lock = Lock::acquire(&run)?;
    for stale in checkpoint::remove_stale(&run, &lock)? {
        say(&format!(
            "removed {}, left by a process that was killed",
            stale.display()
        ));
    }
    let device = recipe.device.clone();
    let ladder = Ladder {
        recipe,
        run: run.clone(),
        stop,
        render: arguments.render,
        say,
    };
    run.change_info(|info| info.status = Status::Running)?;
    let climbed = device::run(&device, Fit(ladder));
    let status = match &climbed {
        Ok(()) => Status::Done,
        Err(Error::Stopped { .. }) => Status::Stopped,
        Err(_) => Status::Failed,
    };
    let noted = run.change_info(|info| info.status = status);
    // The first error is the one to report: a full disk may refuse the note too.
    climbed.and(noted)?;
    answer::print(&format!("{}\n", run.path().display()))
}

struct Fit(Ladder);

impl Task for Fit {
    type Output = ();

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<(), Error> {
        self.0.climb::<B>(&device)
    }
}

fn load_recipe(arguments: &cli::Fit) -> Result<Checked, Error> {
    let mut sets = arguments.sets.clone();
    sets.extend(
        arguments
            .device
            .iter()
            .map(|device| format!("device.backend={device}")),
    );
    let recipe = arguments
        .recipe
        .as_ref()
        .expect("clap requires it without --resume");
    load(recipe, &sets)
}

fn plan(recipe: &Checked) -> Result<(), Error> {
    let stages = recipe.stage.iter().map(|stage| {
        format!(
            "stage {}: {} steps, policy {:?}, start {:?}\n",
            stage.name, stage.steps, stage.policy, stage.start
        )
    });
    let run = recipe.run.root.join(&recipe.run.name);
    answer::print(&format!(
        "{}{}\n",
        stages.collect::<String>(),
        run.display()
    ))
}

fn say(line: &str) {
    eprintln!("nerve: {line}");
}

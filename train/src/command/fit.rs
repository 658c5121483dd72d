//! `nerve fit`: a recipe becomes a run, or a run goes on.

use super::answer::{self, readable_bytes};
use crate::cli;
use crate::device::{self, Task};
use crate::error::Error;
use crate::ladder::{Inputs, Ladder, Needs, Position};
use crate::recipe::{Checked, load};
use crate::render::Render;
use crate::run::{Lock, RunDirectory, RunInfo, Status, checkpoint, find};
use crate::say::note;
use crate::signal::{self, Stop};
use burn::tensor::backend::AutodiffBackend;

/// Trains; the answer on stdout is the run directory.
///
/// # Errors
/// See [`Ladder::climb`]; `Config` for the recipe, `Locked` if another process trains this run.
pub fn run(arguments: &cli::Fit) -> Result<(), Error> {
    arguments.render.check()?;
    let stop = signal::install()?;
    let (recipe, existing) = match &arguments.resume {
        Some(run) => {
            let run = find(run, &arguments.root)?;
            (load(&run.recipe(), &[])?, Some(run))
        }
        None => (load_recipe(arguments)?, None),
    };
    if arguments.dry_run {
        let inputs = Inputs::open(&recipe)?;
        let needs = Needs::of(&recipe, &inputs)?;
        needs.check(&recipe)?;
        return plan(&recipe, &needs);
    }
    let run = train(
        recipe,
        existing,
        stop,
        arguments.render,
        arguments.fail_on_collapse,
    )?;
    answer::print(&format!("{}\n", run.path().display()))
}

/// Trains a recipe in a new run, or goes on with an existing one.
///
/// # Errors
/// See [`Ladder::climb`]; `Locked` if another process trains this run.
pub fn train(
    recipe: Checked,
    existing: Option<RunDirectory>,
    stop: Stop,
    render: Render,
    fail_on_collapse: bool,
) -> Result<RunDirectory, Error> {
    // Before anything is made: what cannot be opened shall leave no run behind.
    let inputs = Inputs::open(&recipe)?;
    Needs::of(&recipe, &inputs)?.check(&recipe)?;
    device::check(&recipe.device)?;
    let run = match existing {
        Some(run) => run,
        None => {
            let info = RunInfo::new(&recipe.device.backend);
            RunDirectory::create(&recipe.run.root, &recipe.run.name, recipe.text(), info)?
        }
    };
    let lock = Lock::acquire(&run)?;
    for stale in checkpoint::remove_stale(&run, &lock)? {
        note(&format!(
            "removed {}, left by a process that was killed",
            stale.display()
        ));
    }
    let device = recipe.device.clone();
    let ladder = Ladder {
        recipe,
        inputs,
        run: run.clone(),
        stop,
        render,
        fail_on_collapse,
    };
    let start = ladder.find_start()?;
    run.change_info(|info| info.status = Status::Running)?;
    let climbed = device::run(&device, Fit { ladder, start });
    let status = match &climbed {
        Ok(()) => Status::Done,
        Err(Error::Stopped { .. }) => Status::Stopped,
        Err(_) => Status::Failed,
    };
    let noted = run.change_info(|info| info.status = status);
    // The first error is the one to report: a full disk may refuse the note too.
    climbed.and(noted)?;
    Ok(run)
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
    device::check_compiled(&path.display().to_string(), &recipe.device.backend)?;
    Ok(recipe)
}

fn plan(recipe: &Checked, needs: &Needs) -> Result<(), Error> {
    let mut lines: Vec<String> = recipe
        .stage
        .iter()
        .map(|stage| {
            let words = format!("policy {:?}, start {:?}", stage.policy, stage.start);
            format!(
                "stage {}: {} steps, {}",
                stage.name,
                stage.steps,
                words.to_lowercase()
            )
        })
        .collect();
    let memory = readable_bytes(needs.bytes());
    lines.push(format!(
        "{} parameters, at least {memory} of memory",
        needs.parameters
    ));
    let run = recipe.run.root.join(&recipe.run.name);
    lines.push(format!(
        "a run under {}, with a number if it exists",
        run.display()
    ));
    answer::print(&(lines.join("\n") + "\n"))
}

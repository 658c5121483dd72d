//! `nerve import`: a checkpoint of the reference implementation becomes a run, for `eval`, `sample`, `route` and as a start.

use super::answer::{self, aligned};
use crate::cli;
use crate::data::Tokenizer;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::import::{self, brian::target};
use crate::ladder::Blueprint;
use crate::recipe::{Checked, load};
use crate::run::checkpoint::{self, STATE_FORMAT, Snapshot, State};
use crate::run::{RunDirectory, RunInfo, Status, TensorMap};
use brian::parameter;
use burn::tensor::backend::AutodiffBackend;
use std::collections::BTreeMap;

/// Shapes by parameter path.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Imports; the answer is the run directory, or the table of names with `--dry-run`.
///
/// # Errors
/// `Invalid` if the file is no checkpoint or does not fit the recipe's model.
pub fn run(arguments: &cli::Import) -> Result<(), Error> {
    let recipe = load(&arguments.recipe, &arguments.sets)?;
    let tokenizer = Tokenizer::load(&recipe.tokenizer.file)?;
    let tensors = import::read(&arguments.checkpoint)?;
    let vocabulary = tokenizer.vocabulary_size();
    let wanted = Wanted {
        recipe: &recipe,
        vocabulary,
    };
    let shapes = device::run(&recipe.device, wanted)?;
    let rows = compare(&tensors, &shapes);
    if arguments.dry_run {
        answer::print(&table(&rows))?;
    }
    let misfits = rows
        .iter()
        .filter(|row| row.what != FITS && row.what != TIED);
    let misfits: Vec<&Row> = misfits.collect();
    if let Some(first) = misfits.first() {
        let found = format!(
            "{} ({}), and {} more",
            first.what,
            first.name(),
            misfits.len() - 1
        );
        let problem = Problem::new(
            &arguments.checkpoint,
            "",
            found,
            "the tensors of the recipe's model",
        );
        let advice = "see all of them with --dry-run, and make [model] that of the checkpoint";
        return Err(Error::Invalid(problem.advise(advice)));
    }
    if arguments.dry_run {
        return Ok(());
    }
    let run = save(&recipe, &tokenizer, tensors)?;
    answer::print(&format!("{}\n", run.path().display()))
}

const FITS: &str = "fits";
const TIED: &str = "tied head, stored twice";

/// A tensor of theirs, ours, or both.
struct Row {
    theirs: Option<(String, Vec<usize>)>,
    ours: Option<(String, Vec<usize>)>,
    what: &'static str,
}

impl Row {
    fn name(&self) -> &str {
        let either = self.theirs.as_ref().or(self.ours.as_ref());
        either.map_or("", |(name, _)| name)
    }
}

fn compare(tensors: &TensorMap, shapes: &Shapes) -> Vec<Row> {
    let mut missing = shapes.clone();
    let of_file = |(name, tensor): (&String, &crate::run::HostTensor)| {
        let theirs = Some((name.clone(), tensor.shape.clone()));
        let Some(target) = target(name) else {
            let what = match name.as_str() {
                "lm_head.weight" => TIED,
                _ => "has no place",
            };
            return Row {
                theirs,
                ours: None,
                what,
            };
        };
        let mut shape = tensor.shape.clone();
        if target.transposed {
            shape.reverse();
        }
        let wanted = missing.remove(&target.path);
        let what = match &wanted {
            Some(wanted) if *wanted == shape => FITS,
            Some(_) => "has another shape",
            None => "has no place in this model",
        };
        Row {
            theirs,
            ours: Some((target.path, wanted.unwrap_or(shape))),
            what,
        }
    };
    let mut rows: Vec<Row> = tensors.iter().map(of_file).collect();
    rows.extend(missing.into_iter().map(|ours| Row {
        theirs: None,
        ours: Some(ours),
        what: "is missing",
    }));
    rows
}

fn table(rows: &[Row]) -> String {
    let cells = |side: &Option<(String, Vec<usize>)>| match side {
        Some((name, shape)) => [answer::printable(name), format!("{shape:?}")],
        None => ["-", "-"].map(str::to_string),
    };
    let mut table = vec![["theirs", "shape", "ours", "shape", ""].map(str::to_string)];
    table.extend(rows.iter().map(|row| {
        let ([theirs, their_shape], [ours, our_shape]) = (cells(&row.theirs), cells(&row.ours));
        [theirs, their_shape, ours, our_shape, row.what.to_string()]
    }));
    aligned(&table)
}

/// A run whose last stage is over.
fn save(
    recipe: &Checked,
    tokenizer: &Tokenizer,
    tensors: TensorMap,
) -> Result<RunDirectory, Error> {
    let last = recipe.stage.len() - 1;
    let stage = &recipe.stage[last];
    let info = RunInfo::new(&recipe.device.backend);
    let run = RunDirectory::create(&recipe.run.root, &recipe.run.name, recipe.text(), info)?;
    let state = State {
        format: STATE_FORMAT,
        stage_index: last,
        stage: stage.name.clone(),
        stage_step: stage.steps,
        recipe_sha256: recipe.sha256(),
        tokenizer_sha256: tokenizer.sha256(),
        nerve_version: env!("CARGO_PKG_VERSION").to_string(),
        backend: recipe.device.backend.clone(),
        threads: device::threads(),
        ..State::default()
    };
    let snapshot = Snapshot {
        state,
        model: import::brian::translate(tensors).0,
        optimizer: TensorMap::new(),
    };
    checkpoint::save(&run, &snapshot, recipe.checkpoint.keep_last)?;
    run.change_info(|info| {
        info.status = Status::Done;
        info.stage.clone_from(&stage.name);
        info.tokenizer_sha256 = tokenizer.sha256();
    })?;
    Ok(run)
}

/// The shapes of the model of the recipe's last stage.
struct Wanted<'a> {
    recipe: &'a Checked,
    vocabulary: usize,
}

impl Task for Wanted<'_> {
    type Output = Shapes;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Shapes, Error> {
        let policy = &self.recipe.stage[self.recipe.stage.len() - 1].policy;
        let blueprint = Blueprint {
            recipe: self.recipe,
            vocabulary: self.vocabulary,
            counts: None,
        };
        let model = blueprint.skeleton::<B::InnerBackend>(policy, &device);
        Ok(parameter::shapes(&model))
    }
}

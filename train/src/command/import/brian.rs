//! Imports a state dict by its tensor names (a reference decoder, or any checkpoint of ours): compares names and shapes with
//! the model of the recipe's last stage, loads the weights, and has the run saved.

use super::save::save;
use super::{account, answer, option, require_fit, table};
use crate::cli;
use crate::device::{self, Task};
use crate::error::Error;
use crate::family::brillm::SignalConfig;
use crate::import::brillm::kept;
use crate::import::state_dict::{Shapes, compare, load};
use crate::import::{Checkpoint, Doubled, Globals};
use crate::ladder::{self, Blueprint};
use crate::recipe::Checked;
use brillm::counts::PairCounts;
use brillm::table::Storage;
use burn::tensor::backend::AutodiffBackend;
use std::sync::Arc;

/// Imports a decoder.
pub(super) fn run(arguments: &cli::Import, recipe: &Checked) -> Result<(), Error> {
    require_no_release(arguments, "the recipe's model is a decoder")?;
    let checkpoint = Checkpoint::open(&arguments.checkpoints, Globals::Any, Doubled::Refused)?;
    take_over(arguments, recipe, checkpoint)
}

/// Options that only a release of a graph has.
fn require_no_release(arguments: &cli::Import, why: &str) -> Result<(), Error> {
    let of_a_release = [
        ("--vocabulary", arguments.vocabulary.is_some()),
        ("--counts", arguments.counts.is_some()),
        ("--tokenizer", arguments.tokenizer.is_some()),
        ("--probe", arguments.probe.is_some()),
    ];
    match of_a_release.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(option(name, "a file", &format!("no such option, as {why}"))),
        None => Ok(()),
    }
}

/// Makes a run from a checkpoint, by the names of its tensors.
pub(super) fn take_over(
    arguments: &cli::Import,
    recipe: &Checked,
    mut checkpoint: Checkpoint,
) -> Result<(), Error> {
    require_no_release(arguments, "the checkpoint is no release of a graph")?;
    let tokenizer = ladder::tokenizer(recipe)?;
    let counts = ladder::counts(recipe, &tokenizer)?;
    let wanted = Wanted {
        recipe,
        vocabulary: tokenizer.vocabulary_size(),
        counts: counts.map(|(_, bigrams)| Arc::new(bigrams.counts)),
    };
    let shapes = device::run(&recipe.device, wanted)?;
    let mut fits = compare(&checkpoint, &shapes);
    let graph = recipe.model.get::<SignalConfig>();
    let storage = graph.map_or(Storage::F32, |config| config.storage);
    for fit in &mut fits {
        fit.kept = kept(&fit.ours, storage);
    }
    if arguments.dry_run {
        answer::print(&table(&fits))?;
    }
    require_fit(&checkpoint, &fits)?;
    let model = load(&mut checkpoint, &shapes, storage)?;
    if arguments.dry_run {
        account::say_notes(&checkpoint, &fits);
        return Ok(());
    }
    account::say(&checkpoint, &fits);
    let account = account::to_json(&checkpoint, &fits);
    let run = save(recipe, &tokenizer, &account, None, model)?;
    answer::print_text(&format!("{}\n", run.path().display()))
}

/// The shapes of the model of the recipe's last stage.
struct Wanted<'a> {
    recipe: &'a Checked,
    vocabulary: usize,
    counts: Option<Arc<PairCounts>>,
}

impl Task for Wanted<'_> {
    type Output = Shapes;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Shapes, Error> {
        let policy = &self.recipe.stage[self.recipe.stage.len() - 1].policy;
        let blueprint = Blueprint {
            recipe: self.recipe,
            vocabulary: self.vocabulary,
            counts: self.counts.as_ref(),
            ranks: None,
        };
        Ok(blueprint.skeleton::<B>(policy, &device).shapes())
    }
}

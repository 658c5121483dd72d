//! The decoders: a checkpoint is a state dict, and its names say where everything goes.

use super::save::{Imported, save};
use super::{answer, option, require_fit, table};
use crate::cli;
use crate::data::Tokenizer;
use crate::device::{self, Task};
use crate::error::Error;
use crate::import::fit::{FITS, Fit, MISSING, NO_PLACE, OTHER_SHAPE, TIED};
use crate::import::{self, brian::target, brian::translate};
use crate::ladder::Blueprint;
use crate::recipe::Checked;
use crate::run::{HostTensor, TensorMap};
use brian::parameter;
use burn::tensor::backend::AutodiffBackend;
use std::collections::BTreeMap;

/// Shapes by parameter path.
type Shapes = BTreeMap<String, Vec<usize>>;

/// Imports a decoder.
pub(super) fn run(arguments: &cli::Import, recipe: &Checked) -> Result<(), Error> {
    let [checkpoint] = &arguments.checkpoints[..] else {
        let found = format!("{} checkpoints", arguments.checkpoints.len());
        return Err(option(
            "",
            &found,
            "one, as the recipe's model is a decoder",
        ));
    };
    let of_a_graph = [
        ("--vocabulary", arguments.vocabulary.is_some()),
        ("--counts", arguments.counts.is_some()),
        ("--tokenizer", arguments.tokenizer.is_some()),
        ("--probe", arguments.probe.is_some()),
    ];
    if let Some((name, _)) = of_a_graph.iter().find(|(_, given)| *given) {
        let expected = "no such option, as the recipe's model is a decoder";
        return Err(option(name, "a file", expected));
    }
    let tokenizer = Tokenizer::load(&recipe.tokenizer.file)?;
    let tensors = import::read(checkpoint)?;
    let vocabulary = tokenizer.vocabulary_size();
    let shapes = device::run(&recipe.device, Wanted { recipe, vocabulary })?;
    let fits = compare(&tensors, &shapes);
    if arguments.dry_run {
        answer::print(&table(&fits))?;
    }
    require_fit(checkpoint, &fits)?;
    if arguments.dry_run {
        return Ok(());
    }
    let (model, _) = translate(tensors);
    let imported = Imported {
        recipe,
        tokenizer: &tokenizer,
        files: None,
    };
    let run = save(&imported, model)?;
    answer::print(&format!("{}\n", run.path().display()))
}

fn compare(tensors: &TensorMap, shapes: &Shapes) -> Vec<Fit> {
    let mut missing = shapes.clone();
    let of_file = |(name, tensor): (&String, &HostTensor)| {
        let theirs = Some((name.clone(), tensor.shape.clone()));
        let Some(target) = target(name) else {
            let what = match name.as_str() {
                "lm_head.weight" => TIED,
                _ => NO_PLACE,
            };
            return Fit {
                theirs,
                ours: None,
                what,
            };
        };
        let shape = target.shape(tensor.shape.clone());
        let wanted = missing.remove(&target.path);
        let what = match &wanted {
            Some(wanted) if *wanted == shape => FITS,
            Some(_) => OTHER_SHAPE,
            None => NO_PLACE,
        };
        Fit {
            theirs,
            ours: Some((target.path, wanted.unwrap_or(shape))),
            what,
        }
    };
    let mut fits: Vec<Fit> = tensors.iter().map(of_file).collect();
    fits.extend(missing.into_iter().map(|ours| Fit {
        theirs: None,
        ours: Some(ours),
        what: MISSING,
    }));
    fits
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

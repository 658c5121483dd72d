//! A run that goes on with the optimizer of another: a decay branched off a stable learning rate (Hu et al. 2024, "MiniCPM", section 4).
//! Checks that the other run's moments mean the same here, and imports them.
//!
//! The data go on by a number of micro-batches. It is the same place only if both runs cut and order the data alike.

use crate::error::{Error, Problem};
use crate::learner::ParameterOptimizer;
use crate::model::Model;
use crate::recipe::{Checked, Policy, Recipe, load_run};
use crate::run::checkpoint::{CheckpointState, Earlier};
use crate::run::{RunDirectory, TensorMap};
use crate::say::note;
use burn::tensor::backend::AutodiffBackend;
use std::path::Path;

/// The optimizer of another run's checkpoint.
pub(super) struct Branch<'a> {
    /// The counters there.
    pub state: &'a CheckpointState,
    /// Its moments by parameter path.
    pub moments: TensorMap,
    /// The checkpoint.
    pub file: &'a Path,
}

impl Branch<'_> {
    /// The optimizer of the recipe with these moments; those of a model with an optimizer of its own go there.
    ///
    /// # Errors
    /// `Invalid`, naming the checkpoint, if they are not those of the model's parameters.
    pub fn optimizer<B: AutodiffBackend>(
        self,
        recipe: &Recipe,
        model: &Model<B>,
    ) -> Result<ParameterOptimizer<B>, Error> {
        let fresh = ParameterOptimizer::new(&recipe.optimizer);
        match model.own_optimizer() {
            Some(own) => {
                let taken = own.set_moments(self.moments, self.file);
                taken.map(|()| fresh).map_err(Error::Invalid)
            }
            None => fresh.import(model, self.moments, &self.state.optimizer_times, self.file),
        }
    }
}

/// What a run that starts from this state counts on from.
pub(super) fn earlier(state: &CheckpointState) -> Earlier {
    Earlier {
        steps: state.step + state.earlier_steps(),
        micro_batches: state.micro_batches,
    }
}

/// Whether the optimizer of a run at this state can be kept; says if the data do not go on where it stopped.
///
/// # Errors
/// `Invalid` if it has made no step, is of another kind, or updated a model of another kind.
pub(super) fn check(
    recipe: &Checked,
    run: &RunDirectory,
    state: &CheckpointState,
) -> Result<(), Error> {
    let problem = |found: String, expected: String| {
        let problem = Problem::new(run.path(), "optimizer", found, expected);
        let advice = "leave start.optimizer out: the optimizer then starts anew";
        Err(Error::Invalid(problem.advise(advice)))
    };
    if earlier(state).steps == 0 {
        return problem(
            "no step made".to_string(),
            "moments of at least one".to_string(),
        );
    }
    let theirs = load_run(&run.recipe(), &[])?;
    let kinds = [&*theirs, &**recipe].map(|recipe| recipe.optimizer.kind());
    if kinds[0] != kinds[1] {
        let [found, expected] = kinds.map(|kind| format!("{kind:?}"));
        return problem(found, format!("{expected}, as in this recipe"));
    }
    let plain = |policy: &Policy| match policy {
        Policy::None => "moments of a plain decoder",
        _ => "moments of a model with a pool",
    };
    let of_theirs = theirs.stage.get(state.stage_index);
    let of_theirs = of_theirs.map(|stage| plain(&stage.policy));
    let of_ours = plain(&recipe.stage[0].policy);
    if let Some(found) = of_theirs.filter(|found| *found != of_ours) {
        return problem(found.to_string(), of_ours.to_string());
    }
    if !reads_on(&theirs, recipe) {
        note(&format!(
            "{}: its [data] or its batch.sequences are others than in this recipe, so what this run reads may have been seen there",
            run.path().display()
        ));
    }
    Ok(())
}

/// Whether a number of micro-batches is the same place in the data of both.
fn reads_on(theirs: &Recipe, ours: &Recipe) -> bool {
    let order = |recipe: &Recipe| {
        let mut data = recipe.data.clone();
        data.valid.clear();
        (data, recipe.batch.sequences)
    };
    order(theirs) == order(ours)
}

//! Finds all problems that keep a recipe from being trained here, for `config check` and `fit --dry-run`.

use super::branch;
use super::inputs::{Inputs, counts, tokenizer};
use super::memory::{Checkpoints, Needs};
use crate::data::TokenSource;
use crate::device;
use crate::error::{Error, Problem};
use crate::learner::check_split;
use crate::recipe::{Checked, Stage, StageStart};
use crate::run::{RunDirectory, System, checkpoint};
use std::collections::BTreeSet;
use std::path::Path;

/// What a training of the recipe on so many ranks needs.
///
/// # Errors
/// Everything that is missing or does not fit: backend, tokenizer, data and their labels, counts, runs to start from,
/// memory, room for checkpoints.
pub fn survey(recipe: &Checked, n_ranks: usize) -> Result<Needs, Error> {
    let mut problems = Vec::new();
    let backend = device::check_compiled(&recipe.source().file, &recipe.device.backend);
    let can_count = backend.is_ok();
    problems.extend(backend.err());
    problems.extend(starts(recipe, &recipe.stage));
    let inputs = match Inputs::open(recipe) {
        Ok(inputs) => Some(inputs),
        Err(first) => {
            let each = files(recipe);
            problems.extend(if each.is_empty() { vec![first] } else { each });
            None
        }
    };
    let needs = match inputs.filter(|_| can_count) {
        Some(inputs) => Some(Needs::of(recipe, &inputs)?),
        None => None,
    };
    if let Some(needs) = &needs {
        problems.extend(needs.check(recipe, n_ranks).err());
        let steps: Vec<u64> = recipe.stage.iter().map(|stage| stage.steps).collect();
        let checkpoints = Checkpoints::of(recipe, &steps, 0);
        let space = needs.check_space(&System, &recipe.run.root, checkpoints, 0);
        problems.extend(space.err());
    }
    match (needs, problems.len()) {
        (Some(needs), 0) => Ok(needs),
        (_, 1) => Err(problems.remove(0)),
        _ => Err(Error::Several(problems)),
    }
}

/// Each file that cannot be used, with the first reason.
fn files(recipe: &Checked) -> Vec<Error> {
    let mut problems = Vec::new();
    let tokenizer = tokenizer(recipe);
    let train = recipe.data.train.iter().map(|source| source.tokens());
    let valid = recipe.data.valid.iter().map(|source| source.tokens());
    let sources: BTreeSet<TokenSource<'_>> = train.chain(valid).collect();
    for source in sources {
        problems.extend(check_split(source, &recipe.data, tokenizer.as_ref().ok()).err());
    }
    if let Ok(tokenizer) = &tokenizer {
        problems.extend(counts(recipe, tokenizer).err());
    }
    problems.extend(tokenizer.err());
    // A file of difficulties is asked for every split.
    let mut said = BTreeSet::new();
    problems.retain(|problem| said.insert(problem.to_string()));
    problems
}

/// What is wrong with the run that the first stage starts from, if it starts from one.
pub fn first_start(recipe: &Checked) -> Option<Error> {
    starts(recipe, &recipe.stage[..1]).into_iter().next()
}

/// What is wrong with runs that stages start from.
fn starts(recipe: &Checked, stages: &[Stage]) -> Vec<Error> {
    let mut problems = Vec::new();
    let tokenizer = tokenizer(recipe).ok();
    let own = tokenizer.map(|tokenizer| tokenizer.sha256());
    for stage in stages {
        let StageStart::Run { path, step, .. } = &stage.start else {
            continue;
        };
        let glance = |run: &RunDirectory| match step {
            None => checkpoint::glance(run),
            Some(step) => checkpoint::glance_at(run, *step),
        };
        let found = RunDirectory::open(path).and_then(|run| Ok((glance(&run)?, run)));
        match found {
            Ok((None, run)) => problems.push(without_checkpoint(&run, *step)),
            Ok((Some(found), run)) => {
                let theirs = &found.state.tokenizer_sha256;
                if own.as_ref().is_some_and(|own| own != theirs) {
                    problems.push(of_another_tokenizer(path));
                }
                if stage.start.keeps_optimizer() {
                    problems.extend(branch::check(recipe, &run, &found.state).err());
                }
            }
            Err(error) => problems.push(error),
        }
    }
    problems
}

/// The error for a run to start from that has saved nothing, or nothing at the step that was asked for.
pub(super) fn without_checkpoint(run: &RunDirectory, step: Option<u64>) -> Error {
    let folder = run.checkpoints();
    let problem = match step {
        None => Problem::new(folder, "", "no checkpoint", "at least one")
            .advise("name a run that was trained"),
        Some(step) => {
            let there = checkpoint::list(run).unwrap_or_default();
            let there: Vec<String> = there.iter().map(|(step, _)| step.to_string()).collect();
            let advice = match there.is_empty() {
                true => "name a run that was trained".to_string(),
                false => format!("there are those of the steps {}", there.join(", ")),
            };
            let found = format!("no checkpoint of step {step}");
            let expected = "the one that start.step names";
            Problem::new(folder, "", found, expected).advise(advice)
        }
    };
    Error::Invalid(problem)
}

/// The error for a run to start from that has another tokenizer.
pub(super) fn of_another_tokenizer(run: &Path) -> Error {
    let expected = "the tokenizer of this recipe";
    let problem = Problem::new(run, "", "weights for another tokenizer", expected);
    Error::Invalid(problem.advise("name a run with the same tokenizer.file"))
}

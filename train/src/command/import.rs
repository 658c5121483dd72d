//! `nerve import`: a checkpoint of a reference implementation becomes a run, for `eval`, `sample`, `route` and as a start.

mod brian;
mod brillm;
mod probe;
mod save;

use super::answer::{self, aligned};
use crate::cli;
use crate::error::{Error, Problem};
use crate::import::fit::Fit;
use crate::recipe::{ModelConfig, load};
use std::path::Path;

/// Imports; the answer is the run directory, or the table of names with `--dry-run`.
///
/// # Errors
/// `Invalid` if a file is not what it should be or does not fit the recipe's model; `Resource` if memory does not suffice.
pub fn run(arguments: &cli::Import) -> Result<(), Error> {
    let recipe = load(&arguments.recipe, &arguments.sets)?;
    match &recipe.model {
        ModelConfig::BriLlm(config) => brillm::run(arguments, &recipe, config),
        _ => brian::run(arguments, &recipe),
    }
}

/// What an option of the command line should have been.
fn option(name: &str, found: &str, expected: &str) -> Error {
    Error::config(Problem::new("command line", name, found, expected))
}

/// Refuses a checkpoint of which something does not fit.
fn require_fit(checkpoint: &Path, fits: &[Fit]) -> Result<(), Error> {
    let misfits: Vec<&Fit> = fits.iter().filter(|fit| !fit.is_fine()).collect();
    let Some(first) = misfits.first() else {
        return Ok(());
    };
    let (what, name) = (first.what, answer::printable(first.name()));
    let found = format!("{what} ({name}), and {} more", misfits.len() - 1);
    let problem = Problem::new(checkpoint, "", found, "the tensors of the recipe's model");
    let advice = "see all of them with --dry-run, and make [model] that of the checkpoint";
    Err(Error::Invalid(problem.advise(advice)))
}

fn table(fits: &[Fit]) -> String {
    let cells = |side: &Option<(String, Vec<usize>)>| match side {
        Some((name, shape)) => [answer::printable(name), format!("{shape:?}")],
        None => ["-", "-"].map(str::to_string),
    };
    let mut table = vec![["theirs", "shape", "ours", "shape", ""].map(str::to_string)];
    table.extend(fits.iter().map(|fit| {
        let ([theirs, their_shape], [ours, our_shape]) = (cells(&fit.theirs), cells(&fit.ours));
        [theirs, their_shape, ours, our_shape, fit.what.to_string()]
    }));
    aligned(&table)
}

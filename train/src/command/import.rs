//! `nerve import`: makes a run from a checkpoint of a reference implementation, or from a Hugging Face directory. Knows a
//! directory by its `config.json`, and a decoder or a graph by the recipe; has what all share: the table of tensors and the
//! refusal of misfits.

mod account;
mod brian;
mod brillm;
mod hugging_face;
mod probe;
mod save;

use super::answer::{self, aligned};
use crate::cli;
use crate::error::{Error, Problem};
use crate::family::brillm::SignalConfig;
use crate::import::Checkpoint;
use crate::import::dimensions;
use crate::import::fit::{Fit, What};
use crate::import::hugging_face::Directory;
use crate::recipe::load;

/// The most cells of a terminal that a name takes.
const MOST_CELLS: usize = 120;

/// Imports, and prints the run directory, or with `--dry-run` the table of names.
///
/// # Errors
/// `Invalid` if a file is not what it should be or does not fit the recipe's model; `Resource` if memory does not suffice.
pub fn run(arguments: &cli::Import) -> Result<(), Error> {
    if let Some(directory) = Directory::of(&arguments.checkpoints)? {
        return hugging_face::run(arguments, &directory);
    }
    hugging_face::require_no_options(arguments)?;
    let recipe = arguments.recipe.as_ref().ok_or_else(|| {
        let expected = "the recipe whose model it is: only a directory of Hugging Face's describes its model itself";
        option("--recipe", "none", expected)
    })?;
    let recipe = load(recipe, &arguments.sets)?;
    match recipe.model.get::<SignalConfig>() {
        Some(config) => brillm::run(arguments, &recipe, config),
        None => brian::run(arguments, &recipe),
    }
}

/// What an option of the command line should have been.
fn option(name: &str, found: &str, expected: &str) -> Error {
    Error::config(Problem::new("command line", name, found, expected))
}

/// Refuses a checkpoint of which something does not fit the recipe's model.
fn require_fit(checkpoint: &Checkpoint, fits: &[Fit]) -> Result<(), Error> {
    let advice = "see all of them with --dry-run, and make [model] that of the checkpoint";
    let advice = match checkpoint.hint() {
        Some(hint) => format!("{hint}; {advice}"),
        None => advice.to_string(),
    };
    require_fit_to("the recipe's model", checkpoint, fits, advice)
}

/// Refuses a checkpoint of which something does not fit a model.
fn require_fit_to(
    model: &str,
    checkpoint: &Checkpoint,
    fits: &[Fit],
    advice: String,
) -> Result<(), Error> {
    let misfits: Vec<&Fit> = fits.iter().filter(|fit| !fit.is_fine()).collect();
    let Some(first) = misfits.first() else {
        return Ok(());
    };
    let (what, name) = (&first.what, shown(first.name()));
    let found = format!("{what} ({name}), and {} more", misfits.len() - 1);
    let expected = match (&first.what, &first.theirs) {
        (What::OtherShape(wanted), Some(theirs)) => {
            let found = theirs
                .shape
                .as_deref()
                .map_or("none".to_string(), dimensions);
            let wanted = dimensions(wanted);
            format!("the tensors of {model}, here {wanted} instead of {found}")
        }
        _ => format!("the tensors of {model}"),
    };
    let problem = Problem::new(checkpoint.path(), "", found, expected);
    Err(Error::Invalid(problem.advise(advice)))
}

fn table(fits: &[Fit]) -> String {
    let head = ["numbers", "layout", "theirs", "shape", "ours", "shape", ""];
    let mut table = vec![head.map(str::to_string)];
    let cells = |fit: &Fit| fit.cells().map(|cell| shown(&cell));
    table.extend(fits.iter().map(cells));
    aligned(&table)
}

/// A name from a file, which may be of any length.
fn shown(name: &str) -> String {
    answer::fitted(&answer::printable(name), MOST_CELLS)
}

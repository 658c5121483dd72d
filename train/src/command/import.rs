//! `nerve import`: makes a run from a checkpoint of a reference implementation. Chooses the import of a decoder or a graph by
//! the recipe, and has what both share: the table of tensors and the refusal of misfits.

mod account;
mod brian;
mod brillm;
mod probe;
mod save;

use super::answer::{self, aligned};
use crate::cli;
use crate::error::{Error, Problem};
use crate::family::brillm::SignalConfig;
use crate::import::Checkpoint;
use crate::import::dimensions;
use crate::import::fit::{Fit, What};
use crate::recipe::load;

/// The most cells of a terminal that a name takes.
const MOST_CELLS: usize = 120;

/// Imports, and prints the run directory, or with `--dry-run` the table of names.
///
/// # Errors
/// `Invalid` if a file is not what it should be or does not fit the recipe's model; `Resource` if memory does not suffice.
pub fn run(arguments: &cli::Import) -> Result<(), Error> {
    let recipe = load(&arguments.recipe, &arguments.sets)?;
    match recipe.model.get::<SignalConfig>() {
        Some(config) => brillm::run(arguments, &recipe, config),
        None => brian::run(arguments, &recipe),
    }
}

/// What an option of the command line should have been.
fn option(name: &str, found: &str, expected: &str) -> Error {
    Error::config(Problem::new("command line", name, found, expected))
}

/// Refuses a checkpoint of which something does not fit.
fn require_fit(checkpoint: &Checkpoint, fits: &[Fit]) -> Result<(), Error> {
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
            format!("the tensors of the recipe's model, here {wanted} instead of {found}")
        }
        _ => "the tensors of the recipe's model".to_string(),
    };
    let problem = Problem::new(checkpoint.path(), "", found, expected);
    let advice = "see all of them with --dry-run, and make [model] that of the checkpoint";
    let advice = match checkpoint.hint() {
        Some(hint) => format!("{hint}; {advice}"),
        None => advice.to_string(),
    };
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

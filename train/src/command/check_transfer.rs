//! `nerve check-transfer`: the coordinate check of a width transfer (Yang et al. 2022, appendix D.1). It trains copies of a recipe's
//! model at several widths for a few steps, once with the transfer and once without, and says how much each place of the model moves
//! at a width beside another. With a transfer that is right all move alike.
//!
//! Every copy starts fresh, at a constant rate and without hooks. Copies of one seed learn from the same batch, so that only the width
//! differs.

mod copies;
mod measure;
mod picture;
mod report;

use super::{answer, markup};
use crate::cli;
use crate::collective::Ranks;
use crate::device;
use crate::error::{Error, Problem};
use crate::ladder::{Inputs, Ladder};
use crate::recipe::load;
use crate::render::Render;
use crate::run::RunDirectory;
use crate::say::note;
use crate::signal::Stop;
use copies::{Copies, Parametrization};
use measure::{Measure, Moved, mean};
use report::TransferReport;

/// Measures and prints the slopes. No file is written but the picture.
///
/// # Errors
/// `Config` for the recipe, for a model without a width and for widths that it cannot have; `Invalid` for the data; `Resource` if the
/// device does not start; `Numerical` if a loss is not finite.
pub fn run(arguments: &cli::CheckTransfer) -> Result<(), Error> {
    check(arguments)?;
    let recipe = load(&arguments.recipe, &arguments.sets)?;
    let copies = Copies::of(&recipe, arguments)?;
    let moved = |of| -> Result<Vec<Vec<Vec<Moved>>>, Error> {
        let at_width = |&width: &usize| {
            let of_seed = |index| trained(&copies, arguments, (width, of, index));
            let of_seeds: Result<_, Error> = (0..arguments.seeds).map(of_seed).collect();
            Ok(mean(of_seeds?))
        };
        arguments.widths.iter().map(at_width).collect()
    };
    let report = TransferReport {
        widths: arguments.widths.clone(),
        base: copies.base,
        seeds: arguments.seeds,
        rate: arguments.learning_rate,
        transfer: moved(Parametrization::Transfer)?,
        standard: moved(Parametrization::Standard)?,
    };
    markup::write(arguments.svg.as_ref(), || picture::plot(&report))?;
    answer::give(arguments.json, || report.json(), || report.text())
}

/// How far a copy has moved behind each step.
fn trained(
    copies: &Copies<'_>,
    arguments: &cli::CheckTransfer,
    copy: (usize, Parametrization, u64),
) -> Result<Vec<Vec<Moved>>, Error> {
    let sets = copies.sets(copy)?;
    let recipe = load(&arguments.recipe, &[&arguments.sets[..], &sets].concat())?;
    let (width, of, index) = copy;
    let seed = recipe.run.seed;
    note(&format!("width {width}, {}, seed {seed}", of.name()));
    let inputs = Inputs::open(&recipe)?;
    let device = recipe.device.clone();
    let ladder = Ladder {
        inputs,
        recipe,
        run: RunDirectory::unwritten(&arguments.recipe),
        extensions: Vec::new(),
        stop: Stop::new(),
        render: Render::None,
        fail_on_collapse: false,
        ranks: Ranks::alone(),
    };
    let measure = Measure {
        ladder: &ladder,
        batch: index,
        steps: arguments.steps,
        rate: arguments.learning_rate,
    };
    device::run(&device, measure)
}

/// What no parser of arguments knows.
fn check(arguments: &cli::CheckTransfer) -> Result<(), Error> {
    let wrong = |option: &str, found: String, expected: &str| {
        let problem = Problem::typed(option, found, expected);
        Err(Error::config(problem))
    };
    let widths = &arguments.widths;
    let rises = widths.windows(2).all(|two| two[0] < two[1]);
    if widths.len() < 2 || !rises || widths[0] == 0 {
        let expected = "at least two widths, rising, as in 64,128,256";
        return wrong("--widths", format!("{widths:?}"), expected);
    }
    let rate = arguments.learning_rate;
    match rate > 0.0 && rate.is_finite() {
        true => Ok(()),
        false => wrong("--learning-rate", rate.to_string(), "more than 0"),
    }
}

//! `nerve sweep`: the runs of a sweep one after the other, and a table of what they came to. What is done is not done again.

use super::answer::{self, aligned};
use super::fit;
use crate::cli;
use crate::error::{Error, Problem};
use crate::recipe::sweep::{Sweep, Variant};
use crate::run::{RunDirectory, Status, checkpoint};
use crate::say::note;
use crate::signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Runs and compares.
///
/// # Errors
/// `Config` for the sweep or one of its recipes; what the first run that fails meets.
pub fn run(arguments: &cli::Sweep) -> Result<(), Error> {
    let sweep = Sweep::load(&arguments.sweep)?;
    let name = arguments
        .sweep
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let mut variants = sweep.variants(&name)?;
    if !arguments.only.is_empty() {
        variants.retain(|variant| arguments.only.contains(&variant.row));
        if variants.is_empty() {
            let rows: Vec<&str> = sweep.row.iter().map(|row| row.name.as_str()).collect();
            let found = arguments.only.join(", ");
            let problem = Problem::new("command line", "--only", found, rows.join(", "));
            return Err(Error::config(problem));
        }
    }
    arguments.render.check()?;
    let stop = signal::install()?;
    let mut results = Vec::new();
    for variant in variants {
        let path = variant.recipe.run.root.join(&variant.recipe.run.name);
        let Variant { row, seed, recipe } = variant;
        let existing = path
            .is_dir()
            .then(|| RunDirectory::open(&path))
            .transpose()?;
        let done = match &existing {
            Some(run) => run.info()?.status == Status::Done,
            None => false,
        };
        if arguments.dry_run {
            let what = match (&existing, done) {
                (_, true) => "done",
                (Some(_), false) => "go on",
                (None, _) => "new",
            };
            results.push((row, seed, what.to_string(), BTreeMap::new()));
            continue;
        }
        if !done {
            note(&format!("row {row}, seed {seed}: {}", path.display()));
            fit::train(recipe, existing, stop.clone(), arguments.render, false)?;
        }
        let numbers = last_validation(&RunDirectory::open(&path)?)?;
        results.push((row, seed, path.display().to_string(), numbers));
    }
    match arguments.json {
        true => answer::print_json(&object(&sweep, &results)),
        false => answer::print(&table(&sweep, &results)),
    }
}

/// Row, seed, run and numbers.
type Done = (String, u64, String, BTreeMap<String, f64>);

fn last_validation(run: &RunDirectory) -> Result<BTreeMap<String, f64>, Error> {
    let loaded = checkpoint::latest(run)?;
    Ok(loaded.map_or_else(BTreeMap::new, |loaded| loaded.snapshot.state.stage_valid))
}

fn object(sweep: &Sweep, results: &[Done]) -> Value {
    let runs = results.iter().map(|(row, seed, run, numbers)| {
        json!({ "row": row, "seed": seed, "run": run, "numbers": numbers })
    });
    let runs: Vec<Value> = runs.collect();
    json!({ "schema": 1, "question": sweep.question, "runs": runs })
}

/// Per row and number the mean over the seeds, with the smallest and the largest.
fn table(sweep: &Sweep, results: &[Done]) -> String {
    let mut lines = vec![["row", "runs", "number", "mean", "from", "to"].map(str::to_string)];
    for row in &sweep.row {
        let runs: Vec<&Done> = results.iter().filter(|done| done.0 == row.name).collect();
        let Some(first) = runs.first() else { continue };
        if runs.iter().all(|done| done.3.is_empty()) {
            let empty = String::new;
            lines.push([
                row.name.clone(),
                first.2.clone(),
                empty(),
                empty(),
                empty(),
                empty(),
            ]);
        }
        for name in &sweep.compare {
            let values: Vec<f64> = runs
                .iter()
                .filter_map(|done| done.3.get(name))
                .copied()
                .collect();
            if values.is_empty() {
                continue;
            }
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let numbers = [mean, least, most].map(|value| format!("{value:.4}"));
            let [mean, least, most] = numbers;
            let count = values.len().to_string();
            lines.push([row.name.clone(), count, name.clone(), mean, least, most]);
        }
    }
    format!("{}\n{}", sweep.question, aligned(&lines))
}

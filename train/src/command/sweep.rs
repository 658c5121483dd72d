//! `nerve sweep`: trains the runs of a sweep one after the other and prints a table of their results. Finished runs are not
//! trained again; runs of another definition are not results of this sweep.

mod definition;
mod plan;
mod report;
mod timing;

use super::answer;
use super::fit::Training;
use crate::cli;
use crate::collective::Ranks;
use crate::error::{Error, Problem};
use crate::recipe::load::from_text;
use crate::recipe::load_run;
use crate::recipe::sweep::{CONTROL, Sweep, Variant};
use crate::run::{RunDirectory, checkpoint};
use crate::say::note;
use crate::signal::{self, Stop};
use plan::{Pace, Planned, Standing};
use report::{Failed, Finished, Report};
use serde_json::{Value, json};
use std::path::Path;

/// Trains and compares the runs.
///
/// # Errors
/// `Config` for the sweep, its recipes, and every run that is not what its row says; `Refused` if runs failed, after the others
/// were run; `Stopped` after a signal.
pub fn run(arguments: &cli::Sweep) -> Result<(), Error> {
    arguments.render.check()?;
    let stop = signal::install()?;
    let sweep = Sweep::load(&arguments.sweep)?;
    let name = arguments.sweep.file_stem().unwrap_or_default();
    let name = name.to_string_lossy();
    let mut variants = sweep.variants(&name)?;
    sweep.check_compare(&arguments.sweep, &variants)?;
    pick(&sweep, &mut variants, &arguments.only)?;
    say_what_is_lacking(&sweep, &variants);
    let root = variants[0].recipe.run.root.clone();
    let mut planned = plan::plan(variants, arguments.again)?;
    plan::check(&planned)?;
    let mut pace = Pace::of(&planned);
    note(&pace.summary(&planned));
    if arguments.dry_run {
        let object = || plan_as_json(&sweep, &planned, &pace);
        return answer::give(arguments.json, object, || plan_as_text(&planned));
    }
    // A part of a sweep would take the place of the whole table.
    let whole = arguments.only.is_empty();
    let keep = whole.then_some((root.as_path(), &*name));
    let mut report = Report {
        sweep: &sweep,
        finished: Vec::new(),
        failed: Vec::new(),
    };
    climb(&mut planned, &mut report, &mut pace, &stop, arguments, keep)?;
    match keep {
        Some((root, name)) => {
            let kept = report.keep(root, name)?;
            let [text, object] = kept.each_ref().map(|file| file.display());
            note(&format!("the table is kept as {text} and {object}"));
        }
        None => note("with --only the table is not kept as a file"),
    }
    answer::give(arguments.json, || report.json(), || report.text())?;
    refuse_failed(&report)
}

/// Only the rows that were asked for.
fn pick(sweep: &Sweep, variants: &mut Vec<Variant>, only: &[String]) -> Result<(), Error> {
    let rows: Vec<&str> = sweep.row.iter().map(|row| row.name.as_str()).collect();
    let unknown = only.iter().filter(|name| !rows.contains(&name.as_str()));
    let unknown: Vec<Problem> = unknown
        .map(|name| Problem::typed("--only", name, rows.join(", ")))
        .collect();
    if !unknown.is_empty() {
        return Err(Error::Config(unknown));
    }
    variants.retain(|variant| only.is_empty() || only.contains(&variant.row));
    Ok(())
}

/// Says once per row which numbers its runs cannot have.
fn say_what_is_lacking(sweep: &Sweep, variants: &[Variant]) {
    let mut said = "";
    for variant in variants {
        let lacks = variant.lacks(&sweep.compare);
        if !lacks.is_empty() && variant.row != said {
            said = &variant.row;
            note(&format!("row {said} measures no {}", lacks.join(", ")));
        }
    }
    if !sweep.row.iter().any(|row| row.name == CONTROL) {
        note(&format!(
            "no row is named {CONTROL:?}: the table will have no differences"
        ));
    }
}

/// Trains what is left, one run after the other. A run that fails does not stop the others; a signal does.
fn climb(
    planned: &mut [Planned],
    report: &mut Report<'_>,
    pace: &mut Pace,
    stop: &Stop,
    arguments: &cli::Sweep,
    keep: Option<(&Path, &str)>,
) -> Result<(), Error> {
    for index in 0..planned.len() {
        let trained = train(&planned[index], stop, arguments);
        let Variant { row, seed, .. } = &planned[index].variant;
        let (row, seed) = (row.clone(), *seed);
        let was_left = planned[index].steps_left() > 0;
        match trained.and_then(|run| Ok((checkpoint::glance(&run)?, run))) {
            Ok((newest, run)) => {
                pace.learn(&row, &run);
                report.finished.push(Finished {
                    row,
                    seed,
                    run: run.path().to_path_buf(),
                    numbers: newest
                        .map(|newest| newest.state.stage_valid)
                        .unwrap_or_default(),
                });
                planned[index].standing = Standing::Done(run);
            }
            Err(stopped @ Error::Stopped { .. }) => return Err(stopped),
            Err(problem) => {
                note(&format!("row {row}, seed {seed} failed: {problem}"));
                let problem = problem.to_string().replace('\n', "; ");
                report.failed.push(Failed { row, seed, problem });
            }
        }
        if was_left && let Some((root, name)) = keep {
            report.keep(root, name)?;
        }
        let left = &planned[index + 1..];
        if was_left && left.iter().any(|one| one.steps_left() > 0) {
            let time = pace.seconds_left(left);
            let time = time.map_or("an unknown time".to_string(), answer::readable_seconds);
            let (through, all) = (index + 1, planned.len());
            note(&format!(
                "{through} of {all} runs are through, about {time} left"
            ));
        }
    }
    Ok(())
}

/// The run of a row and seed, trained to its end.
fn train(planned: &Planned, stop: &Stop, arguments: &cli::Sweep) -> Result<RunDirectory, Error> {
    let Variant { row, seed, recipe } = &planned.variant;
    let (recipe, existing) = match &planned.standing {
        Standing::Done(run) => return Ok(run.clone()),
        // With its own recipe, whose comments may be others.
        Standing::GoesOn(run, _) => (load_run(&run.recipe(), &[])?, Some(run.clone())),
        Standing::New | Standing::Again => {
            let same = from_text(&recipe.source().file, recipe.text().to_string(), &[]);
            (same.map_err(Error::Config)?, None)
        }
    };
    let word = planned.standing.word();
    note(&format!("row {row}, seed {seed}: {word}"));
    let training = Training {
        stop: stop.clone(),
        render: arguments.render,
        fail_on_collapse: false,
        longer: None,
        folders: Vec::new(),
        ranks: Ranks::alone(),
    };
    training.run(recipe, existing)
}

fn refuse_failed(report: &Report<'_>) -> Result<(), Error> {
    if report.failed.is_empty() {
        return Ok(());
    }
    let failed = report.failed.iter();
    let names: Vec<String> = failed
        .map(|run| format!("row {}, seed {}", run.row, run.seed))
        .collect();
    let (failed, all) = (names.len(), names.len() + report.finished.len());
    Err(Error::Refused(format!(
        "{failed} of {all} runs failed ({}); the table is that of the others, and the reasons stand below it",
        names.join("; ")
    )))
}

fn plan_as_text(planned: &[Planned]) -> String {
    let line = |one: &Planned| {
        let Variant { row, seed, recipe } = &one.variant;
        let named = || recipe.run.root.join(&recipe.run.name);
        let run = one.standing.run();
        let run = run.map_or_else(named, |run| run.path().to_path_buf());
        [
            row.clone(),
            seed.to_string(),
            one.standing.word().to_string(),
            one.steps_left().to_string(),
            run.display().to_string(),
        ]
    };
    let head = "row | seed | what | steps left | run";
    answer::table(head, planned.iter().map(line))
}

fn plan_as_json(sweep: &Sweep, planned: &[Planned], pace: &Pace) -> Value {
    let runs = planned.iter().map(|one| {
        json!({
            "row": one.variant.row,
            "seed": one.variant.seed,
            "what": one.standing.word(),
            "steps_left": one.steps_left(),
            "run": one.standing.run().map(RunDirectory::path),
        })
    });
    let (runs, seconds) = (runs.collect::<Value>(), pace.seconds_left(planned));
    json!({ "schema": 1, "question": sweep.question, "runs": runs, "seconds_left": seconds })
}

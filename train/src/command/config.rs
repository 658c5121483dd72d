//! `nerve config`: prints bundled recipes (`new`), checks recipes with the files they name, upgrades those of older formats and
//! shows them as a run would use them; `explain` has a file of its own.

mod explain;

use crate::cli::config::Verb;
use crate::command::answer::{print, print_json, print_text};
use crate::error::{Error, Problem};
use crate::ladder::survey;
use crate::recipe::load::read;
use crate::recipe::nearest::{nearest, one_of};
use crate::recipe::source::Source;
use crate::recipe::tree::{Node, Value};
use crate::recipe::upgrade::{older_format, upgrade};
use crate::recipe::{Recipe, load, remarks};
use crate::registry::registry;
use crate::say::note;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Runs the verb that was typed.
///
/// # Errors
/// Everything that is wrong with the recipes (exit 2), or a standard output that cannot be written (exit 4).
pub fn run(verb: &Verb) -> Result<(), Error> {
    match verb {
        Verb::New { kind, size } => print_text(new(kind, size)?),
        Verb::Check { files, sets, json } => check(files, sets, *json),
        Verb::Upgrade { file } => upgraded(file),
        Verb::Explain { key, json } => explain::run(key.as_deref(), *json),
        Verb::Show { file, sets, json } => {
            let recipe = load(file, sets)?;
            if !json {
                return print_text(recipe.text());
            }
            let object = json_value(&recipe.source().root);
            print_json(&json!({ "schema": 1, "recipe": object }))
        }
    }
}

/// The text of the bundled recipe of a kind and size.
fn new(kind: &str, size: &str) -> Result<&'static str, Error> {
    let recipes = registry().recipes();
    let of_kind = recipes.iter().filter(|bundled| bundled.kind == kind);
    if of_kind.clone().next().is_none() {
        let mut kinds: Vec<&str> = recipes.iter().map(|bundled| bundled.kind).collect();
        kinds.dedup();
        return Err(unknown("KIND", kind, &kinds));
    }
    let sizes: Vec<&str> = of_kind.clone().map(|bundled| bundled.size).collect();
    let mut found = of_kind.filter(|bundled| bundled.size == size);
    let found = found.next().map(|bundled| bundled.text);
    found.ok_or_else(|| unknown("--size", size, &sizes))
}

/// The text of a recipe in this program's format, on standard output.
fn upgraded(file: &Path) -> Result<(), Error> {
    let text = read(file)?;
    let config = |problem| Error::Config(vec![problem]);
    let source = Source::parse(&file.display().to_string(), text).map_err(config)?;
    let Some(format) = older_format(&source) else {
        load(file, &[])?;
        note(&format!("{} needs no upgrade", file.display()));
        return print_text(&source.text);
    };
    let (upgraded, added) = upgrade(source, format).map_err(config)?;
    for line in added {
        note(&format!("{}: {line}", file.display()));
    }
    print_text(&upgraded.text)
}

fn unknown(place: &str, typed: &str, known: &[&str]) -> Error {
    let problem = Problem::typed(place, format!("{typed:?}"), one_of(known));
    let meant = nearest(typed, known.iter().copied());
    let advice = meant.map(|meant| format!("did you mean {meant:?}?"));
    Error::config(problem.advise(advice.unwrap_or_default()))
}

/// Checks every file, and what it names, before it fails. On standard output: one line for each good one, or all of them
/// as JSON.
fn check(files: &[PathBuf], sets: &[String], as_json: bool) -> Result<(), Error> {
    let mut errors = Vec::new();
    let mut rows = Vec::new();
    for file in files {
        let checked = load(file, sets).and_then(|recipe| survey(&recipe, 1).map(|_| recipe));
        match checked {
            Ok(recipe) => {
                rows.push(row(file, &[]));
                if !as_json {
                    print(&format!("{}: ok, {}\n", file.display(), ladder(&recipe)))?;
                }
                for remark in remarks(&recipe) {
                    note(&remark);
                }
            }
            Err(error) => {
                rows.push(row(file, &error.to_problems()));
                errors.push(error);
            }
        }
    }
    if as_json {
        print_json(&json!({ "schema": 1, "files": rows }))?;
    }
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Several(errors)),
    }
}

/// What `config check --json` says about a file.
fn row(file: &Path, problems: &[Problem]) -> serde_json::Value {
    json!({ "file": file.display().to_string(), "ok": problems.is_empty(), "problems": problems })
}

/// The ladder in a few words: `baseline 150 steps → fixed 300 steps`.
fn ladder(recipe: &Recipe) -> String {
    let stages = recipe.stage.iter();
    let stages = stages.map(|stage| format!("{} {} steps", stage.name, stage.steps));
    stages.collect::<Vec<_>>().join(" → ")
}

fn json_value(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::String(text) => json!(text),
        // A checked recipe holds only numbers that fit.
        Value::Integer(value) => match value.and_then(|value| u64::try_from(value).ok()) {
            Some(whole) => json!(whole),
            None => json!(value.unwrap_or_default() as i64),
        },
        Value::Float(value) => json!(value),
        Value::Boolean(yes) => json!(yes),
        Value::Datetime => serde_json::Value::Null,
        Value::Array(elements) => elements.iter().map(json_value).collect(),
        Value::Table(entries) => {
            let entries = entries.iter();
            let named = entries.map(|entry| (entry.key.clone(), json_value(&entry.node)));
            named.collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_recipe_can_be_written() {
        for bundled in registry().recipes() {
            assert_eq!(new(bundled.kind, bundled.size).unwrap(), bundled.text);
        }
    }

    #[test]
    fn an_unknown_kind_or_size_names_the_known_ones() {
        assert_eq!(
            new("brain", "tiny").unwrap_err().to_string(),
            "command line: KIND: found \"brain\", expected one of \"baseline\", \"brian\", \"brillm\"; did you mean \"brian\"?"
        );
        assert_eq!(
            new("brian", "huge").unwrap_err().to_string(),
            "command line: --size: found \"huge\", expected one of \"tiny\", \"recurrent\", \"ladder\", \"ladder_parallel\", \
             \"r125\", \"r125_parallel\", \"r350\", \"r1b\""
        );
    }

    #[test]
    fn the_json_of_a_check_says_of_each_file_what_is_wrong() {
        let good = json!({ "file": "r.toml", "ok": true, "problems": [] });
        assert_eq!(row(Path::new("r.toml"), &[]), good);
        let text = new("brian", "tiny").unwrap().to_string();
        let sets = ["run.name=.x", "device.backend=cud"].map(str::to_string);
        let problems = crate::recipe::load::from_text("r.toml", text, &sets).unwrap_err();
        let wrong = row(Path::new("r.toml"), &problems);
        assert_eq!(wrong["ok"], false);
        assert_eq!(wrong["problems"].as_array().unwrap().len(), 2);
        assert_eq!(
            wrong["problems"][1],
            json!({
                "file": "r.toml",
                "place": problems[1].place,
                "found": "string \"cud\"",
                "expected": "one of \"ndarray\", \"flex\", \"wgpu\", \"vulkan\", \"cuda\"",
                "advice": "did you mean \"cuda\"?",
            })
        );
    }

    #[test]
    fn the_json_of_a_recipe_holds_its_values() {
        let text = new("brian", "tiny").unwrap().to_string();
        let recipe = crate::recipe::load::from_text("r.toml", text, &[]).unwrap();
        let value = json_value(&recipe.source().root);
        assert_eq!(value["format"], crate::recipe::upgrade::FORMAT);
        assert_eq!(value["model"]["kind"], "brian");
        assert_eq!(value["stage"].as_array().unwrap().len(), recipe.stage.len());
    }
}

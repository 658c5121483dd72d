//! `nerve config`: recipes are written, checked and shown.

use crate::cli::config::{Args, Verb};
use crate::command::answer::{print, print_json};
use crate::error::{Error, Problem};
use crate::recipe::bundled::BUNDLED;
use crate::recipe::nearest::{nearest, one_of};
use crate::recipe::tree::{Node, Value};
use crate::recipe::{Recipe, load};
use serde_json::json;
use std::path::PathBuf;

/// Runs the verb that was typed.
///
/// # Errors
/// Everything that is wrong with the recipes (exit 2), or a standard output that cannot be written (exit 4).
pub fn run(arguments: &Args) -> Result<(), Error> {
    match &arguments.verb {
        Verb::New { kind, size } => print(new(kind, size)?),
        Verb::Check { files, sets } => check(files, sets),
        Verb::Show { file, sets, json } => {
            let recipe = load(file, sets)?;
            if !json {
                return print(recipe.text());
            }
            let object = json!({ "schema": 1, "recipe": json_value(&recipe.source().root) });
            print_json(&object)
        }
    }
}

/// The text of the bundled recipe of a kind and size.
fn new(kind: &str, size: &str) -> Result<&'static str, Error> {
    let of_kind: Vec<_> = BUNDLED
        .iter()
        .filter(|bundled| bundled.kind == kind)
        .collect();
    if of_kind.is_empty() {
        let mut kinds: Vec<&str> = BUNDLED.iter().map(|bundled| bundled.kind).collect();
        kinds.dedup();
        return Err(unknown("KIND", kind, &kinds));
    }
    let sizes: Vec<&str> = of_kind.iter().map(|bundled| bundled.size).collect();
    let found = of_kind.iter().find(|bundled| bundled.size == size);
    found
        .map(|bundled| bundled.text)
        .ok_or_else(|| unknown("--size", size, &sizes))
}

fn unknown(place: &str, typed: &str, known: &[&str]) -> Error {
    let problem = Problem::new("command line", place, format!("{typed:?}"), one_of(known));
    let advice =
        nearest(typed, known.iter().copied()).map(|meant| format!("did you mean {meant:?}?"));
    Error::config(problem.advise(advice.unwrap_or_default()))
}

/// Checks every file before it fails: one line on standard output for each good one, all problems of the others.
fn check(files: &[PathBuf], sets: &[String]) -> Result<(), Error> {
    let mut problems = Vec::new();
    for file in files {
        match load(file, sets) {
            Ok(recipe) => print(&format!("{}: ok, {}\n", file.display(), ladder(&recipe)))?,
            Err(Error::Config(more)) => problems.extend(more),
            Err(other) => return Err(other),
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Config(problems))
    }
}

/// The ladder in a few words: `baseline 150 steps → fixed 300 steps`.
fn ladder(recipe: &Recipe) -> String {
    let stages = recipe
        .stage
        .iter()
        .map(|stage| format!("{} {} steps", stage.name, stage.steps));
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
        Value::Table(entries) => entries
            .iter()
            .map(|entry| (entry.key.clone(), json_value(&entry.node)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_recipe_can_be_written() {
        for bundled in BUNDLED {
            assert_eq!(new(bundled.kind, bundled.size).unwrap(), bundled.text);
        }
    }

    #[test]
    fn an_unknown_kind_or_size_names_the_known_ones() {
        assert_eq!(
            new("brain", "tiny").unwrap_err().to_string(),
            "command line: KIND: found \"brain\", expected one of \"baseline\", \"brian\"; did you mean \"brian\"?"
        );
        assert_eq!(
            new("brian", "huge").unwrap_err().to_string(),
            "command line: --size: found \"huge\", expected one of \"tiny\", \"r125\", \"r350\", \"r1b\""
        );
    }

    #[test]
    fn the_json_of_a_recipe_holds_its_values() {
        let text = new("brian", "tiny").unwrap().to_string();
        let recipe = crate::recipe::load::from_text("r.toml", text, &[]).unwrap();
        let value = json_value(&recipe.source().root);
        assert_eq!(value["format"], 1);
        assert_eq!(value["model"]["kind"], "brian");
        assert_eq!(value["stage"].as_array().unwrap().len(), recipe.stage.len());
    }
}

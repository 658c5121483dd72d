//! `nerve config explain`: prints the values and the meaning of a recipe's keys, from `docs/recipe.md`.

use crate::command::answer::give;
use crate::error::{Error, Problem};
use crate::recipe::nearest::nearest;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Made from the comments of the types that recipes are read into; a test holds it equal to them.
const REFERENCE: &str = include_str!("../../../../docs/recipe.md");

/// Key, value, meaning.
type KeyRow = [&'static str; 3];

/// Prints a key and all keys below it; without a key, the tables of a recipe.
///
/// # Errors
/// `Config` for a key that no recipe has.
pub fn run(key: Option<&str>, as_json: bool) -> Result<(), Error> {
    let found = found(key)?;
    let row =
        |[key, value, meaning]: &KeyRow| json!({ "key": key, "value": value, "meaning": meaning });
    let object = || json!({ "schema": 1, "keys": found.iter().map(row).collect::<Value>() });
    let entry = |[key, value, meaning]: &KeyRow| match value.is_empty() {
        true => format!("{key}\n    {meaning}\n"),
        false => format!("{key}: {value}\n    {meaning}\n"),
    };
    give(as_json, object, || found.iter().map(entry).collect())
}

fn found(key: Option<&str>) -> Result<Vec<KeyRow>, Error> {
    let rows: Vec<KeyRow> = rows().collect();
    let Some(typed) = key else {
        let is_top = |row: &&KeyRow| !row[0].contains(['.', ' ']);
        return Ok(rows.iter().filter(is_top).copied().collect());
    };
    let key = written(typed);
    let below = |row: &&KeyRow| {
        let rest = row[0].strip_prefix(key.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ', '[']))
    };
    let all: Vec<KeyRow> = rows.iter().filter(below).copied().collect();
    // Several kinds may have the same key, with the same below it; what stands below one of them belongs to it.
    let mut seen = BTreeSet::new();
    let each = all.chunk_by(|_, next| next[0] != key);
    let each = each.filter(|one| seen.insert(*one));
    let found: Vec<KeyRow> = each.flatten().copied().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let problem = Problem::typed("KEY", format!("{typed:?}"), "a key of a recipe");
    let advice = match nearest(&key, rows.iter().map(|row| row[0])) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "nerve config explain lists the tables of a recipe".to_string(),
    };
    Err(Error::config(problem.advise(advice)))
}

/// The rows of the reference.
fn rows() -> impl Iterator<Item = KeyRow> {
    REFERENCE.lines().filter_map(|line| {
        let line = line.strip_prefix("| `")?.strip_suffix(" |")?;
        let (key, rest) = line.split_once("` | ")?;
        let (value, meaning) = rest.split_once(" | ").unwrap_or(("", rest));
        Some([key, value.trim(), meaning.trim_start_matches("| ")])
    })
}

/// A path as `--set` takes it, in the words of the reference: `stage.fixed.steps` is `stage.NAME.steps`.
fn written(typed: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    let typed = typed.replace('[', ".").replace(']', "");
    for part in typed.split('.').filter(|part| !part.is_empty()) {
        let is_index = part.parse::<usize>().is_ok();
        match parts.as_mut_slice() {
            [.., list] if is_index => *list += "[]",
            [stage] if stage == "stage" => parts.push("NAME".to_string()),
            _ => parts.push(part.to_string()),
        }
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_can_be_set_can_be_explained() {
        let steps = found(Some("stage.fixed.steps")).unwrap();
        assert_eq!(
            steps,
            [["stage.NAME.steps", "whole number", "Optimizer steps."]]
        );
        let rate = found(Some("stage.NAME.learning_rate")).unwrap();
        let keys: Vec<&str> = rate.iter().map(|row| row[0]).collect();
        assert!(
            keys.contains(&"stage.NAME.learning_rate = \"warmup_cosine\""),
            "{keys:?}"
        );
        assert!(keys.contains(&"stage.NAME.learning_rate.floor"), "{keys:?}");
        let peaks = keys.iter().filter(|key| key.ends_with(".peak"));
        assert_eq!(peaks.count(), 3, "each kind has its own: {keys:?}");
        assert_eq!(found(Some("model.d_model")).unwrap().len(), 1);
        assert_eq!(found(Some("data.train.0.path")).unwrap().len(), 1);
        assert!(found(None).unwrap().len() > 8);
    }

    #[test]
    fn a_key_that_is_none_is_an_error_that_says_what_was_meant() {
        assert_eq!(
            found(Some("model.d_modl")).unwrap_err().to_string(),
            "command line: KEY: found \"model.d_modl\", expected a key of a recipe; did you mean model.d_model?"
        );
    }
}

//! `--set model.d_model=64`: replaces a value in the text of the recipe.
//!
//! Only a path that exists can be set, or a key that may be left out in a table that exists. The text keeps its comments and its line numbers.

use crate::error::Problem;
use crate::recipe::deserialize::deserialize;
use crate::recipe::nearest::nearest;
use crate::recipe::open;
use crate::recipe::path::{KeyPath, Segment};
use crate::recipe::report::Report;
use crate::recipe::root::Recipe;
use crate::recipe::source::{Source, element_name};
use crate::recipe::tree::{Node, Value};
use toml::de::DeValue;

/// Applies every `PATH=VALUE` in order.
///
/// # Errors
/// A problem for each setting that cannot be applied.
pub fn apply(mut source: Source, sets: &[String]) -> Result<Source, Vec<Problem>> {
    let mut problems = Vec::new();
    for set in sets {
        match apply_one(&source, set) {
            Ok(changed) => source = changed,
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(source)
    } else {
        Err(problems)
    }
}

fn apply_one(source: &Source, set: &str) -> Result<Source, Problem> {
    let (typed, value) = set.split_once('=').unwrap_or((set, ""));
    let place = match KeyPath::parse(typed) {
        Some(path) => format!("--set {path}"),
        None => format!("--set {typed:?}"),
    };
    let problem = |found: &str, expected: &str| Problem::new(&source.file, &place, found, expected);
    if !set.contains('=') {
        return Err(problem("no value", "PATH=VALUE, as in model.d_model=64"));
    }
    let path = KeyPath::parse(typed)
        .ok_or_else(|| problem("no path", "PATH=VALUE, as in model.d_model=64"))?;
    let located = source.locate(&path);
    if located.depth < path.segments().len() {
        if let Some(changed) = with_optional_key(source, &path, value.trim()) {
            return Ok(changed);
        }
        let advice = suggestion(source, &path).unwrap_or_default();
        return Err(problem("no such key in the recipe", "a path that exists").advise(advice));
    }
    if !located.node.inline {
        let found = source.describe(located.node);
        return Err(
            problem(&found, "a value that stands behind a `=`").advise("set its keys one by one")
        );
    }
    if value.contains(['\n', '\r']) {
        return Err(problem("a value of several lines", "one line"));
    }
    let mut text = source.text.clone();
    text.replace_range(located.node.span.clone(), &toml_text(value.trim()));
    let mut changed = Source::parse(&source.file, text).map_err(|cause| Problem {
        place: place.clone(),
        ..cause
    })?;
    let written = changed.locate(&path).shown;
    changed.overridden = [source.overridden.as_slice(), &[written]].concat();
    Ok(changed)
}

/// The text with a key that may be left out and was: a key that the types of recipes know, in a table that is there.
fn with_optional_key(source: &Source, path: &KeyPath, value: &str) -> Option<Source> {
    let (last, table) = path.segments().split_last()?;
    let Segment::Key(key) = last else {
        return None;
    };
    let text = source.with_key(&KeyPath::of(table), key, &toml_text(value))?;
    let mut changed = Source::parse(&source.file, text).ok()?;
    let written = changed.locate(path).shown;
    let wrong = {
        let report = Report::new(&changed);
        if let Some(mut recipe) = deserialize::<Recipe>(&report) {
            open::read(&mut recipe, &report);
        }
        report.is_wrong(path)
    };
    changed.overridden = [source.overridden.as_slice(), &[written]].concat();
    (!wrong).then_some(changed)
}

/// The value as it is to stand in the file: as typed if that is TOML, else as a string.
fn toml_text(value: &str) -> String {
    match DeValue::parse(value) {
        Ok(_) => value.to_string(),
        Err(_) => toml::Value::String(value.to_string()).to_string(),
    }
}

/// The path that was probably meant, with its line.
fn suggestion(source: &Source, path: &KeyPath) -> Option<String> {
    let mut paths = Vec::new();
    collect_paths(&source.root, &KeyPath::default(), &mut paths);
    let names: Vec<String> = paths.iter().map(KeyPath::to_string).collect();
    let asked = path.to_string();
    let ending = format!(".{asked}");
    let meant = names
        .iter()
        .find(|name| name.ends_with(&ending))
        .map(String::as_str)
        .or_else(|| nearest(&asked, names.iter().map(String::as_str)))?;
    let line = source.line(&paths[names.iter().position(|name| name == meant)?]);
    Some(format!("did you mean {meant} (line {line})?"))
}

/// All paths below a node as messages show them.
fn collect_paths(node: &Node, path: &KeyPath, paths: &mut Vec<KeyPath>) {
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                let path = path.key(&entry.key);
                collect_paths(&entry.node, &path, paths);
                paths.push(path);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let path = match element_name(elements, index) {
                    Some(name) => path.key(name),
                    None => path.index(index),
                };
                collect_paths(element, &path, paths);
                paths.push(path);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# A comment.
[device]
backend = "ndarray"   # which one
[model]
d_model = 64
exit = { kind = "residual", n = 1 }
[[stage]]
name = "fixed"
steps = 10
[[stage]]
name = "free"
steps = 20
"#;

    fn set(sets: &[&str]) -> Result<String, Vec<String>> {
        let source = Source::parse("r.toml", TEXT.to_string()).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        apply(source, &sets)
            .map(|source| source.text)
            .map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn only_the_value_changes() {
        let changed = set(&["model.d_model=128"]).unwrap();
        assert_eq!(changed, TEXT.replace("d_model = 64", "d_model = 128"));
    }

    #[test]
    fn a_stage_is_found_by_its_name_and_by_its_number() {
        let changed = set(&["stage.free.steps=7", "stage.0.steps = 5"]).unwrap();
        assert_eq!(changed, TEXT.replace("20", "7").replace("10", "5"));
    }

    #[test]
    fn what_is_not_toml_is_a_string() {
        let changed = set(&["device.backend=cu\"da"]).unwrap();
        assert!(
            changed.contains("backend = 'cu\"da'   # which one"),
            "{changed}"
        );
        assert!(
            set(&["device.backend="])
                .unwrap()
                .contains("backend = \"\"   #")
        );
    }

    #[test]
    fn a_comment_behind_the_value_makes_it_a_string_and_swallows_nothing() {
        let changed = set(&["model.exit.n=2 # two"]).unwrap();
        assert_eq!(changed, TEXT.replace("n = 1", "n = \"2 # two\""));
    }

    #[test]
    fn a_whole_list_or_table_in_braces_can_be_set_and_a_table_with_a_header_cannot() {
        let changed = set(&["model.exit={ kind = \"projection\" }"]).unwrap();
        assert!(changed.contains("exit = { kind = \"projection\" }\n"));
        assert_eq!(
            set(&["model=1", "stage=[]"]).unwrap_err(),
            [
                "r.toml: --set model: found a table, expected a value that stands behind a `=`; set its keys one by one",
                "r.toml: --set stage: found a list of 2, expected a value that stands behind a `=`; set its keys one by one",
            ]
        );
    }

    #[test]
    fn an_unknown_path_is_refused_with_the_path_meant() {
        assert_eq!(
            set(&[
                "model.d_modl=1",
                "d_model=1",
                "stage.fixd.steps=1",
                "zebra=1"
            ])
            .unwrap_err(),
            [
                "r.toml: --set model.d_modl: found no such key in the recipe, expected a path that exists; \
                 did you mean model.d_model (line 5)?",
                "r.toml: --set d_model: found no such key in the recipe, expected a path that exists; \
                 did you mean model.d_model (line 5)?",
                "r.toml: --set stage.fixd.steps: found no such key in the recipe, expected a path that exists; \
                 did you mean stage.fixed.steps (line 9)?",
                "r.toml: --set zebra: found no such key in the recipe, expected a path that exists",
            ]
        );
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        assert_eq!(
            set(&["model", "=1", "model.d_model=1\n2"]).unwrap_err(),
            [
                "r.toml: --set model: found no value, expected PATH=VALUE, as in model.d_model=64",
                "r.toml: --set \"\": found no path, expected PATH=VALUE, as in model.d_model=64",
                "r.toml: --set model.d_model: found a value of several lines, expected one line",
            ]
        );
    }

    #[test]
    fn of_two_values_the_later_one_stands_and_each_place_says_where_it_came_from() {
        let source = Source::parse("r.toml", TEXT.to_string()).unwrap();
        let sets = ["model.d_model=1", "model.d_model=2", "stage.1.steps=3"].map(str::to_string);
        let changed = apply(source, &sets).unwrap();
        assert!(changed.text.contains("d_model = 2\n"), "{}", changed.text);
        let place = |path: &str| changed.place(&KeyPath::parse(path).unwrap());
        assert_eq!(place("model.d_model"), "line 5, model.d_model, from --set");
        assert_eq!(
            place("stage.free.steps"),
            "line 12, stage.free.steps, from --set"
        );
        assert_eq!(place("stage.fixed.steps"), "line 9, stage.fixed.steps");
        assert_eq!(place("model.exit"), "line 6, model.exit");
    }
}

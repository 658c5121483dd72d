//! Upgrades the text of a recipe from an older format: writes the new format number and the keys that later formats added.
//!
//! A key that a new format adds gets, in older recipes, the value that means what the program did before. The upgrade writes it
//! into the text; nothing is filled in silently. Runs keep their recipe as it was written and are upgraded when they are read.

use super::path::KeyPath;
use super::source::Source;
use super::tree::Value;
use crate::error::Problem;

/// The format of recipes that this program reads.
pub const FORMAT: u32 = 2;

/// A key that a format has added.
struct Added {
    /// The first format that has it.
    since: u32,
    /// The table it stands in; `stage` means every stage.
    table: &'static str,
    key: &'static str,
    /// What older recipes mean, in TOML.
    value: &'static str,
}

/// All of them, oldest first.
const ADDED: [Added; 1] = [Added {
    since: 2,
    table: "data",
    key: "start",
    value: "\"first_token\"",
}];

/// The format that a recipe says it has, if it is one of those before this program's.
pub fn older_format(source: &Source) -> Option<u32> {
    let entry = source.root.entry("format")?;
    match entry.node.value {
        Value::Integer(Some(format)) if (1..i128::from(FORMAT)).contains(&format) => {
            u32::try_from(format).ok()
        }
        _ => None,
    }
}

/// A recipe in the format of this program, and a line for each key that it got.
///
/// # Errors
/// If a key has no place in its text.
pub fn upgrade(mut source: Source, from: u32) -> Result<(Source, Vec<String>), Problem> {
    let mut said = Vec::new();
    for added in ADDED.iter().filter(|added| added.since > from) {
        for table in tables(&source, added.table) {
            let path = table.key(added.key);
            let located = source.locate(&path);
            if located.depth == path.segments().len() {
                continue;
            }
            let shown = located.shown;
            source = insert(source, &table, added)?;
            said.push(format!("{shown} = {}", added.value));
        }
    }
    let format = source
        .root
        .entry("format")
        .map(|entry| entry.node.span.clone());
    let mut text = source.text;
    text.replace_range(
        format.expect("an older recipe says its format"),
        &FORMAT.to_string(),
    );
    said.insert(0, format!("format = {FORMAT}"));
    Ok((Source::parse(&source.file, text)?, said))
}

/// The paths of a table, or of the same in every stage.
fn tables(source: &Source, table: &str) -> Vec<KeyPath> {
    let whole = KeyPath::parse(table).expect("a path of the table above");
    let Some(in_stage) = table.strip_prefix("stage") else {
        return vec![whole];
    };
    let stages = source.root.entry("stage");
    let n_stages = stages.map_or(0, |stages| stages.node.elements().len());
    let below = KeyPath::parse(in_stage.trim_start_matches('.')).unwrap_or_default();
    let of_stage = |index| {
        let stage = KeyPath::default().key("stage").index(index);
        let stage = KeyPath::of(&[stage.segments(), below.segments()].concat());
        (source.locate(&stage).depth == stage.segments().len()).then_some(stage)
    };
    (0..n_stages).filter_map(of_stage).collect()
}

fn insert(source: Source, table: &KeyPath, added: &Added) -> Result<Source, Problem> {
    let Added { key, value, .. } = added;
    let Some(text) = source.with_key(table, key, value) else {
        let found = "a table without a value of its own";
        let expected = format!("a table to which `{key} = {value}` can be added");
        let problem = Problem::new(&source.file, table.to_string(), found, expected);
        return Err(problem.advise("add it by hand"));
    };
    Source::parse(&source.file, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;

    fn source(text: &str) -> Source {
        Source::parse("r.toml", text.to_string()).unwrap()
    }

    /// A bundled recipe as it would have been written in format 1.
    fn older(kind: &str) -> String {
        let tiny = BUNDLED.iter().find(|one| one.kind == kind).unwrap();
        let lines = tiny
            .text
            .lines()
            .filter(|line| !line.starts_with("start = \"symbol\""));
        let text: Vec<&str> = lines.collect();
        text.join("\n").replace("format = 2", "format = 1")
    }

    #[test]
    fn an_upgraded_recipe_says_what_it_meant_and_keeps_its_comments() {
        for kind in ["baseline", "brian", "brillm"] {
            let old = older(kind);
            let (new, said) = upgrade(source(&old), 1).unwrap();
            assert_eq!(said, ["format = 2", "data.start = \"first_token\""]);
            let recipe = from_text("r.toml", new.text.clone(), &[]).unwrap();
            assert_eq!(recipe.data.start, crate::data::StartRule::FirstToken);
            let lines = |text: &str| text.lines().count();
            assert_eq!(lines(&new.text), lines(&old) + 1);
            for line in old.lines().filter(|line| line.contains('#')) {
                assert!(
                    new.text.contains(&line.replace("format = 1", "format = 2")),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn a_key_that_is_written_stays_and_an_inline_table_is_written_into() {
        let (new, said) = upgrade(source("format = 1\ndata = { start = \"symbol\" }"), 1).unwrap();
        assert_eq!(said, ["format = 2"]);
        assert_eq!(new.text, "format = 2\ndata = { start = \"symbol\" }");
        let (new, _) = upgrade(source("format = 1\ndata = { window = 3 }"), 1).unwrap();
        assert_eq!(
            new.text,
            "format = 2\ndata = { window = 3 , start = \"first_token\" }"
        );
        let (new, _) = upgrade(source("format = 1\ndata = {}"), 1).unwrap();
        assert_eq!(new.text, "format = 2\ndata = {start = \"first_token\" }");
        let wrong = upgrade(source("format = 1\n[data]\n[data.other]\nx = 1"), 1);
        assert!(wrong.unwrap_err().to_string().contains("add it by hand"));
    }

    #[test]
    fn only_formats_before_this_one_are_older() {
        for (text, expected) in [
            ("format = 1", Some(1)),
            ("format = 2", None),
            ("format = 0", None),
            ("format = \"1\"", None),
            ("x = 1", None),
        ] {
            assert_eq!(older_format(&source(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_added_to_stages_is_added_to_each_that_has_the_table() {
        let text =
            "format = 1\n[[stage]]\nname = \"a\"\n[stage.walk]\nx = 1\n[[stage]]\nname = \"b\"";
        let found = tables(&source(text), "stage.walk");
        let shown: Vec<String> = found.iter().map(KeyPath::to_string).collect();
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert_eq!(tables(&source(text), "stage").len(), 2);
    }
}

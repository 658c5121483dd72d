//! Tables whose types the registry knows: `[model]` by its kind, `[hook.NAME]` by its name.
//!
//! serde reads the rest of a recipe first and passes these by; then whoever is named reads its own.

use super::choice::kind_of;
use super::nearest::{nearest, one_of};
use super::path::KeyPath;
use super::reader::Reader;
use super::report::Report;
use super::root::Recipe;
use super::table::{Entry, Tables};
use crate::model::ModelConfig;
use crate::registry::registry;
use serde::de::{Deserialize, Deserializer, IgnoredAny};

/// Nothing has been read yet.
#[derive(Clone, Debug, PartialEq)]
struct Unread;

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<IgnoredAny>::deserialize(deserializer)?;
        let first = registry().kinds()[0];
        let family = registry().find_family(first).expect("a kind of its own");
        Ok(Self::new(family, Box::new(Unread)))
    }
}

/// Reads what serde has passed by; `None` if a type of its own refused a value.
pub(super) fn read(recipe: &mut Recipe, report: &Report<'_>) -> Option<()> {
    recipe.model = model(report)?;
    recipe.hook = hooks(report)?;
    Some(())
}

fn model(report: &Report<'_>) -> Option<ModelConfig> {
    let path = KeyPath::default().key("model");
    let kinds = registry().kinds();
    let entry = report.source.root.entry("model");
    let reader = entry.map(|entry| Reader {
        report,
        node: &entry.node,
        path: path.clone(),
    });
    let kind = match &reader {
        Some(reader) => kind_of(reader, &kinds),
        None => {
            report.add(&path, "no such key", one_of(&kinds));
            None
        }
    };
    let reader = reader.filter(|_| kind.is_some());
    let family = registry().find_family(kind.unwrap_or(kinds[0]))?;
    Some(ModelConfig::new(family, family.read(reader)?))
}

fn hooks(report: &Report<'_>) -> Option<Tables> {
    let Some(entry) = report.source.root.entry("hook") else {
        return Some(Tables::default());
    };
    let path = KeyPath::default().key("hook");
    let reader = Reader {
        report,
        node: &entry.node,
        path: path.clone(),
    };
    let known: Vec<&str> = registry().hooks().iter().map(|hook| hook.name()).collect();
    if !reader.is_table() {
        reader.wrong("a table for each hook");
    }
    for entry in entry.node.entries() {
        if known.contains(&entry.key.as_str()) {
            continue;
        }
        let expected = match known.is_empty() {
            true => "none: this program has no hooks of its own".to_string(),
            false => one_of(&known),
        };
        let meant = nearest(&entry.key, known.iter().copied());
        let advice = meant.map(|meant| format!("did you mean {meant}?"));
        let path = path.key(&entry.key);
        report.add_with_advice(
            &path,
            "an unknown hook",
            expected,
            advice.unwrap_or_default(),
        );
    }
    let mut hooks = Vec::new();
    for hook in registry().hooks() {
        if let Some(entry) = entry.node.entry(hook.name()) {
            let path = path.key(hook.name());
            let node = &entry.node;
            hooks.push((
                *hook as &dyn Entry,
                hook.read(Reader { report, node, path })?,
            ));
        }
    }
    Some(Tables(hooks))
}

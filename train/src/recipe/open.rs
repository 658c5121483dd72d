//! Reads the tables of a recipe whose types only the registry knows: `[model]` by its kind, `[hook.NAME]` and `[loss.NAME]` by
//! their names; unknown names are reported.
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

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<IgnoredAny>::deserialize(deserializer)?;
        let first = registry().kinds()[0];
        let family = registry().find_family(first).expect("a kind of its own");
        // Nothing has been read yet.
        Ok(Self::new(family, Box::new(())))
    }
}

/// Reads what serde has passed by; `None` if a type of its own refused a value.
pub(super) fn read(recipe: &mut Recipe, report: &Report<'_>) -> Option<()> {
    recipe.model = model(report)?;
    let hooks = registry().hooks().iter().map(|hook| hook.entry);
    recipe.hook = named("hook", hooks, report)?;
    let losses = registry().losses().iter().map(|loss| loss.entry);
    recipe.loss = named("loss", losses, report)?;
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
    Some(ModelConfig::new(family, (family.read)(reader)?))
}

/// The tables under a key, `[hook.NAME]` or `[loss.NAME]`, by those who have registered.
fn named(
    key: &str,
    entries: impl Iterator<Item = Entry> + Clone,
    report: &Report<'_>,
) -> Option<Tables> {
    let Some(entry) = report.source.root.entry(key) else {
        return Some(Tables::default());
    };
    let path = KeyPath::default().key(key);
    let reader = Reader {
        report,
        node: &entry.node,
        path: path.clone(),
    };
    let known: Vec<&str> = entries.clone().map(|entry| entry.name).collect();
    if !reader.is_table() {
        reader.wrong(format!("a table for each {key}"));
    }
    for entry in entry.node.entries() {
        if known.contains(&entry.key.as_str()) {
            continue;
        }
        let expected = match known.is_empty() {
            true if key == "hook" => "none: this program has no hooks of its own".to_string(),
            true => "none: this program has no losses of its own".to_string(),
            false => one_of(&known),
        };
        let meant = nearest(&entry.key, known.iter().copied());
        let advice = meant.map(|meant| format!("did you mean {meant}?"));
        let found = format!("an unknown {key}");
        let path = path.key(&entry.key);
        report.add_with_advice(&path, found, expected, advice.unwrap_or_default());
    }
    let mut tables = Vec::new();
    for named in entries {
        if let Some(entry) = entry.node.entry(named.name) {
            let path = path.key(named.name);
            let node = &entry.node;
            tables.push((named, (named.read)(Reader { report, node, path })?));
        }
    }
    Some(Tables(tables))
}

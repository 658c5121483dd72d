//! Tables whose types the registry knows: `[model]` by its kind, `[hook.NAME]` by its name.
//!
//! serde reads the rest of a recipe first and passes these by; then whoever is named reads its own.

use super::Recipe;
use super::choice::kind_of;
use super::deserialize::Reader;
use super::nearest::{nearest, one_of};
use super::path::KeyPath;
use super::report::Report;
use crate::model::ModelConfig;
use crate::model::family::AnyConfig;
use crate::registry::registry;
use serde::de::{Deserialize, Deserializer, IgnoredAny};
use std::fmt;

/// The tables `[hook.NAME]`, in the order of the registry.
#[derive(Default)]
pub struct Hooks(Vec<Table>);

/// The table of a hook, by its name.
type Table = (&'static str, Box<dyn AnyConfig>);

impl Hooks {
    /// The table of a hook, if the recipe has one.
    pub fn get(&self, name: &str) -> Option<&dyn AnyConfig> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, config)| &**config)
    }
}

impl Clone for Hooks {
    fn clone(&self) -> Self {
        let each = self.0.iter();
        Self(
            each.map(|(name, config)| (*name, config.clone_config()))
                .collect(),
        )
    }
}

impl PartialEq for Hooks {
    fn eq(&self, other: &Self) -> bool {
        let equal = |(one, other): (&Table, &Table)| one.0 == other.0 && one.1.equals(&*other.1);
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(equal)
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl<'de> Deserialize<'de> for Hooks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<IgnoredAny>::deserialize(deserializer)?;
        Ok(Self::default())
    }
}

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

fn hooks(report: &Report<'_>) -> Option<Hooks> {
    let Some(entry) = report.source.root.entry("hook") else {
        return Some(Hooks::default());
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
            hooks.push((hook.name(), hook.read(Reader { report, node, path })?));
        }
    }
    Some(Hooks(hooks))
}

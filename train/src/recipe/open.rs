//! Reads the tables of a recipe whose types only the registry knows: `[model]` and `[optimizer]` by kind, `[hook.NAME]` and `[loss.NAME]` by
//! their names, the teachers of stages and the memory of a model by kind; unknown names are reported.
//!
//! serde reads the rest of a recipe first and passes these by; then whoever is named reads its own.

use super::choice::kind_of;
use super::nearest::{nearest, one_of};
use super::path::KeyPath;
use super::placeholder::Placeholder;
use super::reader::Reader;
use super::report::Report;
use super::root::Recipe;
use super::stage::Policy;
use super::table::{Entry, Tables};
use super::tree::Value;
use crate::learner::custom_optimizer::OptimizerTable;
use crate::learner::optimizer::OptimizerConfig;
use crate::model::ModelConfig;
use crate::registry::registry;
use brian::route::policy::Teacher;
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
    recipe.optimizer = optimizer(report)?;
    let hooks = registry().hooks().iter().map(|hook| hook.entry);
    recipe.hook = named("hook", hooks, report)?;
    let losses = registry().losses().iter().map(|loss| loss.entry);
    recipe.loss = named("loss", losses, report)?;
    for (index, stage) in recipe.stage.iter_mut().enumerate() {
        teacher(&mut stage.policy, index, report)?;
    }
    Some(())
}

/// Reads the teacher of a stage's policy, if it names one.
fn teacher(policy: &mut Policy, stage: usize, report: &Report<'_>) -> Option<()> {
    let Some(teacher) = policy.teacher_mut() else {
        return Some(());
    };
    let path = KeyPath::default().key("stage").index(stage);
    let path = path.key("policy").key("teacher");
    let found = report.source.locate(&path);
    // A policy or a key that is wrong in itself is reported already.
    if report.is_wrong(&path) {
        return Some(());
    }
    if found.depth < path.segments().len() {
        report.add(&path, "no such key", one_of(&registry().teacher_kinds()));
        return Some(());
    }
    let node = found.node;
    let reader = Reader { report, node, path };
    let kind = match &node.value {
        Value::String(kind) => Some(kind.as_str()),
        _ => node.text_of("kind"),
    };
    // serde knows all that come with the program, and says so of others; one of the program can be meant by a wrong word.
    let kinds = registry().teacher_kinds();
    let is_built_in = kind.is_some_and(|kind| Teacher::BUILT_IN.contains(&kind));
    if is_built_in || kinds.len() == Teacher::BUILT_IN.len() {
        *teacher = reader.read()?;
    } else if let Some(own) =
        kind_of(&reader, &kinds).and_then(|kind| registry().find_teacher(kind))
    {
        *teacher = own.read(reader)?;
    }
    Some(())
}

fn model(report: &Report<'_>) -> Option<ModelConfig> {
    let kinds = registry().kinds();
    let (kind, reader) = chosen("model", &kinds, report);
    let family = registry().find_family(kind)?;
    let path = KeyPath::default().key("model").key("memory");
    if family.has_memory {
        let own = registry().memories().iter().map(|one| one.kind);
        report.register(&path, own.collect());
    }
    let mut model = ModelConfig::new(family, (family.read)(reader)?);
    let kind = report.chosen(&path);
    let own = kind.and_then(|kind| registry().memories().iter().find(|one| one.kind == kind));
    if let (Some(own), Some(memory)) = (own, model.memory()) {
        let node = report.source.locate(&path).node;
        *memory = own.read(Reader { report, node, path })?;
    }
    Some(model)
}

fn optimizer(report: &Report<'_>) -> Option<OptimizerConfig> {
    let (kind, reader) = chosen("optimizer", &registry().optimizer_kinds(), report);
    match (registry().find_optimizer(kind), reader) {
        (Some(entry), Some(reader)) => {
            let config = (entry.entry.read)(reader)?;
            Some(OptimizerConfig::Custom(OptimizerTable::new(entry, config)))
        }
        (_, Some(reader)) => reader.read(),
        (_, None) => OptimizerConfig::deserialize(Placeholder::silent()).ok(),
    }
}

/// The kind that a table names, with its reader; without a reader, which is reported, the first kind.
fn chosen<'a>(
    key: &str,
    kinds: &[&'static str],
    report: &'a Report<'a>,
) -> (&'static str, Option<Reader<'a>>) {
    let path = KeyPath::default().key(key);
    let Some(entry) = report.source.root.entry(key) else {
        report.add(&path, "no such key", one_of(kinds));
        return (kinds[0], None);
    };
    let node = &entry.node;
    let reader = Reader { report, node, path };
    match kind_of(&reader, kinds) {
        Some(kind) => (kind, Some(reader)),
        None => (kinds[0], None),
    }
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
            // There is a loss in every program.
            true => "none: this program has no hooks of its own".to_string(),
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

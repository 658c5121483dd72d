//! The rules of the ladder.

use super::{MOST_STEPS, Section, walk};
use crate::data::DifficultySource;
use crate::learner::{PLAIN_GROUPS, ROUTED_GROUPS, Schedule};
use crate::recipe::stage::VALID_METRICS;
use crate::recipe::{Gate, ModelConfig, Policy, Recipe, Stage, Start};
use brian::route::policy::Teacher;
use std::collections::HashSet;

/// Reports every rule that the ladder breaks.
pub(super) fn check(recipe: &Recipe, root: &Section<'_>) {
    root.require("stage", !recipe.stage.is_empty(), "at least one [[stage]]");
    let mut names = HashSet::new();
    for (index, stage) in recipe.stage.iter().enumerate() {
        let section = root.key("stage").index(index);
        section.name("name", &stage.name);
        section.require(
            "name",
            names.insert(&stage.name),
            "a name that no other stage has",
        );
        section.whole("steps", stage.steps, 1, MOST_STEPS);
        let has_previous = index > 0 || stage.start != Start::Previous;
        section.require(
            "start",
            has_previous,
            "\"fresh\" or a run: no stage is before the first one",
        );
        policy(recipe, index, &section);
        walk::check(stage, &recipe.model, &section);
        difficulty(recipe, stage, &section);
        learning_rate(stage, &section);
        freeze(stage, &section);
        if let Some(bounds) = &stage.gate {
            gate(bounds, recipe, &section);
        }
    }
}

fn policy(recipe: &Recipe, index: usize, section: &Section<'_>) {
    let stage = &recipe.stage[index];
    let model = super::KeyPath::default().key("model");
    section.relate(
        "policy",
        &[model],
        matches!(recipe.model, ModelConfig::Brian(_)) || stage.policy == Policy::None,
        "\"none\": a baseline has no pool",
    );
    // The weights of a route know its exit; the plain decoder has no place for them.
    let before = index.checked_sub(1).map(|index| &recipe.stage[index]);
    let routed_before = before.is_some_and(|before| before.policy != Policy::None);
    let others = [section.path.key("start")];
    section.relate(
        "policy",
        &others,
        !(routed_before && stage.start == Start::Previous && stage.policy == Policy::None),
        "a policy with a pool, as in the stage before, whose weights this one starts with",
    );
    if let ModelConfig::Brian(config) = &recipe.model {
        let same = config.d_ff_pool == config.d_ff;
        section.relate(
            "policy",
            &[],
            same || stage.policy != Policy::None,
            "a policy with a pool: without one, blocks of another width than d_ff have no place",
        );
    }
}

/// A teacher of three difficulties needs somebody to tell them apart.
fn difficulty(recipe: &Recipe, stage: &Stage, section: &Section<'_>) {
    let source = super::KeyPath::default().key("data").key("difficulty");
    let wants = stage.policy.teacher() == Some(&Teacher::MixedSkipRecur);
    section.relate(
        "policy",
        &[source],
        !wants || recipe.data.difficulty != DifficultySource::None,
        "a teacher that needs no difficulty, or data.difficulty other than \"none\"",
    );
}

fn learning_rate(stage: &Stage, section: &Section<'_>) {
    let rate = section.key("learning_rate");
    let peak = stage.learning_rate.peak();
    rate.require(
        "peak",
        peak > 0.0 && peak <= 1.0,
        "more than 0 and at most 1",
    );
    rate.relate(
        "warmup_steps",
        &[section.path.key("steps")],
        stage.learning_rate.warmup_steps() < stage.steps,
        format!("fewer than the {} steps of the stage", stage.steps),
    );
    if let Schedule::WarmupCosine { floor, .. } = &stage.learning_rate {
        let holds = (0.0..=peak).contains(floor);
        rate.relate(
            "floor",
            &[rate.path.key("peak")],
            holds,
            "at least 0 and at most the peak",
        );
    }
}

fn freeze(stage: &Stage, section: &Section<'_>) {
    // Without a policy, a routed model is the plain decoder too.
    let groups: &[&str] = match &stage.policy {
        Policy::None => &PLAIN_GROUPS,
        _ => &ROUTED_GROUPS,
    };
    let policy = section.path.key("policy");
    let mut frozen = HashSet::new();
    for (index, freeze) in stage.freeze.iter().enumerate() {
        let freeze_section = section.key("freeze").index(index);
        if !section.report.is_wrong(&policy) {
            freeze_section.known("group", &freeze.group, groups);
        }
        let once = frozen.insert(&freeze.group);
        freeze_section.require("group", once, "every group once");
        freeze_section.relate(
            "until_step",
            &[section.path.key("steps")],
            (1..=stage.steps).contains(&freeze.until_step),
            format!("from 1 to the {} steps of the stage", stage.steps),
        );
    }
}

fn gate(gate: &Gate, recipe: &Recipe, section: &Section<'_>) {
    let path = section.path.key("gate");
    let valid_every_steps = super::KeyPath::default()
        .key("watch")
        .key("valid_every_steps");
    section.relate(
        "gate",
        &[valid_every_steps],
        recipe.watch.valid_every_steps > 0,
        "none where watch.valid_every_steps is 0: it would have nothing to look at",
    );
    let found = match (gate.at_most, gate.at_least) {
        (Some(_), Some(_)) => "both at_most and at_least",
        (None, None) => "neither at_most nor at_least",
        _ => "",
    };
    if !found.is_empty() && !section.report.is_wrong(&path) {
        section.report.add(&path, found, "exactly one of the two");
    }
    let splits = recipe.data.valid_splits().into_iter();
    let metrics = splits.flat_map(|split| VALID_METRICS.map(|name| format!("{split}/{name}")));
    let metrics: Vec<String> = metrics.collect();
    let metrics: Vec<&str> = metrics.iter().map(String::as_str).collect();
    if !metrics.is_empty() {
        section.key("gate").known("metric", &gate.metric, &metrics);
    }
}

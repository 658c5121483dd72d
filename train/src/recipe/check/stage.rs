//! Checks every `[[stage]]`: names, steps, policy, rates, freezes, gates, schedules that fit its length; errors and remarks.
//!
//! What is said in steps of a stage must fit the stage: rows end with it, ramps and warm-ups end in it, no group rests
//! longer. What is said as a share of the stage follows its length. So a stage made shorter or longer is still the
//! stage that its recipe describes, or an error.

use super::walk;
use crate::data::DifficultySource;
use crate::learner::Schedule;
use crate::recipe::measure::stage_measures;
use crate::recipe::path::KeyPath;
use crate::recipe::root::Recipe;
use crate::recipe::section::{MOST, MOST_STEPS, Section};
use crate::recipe::stage::{Gate, MixRow, Policy, Stage, StageStart};
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
        let has_previous = index > 0 || stage.start != StageStart::Previous;
        section.require(
            "start",
            has_previous,
            "\"fresh\" or a run: no stage is before the first one",
        );
        start(stage, index, &section);
        policy(recipe, index, &section);
        walk::check(stage, &section);
        difficulty(recipe, stage, &section);
        learning_rate(stage, &section);
        batch_ramp(stage, &section);
        freeze(stage, recipe, &section);
        if let Some(bounds) = &stage.gate {
            gate(bounds, stage, recipe, &section);
        }
    }
}

fn start(stage: &Stage, index: usize, section: &Section<'_>) {
    let StageStart::Run { step, .. } = &stage.start else {
        return;
    };
    let start = section.key("start");
    start.whole("step", step.unwrap_or(0), 0, MOST_STEPS);
    start.require(
        "optimizer",
        index == 0 || !stage.start.keeps_optimizer(),
        "\"fresh\": later stages go on in the data behind this run's own first stage, not behind the other run",
    );
}

/// Reports every schedule that does not end with its stage. Runs made before this rule go on without it.
pub(super) fn check_fit(recipe: &Recipe, root: &Section<'_>) {
    for (index, stage) in recipe.stage.iter().enumerate() {
        let section = root.key("stage").index(index);
        rows(stage, &section);
        ramps(stage, &section);
    }
}

/// The first row lasts at least a step, the last one ends with the stage.
fn rows(stage: &Stage, section: &Section<'_>) {
    let Policy::Scheduled { schedule, .. } = &stage.policy else {
        return;
    };
    let (Some(first), Some(last)) = (schedule.first(), schedule.last()) else {
        return;
    };
    let steps = section.path.key("steps");
    let rows = section.key("policy").key("schedule");
    let key = |row: &MixRow| match row.until_share {
        Some(_) => "until_share",
        None => "until_step",
    };
    rows.index(0).relate(
        key(first),
        std::slice::from_ref(&steps),
        first.until(stage.steps) > 0,
        "at least one step of the stage",
    );
    rows.index(schedule.len() - 1).relate_with_advice(
        key(last),
        &[steps],
        last.until(stage.steps) == stage.steps,
        match last.until_share {
            Some(_) => "1.0: the last row ends with the stage".to_string(),
            None => format!("{}: the last row ends with the stage", stage.steps),
        },
        "write until_share in the place of until_step in every row, and 1.0 in the last, so that rows follow the length \
         of the stage; or move the rows with `steps`",
    );
}

/// A ramp ends before its stage does.
fn ramps(stage: &Stage, section: &Section<'_>) {
    let Some(walk) = &stage.walk else {
        return;
    };
    let section = section.key("walk").key("exploration");
    let ramps = [
        ("noise_std", walk.exploration.noise_std),
        (
            "override_probability",
            walk.exploration.override_probability,
        ),
    ];
    for (key, ramp) in ramps {
        let steps = ramp.steps.unwrap_or(0);
        section.key(key).relate_with_advice(
            "steps",
            &[],
            ramp.from == ramp.to || steps <= stage.steps,
            format!(
                "at most the {} steps of the stage, so that the ramp reaches its end",
                stage.steps
            ),
            "write `share = 1.0` in the place of `steps` for a ramp that follows the length of the stage",
        );
    }
}

/// What is allowed and yet worth a line: a stage that its warm-up or a resting group nearly fills.
pub(super) fn remarks(recipe: &Recipe) -> Vec<String> {
    let mut remarks = Vec::new();
    for stage in &recipe.stage {
        let (name, steps) = (&stage.name, stage.steps);
        let warmup = stage.learning_rate.warmup_steps(steps);
        if warmup > steps / 2 {
            remarks.push(format!(
                "stage {name}: the warm-up takes {warmup} of its {steps} steps; learning_rate.warmup_share in the place of \
                 warmup_steps follows the length of the stage"
            ));
        }
        let resting = stage.freeze.iter();
        for freeze in resting.filter(|freeze| freeze.until(steps) == steps) {
            remarks.push(format!(
                "stage {name}: the group {} rests for all {steps} steps of it",
                freeze.group
            ));
        }
    }
    remarks
}

fn policy(recipe: &Recipe, index: usize, section: &Section<'_>) {
    let stage = &recipe.stage[index];
    let model = KeyPath::default().key("model");
    section.relate(
        "policy",
        &[model],
        recipe.model.routes() || stage.policy == Policy::None,
        format!("\"none\": a {} has no pool", recipe.model.kind()),
    );
    // The weights of a route know its exit; the plain decoder has no place for them.
    let before = index.checked_sub(1).map(|index| &recipe.stage[index]);
    let routed_before = before.is_some_and(|before| before.policy != Policy::None);
    let others = [section.path.key("start")];
    section.relate(
        "policy",
        &others,
        !(routed_before && stage.start == StageStart::Previous && stage.policy == Policy::None),
        "a policy with a pool, as in the stage before, whose weights this one starts with",
    );
    recipe.model.check_stage(stage, section);
}

/// A teacher that asks for difficulties needs somebody to tell them apart.
fn difficulty(recipe: &Recipe, stage: &Stage, section: &Section<'_>) {
    let source = KeyPath::default().key("data").key("difficulty");
    let teacher = stage.policy.teacher();
    let wants = teacher.is_some_and(Teacher::needs_difficulty);
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
    let (warmup_steps, warmup_share) = stage.learning_rate.warmup();
    rate.either("warmup_steps", warmup_steps, "warmup_share", warmup_share);
    rate.relate_with_advice(
        "warmup_steps",
        &[section.path.key("steps")],
        warmup_steps.is_none_or(|warmup| warmup < stage.steps),
        format!("fewer than the {} steps of the stage", stage.steps),
        "write warmup_share in the place of warmup_steps for a warm-up that follows the length of the stage",
    );
    rate.require(
        "warmup_share",
        warmup_share.is_none_or(|share| (0.0..1.0).contains(&share)),
        "at least 0 and less than 1",
    );
    if let Schedule::WarmupStableDecay { .. } = &stage.learning_rate {
        let (decay_steps, decay_share) = stage.learning_rate.decay();
        rate.either("decay_steps", decay_steps, "decay_share", decay_share);
        rate.require(
            "decay_share",
            decay_share.is_none_or(|share| (0.0..=1.0).contains(&share)),
            "0 to 1",
        );
        let warmup = stage.learning_rate.warmup_steps(stage.steps);
        let decay = stage.learning_rate.decay_steps(stage.steps);
        let name = decay_steps.map_or("decay_share", |_| "decay_steps");
        rate.relate(
            name,
            &[section.path.key("steps")],
            warmup.saturating_add(decay) <= stage.steps,
            format!(
                "with the {warmup} steps of the warm-up no more than the {} steps of the stage",
                stage.steps
            ),
        );
    }
    if let Schedule::WarmupCosine { floor, .. } | Schedule::WarmupStableDecay { floor, .. } =
        &stage.learning_rate
    {
        let holds = (0.0..=peak).contains(floor);
        rate.relate(
            "floor",
            &[rate.path.key("peak")],
            holds,
            "at least 0 and at most the peak",
        );
    }
}

/// Every row begins in the stage, behind the row before.
fn batch_ramp(stage: &Stage, section: &Section<'_>) {
    let rows = stage.batch_ramp.iter().flatten();
    let steps = [section.path.key("steps")];
    let mut before = None;
    for (index, row) in rows.enumerate() {
        let section = section.key("batch_ramp").index(index);
        section.whole("accumulate", row.accumulate as u64, 1, MOST);
        let key = match row.from_share {
            Some(_) => "from_share",
            None => "from_step",
        };
        section.either("from_step", row.from_step, "from_share", row.from_share);
        let is_share = |share: f64| (0.0..1.0).contains(&share);
        let from = row.from(stage.steps);
        section.relate(
            key,
            &steps,
            row.from_share.is_none_or(is_share) && from < stage.steps,
            format!("before the end of the {} steps of the stage", stage.steps),
        );
        section.relate(
            key,
            &steps,
            before.is_none_or(|before| before < from),
            "behind the row before",
        );
        before = Some(from);
    }
}

fn freeze(stage: &Stage, recipe: &Recipe, section: &Section<'_>) {
    let groups = recipe.model.groups(&stage.policy);
    let policy = section.path.key("policy");
    let mut frozen = HashSet::new();
    for (index, freeze) in stage.freeze.iter().enumerate() {
        let freeze_section = section.key("freeze").index(index);
        if let Some(groups) = groups.filter(|_| !section.report.is_wrong(&policy)) {
            freeze_section.known("group", &freeze.group, groups);
        }
        let once = frozen.insert(&freeze.group);
        freeze_section.require("group", once, "every group once");
        let (step, share) = (freeze.until_step, freeze.until_share);
        freeze_section.either("until_step", step, "until_share", share);
        freeze_section.relate(
            "until_step",
            &[section.path.key("steps")],
            step.is_none_or(|step| (1..=stage.steps).contains(&step)),
            format!("from 1 to the {} steps of the stage", stage.steps),
        );
        freeze_section.relate(
            "until_share",
            &[section.path.key("steps")],
            share.is_none_or(|share| share <= 1.0 && freeze.until(stage.steps) > 0),
            "at least a step of the stage and at most 1.0, all of it",
        );
    }
}

fn gate(gate: &Gate, stage: &Stage, recipe: &Recipe, section: &Section<'_>) {
    let path = section.path.key("gate");
    let valid_every_steps = KeyPath::default().key("watch").key("valid_every_steps");
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
    let metrics = stage_measures(recipe, stage);
    let metrics: Vec<&str> = metrics.iter().map(String::as_str).collect();
    if !metrics.is_empty() {
        section.key("gate").known("metric", &gate.metric, &metrics);
    }
}

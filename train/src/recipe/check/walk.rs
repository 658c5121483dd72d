//! Checks a stage's `policy` and `walk` (temperature, schedule rows, biases, exploration ramps, loss weights) and reports every
//! broken rule.

use crate::recipe::section::Section;
use crate::recipe::stage::{Policy, Stage, Walk};
use brian::route::exploration::Decay;
use brian::route::policy::Select;

/// Reports every rule that a stage's policy and walk break.
pub(super) fn check(stage: &Stage, section: &Section<'_>) {
    let policy = section.path.key("policy");
    let path = section.path.key("walk");
    let wrong = [&policy, &path].map(|path| section.report.is_wrong(path));
    let (knows, written) = (stage.policy.knows_router(), stage.walk.is_some());
    if knows != written && wrong == [false; 2] {
        let (found, expected) = match knows {
            true => ("no such key", "a table: its policy knows a router"),
            false => ("a table", "no walk: its policy knows no router"),
        };
        section.report.add(&path, found, expected);
    }
    of_policy(stage, &section.key("policy"));
    if let Some(walk) = &stage.walk {
        of_walk(walk, &section.key("walk"));
    }
}

fn of_policy(stage: &Stage, section: &Section<'_>) {
    let policy = &stage.policy;
    let select = match policy {
        Policy::Scheduled { select, .. } | Policy::Router { select } => Some(select),
        _ => None,
    };
    if let Some(Select::Sample { temperature, .. }) = select {
        let holds = *temperature > 0.0;
        section
            .key("select")
            .require("temperature", holds, "more than 0");
    }
    if let Policy::Scheduled { schedule, .. } = policy {
        section.require("schedule", !schedule.is_empty(), "at least one row");
        let ends: Vec<u64> = schedule.iter().map(|row| row.until(stage.steps)).collect();
        let rises = ends.windows(2).all(|pair| pair[0] < pair[1]);
        let expected = match schedule.iter().all(|row| row.until_share.is_none()) {
            true => "rows whose until_step rises".to_string(),
            false => format!("rows whose ends rise; in steps of the stage they are {ends:?}"),
        };
        section.require("schedule", rises, expected);
        for (index, row) in schedule.iter().enumerate() {
            let section = section.key("schedule").index(index);
            let (step, share) = (row.until_step, row.until_share);
            section.either("until_step", step, "until_share", share);
            section.share("until_share", share.unwrap_or(1.0));
            section.share("router_probability", row.router_probability);
            section.least("imitation", row.imitation, 0.0);
        }
    }
}

fn of_walk(walk: &Walk, section: &Section<'_>) {
    section.least("location_bias", walk.location_bias, 0.0);
    let constraint = section.key("constraint");
    let biases = [
        ("early_exit_penalty", walk.constraint.early_exit_penalty),
        ("exit_ramp_bias", walk.constraint.exit_ramp_bias),
        ("final_exit_bias", walk.constraint.final_exit_bias),
    ];
    for (key, bias) in biases {
        constraint.least(key, bias, 0.0);
    }
    let counts = walk.constraint.min_exit_step > 0;
    constraint.require("min_exit_step", counts, "at least 1, the first step");
    let exploration = section.key("exploration");
    let ramps = [
        ("noise_std", walk.exploration.noise_std),
        (
            "override_probability",
            walk.exploration.override_probability,
        ),
    ];
    for (key, ramp) in ramps {
        let section = exploration.key(key);
        section.either("steps", ramp.steps, "share", ramp.share);
        let holds = ramp.share.is_none_or(|share| share > 0.0 && share <= 1.0);
        section.require("share", holds, "more than 0 and at most 1, the whole stage");
    }
    let ends = |decay: &Decay| [("from", decay.from), ("to", decay.to)];
    for (key, value) in ends(&walk.exploration.noise_std) {
        exploration.key("noise_std").least(key, value, 0.0);
    }
    for (key, value) in ends(&walk.exploration.override_probability) {
        exploration.key("override_probability").share(key, value);
    }
    let loss = section.key("loss");
    let weights = [
        ("imitation", walk.loss.imitation),
        ("balance", walk.loss.balance),
        ("selected_balance", walk.loss.selected_balance),
        ("coverage_floor", walk.loss.coverage_floor),
        ("transition_diversity", walk.loss.transition_diversity),
        ("cost", walk.loss.cost),
        ("location", walk.loss.location),
        ("exit_boundary", walk.loss.exit_boundary),
        ("input_anchor", walk.loss.input_anchor),
        ("halting_prior", walk.loss.halting_prior),
    ];
    for (key, weight) in weights {
        loss.least(key, weight, 0.0);
    }
    let ends = walk.exit_objective.hard();
    loss.relate(
        "halting_prior",
        &[section.path.key("exit_objective")],
        ends || walk.loss.halting_prior == 0.0,
        "0 where OUT does not end a walk",
    );
    loss.share("coverage_least", walk.loss.coverage_least);
    let holds = walk.loss.halting_steps > 1.0;
    loss.require("halting_steps", holds, "more than 1 step");
}

//! The names of all numbers that a run's last validation can have, known before the run begins.

use crate::recipe::{ModelConfig, Policy, Recipe, Walk};

/// What a walk is measured by, behind `route/`. Some depend on the data: a slope needs sequences of different difficulty.
const OF_WALKS: [&str; 29] = [
    "steps_mean",
    "steps_easy",
    "steps_medium",
    "steps_hard",
    "difficulty_slope",
    "difficulty_slope_low",
    "difficulty_slope_high",
    "difficulty_correlation",
    "difficulty_correlation_low",
    "difficulty_correlation_high",
    "imitation_accuracy",
    "entropy",
    "out_probability",
    "load_max",
    "load_entropy",
    "advance",
    "skip",
    "recur",
    "back",
    "exit_first",
    "exit_never",
    "exit_forced",
    "path_diversity",
    "path_top_share",
    "router",
    "random",
    "capped",
    "fused",
    "self_run_mean",
];

/// The numbers of the last stage's last validation, by split and name: `valid/loss/lm`. None if there is no validation.
pub fn measures(recipe: &Recipe) -> Vec<String> {
    if recipe.watch.valid_every_steps == 0 {
        return Vec::new();
    }
    let mut names = ["loss/lm", "loss/total", "bits_per_byte"]
        .map(str::to_string)
        .to_vec();
    if let (ModelConfig::Brian(config), Some(stage)) = (&recipe.model, recipe.stage.last())
        && stage.policy != Policy::None
    {
        names.extend(OF_WALKS.map(|name| format!("route/{name}")));
        names.extend((0..config.n_pool).map(|block| format!("route/load/{block}")));
        let steps = config.route.max_steps.max(config.n_pool);
        names.extend((1..=steps).map(|step| format!("route/exit/{step}")));
        if let Some(walk) = &stage.walk {
            let terms = terms(walk, &stage.policy).into_iter();
            let weighed = terms.filter(|(_, weight)| *weight > 0.0);
            names.extend(weighed.map(|(name, _)| format!("loss/{name}")));
            if walk.memory {
                names.extend(["share", "open"].map(|name| format!("memory/{name}")));
                names.extend((0..steps).map(|age| format!("memory/mass/{age}")));
            }
        }
    }
    let splits = recipe.data.valid_splits();
    let of_split = |split: &String| {
        let named = names.iter().map(|name| format!("{split}/{name}"));
        named.collect::<Vec<String>>()
    };
    splits.iter().flat_map(of_split).collect()
}

/// The terms of the loss with what they weigh at the end of a stage.
fn terms(walk: &Walk, policy: &Policy) -> [(&'static str, f64); 10] {
    let loss = &walk.loss;
    let last_row = match policy {
        Policy::Scheduled { schedule, .. } => schedule.last().map(|row| row.imitation),
        _ => None,
    };
    [
        ("imitation", last_row.unwrap_or(loss.imitation)),
        ("balance", loss.balance),
        ("selected_balance", loss.selected_balance),
        ("coverage_floor", loss.coverage_floor),
        ("transition_diversity", loss.transition_diversity),
        ("cost", loss.cost),
        ("location", loss.location),
        ("exit_boundary", loss.exit_boundary),
        ("input_anchor", loss.input_anchor),
        ("halting_prior", loss.halting_prior),
    ]
}

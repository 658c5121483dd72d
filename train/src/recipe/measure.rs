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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;

    fn names(kind: &str, sets: &[&str]) -> Vec<String> {
        let size = if kind == "brian" { "ladder" } else { "tiny" };
        let found = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == (kind, size))
            .unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        measures(&from_text("r.toml", found.text.to_string(), &sets).unwrap())
    }

    #[test]
    fn what_is_measured_follows_from_model_splits_and_last_stage() {
        let plain = ["valid/loss/lm", "valid/loss/total", "valid/bits_per_byte"];
        assert_eq!(names("baseline", &[]), plain);
        assert_eq!(names("baseline", &["watch.valid_every_steps=0"]), [""; 0]);
        let two = "data.valid=[{name='a',path='a.bin'},{name='b',path='b.bin'}]";
        assert_eq!(
            names("baseline", &[two])[3..],
            plain.map(|name| name.replace("valid/", "valid.b/"))
        );
        let has =
            |sets: &[&str], name: &str| names("brian", sets).contains(&format!("valid/{name}"));
        // The last stage weighs selected balance and cost alone, and walks at most as many steps as the route or the pool has.
        assert!(has(&[], "loss/selected_balance") && has(&[], "loss/cost"));
        assert!(!has(&[], "loss/imitation") && !has(&[], "loss/balance"));
        assert!(has(
            &["stage.exit.walk.loss.imitation=0.1"],
            "loss/imitation"
        ));
        let size = ["model.n_pool=4", "model.route.max_steps=6"];
        assert!(has(&size, "route/load/3") && !has(&size, "route/load/4"));
        assert!(
            has(&size, "route/exit/6")
                && !has(&size, "route/exit/7")
                && !has(&size, "route/exit/0")
        );
        let size = ["model.n_pool=7", "model.route.max_steps=6"];
        assert!(has(&size, "route/exit/7") && !has(&size, "route/exit/8"));
        assert!(
            has(&[], "memory/share") && !has(&["stage.exit.walk.memory=false"], "memory/share")
        );
    }
}

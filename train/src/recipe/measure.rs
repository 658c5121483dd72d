//! All metrics of a stage and their names at a validation, known before the run begins: gates and sweeps may use them.

use super::root::Recipe;
use super::stage::Stage;
use crate::metric::table::{MetricInfo, When, of_all_models};

/// What is measured in a stage: the numbers of every model, of this model, and of what the program adds.
pub fn metrics(recipe: &Recipe, stage: &Stage) -> Vec<MetricInfo> {
    let mut all = of_all_models();
    all.extend(recipe.model.metrics(stage));
    let mut of_average = averaged(&all, recipe);
    let of_hooks = recipe.hook.iter();
    all.extend(of_hooks.flat_map(|(entry, config)| (entry.metrics)(config)));
    let of_losses = recipe.loss.iter();
    let of_losses: Vec<MetricInfo> = of_losses
        .flat_map(|(entry, config)| (entry.metrics)(config))
        .collect();
    of_average.extend(averaged(&of_losses, recipe));
    all.extend(of_losses);
    all.extend(of_average);
    all
}

/// Those of a validation with the averaged weights, if the recipe keeps an average. What hooks add they add for the weights alone.
fn averaged(metrics: &[MetricInfo], recipe: &Recipe) -> Vec<MetricInfo> {
    let measured = |metric: &&MetricInfo| metric.measured != When::Training;
    match recipe.average {
        Some(_) => metrics.iter().filter(measured).map(of_average).collect(),
        None => Vec::new(),
    }
}

/// A number of a validation, measured with the averaged weights.
fn of_average(metric: &MetricInfo) -> MetricInfo {
    MetricInfo {
        name: format!("average/{}", metric.name),
        text: "the number of this name, measured with the averaged weights",
        measured: When::Validation,
        dashboard: false,
        ..metric.clone()
    }
}

/// The metrics of the last stage's last validation, by split and name: `valid/loss/lm`. Empty without validation.
pub fn measures(recipe: &Recipe) -> Vec<String> {
    let last = recipe.stage.last();
    last.map_or(Vec::new(), |stage| stage_measures(recipe, stage))
}

/// The metrics of the last validation of a stage.
pub fn stage_measures(recipe: &Recipe, stage: &Stage) -> Vec<String> {
    if recipe.watch.valid_every_steps == 0 {
        return Vec::new();
    }
    let table = metrics(recipe, stage).into_iter();
    let names: Vec<String> = table
        .filter(|metric| metric.measured != When::Training)
        .map(|metric| metric.name)
        .collect();
    let splits = recipe.data.valid_splits();
    let of_split = |split: &String| {
        let named = names.iter().map(|name| format!("{split}/{name}"));
        named.collect::<Vec<String>>()
    };
    splits.iter().flat_map(of_split).collect()
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
        let z = |weight: &str| names("baseline", &[&format!("loss={{z={{weight={weight}}}}}")]);
        assert_eq!(z("0.1")[3..], ["valid/loss/z"]);
        assert_eq!(z("0.0"), plain);
        let average = "average={decay=0.9,every_steps=1}";
        assert_eq!(
            names("baseline", &[average])[3..],
            plain.map(|name| name.replace("valid/", "valid/average/"))
        );
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
        // Who takes all blocks in order leaves behind them, and a path as long as a walk may be one step later.
        let in_order = "stage.exit.policy={kind='teacher',teacher='sequential'}";
        let taught = [size[0], size[1], in_order];
        assert!(has(&taught, "route/exit/8") && !has(&taught, "route/exit/9"));
        let path = "stage.exit.policy={kind='teacher',teacher={kind='path',blocks=[0,1,0,1,0,1]}}";
        let taught = ["model.route.max_steps=6", path];
        assert!(has(&taught, "route/exit/7") && !has(&taught, "route/exit/8"));
        assert!(
            has(&[], "memory/share") && !has(&["stage.exit.walk.memory=false"], "memory/share")
        );
    }
}

//! Builds the `RoutePlan` of a stage: who leads its walks, and the weights of its losses; with a schedule, as at its end.

use crate::recipe::{Recipe, Stage};
use crate::registry::registry;
use crate::task::{AddedLosses, RoutePlan};

/// The route of a stage in training.
pub fn route(stage: &Stage, recipe: &Recipe) -> RoutePlan {
    let added = registry().losses().iter().filter_map(|loss| {
        let config = recipe.loss.get(loss.entry.name)?;
        Some((loss.with)(config))
    });
    let sequential = RoutePlan {
        products: recipe.device.dtype,
        recompute: recipe.batch.recompute,
        added: AddedLosses(added.collect()),
        ..RoutePlan::sequential()
    };
    match stage.rules(recipe.run.seed) {
        Some((rules, losses)) => RoutePlan {
            rules,
            losses,
            ..sequential
        },
        None => sequential,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Dtype;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use brian::Recompute;
    use brian::route::policy;

    fn of(name: &str, sets: &[&str]) -> RoutePlan {
        let ladder = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brian", "ladder"))
            .unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let recipe = from_text("r.toml", ladder.text.to_string(), &sets).unwrap();
        let stage = recipe
            .stage
            .iter()
            .find(|stage| stage.name == name)
            .unwrap();
        let plan = route(stage, &recipe);
        assert!(plan.rules.with_gradients || stage.walk.is_none());
        assert_eq!(
            stage.walk.is_none(),
            plan == RoutePlan {
                products: plan.products,
                ..RoutePlan::sequential()
            }
        );
        plan
    }

    #[test]
    fn a_stage_is_walked_as_its_end_is_and_at_the_weights_of_its_last_row() {
        let plan = of("scheduled", &[]);
        let policy::Policy::Blend {
            router_probability, ..
        } = plan.rules.policy
        else {
            panic!("a blend");
        };
        assert_eq!((router_probability, plan.losses.imitation), (1.0, 0.1));
        assert_eq!(
            (plan.losses.selected_balance, plan.rules.location_bias),
            (0.1, 0.1)
        );
        // What disturbs a router comes with each step.
        assert_eq!(
            (plan.rules.noise_std, plan.rules.override_probability),
            (0.0, 0.0)
        );
        assert_eq!(of("imitation", &[]).losses.imitation, 1.0);
        assert_eq!(
            of("baseline", &["device.dtype=bf16", "device.backend=cuda"]).products,
            Dtype::Bf16
        );
        let recompute = |sets: &[&str]| of("exit", sets).recompute;
        assert_eq!(
            [recompute(&[]), recompute(&["batch.recompute=blocks"])],
            [None, Some(Recompute::Blocks)]
        );
        let draws = |seed: &str| of("exit", &[seed]).rules.draws;
        assert_eq!(draws("run.seed=3"), draws("run.seed=3"));
        assert_ne!(draws("run.seed=3"), draws("run.seed=4"));
        assert_ne!(of("exit", &[]).rules.draws, plan.rules.draws);
    }

    #[test]
    fn memory_and_beam_rest_only_where_the_walk_says_so() {
        let rests = |set: &str| {
            let rules = of("exit", &[set]).rules;
            (rules.without_memory, rules.without_beam)
        };
        assert_eq!(rests("run.seed=1"), (false, false));
        assert_eq!(rests("stage.exit.walk.memory=false"), (true, false));
        assert_eq!(rests("stage.exit.walk.parallel=false"), (false, true));
    }
}

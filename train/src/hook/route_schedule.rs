//! Hook that sets for each step who leads the walks (teacher or router), the weight of imitation, and the exploration.
//!
//! A pure function of the step, so a resume needs no state.

use crate::error::Error;
use crate::learner::Hook;
use crate::recipe::stage::MixRow;
use crate::recipe::{Policy, Recipe, Stage};
use crate::task::StepPlan;
use brian::route::draws::Draws;
use brian::route::exploration::Exploration;
use brian::route::policy;
use burn::tensor::backend::AutodiffBackend;

/// Sets what of the walks of a stage changes with its steps, as its recipe says: who leads them, how much imitation weighs,
/// what disturbs the router, and the draws.
pub struct RouteSchedule {
    schedule: Vec<MixRow>,
    exploration: Exploration,
    seed: u64,
}

impl RouteSchedule {
    /// The schedule and the exploration of a stage of a recipe.
    pub fn new(stage: &Stage, recipe: &Recipe) -> Self {
        let schedule = match &stage.policy {
            Policy::Scheduled { schedule, .. } => schedule.clone(),
            _ => Vec::new(),
        };
        let walk = stage.walk.as_ref();
        Self {
            schedule,
            exploration: walk.map_or(Exploration::NONE, |walk| walk.exploration),
            seed: stage.seed(recipe.run.seed),
        }
    }

    /// The row that holds at a step of a stage of `steps` steps.
    fn row(&self, step: u64, steps: u64) -> Option<&MixRow> {
        let current = self.schedule.iter().find(|row| step < row.until(steps));
        current.or(self.schedule.last())
    }
}

impl<B: AutodiffBackend, M> Hook<B, M> for RouteSchedule {
    fn name(&self) -> &'static str {
        "path_imitation"
    }

    fn before_step(&mut self, plan: &mut StepPlan) -> Result<(), Error> {
        let (step, steps) = (plan.stage_step, plan.stage_steps);
        let route = &mut plan.route;
        if let (
            Some(row),
            policy::Policy::Blend {
                router_probability, ..
            },
        ) = (self.row(step, steps), &mut route.rules.policy)
        {
            *router_probability = row.router_probability;
            route.losses.imitation = row.imitation;
        }
        route.rules.noise_std = self.exploration.noise_std.at(step, steps);
        route.rules.override_probability = self.exploration.override_probability.at(step, steps);
        route.rules.draws = Draws::new(self.seed, step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_holds_until_its_step_and_the_last_one_for_ever() {
        let row = |until_step, router_probability| MixRow {
            until_step: Some(until_step),
            until_share: None,
            router_probability,
            imitation: 1.0 - router_probability,
        };
        let hook = RouteSchedule {
            schedule: vec![row(2, 0.1), row(5, 0.5)],
            exploration: Exploration::NONE,
            seed: 1,
        };
        let probabilities: Vec<f64> = (0..8)
            .map(|step| hook.row(step, 5).unwrap().router_probability)
            .collect();
        assert_eq!(probabilities, [0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]);
    }
}

//! Who leads the walks of a stage, and what they cost; where there is a schedule, as at its end.

use crate::recipe::{Policy, Recipe, Stage};
use crate::task::RoutePlan;
use brian::route::draws::Draws;
use brian::route::rules::Rules;

/// The route of a stage in training.
pub fn route(stage: &Stage, recipe: &Recipe) -> RoutePlan {
    let products = recipe.device.dtype;
    let Some(walk) = &stage.walk else {
        return RoutePlan {
            products,
            ..RoutePlan::sequential()
        };
    };
    let mut losses = walk.loss;
    if let Policy::Scheduled { schedule, .. } = &stage.policy {
        losses.imitation = schedule
            .last()
            .map_or(losses.imitation, |row| row.imitation);
    }
    RoutePlan {
        rules: Rules {
            policy: stage.policy.decides(),
            ask_router: true,
            location_bias: walk.location_bias,
            constraint: walk.constraint,
            exit_objective: walk.exit_objective,
            choice_gradient: walk.choice_gradient,
            noise_std: 0.0,
            override_probability: 0.0,
            draws: Draws::new(stage.seed(recipe.run.seed), 0),
            learning: true,
            without_memory: !walk.memory,
            without_beam: !walk.parallel,
        },
        losses,
        products,
    }
}

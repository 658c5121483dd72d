//! The plan of a step, as a plain value that travels with its batch.

use crate::device::Dtype;
use brian::loss::route::RouteLosses;
use brian::route::policy::{Policy, Teacher};
use brian::route::rules::Rules;
use std::collections::BTreeSet;

/// Who leads the walks of a pass, the losses of their route, and the number type of products.
#[derive(Clone, Debug, PartialEq)]
pub struct RoutePlan {
    /// The rules that decide a walk.
    pub rules: Rules,
    /// The losses that are added to the language-model loss.
    pub losses: RouteLosses,
    /// The number type of products.
    pub products: Dtype,
}

impl RoutePlan {
    /// The fixed route without route losses; also for a decoder without a pool.
    pub fn sequential() -> Self {
        Self {
            rules: Rules::sequential(),
            losses: RouteLosses::NONE,
            products: Dtype::F32,
        }
    }

    /// The teacher that still leads at times, or is still imitated.
    pub fn teacher(&self) -> Option<&Teacher> {
        let imitates = self.losses.imitation > 0.0;
        match &self.rules.policy {
            Policy::Teacher(teacher) => Some(teacher),
            Policy::Blend {
                teacher,
                router_probability,
                ..
            } => (*router_probability < 1.0 || imitates).then_some(teacher),
            Policy::Router { teacher, .. } => teacher.as_ref().filter(|_| imitates),
        }
    }

    /// The same, without what only training does.
    pub fn evaluation(&self) -> Self {
        Self {
            rules: self.rules.evaluation(),
            ..self.clone()
        }
    }
}

/// The plan of the coming step. The strategy fills it, hooks may change it.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPlan {
    /// Optimizer steps done in this stage so far: the coming step's index.
    pub stage_step: u64,
    /// Optimizer steps of the stage in its recipe; after them, schedules keep their last value.
    pub stage_steps: u64,
    /// The route plan: who leads the walks.
    pub route: RoutePlan,
    /// Parameter groups that do not learn; their gradients are not computed.
    pub frozen: BTreeSet<String>,
    /// Targets that count in all micro-batches of the step.
    pub targets: u64,
}

impl Default for StepPlan {
    fn default() -> Self {
        Self::idle(RoutePlan::sequential())
    }
}

impl StepPlan {
    /// The plan of a pass that is not a training step.
    pub fn idle(route: RoutePlan) -> Self {
        Self {
            stage_step: 0,
            stage_steps: 0,
            route,
            frozen: BTreeSet::new(),
            targets: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brian::route::policy::Select;

    #[test]
    fn a_teacher_counts_as_long_as_it_leads_or_is_imitated() {
        let plan = |router_probability, imitation| {
            let mut plan = RoutePlan::sequential();
            plan.rules.policy = Policy::Blend {
                teacher: Teacher::Sequential,
                router_probability,
                select: Select::Argmax,
            };
            plan.losses.imitation = imitation;
            plan
        };
        let teacher = Some(&Teacher::Sequential);
        assert_eq!(RoutePlan::sequential().teacher(), teacher);
        assert_eq!(plan(0.5, 0.0).teacher(), teacher);
        assert_eq!(plan(1.0, 0.1).teacher(), teacher);
        assert_eq!(plan(1.0, 0.0).teacher(), None);
        let led = |imitation| {
            let mut plan = plan(1.0, imitation);
            plan.rules.policy = Policy::Router {
                teacher: Some(Teacher::Sequential),
                select: Select::Argmax,
            };
            plan
        };
        assert_eq!(led(0.1).teacher(), teacher);
        assert_eq!(led(0.0).teacher(), None);
    }
}

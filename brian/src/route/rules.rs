//! The configuration of routing, and `Rules`: everything that decides a walk besides the parameters.

use super::constraint::Constraint;
use super::draws::Draws;
use super::parallel::Parallel;
use super::policy::{Policy, Select, Teacher};
use serde::Deserialize;

/// What a walk may be and what the router looks at; the same in every stage of a ladder.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct RouteConfig {
    /// Steps of a walk that the router leads.
    pub max_steps: usize,
    /// How many of the likeliest actions are mixed at the first step; 1 executes one block.
    pub top_k_first: usize,
    /// The same at all later steps.
    pub top_k: usize,
    /// Whose hidden state the router looks at.
    pub sees: Sees,
    /// What a block's attention looks at.
    pub attends: Attends,
    /// How blocks are run.
    pub execution: Execution,
    /// How many paths are walked at once.
    pub parallel: Parallel,
}

/// What a block's attention looks at, among the earlier tokens and the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attends {
    /// All of them: the block makes keys and values of every token's state, also of those that chose another block.
    All,
    /// Those that run the same block at the same step; another model, and a cheaper one.
    Selected,
}

/// How blocks are run: the same numbers, up to the order of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// A block that any token chose is run on all tokens, and its output kept where it was chosen.
    Dense,
    /// A block is run on the tokens that chose it.
    Grouped,
}

/// Whose hidden state the router looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sees {
    /// The token's own.
    Token,
    /// The mean over the sequence, the future included: for measuring what that leak is worth, never for a model.
    SequenceMean,
}

/// How the task reaches the decision to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitObjective {
    /// Not at all, as in the reference: only route losses move OUT. `hard`: OUT ends a walk, else it only passes a step.
    Legacy {
        /// Whether OUT ends a walk.
        hard: bool,
    },
    /// Training mixes the states of all steps by the probability to leave there; evaluation leaves where that
    /// probability, summed up, reaches one half.
    SoftMixture,
    /// OUT ends a walk where it is chosen; the gradient is that of the probability to go on.
    StraightThrough,
}

impl ExitObjective {
    /// Whether OUT ends a walk.
    pub fn hard(self) -> bool {
        !matches!(self, Self::Legacy { hard: false })
    }
}

/// How the task reaches the choice of a block where a single one is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceGradient {
    /// Not at all, as in the reference.
    Legacy,
    /// What the block adds is multiplied by the block's probability.
    Gated,
    /// The value is that of the block; the gradient is that of the gated value.
    StraightThrough,
}

/// Everything that decides a walk besides the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Who chooses.
    pub policy: Policy,
    /// Whether the router is asked also where a teacher decides, so that it can be taught and measured.
    pub ask_router: bool,
    /// Factor of the squared distance to an action's position, which is subtracted from its logit.
    pub location_bias: f64,
    /// Bounds on the walk.
    pub constraint: Constraint,
    /// How the exit gets a gradient of the task.
    pub exit_objective: ExitObjective,
    /// How the choice of a block gets a gradient of the task.
    pub choice_gradient: ChoiceGradient,
    /// Standard deviation of the noise on the logits.
    pub noise_std: f64,
    /// Probability that any block takes the place of the one chosen.
    pub override_probability: f64,
    /// The random draws.
    pub draws: Draws,
    /// Steps of the shortest walks in training: the most steps of a pass are drawn between it and those of the longest walk.
    /// `None`: every walk may be the longest.
    pub shortest_walk: Option<usize>,
    /// Whether the pass is one of training, of which gradients are taken; states are mixed only then.
    pub with_gradients: bool,
    /// Whether the model's memory is left out, to measure its worth.
    pub without_memory: bool,
    /// Whether a single path is walked instead of the model's beam.
    pub without_beam: bool,
}

impl Rules {
    /// The fixed route: every block in order, and the router is not asked.
    pub fn sequential() -> Self {
        Self {
            policy: Policy::Teacher(Teacher::Sequential),
            ask_router: false,
            location_bias: 0.0,
            constraint: Constraint::NONE,
            exit_objective: ExitObjective::Legacy { hard: false },
            choice_gradient: ChoiceGradient::Legacy,
            noise_std: 0.0,
            override_probability: 0.0,
            draws: Draws::new(0, 0),
            shortest_walk: None,
            with_gradients: false,
            without_memory: false,
            without_beam: false,
        }
    }

    /// The same rules for evaluation: no noise, no override, no lot between router and teacher.
    pub fn evaluation(&self) -> Self {
        let policy = match &self.policy {
            Policy::Teacher(teacher) => Policy::Teacher(teacher.clone()),
            Policy::Blend {
                teacher, select, ..
            } => Policy::Router {
                teacher: Some(teacher.clone()),
                select: evaluated(*select),
            },
            Policy::Router { teacher, select } => Policy::Router {
                teacher: teacher.clone(),
                select: evaluated(*select),
            },
        };
        Self {
            policy,
            noise_std: 0.0,
            override_probability: 0.0,
            with_gradients: false,
            ..self.clone()
        }
    }

    /// The most steps of this pass, where walks have at most `longest`: in training it may be drawn, once for all tokens.
    pub(crate) fn n_steps(&self, longest: usize) -> usize {
        match self.shortest_walk.filter(|_| self.with_gradients) {
            Some(shortest) if shortest < longest => self.draws.whole(shortest..=longest),
            _ => longest,
        }
    }

    /// Whether anything depends on the router.
    pub fn asks_router(&self) -> bool {
        let decides = !matches!(self.policy, Policy::Teacher(_));
        decides || self.ask_router || self.constraint.self_recurrence_cap > 0
    }

    /// The paths that are walked at once in a model that has these: one where a teacher may lead, or where the others are left out.
    pub fn paths(&self, of_model: Parallel) -> Parallel {
        match (&self.policy, self.without_beam) {
            (Policy::Router { .. }, false) => of_model,
            _ => Parallel::None,
        }
    }

    /// Whether OUT is not an action among others but a probability of its own, beside the choice of a block.
    pub(crate) fn leaves_apart(&self) -> bool {
        !matches!(self.exit_objective, ExitObjective::Legacy { .. })
    }

    /// Whether the states of all steps are mixed.
    pub(crate) fn mixes_states(&self) -> bool {
        self.with_gradients && self.exit_objective == ExitObjective::SoftMixture
    }
}

fn evaluated(select: Select) -> Select {
    match select {
        Select::Sample {
            in_evaluation: false,
            ..
        } => Select::Argmax,
        select => select,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(in_evaluation: bool) -> Select {
        Select::Sample {
            temperature: 2.0,
            in_evaluation,
        }
    }

    fn disturbed(policy: Policy) -> Rules {
        Rules {
            policy,
            location_bias: 0.5,
            exit_objective: ExitObjective::StraightThrough,
            noise_std: 0.3,
            override_probability: 0.2,
            with_gradients: true,
            ..Rules::sequential()
        }
    }

    #[test]
    fn evaluation_disturbs_nobody_and_lets_the_router_decide_where_there_was_a_lot() {
        let blend = |select| Policy::Blend {
            teacher: Teacher::BalancedCoverage,
            router_probability: 0.1,
            select,
        };
        let router = |select| Policy::Router {
            teacher: Some(Teacher::BalancedCoverage),
            select,
        };
        for (select, expected) in [
            (Select::Argmax, Select::Argmax),
            (sampling(false), Select::Argmax),
            (sampling(true), sampling(true)),
        ] {
            for policy in [blend(select), router(select)] {
                let rules = disturbed(policy);
                let found = rules.evaluation();
                let expected = Rules {
                    policy: router(expected),
                    noise_std: 0.0,
                    override_probability: 0.0,
                    with_gradients: false,
                    ..rules
                };
                assert_eq!(found, expected);
            }
        }
        let taught = Policy::Teacher(Teacher::Sequential);
        assert_eq!(disturbed(taught.clone()).evaluation().policy, taught);
    }

    #[test]
    fn a_teacher_needs_no_router_unless_it_is_measured_or_capped() {
        let taught = Rules::sequential();
        assert!(!taught.asks_router());
        let measured = Rules {
            ask_router: true,
            ..taught.clone()
        };
        assert!(measured.asks_router());
        let mut capped = taught;
        capped.constraint.self_recurrence_cap = 1;
        assert!(capped.asks_router());
    }

    #[test]
    fn only_one_exit_passes_steps_and_only_a_mixture_that_learns_mixes() {
        let exits = [
            ExitObjective::Legacy { hard: false },
            ExitObjective::Legacy { hard: true },
            ExitObjective::SoftMixture,
            ExitObjective::StraightThrough,
        ];
        assert_eq!(exits.map(ExitObjective::hard), [false, true, true, true]);
        let with = |exit_objective, learning| Rules {
            exit_objective,
            with_gradients: learning,
            ..Rules::sequential()
        };
        assert_eq!(
            exits.map(|exit| with(exit, true).mixes_states()),
            [false, false, true, false]
        );
        assert_eq!(
            exits.map(|exit| with(exit, false).mixes_states()),
            [false; 4]
        );
        assert_eq!(
            exits.map(|exit| with(exit, true).leaves_apart()),
            [false, false, true, true]
        );
    }
}

//! `Stage`: a table `[[stage]]` of a recipe (steps, initial weights, policy, learning rate, freezes, gate, walk), and the rules
//! and losses of its walks for training. Checks lie elsewhere.

use super::placeholder::Placeholder;
use crate::learner::micro_batches::MicroBatches;
use crate::learner::schedule::Schedule;
use brian::loss::route::RouteLosses;
use brian::random;
use brian::route::constraint::Constraint;
use brian::route::draws::Draws;
use brian::route::exploration::{Exploration, in_steps};
use brian::route::policy::{self, Select, Teacher};
use brian::route::rules::{ChoiceGradient, ExitObjective, Rules};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny};
use std::path::PathBuf;

/// One rung of the ladder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Stage {
    /// What metrics, checkpoints and `--set` call it.
    pub name: String,
    /// Optimizer steps.
    pub steps: u64,
    /// Which weights it starts with.
    pub start: StageStart,
    /// Who leads the walks through the pool.
    pub policy: Policy,
    /// Step → learning rate.
    pub learning_rate: Schedule,
    /// From when on a step takes how many micro-batches, in the place of `batch.accumulate`: larger batches in the place of a lower
    /// rate (Smith et al. 2018). Rows in the order of their starts.
    pub batch_ramp: Option<Vec<RampRow>>,
    /// Groups of parameters that rest at first; often none.
    pub freeze: Vec<Freeze>,
    /// What must hold at its end for the next stage to begin; without it the ladder goes on in any case.
    pub gate: Option<Gate>,
    /// How the router walks and what it learns from; written where the policy knows a router, and only there.
    pub walk: Option<Walk>,
}

/// The weights a stage starts with. The optimizer starts anew, unless a run's is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageStart {
    /// Drawn from the run's seed.
    Fresh,
    /// Those at the end of the stage before.
    Previous,
    /// Those of another run's checkpoint: `{ kind = "run", path = "runs/baseline" }`.
    Run {
        /// The run directory.
        path: PathBuf,
        /// The step of the checkpoint, as its directory is named; the newest one if it is left out.
        step: Option<u64>,
        /// What becomes of the other run's optimizer; `fresh` if it is left out. With `kept` and a `warmup_stable_decay` without
        /// warm-up a stage is the decay of a stable rate, from any of its checkpoints (Hu et al. 2024).
        optimizer: Option<StartOptimizer>,
    },
}

impl StageStart {
    /// Whether moments of another run are kept.
    pub fn keeps_optimizer(&self) -> bool {
        let kept = Some(StartOptimizer::Kept);
        matches!(self, Self::Run { optimizer, .. } if *optimizer == kept)
    }
}

/// What becomes of the optimizer of a run whose weights a stage starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartOptimizer {
    /// It starts anew, and data are read from this run's own place.
    Fresh,
    /// Its moments and counts of updates go on, and so does the place in the data: the first micro-batch is the one behind those
    /// that the other run had drawn. Only in the first stage.
    Kept,
}

/// Who leads a token through the pool.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Nobody: the plain decoder made of the same blocks.
    None,
    /// The blocks of the pool in their order, then OUT; there is no router.
    Sequential,
    /// A teacher; the router may learn to say the same.
    Teacher {
        /// Which.
        #[serde(deserialize_with = "passed_by")]
        teacher: Teacher,
    },
    /// The router more and more often, else the teacher.
    Scheduled {
        /// Who leads when the router does not.
        #[serde(deserialize_with = "passed_by")]
        teacher: Teacher,
        /// How the router chooses.
        select: Select,
        /// Who leads when: rows in the order of their ends; the last one ends with the stage.
        schedule: Vec<MixRow>,
    },
    /// The router alone.
    Router {
        /// How it chooses.
        select: Select,
    },
}

/// Stands for what `open` reads, because only the registry knows all teachers.
fn passed_by<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Teacher, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer)?;
    Teacher::deserialize(Placeholder::silent()).map_err(D::Error::custom)
}

/// A part of a schedule. Exactly one of `until_step` and `until_share` is written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct MixRow {
    /// The first step of the stage, from 0, to which it does not apply.
    pub until_step: Option<u64>,
    /// The same as a share of the stage: 1.0 is its end.
    pub until_share: Option<f64>,
    /// How often the router decides.
    pub router_probability: f64,
    /// The weight of the imitation loss, in the place of the one in the walk.
    pub imitation: f64,
}

impl MixRow {
    /// The first step to which it does not apply, in a stage of `stage_steps` steps.
    pub fn until(&self, stage_steps: u64) -> u64 {
        in_steps(self.until_step, self.until_share, stage_steps)
    }
}

/// A size of steps, until that of the next row. Exactly one of `from_step` and `from_share` is written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct RampRow {
    /// The first step of the stage, from 0, that has it.
    pub from_step: Option<u64>,
    /// The same as a share of the stage.
    pub from_share: Option<f64>,
    /// Micro-batches per optimizer step.
    pub accumulate: usize,
}

impl RampRow {
    /// The first step that has it, in a stage of `stage_steps` steps.
    pub fn from(&self, stage_steps: u64) -> u64 {
        in_steps(self.from_step, self.from_share, stage_steps)
    }
}

/// How the router walks and what it learns from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Walk {
    /// Whether the model's memory, if it has one, is written and read; else it rests.
    pub memory: bool,
    /// Whether the model's beam, if it has one, is walked; else the router leads one path.
    pub parallel: bool,
    /// Subtracted from an action's logit per squared distance to it.
    pub location_bias: f64,
    /// How the task reaches the decision to leave.
    pub exit_objective: ExitObjective,
    /// How the task reaches the choice of a single block.
    pub choice_gradient: ChoiceGradient,
    /// Bounds on the walk.
    pub constraint: Constraint,
    /// Steps of the shortest walks in training: at every step of the stage a number between it and the steps of the longest walk is drawn,
    /// each as likely, and no walk is longer (after Geiping et al. 2025, who draw how often a block runs). Every walk may be the longest
    /// if it is left out.
    pub shortest: Option<usize>,
    /// What disturbs the router in training.
    pub exploration: Exploration,
    /// What is added to the language-model loss.
    pub loss: RouteLosses,
}

impl Policy {
    /// Whether it knows a router, and a stage therefore a [`Walk`].
    pub fn knows_router(&self) -> bool {
        !matches!(self, Self::None | Self::Sequential)
    }

    /// Who gives the targets, if the policy names somebody.
    pub fn teacher(&self) -> Option<&Teacher> {
        match self {
            Self::Teacher { teacher } | Self::Scheduled { teacher, .. } => Some(teacher),
            Self::None | Self::Sequential | Self::Router { .. } => None,
        }
    }

    /// The same, to be replaced.
    pub(super) fn teacher_mut(&mut self) -> Option<&mut Teacher> {
        match self {
            Self::Teacher { teacher } | Self::Scheduled { teacher, .. } => Some(teacher),
            Self::None | Self::Sequential | Self::Router { .. } => None,
        }
    }

    /// Who decides the actions, as at the end of the stage.
    pub fn decides(&self) -> policy::Policy {
        match self {
            Self::None | Self::Sequential => policy::Policy::Teacher(Teacher::Sequential),
            Self::Teacher { teacher } => policy::Policy::Teacher(teacher.clone()),
            Self::Scheduled {
                teacher,
                select,
                schedule,
            } => policy::Policy::Blend {
                teacher: teacher.clone(),
                router_probability: schedule.last().map_or(1.0, |row| row.router_probability),
                select: *select,
            },
            Self::Router { select } => policy::Policy::Router {
                teacher: None,
                select: *select,
            },
        }
    }
}

impl Stage {
    /// How the tokens of the stage walk in training, and what that costs; where there is a schedule, as at its end. `None` where
    /// no router is known. `seed` is the run's.
    pub fn rules(&self, seed: u64) -> Option<(Rules, RouteLosses)> {
        let walk = self.walk.as_ref()?;
        let mut losses = walk.loss;
        if let Policy::Scheduled { schedule, .. } = &self.policy {
            losses.imitation = schedule
                .last()
                .map_or(losses.imitation, |row| row.imitation);
        }
        let rules = Rules {
            policy: self.policy.decides(),
            ask_router: true,
            location_bias: walk.location_bias,
            constraint: walk.constraint,
            exit_objective: walk.exit_objective,
            choice_gradient: walk.choice_gradient,
            noise_std: 0.0,
            override_probability: 0.0,
            draws: Draws::new(self.seed(seed), 0),
            shortest_walk: walk.shortest,
            with_gradients: true,
            without_memory: !walk.memory,
            without_beam: !walk.parallel,
        };
        Some((rules, losses))
    }

    /// How many micro-batches its steps take; `accumulate` is the recipe's.
    pub fn micro_batches(&self, accumulate: usize) -> MicroBatches {
        let rows = self.batch_ramp.iter().flatten();
        let rows = rows.map(|row| (row.from(self.steps), row.accumulate));
        MicroBatches::new(accumulate, rows)
    }

    /// Where the chance of its walks comes from; `seed` is the run's.
    pub fn seed(&self, seed: u64) -> u64 {
        random::key(seed, &self.name, 0)
    }
}

/// Keeps a group of parameters as it is until a step. Exactly one of `until_step` and `until_share` is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Freeze {
    /// The group. Of the plain decoder, which policy `none` trains: `embedding`, `blocks`, `norm`. On a route:
    /// `embedding`, `pre`, `pool`, `post`, `norm`, `position`, `exit`, `router`.
    pub group: String,
    /// The first step of the stage, from 0, at which the group learns.
    pub until_step: Option<u64>,
    /// The same as a share of the stage; with 1.0 it never does.
    pub until_share: Option<f64>,
}

impl Freeze {
    /// The first step at which the group learns, in a stage of `stage_steps` steps.
    pub fn until(&self, stage_steps: u64) -> u64 {
        in_steps(self.until_step, self.until_share, stage_steps)
    }
}

/// A bound on a number of the stage's last validation. Exactly one of the two bounds is written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Gate {
    /// The number, by its split and its name in the metrics: `valid/loss/lm`.
    pub metric: String,
    /// The gate opens at this value or below.
    pub at_most: Option<f64>,
    /// The gate opens at this value or above.
    pub at_least: Option<f64>,
}

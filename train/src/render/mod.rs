//! How a training is shown: Burn's dashboard, lines of text, lines of JSON, or not at all.
//!
//! Everything but the dashboard goes to stderr; stdout is for the answer. The dashboard needs a terminal and must be requested.
//! Lines are printed by hooks, which see the same numbers as the log of the run.

mod changes;
mod dashboard;
mod json;
mod opening;
mod plain;
mod silent;

pub use dashboard::is_end_by_key;
pub use opening::{Opening, Source};

use crate::error::{Error, Problem};
use crate::escape;
use crate::learner::{Components, Hook, MicroBatches, Trainable};
use crate::recipe::Recipe;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{Interrupter, SupervisedTraining};
use dashboard::Dashboard;
use json::JsonLines;
use plain::PlainLines;
use silent::Silent;
use std::fmt;
use std::io::IsTerminal;

/// The ways to show a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Render {
    /// A line every few seconds.
    Plain,
    /// Burn's dashboard; Ctrl-C, or `q` and then `s`, saves and stops; `q` and then `k` stops without.
    Tui,
    /// One JSON object per step and split, as in metrics.jsonl.
    Json,
    /// Nothing.
    None,
}

/// A stage's name, its place in the ladder, and how long its steps are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePlace {
    /// Its name.
    pub stage: String,
    /// Its number, from 1.
    pub number: usize,
    /// The number of stages.
    pub of: usize,
    /// How many micro-batches its steps take.
    pub micro_batches: MicroBatches,
}

impl StagePlace {
    /// The place of the stage with this index, from 0.
    pub fn new(recipe: &Recipe, index: usize) -> Self {
        let stage = &recipe.stage[index];
        Self {
            stage: stage.name.clone(),
            number: index + 1,
            of: recipe.stage.len(),
            micro_batches: stage.micro_batches(recipe.batch.accumulate),
        }
    }

    fn shown_name(&self) -> String {
        escape::terminal(&self.stage)
    }
}

impl fmt::Display for StagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.shown_name();
        write!(f, "stage {} of {} {name}", self.number, self.of)
    }
}

impl Render {
    /// Checks that training can be shown in this way here.
    ///
    /// # Errors
    /// `Config` for a dashboard without a terminal.
    pub fn check(self) -> Result<(), Error> {
        if self != Self::Tui || std::io::stdout().is_terminal() {
            return Ok(());
        }
        let found = "a standard output that is no terminal";
        let problem = Problem::typed("--render tui", found, "a terminal");
        Err(Error::config(
            problem.advise("use --render plain or --render json"),
        ))
    }

    /// Whether messages between the stages are read by people.
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::Plain | Self::Tui)
    }

    /// Gives a stage's training its renderer.
    pub fn attach<B: AutodiffBackend, M: Trainable<B>>(
        self,
        training: SupervisedTraining<Components<B, M>>,
        place: StagePlace,
        interrupter: Interrupter,
    ) -> SupervisedTraining<Components<B, M>> {
        match self {
            Self::Tui => training.renderer(Dashboard::new(place, interrupter)),
            Self::Plain | Self::Json | Self::None => training.renderer(Silent),
        }
    }

    /// The hook that prints lines about a stage, if any; it must come after the hooks that add numbers.
    pub fn hook<B: AutodiffBackend, M>(self, place: StagePlace) -> Option<Box<dyn Hook<B, M>>> {
        match self {
            Self::Plain => Some(Box::new(PlainLines::new(place))),
            Self::Json => Some(Box::new(JsonLines)),
            Self::Tui | Self::None => None,
        }
    }
}

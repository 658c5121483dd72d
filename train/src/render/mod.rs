//! How a training is shown: Burn's dashboard, lines of text, lines of JSON, or not at all.
//!
//! Everything goes to stderr; stdout belongs to the answer. The dashboard needs a terminal and is asked for by name.

mod lines;

use crate::error::{Error, Problem};
use crate::learner::{Components, Trainable};
use burn::tensor::backend::AutodiffBackend;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::{Interrupter, SupervisedTraining};
use lines::{Format, LineRenderer};
use std::io::IsTerminal;

/// The ways to show a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Render {
    /// A line every few seconds.
    Plain,
    /// Burn's dashboard; `q` saves and stops.
    Tui,
    /// One JSON object per step.
    Json,
    /// Nothing.
    None,
}

impl Render {
    /// Whether this place can show it.
    ///
    /// # Errors
    /// `Config` for a dashboard without a terminal.
    pub fn check(self) -> Result<(), Error> {
        if self == Self::Tui && !std::io::stdout().is_terminal() {
            let problem = Problem::new(
                "command line",
                "--render tui",
                "a standard output that is no terminal",
                "a terminal",
            );
            return Err(Error::config(
                problem.advise("use --render plain or --render json"),
            ));
        }
        Ok(())
    }

    /// Gives a stage's training its renderer.
    pub fn attach<B: AutodiffBackend, M: Trainable<B>>(
        self,
        training: SupervisedTraining<Components<B, M>>,
        stage: &str,
        interrupter: Interrupter,
    ) -> SupervisedTraining<Components<B, M>> {
        let lines = |format| LineRenderer::new(format, stage);
        match self {
            Self::Plain => training.renderer(lines(Format::Plain)),
            Self::Json => training.renderer(lines(Format::Json)),
            Self::None => training.renderer(lines(Format::Nothing)),
            Self::Tui => training.renderer(TuiMetricsRendererWrapper::new(interrupter, None)),
        }
    }
}

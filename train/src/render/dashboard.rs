//! `Dashboard`: wraps Burn's dashboard for a stage: it shows which stage it is and only numbers that were measured; Ctrl-C
//! stops the training as elsewhere, and the kill key ends the program without saving.
//!
//! It opens with the first number: before, it has nothing to plot, and its arrow keys would fail. For what a step did not
//! measure, a metric gives its last value or a number that is not finite; the latter is not shown.

use super::StagePlace;
use crate::say::note;
use burn::data::dataloader::Progress;
use burn::train::Interrupter;
use burn::train::LearnerSummary;
use burn::train::metric::MetricDefinition;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::error::Error;
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::exit;

/// A program that a terminal's user ended: 128 + SIGINT.
const ENDED_BY_KEY: i32 = 130;
const SHOW_CURSOR: &str = "\x1b[?25h";

/// Whether this panic is no bug, but how Burn's dashboard ends a program when its kill key is pressed.
pub fn is_end_by_key(panic: &PanicHookInfo<'_>) -> bool {
    panic.payload_as_str() == Some("Killing training from user input.")
}

/// Burn's dashboard for one stage.
pub struct Dashboard {
    place: StagePlace,
    interrupter: Interrupter,
    definitions: Vec<MetricDefinition>,
    open: Option<TuiMetricsRendererWrapper>,
}

impl Dashboard {
    /// A dashboard that is not open yet.
    pub fn new(place: StagePlace, interrupter: Interrupter) -> Self {
        Self {
            place,
            interrupter,
            definitions: Vec::new(),
            open: None,
        }
    }

    /// Does something with Burn's dashboard, if it is open. Its kill key ends in a panic there, which is here what the key
    /// promises: the program ends at once, and what was saved stays.
    fn with(&mut self, act: impl FnOnce(&mut TuiMetricsRendererWrapper)) {
        let Some(open) = &mut self.open else { return };
        if catch_unwind(AssertUnwindSafe(|| act(open))).is_err() {
            // The dashboard hid it.
            let _ = write!(std::io::stdout(), "{SHOW_CURSOR}");
            let _ = std::io::stdout().flush();
            note("ended by a key of the dashboard, without saving");
            exit(ENDED_BY_KEY);
        }
    }

    fn open(&mut self) {
        if self.open.is_some() {
            return;
        }
        self.open = Some(TuiMetricsRendererWrapper::new(
            self.interrupter.clone(),
            None,
        ));
        for definition in std::mem::take(&mut self.definitions) {
            self.with(|open| open.register_metric(definition));
        }
    }

    /// The dashboard takes the keys one by one, and with them Ctrl-C; it shall stop a training here as everywhere.
    fn keep_signals(&self) {
        let terminal = std::io::stdin();
        if let (Some(_), Ok(mut modes)) = (&self.open, tcgetattr(&terminal))
            && !modes.local_modes.contains(LocalModes::ISIG)
        {
            modes.local_modes.insert(LocalModes::ISIG);
            let _ = tcsetattr(&terminal, OptionalActions::Now, &modes);
        }
    }

    /// The stage in the place of burn-train's epoch, which is the training between two validations.
    fn indicators(&self, progress: &TrainingProgress) -> Vec<ProgressType> {
        let of = |tag: &str, progress: &Progress| ProgressType::Detailed {
            tag: tag.to_string(),
            progress: progress.clone(),
        };
        let stage = Progress::new(self.place.number, self.place.of);
        let mut all = vec![of(&format!("Stage {}", self.place.shown_name()), &stage)];
        all.extend(progress.progress.iter().map(|steps| of("Step", steps)));
        all
    }
}

/// Whether there is a number to show; a mean over nothing is none.
fn is_measured(state: &MetricState) -> bool {
    match state {
        MetricState::Generic(_) => true,
        MetricState::Numeric(entry, value) => {
            // The mean since the last validation is in the text only.
            value.current().is_finite() && !entry.serialized_entry.formatted.contains("NaN")
        }
    }
}

impl MetricsRendererTraining for Dashboard {
    fn update_train(&mut self, state: MetricState) {
        if is_measured(&state) {
            self.open();
            self.with(|open| open.update_train(state));
        }
    }

    fn update_valid(&mut self, state: MetricState) {
        if is_measured(&state) {
            self.open();
            self.with(|open| open.update_valid(state));
        }
    }

    fn render_train(&mut self, item: TrainingProgress, _progress: Vec<ProgressType>) {
        self.keep_signals();
        let indicators = self.indicators(&item);
        self.with(|open| open.render_train(item, indicators));
    }

    fn render_valid(&mut self, item: TrainingProgress, _progress: Vec<ProgressType>) {
        self.keep_signals();
        let indicators = self.indicators(&item);
        self.with(|open| open.render_valid(item, indicators));
    }

    fn on_train_end(&mut self, _summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        // Burn's summary is of its own log, which is not kept.
        Ok(())
    }
}

impl MetricsRendererEvaluation for Dashboard {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}

    fn render_test(&mut self, _item: EvaluationProgress, _progress: Vec<ProgressType>) {}
}

impl MetricsRenderer for Dashboard {
    fn manual_close(&mut self) {
        self.with(|open| open.manual_close());
    }

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.definitions.push(definition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::MicroBatches;
    use burn::train::metric::{MetricEntry, MetricId, NumericEntry, SerializedEntry};
    use std::sync::Arc;

    fn state(text: &str, value: NumericEntry) -> MetricState {
        let id = MetricId::new(Arc::new("loss.lm".to_string()));
        let written = SerializedEntry::new(text.to_string(), text.to_string());
        MetricState::Numeric(MetricEntry::new(id, written), value)
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        let mean = |aggregated_value, count| NumericEntry::Aggregated {
            aggregated_value,
            count,
        };
        assert!(is_measured(&state("epoch 3.1", mean(3.1, 4))));
        assert!(is_measured(&state("epoch 0.0", mean(0.0, 4))));
        assert!(!is_measured(&state("epoch NaN", mean(f64::NAN, 0))));
        assert!(!is_measured(&state(
            "epoch NaN - batch 0.0",
            NumericEntry::Value(0.0)
        )));
    }

    #[test]
    fn the_stage_stands_first() {
        let place = StagePlace {
            stage: "fixed".to_string(),
            number: 2,
            of: 5,
            micro_batches: MicroBatches::always(1),
        };
        let dashboard = Dashboard::new(place, Interrupter::new());
        let progress = TrainingProgress {
            progress: Some(Progress::new(7, 150)),
            global_progress: Progress::new(1, 4),
            iteration: Some(7),
        };
        let shown: Vec<String> = dashboard
            .indicators(&progress)
            .into_iter()
            .map(|indicator| match indicator {
                ProgressType::Detailed { tag, progress } => {
                    format!(
                        "{tag} {}/{}",
                        progress.items_processed, progress.items_total
                    )
                }
                ProgressType::Value { tag, value } => format!("{tag} {value}"),
            })
            .collect();
        assert_eq!(shown, ["Stage fixed 2/5", "Step 7/150"]);
    }
}

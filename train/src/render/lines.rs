//! Progress as lines on stderr, without a terminal and without escape codes.

use crate::say::say;
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Text lines come no more often than this, except for validations and the last step.
const PAUSE: Duration = Duration::from_secs(5);

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Plain,
    /// For programs.
    Json,
    /// For nobody.
    Nothing,
}

/// burn-train's renderer as lines.
pub struct LineRenderer {
    format: Format,
    stage: String,
    names: HashMap<String, String>,
    train: BTreeMap<String, f64>,
    valid: BTreeMap<String, f64>,
    started: Instant,
    first_step: Option<usize>,
    last_line: Option<Instant>,
}

impl LineRenderer {
    /// A renderer for one stage.
    pub fn new(format: Format, stage: &str) -> Self {
        Self {
            format,
            stage: stage.to_string(),
            names: HashMap::new(),
            train: BTreeMap::new(),
            valid: BTreeMap::new(),
            started: Instant::now(),
            first_step: None,
            last_line: None,
        }
    }

    fn value(&self, state: MetricState) -> Option<(String, f64)> {
        match state {
            MetricState::Numeric(entry, number) => {
                let name = self.names.get(&format!("{:?}", entry.metric_id))?;
                Some((name.clone(), number.current()))
            }
            MetricState::Generic(_) => None,
        }
    }

    fn line(&self, split: &str, step: usize, steps: usize, numbers: &BTreeMap<String, f64>) {
        match self.format {
            Format::Nothing => {}
            Format::Json => {
                let mut line = Map::new();
                line.insert("schema".to_string(), json!(1));
                line.insert("stage".to_string(), json!(self.stage));
                line.insert("split".to_string(), json!(split));
                line.insert("stage_step".to_string(), json!(step));
                line.insert("stage_steps".to_string(), json!(steps));
                let measured = |value: f64| value.is_finite() && value != 0.0;
                let finite = numbers.iter().filter(|(_, value)| measured(**value));
                // The names of metrics.jsonl; burn-train allows no slash in its own.
                line.extend(finite.map(|(name, value)| (name.replace('.', "/"), json!(value))));
                say(&Value::Object(line).to_string());
            }
            Format::Plain => {
                let shown = numbers
                    .iter()
                    .filter_map(|(name, &value)| plain(name, value));
                let mut parts = vec![
                    format!("step {step}/{steps}"),
                    format!("stage {}", self.stage),
                ];
                if split != "train" {
                    parts.push(split.to_string());
                }
                parts.extend(shown);
                if split == "train" {
                    parts.extend(self.eta(step, steps));
                }
                say(&parts.join(" · "));
            }
        }
    }

    fn eta(&self, step: usize, steps: usize) -> Option<String> {
        let done = step - self.first_step?.min(step);
        let left = steps.saturating_sub(step);
        if done == 0 || left == 0 {
            return None;
        }
        let seconds = self.started.elapsed().as_secs() as usize * left / done;
        Some(format!("eta {}:{:02}", seconds / 60, seconds % 60))
    }
}

/// The few numbers that belong on a line for people.
fn plain(name: &str, value: f64) -> Option<String> {
    // Zero tokens per second: not measured yet.
    if !value.is_finite() || value == 0.0 {
        return None;
    }
    match name {
        "loss.lm" => Some(format!("lm {value:.4}")),
        "bits_per_byte" => Some(format!("bpb {value:.4}")),
        "tokens_per_second" if value >= 10_000.0 => Some(format!("{:.1}k tok/s", value / 1000.0)),
        "tokens_per_second" => Some(format!("{value:.0} tok/s")),
        _ => None,
    }
}

impl MetricsRendererTraining for LineRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.train.extend(self.value(state));
    }

    fn update_valid(&mut self, state: MetricState) {
        self.valid.extend(self.value(state));
    }

    fn render_train(&mut self, item: TrainingProgress, _progress: Vec<ProgressType>) {
        let Some(progress) = item.progress else {
            return;
        };
        let (step, steps) = (progress.items_processed, progress.items_total);
        if self.first_step.is_none() {
            self.first_step = Some(step);
            self.started = Instant::now();
        }
        let rested = self.last_line.is_none_or(|last| last.elapsed() >= PAUSE);
        if self.format == Format::Json || rested || step == steps {
            self.line("train", step, steps, &self.train);
            self.last_line = Some(Instant::now());
        }
    }

    fn render_valid(&mut self, item: TrainingProgress, _progress: Vec<ProgressType>) {
        if let Some(progress) = item.progress {
            let (step, steps) = (progress.items_processed, progress.items_total);
            self.line("valid", step, steps, &self.valid);
        }
    }
}

impl MetricsRendererEvaluation for LineRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}

    fn render_test(&mut self, _item: EvaluationProgress, _progress: Vec<ProgressType>) {}
}

impl MetricsRenderer for LineRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names
            .insert(format!("{:?}", definition.metric_id), definition.name);
    }
}

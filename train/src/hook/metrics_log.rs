//! Hook that writes `metrics.jsonl`: one line of numbers per logged step and split; an unknown number stops the run.
//!
//! `{"schema":1,"step":1200,"stage":"fixed","split":"valid","tokens":7864320,"wall_s":412.8,"loss/lm":3.02,…}`. The step
//! counts over all stages. A number that is not finite stops the run: JSON has none, and nobody would miss it.

use crate::error::{Error, Problem};
use crate::learner::{Hook, StepInfo, Verdict};
use crate::metric::table::MetricInfo;
use crate::run::{AppendLog, RunDirectory};
use crate::say::note;
use crate::task::Measured;
use burn::tensor::backend::AutodiffBackend;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Writes the log of a run.
pub struct MetricsLog {
    log: AppendLog,
    known: BTreeSet<String>,
    every_steps: u64,
}

impl MetricsLog {
    /// Under what its state is kept.
    pub const NAME: &'static str = "metrics_log";

    /// Opens the log where the checkpoint left it; lines beyond are cut off and will be written again.
    ///
    /// # Errors
    /// `Resource` if it cannot be opened.
    pub fn open(
        run: &RunDirectory,
        every_steps: u64,
        metrics: &[MetricInfo],
        state: Option<&Value>,
    ) -> Result<Self, Error> {
        Ok(Self {
            log: open_log(&run.metrics(), state)?,
            known: metrics.iter().map(|metric| metric.name.clone()).collect(),
            every_steps,
        })
    }

    fn write<M>(
        &mut self,
        step: &StepInfo<M>,
        split: &str,
        measured: &Measured,
    ) -> Result<(), Error> {
        let numbers = measured.named();
        if let Some((name, value)) = numbers.iter().find(|(_, value)| !value.is_finite()) {
            let (step, stage) = (step.step, step.stage);
            return Err(Error::Numerical(format!(
                "step {step} of stage {stage}: found {value} for {name} of the split {split}, expected a finite number; the \
                 checkpoint before is whole"
            )));
        }
        if let Some(name) = numbers.keys().find(|name| !self.known.contains(*name)) {
            let found = format!("the number {name}, which no table of metrics has");
            let expected = "numbers of the table, so that gates, sweeps and dashboard know them";
            let problem = Problem::new(format!("stage {}", step.stage), split, found, expected);
            let advice = "name it in `CustomHook::metrics` or `ModelFamily::metrics`";
            return Err(Error::config(problem.advise(advice)));
        }
        self.log.append(&metrics_line(step, split, measured))
    }
}

/// What is logged, and shown to programs, of a step and split.
pub fn metrics_line<M>(step: &StepInfo<M>, split: &str, measured: &Measured) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("schema".to_string(), json!(1));
    line.insert("step".to_string(), json!(step.step));
    line.insert("stage".to_string(), json!(step.stage));
    line.insert("split".to_string(), json!(split));
    line.insert("tokens".to_string(), json!(step.tokens));
    line.insert("wall_s".to_string(), json!(step.wall_s));
    let numbers = measured.named().into_iter();
    line.extend(numbers.map(|(name, value)| (name, json!(value))));
    line
}

/// Opens a log at the byte that a hook's state remembers.
pub(super) fn open_log(path: &std::path::Path, state: Option<&Value>) -> Result<AppendLog, Error> {
    let position = match state.map(|state| state["bytes"].as_u64()) {
        None => 0,
        Some(Some(position)) => position,
        // Another value would cut all lines off.
        Some(None) => {
            let found = "no number of bytes in the checkpoint's state.json";
            let problem = Problem::new(path, "", found, "where this log ended then");
            return Err(Error::Invalid(problem.advise("restore the checkpoint")));
        }
    };
    let (log, problem) = AppendLog::open(path, position)?;
    if let Some(problem) = problem {
        note(&problem.to_string());
    }
    Ok(log)
}

/// The state of a hook that keeps a log: all lines so far survive a power loss, and a resume cuts here.
pub(super) fn log_state(log: &AppendLog) -> Result<Option<Value>, Error> {
    log.sync()?;
    Ok(Some(json!({ "bytes": log.position() })))
}

impl<B: AutodiffBackend, M> Hook<B, M> for MetricsLog {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn after_step(&mut self, step: &mut StepInfo<M>) -> Result<Verdict, Error> {
        let due = step.is_last() || step.stage_step.is_multiple_of(self.every_steps);
        if let (Some(train), true) = (&step.train, due) {
            self.write(step, "train", train)?;
        }
        for (split, measured) in &step.valid {
            self.write(step, split, measured)?;
        }
        Ok(Verdict::Continue)
    }

    fn state(&mut self) -> Result<Option<Value>, Error> {
        log_state(&self.log)
    }
}

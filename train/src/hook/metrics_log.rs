//! `metrics.jsonl`: one line per logged step and split, with the language-model loss and bits per byte always apart.
//!
//! `{"schema":1,"step":1200,"stage":"fixed","split":"valid","tokens":7864320,"wall_s":412.8,"loss/lm":3.02,…}`. The step
//! counts over all stages. A number that is not finite is left out, because JSON has none.

use crate::error::Error;
use crate::learner::{Hook, StepInfo, Verdict};
use crate::run::{AppendLog, RunDirectory};
use crate::say::note;
use crate::task::Measured;
use burn::tensor::backend::AutodiffBackend;
use serde_json::{Map, Value, json};

/// Writes the log of a run.
pub struct MetricsLog {
    log: AppendLog,
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
        state: Option<&Value>,
    ) -> Result<Self, Error> {
        let log = open_log(&run.metrics(), state)?;
        Ok(Self { log, every_steps })
    }

    fn write<M>(
        &mut self,
        step: &StepInfo<M>,
        split: &str,
        measured: &Measured,
    ) -> Result<(), Error> {
        let mut line = Map::new();
        line.insert("schema".to_string(), json!(1));
        line.insert("step".to_string(), json!(step.step));
        line.insert("stage".to_string(), json!(step.stage));
        line.insert("split".to_string(), json!(split));
        line.insert("tokens".to_string(), json!(step.tokens));
        line.insert("wall_s".to_string(), json!(step.wall_s));
        let finite = measured
            .named()
            .into_iter()
            .filter(|(_, value)| value.is_finite());
        line.extend(finite.map(|(name, value)| (name, json!(value))));
        self.log.append(&line)
    }
}

/// Opens a log at the byte that a hook's state remembers.
pub(super) fn open_log(path: &std::path::Path, state: Option<&Value>) -> Result<AppendLog, Error> {
    let position = state.and_then(|state| state["bytes"].as_u64()).unwrap_or(0);
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

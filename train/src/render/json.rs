//! Hook that prints training as JSON lines on stderr, for programs: one line per step and split, as in `metrics.jsonl`.

use crate::error::Error;
use crate::hook::metrics_line;
use crate::learner::{Hook, StepInfo, Verdict};
use crate::say::say_json;
use burn::tensor::backend::AutodiffBackend;
use serde_json::Value;

/// A hook that prints a line for every step and split.
pub struct JsonLines;

impl<B: AutodiffBackend, M> Hook<B, M> for JsonLines {
    fn name(&self) -> &'static str {
        "json_lines"
    }

    fn after_step(&mut self, step: &mut StepInfo<M>) -> Result<Verdict, Error> {
        let train = step.train.iter().map(|train| ("train", train));
        let valid = step.valid.iter();
        let valid = valid.map(|(split, measured)| (split.as_str(), measured));
        for (split, measured) in train.chain(valid) {
            say_json(&Value::Object(metrics_line(step, split, measured)));
        }
        Ok(Verdict::Continue)
    }
}

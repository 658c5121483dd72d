//! `Opening`: the lines to show before the first step of a run (model, data, run directory, device) and of each stage (steps,
//! who leads, initial weights, why its loss may jump).

use super::StagePlace;
use super::changes::changes;
use crate::device::DeviceConfig;
use crate::recipe::{ModelConfig, Policy, Recipe, Stage, StageStart};
use std::path::Path;

/// What the lines that follow show.
const NUMBERS: &str = "numbers: lm is the loss in nats per token, bpb bits per byte of text";

/// The same of walks.
const OF_WALKS: &str = ", blocks/token how many blocks of the pool a token runs in the mean, imitates the share of decisions in \
                        which the router says what its teacher says";

/// The start or the resume of a run.
pub struct Opening<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Which stage begins or goes on, from 0.
    pub stage_index: usize,
    /// Steps of it that were made before a resume.
    pub stage_step: u64,
    /// Parameters of its model.
    pub parameters: u64,
}

/// A split of the data.
pub struct Source {
    /// Its use: `train`, or the name of a validation split.
    pub split: String,
    /// Where it lies.
    pub path: String,
    /// How many tokens it has.
    pub tokens: usize,
    /// How many documents.
    pub documents: usize,
    /// How a file of another program was read.
    pub reading: Option<String>,
    /// The share of inputs that is padding, where no window crosses a document.
    pub padding: Option<f64>,
}

impl Opening<'_> {
    /// The first lines of a start or resume: model, parameters, data, run.
    pub fn run(&self, sources: &[Source], vocabulary: usize, run: &Path) -> Vec<String> {
        let recipe = self.recipe;
        let mut lines = vec![format!(
            "model: {}, a vocabulary of {vocabulary}, {} parameters",
            recipe.model.describe(&self.stage().policy),
            self.parameters
        )];
        lines.extend(sources.iter().map(
            |Source {
                 split,
                 path,
                 tokens,
                 documents,
                 reading,
                 padding,
             }| {
                let reading = reading.iter().map(|text| format!(", {text}"));
                let padding =
                    padding.map(|share| format!(", {:.1} % of inputs are padding", 100.0 * share));
                let more: String = reading.chain(padding).collect();
                format!("data: {split} {path}, {tokens} tokens in {documents} documents{more}")
            },
        ));
        let DeviceConfig { backend, dtype, .. } = &recipe.device;
        let dtype = format!("{dtype:?}").to_lowercase();
        let (run, seed) = (run.display(), recipe.run.seed);
        lines.push(format!("run: {run}, seed {seed}, {backend} in {dtype}"));
        let of_walks = if recipe.model.routes() { OF_WALKS } else { "" };
        lines.push(format!("{NUMBERS}{of_walks}"));
        lines
    }

    /// The first lines of a stage: its length, who leads, its initial weights, and why its loss does not begin where the
    /// stage before ended.
    pub fn stage_lines(&self) -> Vec<String> {
        let stage = self.stage();
        let place = StagePlace::new(self.recipe, self.stage_index);
        let mut parts = vec![match self.stage_step {
            0 => format!("{} steps", stage.steps),
            done => format!("goes on after {done} of {} steps", stage.steps),
        }];
        parts.extend(leader(&self.recipe.model, &stage.policy));
        if self.stage_step == 0 {
            parts.push(weights(&stage.start));
        }
        parts.push(format!("{} parameters", self.parameters));
        let mut lines = vec![format!("{place}: {}", parts.join(", "))];
        if let (0, Some(before)) = (self.stage_step, self.stage_index.checked_sub(1)) {
            let reasons = changes(&self.recipe.stage[before], stage);
            lines.extend(reasons.iter().map(|reason| format!("{place}: {reason}")));
        }
        lines
    }

    fn stage(&self) -> &Stage {
        &self.recipe.stage[self.stage_index]
    }
}

/// Who leads, where there is somebody to lead.
fn leader(model: &ModelConfig, policy: &Policy) -> Option<String> {
    if !model.routes() {
        return None;
    }
    Some(match policy {
        Policy::None => "all blocks in a row, no pool yet".to_string(),
        Policy::Sequential => "every token runs the blocks of the pool in their order".to_string(),
        Policy::Teacher { teacher } => {
            let teacher = teacher.kind();
            format!("the teacher {teacher} leads, the router imitates it")
        }
        Policy::Scheduled { teacher, .. } => format!(
            "router and teacher {} lead by lot, in validation the router alone",
            teacher.kind()
        ),
        Policy::Router { .. } => "the router leads".to_string(),
    })
}

fn weights(start: &StageStart) -> String {
    match start {
        StageStart::Fresh => "fresh weights".to_string(),
        StageStart::Previous => "weights of the stage before".to_string(),
        StageStart::Run { path, step, .. } => {
            let step = step.map_or(String::new(), |step| format!(" at step {step}"));
            let kept = match start.keeps_optimizer() {
                true => ", whose optimizer and place in the data go on",
                false => "",
            };
            format!("weights of {}{step}{kept}", path.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;

    #[test]
    fn a_run_begins_with_model_parameters_data_and_directory() {
        let ladder = BUNDLED
            .iter()
            .find(|bundled| (bundled.kind, bundled.size) == ("brian", "ladder"))
            .unwrap();
        let recipe = from_text("ladder.toml", ladder.text.to_string(), &[]).unwrap();
        let opening = |stage_index, stage_step| Opening {
            recipe: &recipe,
            stage_index,
            stage_step,
            parameters: 1234,
        };
        let source = Source {
            split: "train".to_string(),
            path: "data/train.bin".to_string(),
            tokens: 5000,
            documents: 12,
            reading: None,
            padding: Some(0.0625),
        };
        let lines = opening(0, 0).run(&[source], 260, Path::new("runs/ladder"));
        assert_eq!(lines.len(), 4);
        assert!(
            lines[0].starts_with("model: ")
                && lines[0].ends_with("a vocabulary of 260, 1234 parameters"),
            "{lines:?}"
        );
        assert_eq!(
            lines[1],
            "data: train data/train.bin, 5000 tokens in 12 documents, 6.2 % of inputs are padding"
        );
        assert!(lines[2].starts_with("run: runs/ladder, seed "), "{lines:?}");
        let scheduled = recipe
            .stage
            .iter()
            .position(|stage| stage.name == "scheduled")
            .unwrap();
        let lines = opening(scheduled, 0).stage_lines();
        assert!(
            lines[0].contains("by lot, in validation the router alone"),
            "{lines:?}"
        );
        assert!(
            lines[1].contains("so the loss may start higher"),
            "{lines:?}"
        );
        let lines = opening(scheduled, 3).stage_lines();
        assert_eq!(
            lines.len(),
            1,
            "a stage that goes on explains nothing again: {lines:?}"
        );
        assert!(lines[0].contains("goes on after 3 of "), "{lines:?}");
    }
}

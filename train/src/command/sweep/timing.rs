//! How long a training step takes, measured on a fresh model before any run begins.

use crate::device::{self, Task};
use crate::error::Error;
use crate::ladder::{Blueprint, Inputs, route};
use crate::learner::TrainingLoader;
use crate::model::Model;
use crate::recipe::{Checked, Stage};
use crate::task::{Batch, StepPlan};
use burn::data::dataloader::DataLoader;
use burn::tensor::backend::AutodiffBackend;
use burn::train::TrainStep;
use std::time::Instant;

/// Mean seconds per step over all stages, weighted by their steps; `None` if the recipe cannot be timed.
///
/// The second of two passes is measured, because the first one fills caches.
pub fn seconds_per_step(recipe: &Checked) -> Option<f64> {
    let inputs = Inputs::open(recipe).ok()?;
    device::run(&recipe.device, Timing { recipe, inputs }).ok()
}

struct Timing<'a> {
    recipe: &'a Checked,
    inputs: Inputs,
}

impl Task for Timing<'_> {
    type Output = f64;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<f64, Error> {
        let stages = &self.recipe.stage;
        let steps: u64 = stages.iter().map(|stage| stage.steps).sum();
        let seconds = stages.iter().map(|stage| {
            let of_pass = self.pass::<B>(stage, &device);
            let of_stage = stage.micro_batches(self.recipe.batch.accumulate);
            of_pass * of_stage.before(stage.steps) as f64
        });
        Ok(seconds.sum::<f64>() / steps as f64)
    }
}

impl Timing<'_> {
    /// Seconds of a forward and backward pass over one micro-batch.
    fn pass<B: AutodiffBackend>(&self, stage: &Stage, device: &B::Device) -> f64 {
        let blueprint = Blueprint {
            recipe: self.recipe,
            vocabulary: self.inputs.tokenizer.vocabulary_size(),
            counts: self.inputs.counts.as_ref(),
            ranks: None,
        };
        let model: Model<B> = blueprint.fresh(&stage.policy, device);
        let plan = StepPlan {
            stage_steps: stage.steps,
            ..StepPlan::idle(route(stage, self.recipe))
        };
        let loader = TrainingLoader {
            data: self.inputs.train.clone(),
            positions: 0..2,
        };
        let rate = stage.learning_rate.rate(0, stage.steps);
        let mut seconds = 0.0;
        for mut batch in DataLoader::<B, Batch>::iter(&loader) {
            batch.plan = StepPlan {
                targets: batch.targets(),
                ..plan.clone()
            };
            let start = Instant::now();
            let batches = [batch];
            match model.own_optimizer() {
                Some(own) => drop(own.learn(&batches, rate)),
                None => {
                    let [batch] = batches;
                    drop(TrainStep::step(&model, batch));
                }
            }
            // A device that cannot be waited for shows a time that is too short, and fails in training.
            let _ = B::sync(device);
            seconds = start.elapsed().as_secs_f64();
        }
        seconds
    }
}

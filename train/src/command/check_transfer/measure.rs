//! `Measure`: trains a copy for a few steps on one batch and measures on it behind each how large its places are and how far they have
//! moved since the beginning.
//!
//! It is one batch, because what is learnt of it sums up over steps and over the width, and what is drawn does not: on other texts, or on
//! many at once, the draws of a narrow copy hide the rest.

use crate::device::Task;
use crate::error::Error;
use crate::ladder::{Blueprint, Ladder, route};
use crate::learner::{ParameterOptimizer, Schedule, TrainingLoader};
use crate::run::checkpoint::CheckpointState;
use crate::task::{Batch, StepPlan};
use brian::places::Place;
use brian::route::policy::{Policy, Teacher};
use burn::data::dataloader::DataLoader;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

/// A place of a model behind a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Its name.
    pub place: String,
    /// Mean absolute value.
    pub value: f64,
    /// Mean absolute difference from the value before the first step.
    pub change: f64,
}

/// One copy of a recipe's model.
pub struct Measure<'a> {
    pub ladder: &'a Ladder,
    /// The number of the micro-batch on which it is trained and measured.
    pub batch: u64,
    pub steps: u64,
    /// The learning rate of all steps.
    pub rate: f64,
}

impl Task for Measure<'_> {
    /// Of every step the places.
    type Output = Vec<Vec<Moved>>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Self::Output, Error> {
        let ladder = self.ladder;
        let (recipe, inputs) = (&*ladder.recipe, &ladder.inputs);
        let stage = &recipe.stage[0];
        let blueprint = Blueprint {
            recipe,
            vocabulary: inputs.tokenizer.vocabulary_size(),
            counts: None,
            ranks: None,
        };
        let loader = TrainingLoader {
            data: inputs.train.clone(),
            positions: self.batch..self.batch + 1,
        };
        let first = DataLoader::<B, Batch>::iter(&loader).next();
        let batch = first.expect("data go on for ever");
        let optimizer = ParameterOptimizer::new(&recipe.optimizer);
        let mut session = ladder.session(stage, CheckpointState::default(), optimizer, Vec::new());
        session.settings.learning_rate = Schedule::Constant {
            peak: self.rate,
            warmup_steps: Some(0),
            warmup_share: None,
        };
        // A decision that changes moves a state by all that a block adds, at any width.
        let mut in_order = route(stage, recipe).evaluation();
        in_order.rules.policy = Policy::Teacher(Teacher::Sequential);
        let probe = Batch {
            plan: StepPlan::idle(in_order),
            ..batch.clone()
        };
        let model = blueprint.fresh::<B>(&stage.policy, &device);
        let before = model.valid().places(&probe);
        session.model = Some(model);
        let mut moved = Vec::new();
        for _ in 0..self.steps {
            session.bare_step(vec![batch.clone()])?;
            let model = session.model.as_ref().expect("a step gives it back");
            let now = model.valid().places(&probe);
            moved.push(
                before
                    .iter()
                    .zip(now)
                    .map(|(before, now)| of(before, now))
                    .collect(),
            );
        }
        Ok(moved)
    }
}

fn of<B: Backend>(before: &Place<B>, now: Place<B>) -> Moved {
    let size = |values: Tensor<B, 2>| -> f64 {
        let mean = values.abs().mean().into_data();
        mean.iter::<f64>().next().expect("one number")
    };
    Moved {
        place: now.name,
        change: size(now.values.clone() - before.values.clone()),
        value: size(now.values),
    }
}

/// The mean over copies that differ in their seed.
pub fn mean(of_seeds: Vec<Vec<Vec<Moved>>>) -> Vec<Vec<Moved>> {
    let n = of_seeds.len() as f64;
    let mut seeds = of_seeds.into_iter();
    let mut sum = seeds.next().unwrap_or_default();
    for seed in seeds {
        for (sum, one) in sum.iter_mut().flatten().zip(seed.into_iter().flatten()) {
            sum.value += one.value;
            sum.change += one.change;
        }
    }
    for moved in sum.iter_mut().flatten() {
        moved.value /= n;
        moved.change /= n;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_other_seeds_count_alike() {
        let moved = |value, change| Moved {
            place: "logits".to_string(),
            value,
            change,
        };
        let of_seed = |value| {
            vec![
                vec![moved(value, 2.0 * value)],
                vec![moved(3.0 * value, value)],
            ]
        };
        let expected = vec![vec![moved(2.0, 4.0)], vec![moved(6.0, 2.0)]];
        assert_eq!(mean(vec![of_seed(1.0), of_seed(3.0)]), expected);
    }
}

//! `Trainable`: the trait of a model that the learner trains (batch in, measured losses out); the types and the `learner` that
//! burn-train wants, with an optimizer that it never calls, because the session makes the steps.

use crate::model::{Model, OwnOptimizer};
use crate::task::{Batch, Measured};
use brian::width_transfer::UpdateScales;
use burn::module::AutodiffModule;
use burn::optim::{GradientsParams, MultiGradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::train::{InferenceStep, Learner, LearningComponentsMarker, TrainStep};
use std::fmt::Display;

/// burn-train's bundle of types for a model of ours.
pub type Components<B, M> = LearningComponentsMarker<B, f64, M, OfSession>;

/// burn-train's learner, which only carries the model: optimizer and rate are the session's.
pub fn learner<B: AutodiffBackend, M: Trainable<B>>(model: M) -> Learner<Components<B, M>> {
    Learner::new(model, OfSession, 0.0)
}

/// Stands where burn-train asks for an optimizer.
#[derive(Clone)]
pub struct OfSession;

const NEVER: &str = "the session makes the steps";

impl<B: AutodiffBackend, M: AutodiffModule<B>> Optimizer<M, B> for OfSession {
    type Record = ();

    fn step(&mut self, _: f64, _: M, _: GradientsParams) -> M {
        unreachable!("{NEVER}")
    }

    fn step_multi(&mut self, _: f64, _: M, _: MultiGradientsParams) -> M {
        unreachable!("{NEVER}")
    }

    fn to_record(&self) {}

    fn load_record(self, (): ()) -> Self {
        self
    }
}

/// A model that can be trained: batches in, measured losses out.
pub trait Trainable<B: AutodiffBackend>:
    TrainStep<Input = Batch, Output = Measured>
    + AutodiffModule<B, InnerModule: InferenceStep<Input = Batch, Output = Measured>>
    + Display
    + 'static
{
    /// What a model with an optimizer of its own can do; `None` if it leaves that to the learner.
    fn own_optimizer(&self) -> Option<&dyn OwnOptimizer<B>> {
        None
    }

    /// What the settings of AdamW are multiplied by.
    fn update_scales(&self) -> UpdateScales {
        UpdateScales::default()
    }
}

impl<B: AutodiffBackend> Trainable<B> for Model<B> {
    fn own_optimizer(&self) -> Option<&dyn OwnOptimizer<B>> {
        Model::own_optimizer(self)
    }

    fn update_scales(&self) -> UpdateScales {
        Model::update_scales(self)
    }
}

//! The learning strategy that burn-train calls: it passes its parts on to a session, which trains the stage.

use super::events::Events;
use super::optimizer::GroupedAdamW;
use super::session::{MODEL, Session};
use crate::error::Error;
use crate::model::Model;
use crate::run::TensorMap;
use crate::run::checkpoint::CheckpointState;
use crate::task::{Batch, Learnt, Measured};
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    InferenceStep, Learner, LearningComponentsMarker, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainStep, TrainingComponents, TrainingModel,
    ValidLoader,
};
use std::fmt::Display;
use std::sync::Mutex;

/// burn-train's bundle of types for a model of ours. Our schedule sets the rate, so burn-train's scheduler is a number.
pub type Components<B, M> = LearningComponentsMarker<B, f64, M, GroupedAdamW<M, B>>;

/// A model that can be trained: batches in, measured losses out.
pub trait Trainable<B: AutodiffBackend>:
    TrainStep<Input = Batch, Output = Measured>
    + AutodiffModule<B, InnerModule: InferenceStep<Input = Batch, Output = Measured>>
    + Display
    + 'static
{
    /// One optimizer step of a model that brings its own optimizer; `None` if it leaves that to the learner.
    fn learn(&self, _batches: &[Batch], _rate: f64) -> Option<Learnt> {
        None
    }

    /// Passes its tables and those of its optimizer to a writer; `None` if it leaves the optimizer to the learner.
    fn lend(
        &self,
        to: &mut dyn FnMut(TensorMap, TensorMap) -> Result<(), Error>,
    ) -> Option<Result<(), Error>> {
        let _ = to;
        None
    }
}

impl<B: AutodiffBackend> Trainable<B> for Model<B> {
    fn learn(&self, batches: &[Batch], rate: f64) -> Option<Learnt> {
        Some(self.own_optimizer()?.learn(batches, rate))
    }

    fn lend(
        &self,
        to: &mut dyn FnMut(TensorMap, TensorMap) -> Result<(), Error>,
    ) -> Option<Result<(), Error>> {
        Some(self.own_optimizer()?.lend(to))
    }
}

/// The result of a stage: the model, and its state unless an error ended it.
pub struct Outcome<M> {
    /// The trained model.
    pub model: M,
    /// The state at the last step, or why there is none.
    pub state: Result<CheckpointState, Error>,
}

/// The strategy that trains one stage. burn-train calls it through `&self`, so its mutable state lies behind a mutex.
pub struct HookedStrategy<B: AutodiffBackend, M: AutodiffModule<B>> {
    session: Mutex<Option<Session<B, M>>>,
    outcome: Mutex<Option<Outcome<M>>>,
}

impl<B: AutodiffBackend, M: AutodiffModule<B>> HookedStrategy<B, M> {
    /// A strategy for one launch.
    pub fn new(session: Session<B, M>) -> Self {
        Self {
            session: Mutex::new(Some(session)),
            outcome: Mutex::new(None),
        }
    }

    /// The result of the launch.
    ///
    /// # Panics
    /// If nothing was launched.
    pub fn outcome(&self) -> Outcome<M> {
        let mut outcome = self.outcome.lock().expect("no panic while it was held");
        outcome.take().expect("the learner was launched once")
    }
}

impl<B: AutodiffBackend, M: Trainable<B>> SupervisedLearningStrategy<Components<B, M>>
    for HookedStrategy<B, M>
{
    fn fit(
        &self,
        components: TrainingComponents<Components<B, M>>,
        learner: Learner<Components<B, M>>,
        train: TrainLoader<Components<B, M>>,
        valid: ValidLoader<Components<B, M>>,
        _starting_epoch: usize,
    ) -> (
        TrainingModel<Components<B, M>>,
        SupervisedTrainingEventProcessor<Components<B, M>>,
    ) {
        let session = self
            .session
            .lock()
            .expect("no panic while it was held")
            .take();
        let mut session = session.expect("a strategy is launched once");
        session.model = Some(learner.model());
        // A second owner of the weights would turn every update in place into a copy.
        drop(learner);
        let mut events = Events {
            processor: components.event_processor,
            round: 1,
            rounds: components.num_epochs,
        };
        let result = session.train(&components.interrupter, &*train, &*valid, &mut events);
        let finished = session.hooks.iter_mut().try_for_each(|hook| hook.finish());
        let model = session.model.take().expect(MODEL);
        let outcome = Outcome {
            model: model.clone(),
            state: result.and(finished).map(|()| session.state),
        };
        *self.outcome.lock().expect("no panic while it was held") = Some(outcome);
        (model, events.processor)
    }
}

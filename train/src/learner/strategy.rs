//! `HookedStrategy`: the learning strategy that burn-train calls; it hands model and loaders to a `Session`, which trains the
//! stage, then finishes the hooks; `Outcome`: the trained model, and the final state or the error.

use super::events::Events;
use super::session::{MODEL, Session};
use super::trainable::{Components, Trainable};
use crate::error::Error;
use crate::run::checkpoint::CheckpointState;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    Learner, SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader,
    TrainingComponents, TrainingModel, ValidLoader,
};
use std::sync::{Arc, Mutex};

/// The result of a stage: the model, and its state unless an error ended it.
pub struct Outcome<M> {
    /// The trained model.
    pub model: M,
    /// The state at the last step, or why there is none.
    pub state: Result<CheckpointState, Error>,
}

/// The strategy that trains one stage: its session, and how it ended. burn-train calls it through `&self` and gives back the
/// model for inference only, so both lie behind a mutex.
pub struct HookedStrategy<B: AutodiffBackend, M: AutodiffModule<B>>(Mutex<Launch<B, M>>);

struct Launch<B: AutodiffBackend, M: AutodiffModule<B>> {
    session: Session<B, M>,
    ended: Option<Result<(), Error>>,
}

impl<B: AutodiffBackend, M: Trainable<B>> HookedStrategy<B, M> {
    /// A strategy for one launch.
    pub fn new(session: Session<B, M>) -> Self {
        let ended = None;
        Self(Mutex::new(Launch { session, ended }))
    }

    /// The result of the launch, which is over.
    ///
    /// # Panics
    /// If nothing was launched.
    pub fn outcome(self: Arc<Self>) -> Outcome<M> {
        let strategy = Arc::into_inner(self).expect("the launch is over");
        let Launch { session, ended } = strategy.0.into_inner().expect("no panic in the launch");
        let ended = ended.expect("the learner was launched once");
        Outcome {
            model: session.model.expect(MODEL),
            state: ended.map(|()| session.state),
        }
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
        let mut launch = self.0.lock().expect("launched once");
        let Launch { session, ended } = &mut *launch;
        let model = learner.model();
        // A second owner of the weights would turn every update in place into a copy.
        drop(learner);
        let mut events = Events {
            processor: components.event_processor,
            round: 1,
            rounds: components.num_epochs,
        };
        session.model = Some(model);
        let result = session.train(&components.interrupter, &*train, &*valid, &mut events);
        let finished = session.hooks.iter_mut().try_for_each(|hook| hook.finish());
        *ended = Some(result.and(finished));
        (session.model().clone(), events.processor)
    }
}

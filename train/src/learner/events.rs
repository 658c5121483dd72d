//! Sends measured host numbers to burn-train's metrics and dashboard.

use super::hook::StepInfo;
use super::trainable::{Components, Trainable};
use crate::task::Measured;
use burn::data::dataloader::Progress;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    EventProcessorTraining, LearnerEvent, SupervisedTrainingEventProcessor, TrainingItem,
};

/// The connection to the dashboard. A round, burn-train's epoch, is the training between two validations.
pub(super) struct Events<B: AutodiffBackend, M: Trainable<B>> {
    pub processor: SupervisedTrainingEventProcessor<Components<B, M>>,
    pub round: usize,
    pub rounds: usize,
}

impl<B: AutodiffBackend, M: Trainable<B>> Events<B, M> {
    /// Shows a step, and the validation after it.
    pub fn send(&mut self, info: StepInfo<M>, order: &[String]) {
        let progress = Progress::new(info.stage_step as usize, info.stage_steps as usize);
        let rounds = Progress::new(self.round, self.rounds);
        let item = |measured: Measured| {
            let rate = measured.numbers.get("learning_rate").copied();
            let iteration = Some(info.stage_step as usize);
            TrainingItem::new(measured, progress.clone(), rounds.clone(), iteration, rate)
        };
        if let Some(train) = info.train {
            self.processor
                .process_train(LearnerEvent::ProcessedItem(item(train)));
        }
        let Some(valid) = order.first().and_then(|first| info.valid.get(first)) else {
            return;
        };
        self.processor
            .process_train(LearnerEvent::EndEpoch(self.round));
        self.processor
            .process_valid(LearnerEvent::ProcessedItem(item(valid.clone())));
        self.processor
            .process_valid(LearnerEvent::EndEpoch(self.round));
        self.round += 1;
    }
}

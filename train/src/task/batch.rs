//! One micro-batch on the host, with the plan of the step it belongs to.
//!
//! Burn's `TrainStep::step` receives nothing but its input, so the plan travels with the data and never as a global.

use super::plan::StepPlan;
use crate::data::HostBatch;
use brian::route::policy::SequenceInfo;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

/// Windows of tokens, and how to treat them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Inputs, targets and which targets count.
    pub host: HostBatch,
    /// Which validation split it comes from; 0 in training.
    pub source: usize,
    /// The plan of the step.
    pub plan: StepPlan,
}

impl Batch {
    /// The number of targets that count.
    pub fn targets(&self) -> u64 {
        self.host.valid.iter().filter(|&&valid| valid).count() as u64
    }

    /// `[batch, seq]` input tokens.
    pub fn inputs<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        self.integers(&self.host.inputs, device)
    }

    /// `[batch, seq]` target tokens.
    pub fn target_tokens<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        self.integers(&self.host.targets, device)
    }

    /// `[batch, seq]`, 1 where the target counts and 0 where it does not.
    pub fn counted<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        let values: Vec<f32> = self
            .host
            .valid
            .iter()
            .map(|&valid| f32::from(valid))
            .collect();
        Tensor::from_data(TensorData::new(values, self.shape()), device)
    }

    /// What teachers and random draws may know about each sequence.
    pub fn rows(&self) -> Vec<SequenceInfo> {
        let known = self.host.sequences.iter().zip(&self.host.difficulty);
        known
            .map(|(&sequence, &difficulty)| SequenceInfo {
                sequence,
                difficulty,
            })
            .collect()
    }

    fn integers<B: Backend>(&self, tokens: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
        let values: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        Tensor::from_data(TensorData::new(values, self.shape()), device)
    }

    fn shape(&self) -> [usize; 2] {
        [self.host.batch, self.host.seq]
    }
}

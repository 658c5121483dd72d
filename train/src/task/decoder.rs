//! A language model of either kind, as burn-train's learner wants it.

use super::{Batch, Measured};
use brian::loss::language;
use brian::parameter;
use brian::route::policy::Policy;
use brian::{Baseline, Brian};
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};

/// A decoder: tokens in, logits of the next token out.
// A newtype per model would make every caller generic once more; a run has exactly one decoder, so its size is no matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Decoder<B: Backend> {
    /// Fixed depth.
    Baseline(Baseline<B>),
    /// A pool of blocks and a path through it.
    Brian(Brian<B>),
}

impl<B: Backend> Decoder<B> {
    /// Logits of the next token at every position.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, vocabulary]`
    pub fn forward(&self, tokens: Tensor<B, 2, Int>, route: Policy) -> Tensor<B, 3> {
        match self {
            Self::Baseline(model) => model.forward(tokens),
            Self::Brian(model) => model.forward(tokens, route),
        }
    }

    /// Where the parameters are.
    pub fn device(&self) -> B::Device {
        match self {
            Self::Baseline(model) => model.embedding.weight.device(),
            Self::Brian(model) => model.embedding.weight.device(),
        }
    }

    /// The number of parameters.
    pub fn n_parameters(&self) -> u64 {
        parameter::count(self)
    }

    /// Sum of `−ln p(target)` over the counted targets, `[1]`.
    fn nats(&self, batch: &Batch) -> Tensor<B, 1> {
        let device = self.device();
        let logits = self.forward(batch.inputs(&device), batch.plan.route);
        let nats = language::nats(logits, batch.target_tokens(&device));
        (nats * batch.counted(&device)).sum()
    }
}

/// Puts the sum on the host.
fn measure<B: Backend>(nats: Tensor<B, 1>, batch: &Batch) -> Measured {
    Measured {
        nats: nats.into_data().iter::<f64>().sum(),
        targets: batch.targets(),
        bytes: batch.bytes,
        ..Measured::default()
    }
}

impl<B: AutodiffBackend> TrainStep for Decoder<B> {
    type Input = Batch;
    type Output = Measured;

    fn step(&self, batch: Batch) -> TrainOutput<Measured> {
        let nats = self.nats(&batch);
        let measured = measure(nats.clone().inner(), &batch);
        // Divided by the targets of the whole step, so that micro-batches add up to the gradient of one large batch.
        let gradients = nats.div_scalar(batch.plan.targets as f64).backward();
        TrainOutput::new(self, gradients, measured)
    }
}

impl<B: Backend> InferenceStep for Decoder<B> {
    type Input = Batch;
    type Output = Measured;

    fn step(&self, batch: Batch) -> Measured {
        measure(self.nats(&batch), &batch)
    }
}

//! A language model of either kind, as burn-train's learner wants it.

use super::{Batch, Learnt, Measured, Signal};
use crate::data::HostBatch;
use crate::device::Dtype;
use brian::generate::{Sampling, generate};
use brian::loss::language;
use brian::loss::route::Term;
use brian::route::policy::Row;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use brian::{Baseline, Brian, Decoding};
use brian::{parameter, precision};
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use std::borrow::Cow;

/// A decoder: tokens in, logits of the next token out.
// A newtype per model would make every caller generic once more; a run has exactly one decoder, so its size is no matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Decoder<B: Backend> {
    /// Fixed depth.
    Baseline(Baseline<B>),
    /// A pool of blocks and a path through it.
    Brian(Brian<B>),
    /// A graph that signals flow through.
    BriLlm(Signal<B>),
}

impl<B: Backend> Decoder<B> {
    /// Logits of the next token at every position, and the walks that led there if there is a pool.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, vocabulary]`
    pub fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[Row],
    ) -> (Tensor<B, 3>, Option<Trace<B>>) {
        match self {
            Self::Baseline(model) => (model.forward(tokens), None),
            Self::Brian(model) => {
                let (logits, trace) = model.forward(tokens, rules, rows);
                (logits, Some(trace))
            }
            Self::BriLlm(_) => {
                unreachable!("a graph has no logits for all positions; see `Signal`")
            }
        }
    }

    /// The model before the first token of a text that is continued, walking as in evaluation.
    pub fn decoding(&self, rules: &Rules) -> Decoding<'_, B> {
        match self {
            Self::Baseline(model) => Decoding::baseline(model),
            Self::Brian(model) => Decoding::brian(model, rules, Row::default()),
            Self::BriLlm(_) => unreachable!("a graph decodes by itself; see `Signal`"),
        }
    }

    /// Continues a prompt of at least one token by `n` tokens, walking as in evaluation.
    pub fn continue_tokens(
        &self,
        prompt: &[u32],
        n: usize,
        context: usize,
        rules: &Rules,
        sampling: Sampling,
    ) -> Vec<u32> {
        if let Self::BriLlm(signal) = self {
            return signal.continue_tokens(prompt, n, sampling);
        }
        let mut decoding = self.decoding(rules);
        generate(|seen| decoding.follow(seen), prompt, n, context, sampling)
    }

    /// One optimizer step of a model that brings its own optimizer; nothing for one that leaves it to the learner.
    pub fn learn(&self, batches: &[Batch], rate: f64) -> Option<Learnt>
    where
        B: AutodiffBackend,
    {
        match self {
            Self::BriLlm(signal) => Some(signal.learn(batches, rate)),
            _ => None,
        }
    }

    /// Where the parameters are.
    pub fn device(&self) -> B::Device {
        match self {
            Self::Baseline(model) => model.embedding.weight.device(),
            Self::Brian(model) => model.embedding.weight.device(),
            Self::BriLlm(signal) => signal.device(),
        }
    }

    /// The number of parameters.
    pub fn n_parameters(&self) -> u64 {
        match self {
            Self::BriLlm(signal) => signal.n_parameters(),
            _ => parameter::count(self),
        }
    }

    /// Sum of `−ln p(target)` over the counted targets of every sequence.
    pub fn nats_of_sequences(&self, batch: &Batch) -> Vec<f64> {
        let device = self.device();
        if let Self::BriLlm(signal) = self {
            return signal.nats_of_sequences(batch);
        }
        let route = &batch.plan.route;
        let computing = self.multiplying_in(route.products);
        let (logits, _) = computing.forward(batch.inputs(&device), &route.rules, &batch.rows());
        let nats = language::nats(logits, batch.target_tokens(&device));
        let sums = (nats * batch.counted(&device)).sum_dim(1);
        sums.into_data().iter::<f64>().collect()
    }

    /// The model with products in a type; see [`brian::precision`].
    pub fn multiplying_in(&self, dtype: Dtype) -> Cow<'_, Self> {
        match dtype {
            Dtype::F32 => Cow::Borrowed(self),
            dtype => Cow::Owned(precision::multiplying_in(self.clone(), dtype.into())),
        }
    }

    fn pass(&self, batch: &Batch) -> Pass<B> {
        let device = self.device();
        let route = &batch.plan.route;
        let computing = self.multiplying_in(route.products);
        let (logits, trace) = computing.forward(batch.inputs(&device), &route.rules, &batch.rows());
        let nats = language::nats(logits, batch.target_tokens(&device));
        let terms = match (self, &trace) {
            (Self::Brian(model), Some(trace)) => {
                let valid = &batch.host.valid;
                let losses = &route.losses;
                losses.terms(trace, &model.position, &route.rules, valid)
            }
            _ => Vec::new(),
        };
        Pass {
            nats: (nats * batch.counted(&device)).sum(),
            terms,
            trace,
        }
    }
}

/// What a pass gives.
struct Pass<B: Backend> {
    /// Sum of `−ln p(target)` over the counted targets, `[1]`.
    nats: Tensor<B, 1>,
    terms: Vec<Term<B>>,
    trace: Option<Trace<B>>,
}

impl<B: Backend> Pass<B> {
    /// Puts the sums on the host.
    fn measure(&self, batch: &Batch) -> Measured {
        let number = |tensor: &Tensor<B, 1>| tensor.clone().into_data().iter::<f64>().sum::<f64>();
        let targets = batch.targets();
        let mut measured = Measured {
            nats: number(&self.nats),
            targets,
            bytes: batch.bytes,
            ..Measured::default()
        };
        for term in &self.terms {
            let sum = number(&term.value) * targets as f64;
            measured.terms.insert(term.name, sum);
            measured.added += term.weight * sum;
        }
        if let Some(trace) = &self.trace {
            let HostBatch {
                valid, difficulty, ..
            } = &batch.host;
            measured.route.add(&trace.walks, valid, difficulty);
        }
        measured
    }

    /// The share of the step's loss that this batch has, `[1]`.
    ///
    /// Divided by the targets of the whole step, so that micro-batches add up to the gradient of one large batch.
    fn loss(self, batch: &Batch) -> Tensor<B, 1> {
        let targets = batch.plan.targets as f64;
        let share = batch.targets() as f64 / targets;
        let terms = self.terms.into_iter();
        let added = terms.map(|term| term.value * (term.weight * share));
        added.fold(self.nats / targets, |sum, term| sum + term)
    }
}

impl<B: AutodiffBackend> TrainStep for Decoder<B> {
    type Input = Batch;
    type Output = Measured;

    fn step(&self, batch: Batch) -> TrainOutput<Measured> {
        if let Self::BriLlm(signal) = self {
            // It learns in `learn`; to burn-train's own strategies it is a model without parameters.
            let device = self.device();
            let nothing = Tensor::<B, 1>::zeros([1], &device)
                .require_grad()
                .backward();
            return TrainOutput::new(self, nothing, signal.measure(&batch));
        }
        let pass = self.pass(&batch);
        let measured = pass.measure(&batch);
        let gradients = pass.loss(&batch).backward();
        TrainOutput::new(self, gradients, measured)
    }
}

impl<B: Backend> InferenceStep for Decoder<B> {
    type Input = Batch;
    type Output = Measured;

    fn step(&self, batch: Batch) -> Measured {
        if let Self::BriLlm(signal) = self {
            return signal.measure(&batch);
        }
        self.pass(&batch).measure(&batch)
    }
}

//! A language model of either kind, as burn-train's learner wants it.

use super::{Batch, BriLlmTask, Continuation, Drawn, Learnt, Measured, StopReason};
use crate::data::HostBatch;
use crate::device::Dtype;
use brian::generate::{Next, NotFinite, generate};
use brian::loss::language;
use brian::loss::route::Term;
use brian::route::policy::SequenceInfo;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use brian::{Baseline, Brian, Decoding};
use brian::{parameter, precision};
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use std::borrow::Cow;
use std::collections::VecDeque;

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
    BriLlm(BriLlmTask<B>),
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
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>) {
        match self {
            Self::Baseline(model) => (model.forward(tokens), None),
            Self::Brian(model) => {
                let (logits, trace) = model.forward(tokens, rules, rows);
                (logits, Some(trace))
            }
            Self::BriLlm(_) => {
                unreachable!("a graph has no logits for all positions; see `BriLlmTask`")
            }
        }
    }

    /// The model before the first token of a text that is continued, walking as in evaluation.
    pub fn decoding(&self, rules: &Rules) -> Decoding<'_, B> {
        match self {
            Self::Baseline(model) => Decoding::baseline(model),
            Self::Brian(model) => Decoding::brian(model, rules, SequenceInfo::default()),
            Self::BriLlm(_) => unreachable!("a graph decodes by itself; see `BriLlmTask`"),
        }
    }

    /// Continues a prompt of at least one token, walking as in evaluation.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn continue_tokens(
        &self,
        prompt: &[u32],
        rules: &Rules,
        how: &Continuation,
    ) -> Result<Drawn, NotFinite> {
        let mut tokens = Vec::new();
        let stop = self.stream(prompt.iter().copied(), rules, how, |token| {
            tokens.push(token);
            true
        })?;
        Ok(Drawn { tokens, stop })
    }

    /// Reads a prompt of at least one token and hands over each token that is drawn, until `each` says no. Memory does not
    /// grow with the prompt: a Transformer keeps what it sees of it, a graph its state.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn stream(
        &self,
        prompt: impl Iterator<Item = u32> + Send,
        rules: &Rules,
        how: &Continuation,
        mut each: impl FnMut(u32) -> bool + Send,
    ) -> Result<StopReason, NotFinite> {
        if let Self::BriLlm(signal) = self {
            return signal.stream(prompt, how, each);
        }
        let mut seen = VecDeque::new();
        for token in prompt {
            if seen.len() == how.context {
                seen.pop_front();
            }
            seen.push_back(token);
        }
        let mut decoding = self.decoding(rules);
        let mut stop = StopReason::Length;
        let next = |token| {
            let next = how.behind(token);
            if next == Next::Stop {
                stop = StopReason::End;
            }
            if !each(token) {
                stop = StopReason::Refused;
                return Next::Stop;
            }
            next
        };
        generate(
            |seen| decoding.follow(seen),
            seen.make_contiguous(),
            how.n_tokens,
            how.context,
            how.sampling,
            &how.never,
            next,
        )?;
        Ok(stop)
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

    /// Losses of a pass, and those of every place of the batch, `[batch * seq]` in row order: 0 where nothing counts.
    pub fn measure(&self, batch: &Batch) -> (Measured, Vec<f64>) {
        if let Self::BriLlm(signal) = self {
            return signal.measure(batch);
        }
        let pass = self.pass(batch);
        let nats: Vec<f64> = pass.nats.clone().into_data().iter().collect();
        let measured = Measured {
            // Added up in f64: a mean over many batches keeps its digits.
            nats: nats.iter().sum(),
            ..pass.measure(batch)
        };
        (measured, nats)
    }

    /// The model with products in a type; see [`brian::precision`].
    pub fn with_matmul_dtype(&self, dtype: Dtype) -> Cow<'_, Self> {
        match dtype {
            Dtype::F32 => Cow::Borrowed(self),
            dtype => Cow::Owned(precision::with_matmul_dtype(self.clone(), dtype.into())),
        }
    }

    fn pass(&self, batch: &Batch) -> DecoderPass<B> {
        let device = self.device();
        let route = &batch.plan.route;
        let computing = self.with_matmul_dtype(route.products);
        let (logits, trace) = computing.forward(batch.inputs(&device), &route.rules, &batch.rows());
        let nats = language::token_losses(logits, batch.target_tokens(&device));
        let terms = match (self, &trace) {
            (Self::Brian(model), Some(trace)) => {
                let valid = &batch.host.valid;
                let losses = &route.losses;
                losses.terms(trace, &model.position, &route.rules, valid)
            }
            _ => Vec::new(),
        };
        DecoderPass {
            nats: nats * batch.counted(&device),
            terms,
            trace,
        }
    }
}

/// What a pass gives.
struct DecoderPass<B: Backend> {
    /// `−ln p(target)`, 0 where nothing counts, `[batch, seq]`.
    nats: Tensor<B, 2>,
    terms: Vec<Term<B>>,
    trace: Option<Trace<B>>,
}

impl<B: Backend> DecoderPass<B> {
    /// Puts the sums on the host.
    fn measure(&self, batch: &Batch) -> Measured {
        let number = |tensor: &Tensor<B, 1>| tensor.clone().into_data().iter::<f64>().sum::<f64>();
        let targets = batch.targets();
        let mut measured = Measured {
            nats: number(&self.nats.clone().sum()),
            targets,
            bytes: batch.host.bytes,
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
        added.fold(self.nats.sum() / targets, |sum, term| sum + term)
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
            return TrainOutput::new(self, nothing, signal.measure(&batch).0);
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
        self.measure(&batch).0
    }
}

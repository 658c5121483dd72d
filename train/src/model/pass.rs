//! `Pass`: the losses of one forward pass (nats of each target, weighted terms, means, walks), made from logits;
//! summed on the host as `Measured`, or on the device as the loss of which the gradient is taken.

use crate::data::HostBatch;
use crate::task::{Batch, Measured};
use brian::loss::language;
use brian::loss::route::Term;
use brian::route::trace::Trace;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::any::TypeId;

/// The losses of a batch.
pub struct Pass<B: Backend> {
    /// `−ln p(target)`, 0 where nothing counts, `[batch, seq]`.
    pub nats: Tensor<B, 2>,
    /// What a training adds to their mean, each with its weight.
    pub terms: Vec<Term<B>>,
    /// The walks, if there were any.
    pub trace: Option<Trace<B>>,
    /// Means over the targets of the batch, shown and logged by these names.
    pub means: Vec<(String, Tensor<B, 1>)>,
    /// What the losses of a program may read, `[batch, seq, vocabulary]`; kept only where there are any.
    pub logits: Option<Tensor<B, 3>>,
}

impl<B: Backend> Pass<B> {
    /// The language-model loss alone.
    ///
    /// # Shapes
    /// `logits`: `[batch, seq, vocabulary]`
    pub fn of_logits(logits: Tensor<B, 3>, batch: &Batch) -> Self {
        let device = logits.device();
        let kept = (!batch.plan.route.added.0.is_empty()).then(|| logits.clone());
        let nats = language::token_losses(logits, batch.target_tokens(&device));
        Self {
            nats: nats * batch.counted(&device),
            terms: Vec::new(),
            trace: None,
            means: Vec::new(),
            logits: kept,
        }
    }

    /// With the losses that the program adds.
    pub(super) fn with_added(mut self, batch: &Batch) -> Self {
        for loss in &batch.plan.route.added.0 {
            let term = loss.term(&self, batch, TypeId::of::<B>());
            let term = term.map(|term| *term.downcast().expect("a term of the backend"));
            self.terms.extend(term);
        }
        self
    }

    /// Adds a mean over the batch's targets, `[1]`, to what is shown, logged, and asked by gates.
    pub fn mean(mut self, name: &str, value: Tensor<B, 1>) -> Self {
        self.means.push((name.to_string(), value));
        self
    }

    /// Adds a term to the loss: a mean over the batch's targets, `[1]`, and its weight. It is logged as `loss/NAME`.
    pub fn term(mut self, name: &'static str, weight: f64, value: Tensor<B, 1>) -> Self {
        self.terms.push(Term {
            name,
            weight,
            value,
        });
        self
    }

    /// Puts the sums on the host; with them the losses of every place, `[batch * seq]` in row order.
    pub fn measure(&self, batch: &Batch) -> (Measured, Vec<f64>) {
        let nats: Vec<f64> = self.nats.clone().into_data().iter().collect();
        let measured = Measured {
            // Added up in f64: a mean over many batches keeps its digits.
            nats: nats.iter().sum(),
            ..self.measure_terms(batch)
        };
        (measured, nats)
    }

    /// The same in training, where the loss is added up on the device.
    pub(super) fn measure_in_training(&self, batch: &Batch) -> Measured {
        Measured {
            nats: number(&self.nats.clone().sum()),
            ..self.measure_terms(batch)
        }
    }

    fn measure_terms(&self, batch: &Batch) -> Measured {
        let targets = batch.targets();
        let mut measured = Measured {
            targets,
            bytes: batch.host.bytes,
            ..Measured::default()
        };
        for term in &self.terms {
            let sum = number(&term.value) * targets as f64;
            measured.terms.insert(term.name.into(), sum);
            measured.added += term.weight * sum;
        }
        for (name, value) in &self.means {
            measured.add_mean(name, number(value));
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
    pub fn loss(self, batch: &Batch) -> Tensor<B, 1> {
        let targets = batch.plan.targets as f64;
        let share = batch.targets() as f64 / targets;
        let terms = self.terms.into_iter();
        let added = terms.map(|term| term.value * (term.weight * share));
        added.fold(self.nats.sum() / targets, |sum, term| sum + term)
    }
}

fn number<B: Backend>(tensor: &Tensor<B, 1>) -> f64 {
    tensor.clone().into_data().iter::<f64>().sum()
}

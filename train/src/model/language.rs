//! `LanguageModel`: the trait of a model, of which only `forward` must be written; `OwnOptimizer`: the trait of one that
//! updates itself.

use super::pass::Pass;
use super::sequence::{Recomputed, Sequence, Slots};
use crate::device::Dtype;
use crate::error::{Error, Problem};
use crate::run::TensorMap;
use crate::task::{Batch, Continuation, Learnt, Measured, StopReason};
use brian::generate::NotFinite;
use brian::route::policy::SequenceInfo;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// A language model with Burn parameters. Only [`Self::forward`] has to be written.
pub trait LanguageModel<B: Backend>: Module<B> + Sync {
    /// Logits of the next token at every place, and the walks that led there. A model without a route ignores `rules` and
    /// `rows`, and gives no trace.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, vocabulary]`; `rows` has one entry per sequence.
    fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>);

    /// A forward pass with its losses. To be written by a model that adds terms to the loss or measures something.
    fn pass(&self, batch: &Batch) -> Pass<B> {
        let device = self.device();
        let rules = &batch.plan.route.rules;
        let (logits, _) = self.forward(batch.inputs(&device), rules, &batch.rows());
        Pass::of_logits(logits, batch)
    }

    /// The model before the first token of a text, walking as in evaluation. To be written by a model that can keep what it
    /// has computed; without that every token reads the whole text again.
    fn decoding(&self, rules: &Rules) -> Box<dyn Sequence<B> + '_> {
        Box::new(Recomputed::new(self, rules))
    }

    /// The model before the first token of several texts, walking as in evaluation. To be written as [`Self::decoding`].
    fn slots(&self, rules: &Rules) -> Box<dyn Slots + '_> {
        Box::new(Recomputed::new(self, rules))
    }

    /// The model with its products in a type. Asked for only if its family lists the type in
    /// [`ModelFamily::DTYPES`](super::family::ModelFamily).
    fn with_matmul_dtype(self, _dtype: Dtype) -> Self {
        self
    }

    /// What it can do besides, if it keeps its optimizer itself. Then it has no pass, and it is not asked for logits.
    fn own_optimizer(&self) -> Option<&dyn OwnOptimizer<B>> {
        None
    }

    /// Where the parameters are.
    fn device(&self) -> B::Device {
        self.devices().into_iter().next().unwrap_or_default()
    }
}

/// A model that keeps its numbers and its optimizer itself, because a step touches few of them: it has no Burn parameters.
pub trait OwnOptimizer<B: Backend> {
    /// The number of parameters.
    fn n_parameters(&self) -> u64;
    /// Losses of a pass, and those of every place of the batch, `[batch * seq]` in row order: 0 where nothing counts.
    fn measure(&self, batch: &Batch) -> (Measured, Vec<f64>);
    /// One optimizer step over all micro-batches at once.
    fn learn(&self, batches: &[Batch], rate: f64) -> Learnt
    where
        B: AutodiffBackend;
    /// Reads a prompt and hands over the tokens that it draws behind it, until `each` says no.
    ///
    /// # Errors
    /// If a score is not finite.
    fn stream(
        &self,
        prompt: &mut (dyn Iterator<Item = u32> + Send),
        how: &Continuation,
        each: &mut (dyn FnMut(u32) -> bool + Send),
    ) -> Result<StopReason, NotFinite>;
    /// Shapes of the parameters, by name.
    fn shapes(&self) -> BTreeMap<String, Vec<usize>>;
    /// Takes over parameters; the caller has checked their shapes.
    fn set_parameters(&self, tensors: TensorMap);
    /// Takes over what the optimizer remembers.
    ///
    /// # Errors
    /// The first tensor that is missing, superfluous, of another shape or out of range, naming `file`.
    fn set_moments(&self, tensors: TensorMap, file: &Path) -> Result<(), Problem>;
    /// Shows its parameters and its optimizer's memory to a writer, without a copy.
    ///
    /// # Errors
    /// What the writer meets.
    fn lend(
        &self,
        to: &mut dyn FnMut(TensorMap, TensorMap) -> Result<(), Error>,
    ) -> Result<(), Error>;
}

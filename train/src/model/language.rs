//! `LanguageModel`: the trait of a model, of which only `forward` must be written; `OwnOptimizer`: the trait of one that
//! updates itself; `Recomputed`: one text or several in a model that keeps nothing, read again with every token.

use super::pass::Pass;
use super::sequence::{Numbered, Said, Sequence, Slots, rows_of};
use crate::device::Dtype;
use crate::error::{Error, Problem};
use crate::run::TensorMap;
use crate::task::{Batch, Continuation, Learnt, Measured, StopReason};
use brian::generate::NotFinite;
use brian::places::Place;
use brian::route::policy::SequenceInfo;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use brian::width_transfer::UpdateScales;
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use std::collections::BTreeMap;
use std::marker::PhantomData;
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

    /// The same for a batch. To be written by a model that keeps the documents of a row apart, see [`Batch::segments`] and
    /// [`ModelFamily::check_packed`](super::family::ModelFamily::check_packed).
    fn forward_batch(&self, batch: &Batch, rules: &Rules) -> (Tensor<B, 3>, Option<Trace<B>>) {
        self.forward(batch.inputs(&self.device()), rules, &batch.rows())
    }

    /// A forward pass with its losses. To be written by a model that adds terms to the loss or measures something.
    fn pass(&self, batch: &Batch) -> Pass<B> {
        let (logits, _) = self.forward_batch(batch, &batch.plan.route.rules);
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

    /// What the settings of AdamW are multiplied by, for a model whose width is transferred.
    fn update_scales(&self) -> UpdateScales {
        UpdateScales::default()
    }

    /// What a pass gives at named places, for `nerve check-transfer`; none where the model names none.
    fn places(&self, _batch: &Batch) -> Vec<Place<B>> {
        Vec::new()
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
    ///
    /// # Errors
    /// Where values lie that are not in memory, if they cannot be read.
    fn set_parameters(&self, tensors: TensorMap) -> Result<(), Problem>;
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
    /// Whether the ranks of a job hold its numbers together: then all ranks do everything with it at the same time.
    fn is_shared_out(&self) -> bool {
        false
    }
    /// On all ranks but the first, while that one writes what it was lent: gives it the numbers that lie here.
    fn assist(&self) {}
    /// On the first rank: ends what the others do in [`Self::assist`].
    fn dismiss(&self) {}
}

/// A model that keeps nothing: every token reads its whole text again.
pub struct Recomputed<'a, B, M: ?Sized> {
    model: &'a M,
    rules: Rules,
    texts: Numbered<Vec<u32>>,
    begun: Vec<usize>,
    backend: PhantomData<fn() -> B>,
}

impl<'a, B: Backend, M: LanguageModel<B>> Recomputed<'a, B, M> {
    /// Before the first token, walking as in evaluation.
    pub fn new(model: &'a M, rules: &Rules) -> Self {
        Self {
            model,
            rules: rules.evaluation(),
            texts: Numbered::default(),
            begun: Vec::new(),
            backend: PhantomData,
        }
    }

    /// Logits behind the last tokens of a text, `[n_wanted, vocabulary]`.
    fn last(&self, seen: &[u32], n_wanted: usize) -> Tensor<B, 2> {
        let ids: Vec<i32> = seen.iter().map(|&token| token as i32).collect();
        let data = TensorData::new(ids, [1, seen.len()]);
        let tokens = Tensor::<B, 2, Int>::from_data(data, &self.model.device());
        let rows = [SequenceInfo::default()];
        let (logits, _) = self.model.forward(tokens, &self.rules, &rows);
        let [_, seq, vocabulary] = logits.dims();
        logits
            .slice([0..1, seq - n_wanted..seq, 0..vocabulary])
            .reshape([n_wanted, vocabulary])
    }
}

impl<B: Backend, M: LanguageModel<B>> Sequence<B> for Recomputed<'_, B, M> {
    fn follow(&mut self, seen: &[u32]) -> Tensor<B, 1> {
        self.last(seen, 1).squeeze_dim(0)
    }
}

impl<B: Backend, M: LanguageModel<B>> Slots for Recomputed<'_, B, M> {
    fn keeps(&self) -> bool {
        false
    }

    fn open(&mut self) -> usize {
        self.texts.open(Vec::new())
    }

    fn tokens(&self, slot: usize) -> &[u32] {
        self.texts.get(slot)
    }

    fn read(&mut self, slot: usize, tokens: &[u32], n_wanted: usize) -> Vec<Said> {
        self.texts.get_mut(slot).extend_from_slice(tokens);
        let logits = self.last(self.texts.get(slot), n_wanted);
        let said = |logits| Said {
            logits,
            ..Said::default()
        };
        rows_of(logits).into_iter().map(said).collect()
    }

    fn begin(&mut self, slot: usize, token: u32) {
        self.texts.get_mut(slot).push(token);
        self.begun.push(slot);
    }

    fn round(&mut self) -> Vec<(usize, Said)> {
        let begun = std::mem::take(&mut self.begun);
        let read = |slot| (slot, self.read(slot, &[], 1).remove(0));
        begun.into_iter().map(read).collect()
    }

    fn truncate(&mut self, slot: usize, length: usize) {
        self.texts.get_mut(slot).truncate(length);
    }

    fn close(&mut self, slot: usize) {
        self.begun.retain(|&begun| begun != slot);
        self.texts.close(slot);
    }
}

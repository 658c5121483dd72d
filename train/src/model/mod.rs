//! A language model as the learner and the verbs see it: built in, or of a program that uses this crate.
//!
//! | file | what |
//! |---|---|
//! | `pass` | what a forward pass gives, and the loss of it |
//! | `boxed` | a model whose type is known at run time only, as a Burn module |
//! | `sequence` | one text in the middle of being read; several of them in slots |
//! | `family` | what `[model] kind = "…"` stands for: a family and its table |

mod boxed;
pub mod family;
mod pass;
mod sequence;

pub use boxed::{Model, OwnOptimizer};
pub use family::{Account, Given, ModelConfig, ModelFamily, Ran, Shapes, Start, n_numbers};
pub use pass::Pass;
pub use sequence::{Recomputed, Sequence, Slots};

use crate::device::Dtype;
use crate::task::Batch;
use brian::route::policy::SequenceInfo;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

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

    /// The model with its products in a type. Asked for only if its family lists the type in
    /// [`ModelFamily::DTYPES`](family::ModelFamily).
    fn with_matmul_dtype(self, _dtype: Dtype) -> Self {
        self
    }

    /// Where the parameters are.
    fn device(&self) -> B::Device {
        self.devices().into_iter().next().unwrap_or_default()
    }
}

//! The losses of a trained model on prepared splits: sums, and those of every document.

use super::trained::Trained;
use crate::data::{DataConfig, DocumentsRule, StartRule, Tokenizer};
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::learner::ValidationData;
use crate::say::note;
use crate::task::{Decoder, Measured};
use burn::tensor::backend::AutodiffBackend;
use indicatif::{ProgressBar, ProgressIterator, ProgressStyle};

/// What a model loses on a split.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Sums over all counted targets.
    pub measured: Measured,
    /// Nats and counted targets of every document of the split, in its order; `(0.0, 0)` for those that were not reached.
    pub documents: Vec<(f64, u64)>,
    /// Counted targets that are `<unk>`.
    pub unknown: u64,
}

impl Losses {
    /// Documents with a counted target.
    pub fn n_documents(&self) -> u64 {
        self.documents
            .iter()
            .filter(|(_, targets)| *targets > 0)
            .count() as u64
    }
}

/// Measures every split of the data, in its order.
///
/// # Errors
/// `Invalid` if checkpoint and recipe do not belong together, or a split has nothing to predict.
pub fn measure(trained: &Trained, data: &ValidationData) -> Result<Vec<Losses>, Error> {
    say_convention(&trained.recipe.data, &trained.tokenizer);
    let losses = device::run(&trained.device, Measure { trained, data })?;
    for (windows, losses) in data.sources().iter().zip(&losses) {
        if losses.measured.targets == 0 {
            let problem = Problem::new(windows.split().path(), "", "nothing to predict", "targets");
            return Err(Error::Invalid(
                problem.advise("measure more of it, or prepare more text"),
            ));
        }
    }
    Ok(losses)
}

/// Says where a loss is not what runs of today call a loss.
pub fn say_convention(data: &DataConfig, tokenizer: &Tokenizer) {
    let old = match (data.start(), data.documents) {
        (StartRule::Symbol, _) if tokenizer.start_symbol().is_some() => return,
        (StartRule::Symbol, _) => {
            "the tokenizer has no symbol that begins or ends a document: the first token of each is context and does not count"
        }
        (StartRule::FirstToken, DocumentsRule::Separate) => {
            "this run has data.start = \"first_token\": the first token of a document is context and does not count; with \
             \"symbol\" it would"
        }
        (StartRule::FirstToken, DocumentsRule::RunOn) => {
            "this run has data.start = \"first_token\": the first token of a document is predicted from the document before; \
             with \"symbol\" it would be from the start symbol"
        }
    };
    note(old);
}

struct Measure<'a> {
    trained: &'a Trained,
    data: &'a ValidationData,
}

impl Task for Measure<'_> {
    type Output = Vec<Losses>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Self::Output, Error> {
        let model: Decoder<B::InnerBackend> = self.trained.model(&device)?;
        let sources = self.data.sources();
        let unknown = self.trained.tokenizer.specials().unknown;
        let mut losses: Vec<Losses> = sources
            .iter()
            .map(|windows| Losses {
                measured: Measured::default(),
                documents: vec![(0.0, 0); windows.split().documents().len()],
                unknown: 0,
            })
            .collect();
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} batches · {eta} left");
        let bar = ProgressBar::new(self.data.n_batches() as u64)
            .with_style(style.expect("the template is a constant"));
        for batch in self.data.batches().progress_with(bar) {
            let (measured, nats) = model.measure(&batch);
            let split = &mut losses[batch.source];
            split.measured += &measured;
            let host = &batch.host;
            let documents = host
                .ids
                .iter()
                .flat_map(|(source, window)| sources[*source].documents_of_targets(*window));
            let counted = (0..host.valid.len()).filter(|&place| host.valid[place]);
            for (place, document) in counted.zip(documents) {
                self.trained
                    .require_finite("loss of a target", nats[place])?;
                split.documents[document].0 += nats[place];
                split.documents[document].1 += 1;
                split.unknown += u64::from(host.targets[place] == unknown);
            }
        }
        Ok(losses)
    }
}

//! Measures the losses of a trained model on prepared splits: sums, and one for each document.

use super::trained::Trained;
use crate::data::{DataConfig, DocumentsRule, StartRule, Tokenizer, Windows};
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::learner::ValidationData;
use crate::say::note;
use crate::task::Measured;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use indicatif::{ProgressBar, ProgressIterator, ProgressStyle};

/// The losses of a model on a split.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Sums over all counted targets.
    pub measured: Measured,
    /// Nats and counted targets of each document of the split, in order; `(0.0, 0)` for documents that were not reached.
    pub documents: Vec<(f64, u64)>,
    /// Counted targets that are `<unk>`.
    pub unknown: u64,
}

impl Losses {
    /// The number of documents with a counted target.
    pub fn n_documents(&self) -> u64 {
        let documents = self.documents.iter();
        documents.filter(|(_, targets)| *targets > 0).count() as u64
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
            let advice = "measure more of it, or prepare more text";
            return Err(Error::Invalid(problem.advise(advice)));
        }
    }
    Ok(losses)
}

/// Prints a note if the first tokens of documents are not predicted from a start symbol, as they are in new runs.
pub fn say_convention(data: &DataConfig, tokenizer: &Tokenizer) {
    let old = match (data.start, data.documents) {
        (StartRule::Symbol, _) if tokenizer.start_symbol().is_some() => return,
        (StartRule::Symbol, _) => {
            "the tokenizer has no symbol that begins or ends a document: the first token of each is context and does not count"
        }
        (StartRule::FirstToken, DocumentsRule::Separate | DocumentsRule::Packed) => {
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
        let model = self.trained.model::<B>(&device)?.valid();
        let sources = self.data.sources();
        let unknown = self.trained.tokenizer.specials().unknown;
        let none = |windows: &Windows| Losses {
            measured: Measured::default(),
            documents: vec![(0.0, 0); windows.split().documents().len()],
            unknown: 0,
        };
        let mut losses: Vec<Losses> = sources.iter().map(none).collect();
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} batches · {eta} left");
        let bar = ProgressBar::new(self.data.n_batches() as u64)
            .with_style(style.expect("the template is a constant"));
        for batch in self.data.batches().progress_with(bar) {
            let (measured, nats) = model.measure(&batch);
            let split = &mut losses[batch.source];
            split.measured += &measured;
            let host = &batch.host;
            let ids = host.ids.iter();
            let documents =
                ids.flat_map(|(source, window)| sources[*source].documents_of_targets(*window));
            let counted = (0..host.valid.len()).filter(|&place| host.valid[place]);
            for (place, document) in counted.zip(documents) {
                self.trained
                    .require_finite("loss of a target", nats[place])?;
                split.documents[document].0 += nats[place];
                split.documents[document].1 += 1;
                split.unknown += u64::from(Some(host.targets[place]) == unknown);
            }
        }
        Ok(losses)
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::data::shard::tests::split_of_lines;
    use crate::data::{HostBatch, Kind};
    use crate::device::tests::{Host, Learning};
    use crate::ladder::Blueprint;
    use crate::learner::store_model;
    use crate::model::Model;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use crate::run::TensorMap;
    use crate::run::checkpoint::{CheckpointState, Loaded, Snapshot};
    use crate::task::{Batch, RoutePlan, StepPlan};

    /// The smallest plain decoder of bytes, in windows of three.
    fn trained(documents: &str) -> Trained {
        let tiny = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("baseline", "tiny"))
            .unwrap();
        let documents = format!("data.documents={documents}");
        let sets = [
            &documents,
            "data.window=3",
            "model.d_model=4",
            "model.n_heads=1",
            "model.d_ff=4",
            "model.n_layers=1",
            "model.initial={kind='scaled',std=0.9}",
        ];
        let recipe = from_text("r.toml", tiny.text.to_string(), &sets.map(str::to_string)).unwrap();
        let tokenizer = Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap();
        let blueprint = Blueprint {
            recipe: &recipe,
            vocabulary: tokenizer.vocabulary_size(),
            counts: None,
            ranks: None,
        };
        let model: Model<Learning> = blueprint.fresh(&recipe.stage[0].policy, &Default::default());
        let snapshot = Snapshot {
            state: CheckpointState::default(),
            model: store_model(&model),
            optimizer: TensorMap::new(),
            average: TensorMap::new(),
        };
        Trained {
            weights: crate::cli::Weights::Trained,
            device: recipe.device.clone(),
            recipe,
            tokenizer,
            counts: None,
            loaded: Loaded {
                path: "c".into(),
                snapshot,
                skipped: Vec::new(),
            },
        }
    }

    /// A text behind the start symbol and before its end, three tokens at a time, each time from nothing.
    fn by_hand(model: &Model<Host>, text: &str) -> f64 {
        let mut tokens = vec![256];
        tokens.extend(text.bytes().map(u32::from));
        tokens.push(257);
        let steps: Vec<[u32; 2]> = tokens.windows(2).map(|two| [two[0], two[1]]).collect();
        let nats = steps.chunks(3).map(|chunk| {
            let host = HostBatch {
                inputs: chunk.iter().map(|step| step[0]).collect(),
                targets: chunk.iter().map(|step| step[1]).collect(),
                valid: vec![true; chunk.len()],
                bytes: 0,
                batch: 1,
                seq: chunk.len(),
                ids: vec![(0, 0)],
                parts: Vec::new(),
                difficulty: vec![None],
                sequences: vec![0],
            };
            let batch = Batch {
                host,
                source: 0,
                plan: StepPlan::idle(RoutePlan::sequential()),
            };
            model.measure(&batch).0.nats
        });
        nats.sum()
    }

    #[test]
    fn every_document_loses_what_its_own_tokens_lose_and_the_split_their_sum() {
        lose("separate");
    }

    #[test]
    fn documents_that_share_windows_lose_what_they_lose_apart() {
        lose("packed");
    }

    fn lose(documents: &str) {
        let trained = trained(documents);
        let model = trained
            .model::<Learning>(&Default::default())
            .unwrap()
            .valid();
        let texts = [&["abcdefg", "h", "ij"][..], &["klmno"]];
        let paths = texts.map(split_of_lines);
        let splits: Vec<(String, crate::data::TokenSource<'_>)> = paths
            .iter()
            .map(|path| ("s".to_string(), path.as_path().into()))
            .collect();
        let data = ValidationData::open(
            &splits,
            &trained.recipe.data,
            2,
            0,
            None,
            &trained.tokenizer,
        )
        .unwrap();
        let losses = measure(&trained, &data.on(trained.route())).unwrap();
        for ((texts, windows), losses) in texts.iter().zip(data.sources()).zip(&losses) {
            // Documents are told apart by their length: preparation may order them otherwise.
            let documents = windows.split().documents();
            assert_eq!(
                (losses.documents.len(), losses.n_documents()),
                (texts.len(), texts.len() as u64)
            );
            for (entry, (nats, targets)) in documents.iter().zip(&losses.documents) {
                let text = texts
                    .iter()
                    .find(|text| text.len() as u64 + 1 == entry.tokens)
                    .unwrap();
                assert_eq!(*targets, text.len() as u64 + 1);
                // Sums of a few f32 of a few nats.
                let expected = by_hand(&model, text);
                assert!(
                    (nats - expected).abs() < 1e-4,
                    "{text}: {nats} and {expected}"
                );
            }
            let sum: f64 = losses.documents.iter().map(|document| document.0).sum();
            assert!((losses.measured.nats - sum).abs() < 1e-9);
            let bytes: usize = texts.iter().map(|text| text.len()).sum();
            assert_eq!((losses.measured.bytes, losses.unknown), (bytes as u64, 0));
        }
        // Half of the split: what was not reached has neither nats nor targets.
        let some = ValidationData::open(
            &splits[..1],
            &trained.recipe.data,
            2,
            3,
            None,
            &trained.tokenizer,
        )
        .unwrap();
        let losses = measure(&trained, &some.on(trained.route())).unwrap();
        assert_eq!(
            (losses[0].measured.targets, losses[0].n_documents()),
            (3, 1)
        );
        assert!(
            losses[0].documents[1..]
                .iter()
                .all(|document| *document == (0.0, 0))
        );
    }
}

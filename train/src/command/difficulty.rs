//! `nerve eval --difficulty`: how hard every document of a recipe's data is for the model of a run.

use super::trained::Trained;
use crate::data::DocumentsRule;
use crate::data::difficulty::{MeasuredSplit, Measurement, in_thirds};
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::learner::ValidationData;
use crate::say::note;
use crate::task::Decoder;
use burn::tensor::backend::AutodiffBackend;
use indicatif::{ProgressBar, ProgressIterator};
use std::fs;
use std::path::Path;

/// Measures all documents and writes the file.
///
/// # Errors
/// `Config` if windows run across documents; `Invalid` for broken data; `Resource` if the file cannot be written.
pub fn write(trained: &Trained, file: &Path) -> Result<(), Error> {
    let recipe = &trained.recipe;
    if recipe.data.documents == DocumentsRule::RunOn {
        let problem = Problem::new(
            "recipe",
            "data.documents",
            "\"run_on\"",
            "\"separate\": a window over two documents is about neither",
        );
        return Err(Error::config(problem));
    }
    let train = recipe.data.train.iter().map(|source| &source.path);
    let valid = recipe.data.valid.iter().map(|source| &source.path);
    let splits: Vec<(String, &Path)> = train
        .chain(valid)
        .map(|path| (path.display().to_string(), path.as_path()))
        .collect();
    let sequences = recipe.batch.sequences;
    let data = ValidationData::open(&splits, &recipe.data, sequences, 0, &trained.tokenizer)?;
    let data = data.on(trained.route());
    let losses = device::run(
        &trained.device,
        Measure {
            trained,
            data: &data,
        },
    )?;
    let mut measurement = Measurement {
        schema: Measurement::SCHEMA,
        run: trained.recipe.run.name.clone(),
        step: trained.loaded.snapshot.state.step,
        splits: Default::default(),
    };
    for ((windows, name), losses) in data.sources().iter().zip(data.names()).zip(losses) {
        let split = MeasuredSplit {
            path: name.clone(),
            documents: in_thirds(&losses),
        };
        measurement
            .splits
            .insert(windows.split().sha256().to_string(), split);
    }
    let text = serde_json::to_string(&measurement).expect("numbers and text") + "\n";
    // Beside it first, so that a file that is there is whole.
    let beside = file.with_extension("tmp");
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, file))
        .map_err(|cause| Error::resource(file, "write", cause))?;
    note(&format!(
        "wrote the difficulty of every document to {}",
        file.display()
    ));
    Ok(())
}

struct Measure<'a> {
    trained: &'a Trained,
    data: &'a ValidationData,
}

impl Task for Measure<'_> {
    /// Per split and document nats and targets.
    type Output = Vec<Vec<(f64, u64)>>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Self::Output, Error> {
        let model: Decoder<B::InnerBackend> = self.trained.model(&device)?;
        let sources = self.data.sources();
        let documents =
            |windows: &crate::data::Windows| vec![(0.0, 0); windows.split().documents().len()];
        let mut losses: Vec<Vec<(f64, u64)>> = sources.iter().map(documents).collect();
        let bar = ProgressBar::new(self.data.n_batches() as u64);
        for batch in self.data.batches().progress_with(bar) {
            let nats = model.nats_of_sequences(&batch);
            let counted = batch.host.valid.chunks(batch.host.seq);
            let rows = batch.host.ids.iter().zip(nats).zip(counted);
            for ((&(source, window), nats), counted) in rows {
                let document = sources[source].get(window).document;
                let sums = &mut losses[source][document.expect("windows keep to their documents")];
                sums.0 += nats;
                sums.1 += counted.iter().filter(|&&counts| counts).count() as u64;
            }
        }
        Ok(losses)
    }
}

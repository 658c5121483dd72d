//! `nerve eval --difficulty`: grades every document of a recipe's data by the loss of a run's model.

use super::losses::measure;
use super::trained::Trained;
use crate::data::DocumentsRule;
use crate::data::difficulty::{MeasuredSplit, Measurement, in_thirds};
use crate::error::{Error, Problem};
use crate::learner::ValidationData;
use crate::run::replace_file;
use crate::say::note;
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
    trained.check_data(train.clone().chain(valid.clone()).map(|path| &**path))?;
    let splits: Vec<(String, &Path)> = train
        .chain(valid)
        .map(|path| (path.display().to_string(), path.as_path()))
        .collect();
    let sequences = recipe.batch.sequences;
    let data = ValidationData::open(
        &splits,
        &recipe.data,
        sequences,
        0,
        None,
        &trained.tokenizer,
    )?;
    let data = data.on(trained.route());
    let losses = measure(trained, &data)?;
    let mut measurement = Measurement {
        schema: Measurement::SCHEMA,
        run: trained.recipe.run.name.clone(),
        step: trained.loaded.snapshot.state.step,
        splits: Default::default(),
    };
    for ((windows, name), losses) in data.sources().iter().zip(data.names()).zip(losses) {
        let split = MeasuredSplit {
            path: name.clone(),
            documents: in_thirds(&losses.documents),
        };
        measurement
            .splits
            .insert(windows.split().sha256().to_string(), split);
    }
    let text = serde_json::to_string(&measurement).expect("numbers and text") + "\n";
    replace_file(file, text.as_bytes())?;
    note(&format!(
        "wrote the difficulty of every document to {}",
        file.display()
    ));
    Ok(())
}

//! `nerve eval --difficulty`: grades every document of a recipe's data by the loss of a run's model.

use super::losses::measure;
use super::trained::Trained;
use crate::data::DocumentsRule;
use crate::data::difficulty::{MeasuredSplit, Measurement, in_thirds};
use crate::error::{Error, Problem};
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
        let expected = "\"separate\": a window over two documents is about neither";
        let problem = Problem::new("recipe", "data.documents", "\"run_on\"", expected);
        return Err(Error::config(problem));
    }
    let train = recipe.data.train.iter().map(|source| source.tokens());
    let all = train.chain(recipe.data.valid.iter().map(|source| source.tokens()));
    trained.check_data(all.clone().map(|source| source.path))?;
    let named = all.map(|source| (source.path.display().to_string(), source));
    let splits: Vec<_> = named.collect();
    let data = trained.splits(&splits, 0, None)?;
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
        let sha256 = windows.split().sha256().to_string();
        measurement.splits.insert(sha256, split);
    }
    let text = serde_json::to_string(&measurement).expect("numbers and text") + "\n";
    replace_file(file, text.as_bytes())?;
    let file = file.display();
    note(&format!("wrote the difficulty of every document to {file}"));
    Ok(())
}

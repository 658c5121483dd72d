//! Saves imported weights as a run whose last stage is finished.

use crate::data::{Bigrams, Tokenizer};
use crate::device;
use crate::error::Error;
use crate::recipe::Checked;
use crate::recipe::load::from_text;
use crate::run::checkpoint::{self, CheckpointState, STATE_FORMAT, Snapshot};
use crate::run::{NewInputs, RunDirectory, RunInfo, Status, TensorMap, replace_file};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Files kept in the run itself, so that it needs no others. The tokenizer is always kept.
pub(super) struct Kept<'a> {
    /// The counts, where some pairs share a row.
    pub bigrams: Option<&'a Bigrams>,
    /// How often a pair must have been counted to own an edge.
    pub min_count: u32,
}

/// Makes the run; `account` is the report of the import.
///
/// `files` are those that the import made and that are kept in the run; `None` if the recipe names such files.
pub(super) fn save(
    recipe: &Checked,
    tokenizer: &Tokenizer,
    account: &Value,
    files: Option<&Kept<'_>>,
    model: TensorMap,
) -> Result<RunDirectory, Error> {
    let last = recipe.stage.len() - 1;
    let stage = &recipe.stage[last];
    let info = RunInfo::new(&recipe.device.backend);
    let mut inputs = NewInputs::default();
    if files.is_none() {
        let tokenizer = (recipe.tokenizer.file.clone(), "tokenizer.json");
        inputs.copied.push(tokenizer);
        let counts = recipe.model.counts().map(|counts| counts.to_path_buf());
        inputs
            .copied
            .extend(counts.map(|counts| (counts, "bigrams.safetensors")));
    }
    let (root, name) = (&recipe.run.root, &recipe.run.name);
    let run = RunDirectory::create_with(root, name, recipe.text(), info, &inputs)?;
    let account = format!("{account:#}\n");
    replace_file(&run.path().join("import.json"), account.as_bytes())?;
    let mut recipe_sha256 = recipe.sha256();
    let mut data_sha256 = BTreeMap::new();
    if let Some(kept) = files {
        let resolved = keep(kept, recipe, tokenizer, &run)?;
        recipe_sha256 = resolved.sha256();
        if let Some(bigrams) = kept.bigrams {
            data_sha256.insert(run.bigrams().display().to_string(), bigrams.sha256());
        }
    }
    let state = CheckpointState {
        format: STATE_FORMAT,
        stage_index: last,
        stage: stage.name.clone(),
        stage_step: stage.steps,
        recipe_sha256,
        tokenizer_sha256: tokenizer.sha256(),
        data_sha256: data_sha256.clone(),
        nerve_version: env!("CARGO_PKG_VERSION").to_string(),
        backend: recipe.device.backend.clone(),
        threads: device::threads(),
        ..CheckpointState::default()
    };
    // The stage is over; its average, if one is kept, is what was imported.
    let average = recipe.average.as_ref().map(|_| model.clone());
    let snapshot = Snapshot {
        state,
        model,
        optimizer: TensorMap::new(),
        average: average.unwrap_or_default(),
    };
    checkpoint::save(&run, &snapshot, recipe.checkpoint.keep_last)?;
    run.change_info(|info| {
        info.status = Status::Done;
        info.stage.clone_from(&stage.name);
        info.tokenizer_sha256 = tokenizer.sha256();
        info.data_sha256 = data_sha256;
    })?;
    Ok(run)
}

/// Writes tokenizer and counts into the run, and a recipe that names them there.
fn keep(
    kept: &Kept<'_>,
    recipe: &Checked,
    tokenizer: &Tokenizer,
    run: &RunDirectory,
) -> Result<Checked, Error> {
    let text = |path: &Path| toml::Value::String(path.display().to_string());
    tokenizer.save(run.tokenizer())?;
    let mut sets = vec![format!("tokenizer.file={}", text(&run.tokenizer()))];
    if let Some(bigrams) = kept.bigrams {
        replace_file(&run.bigrams(), &bigrams.to_bytes())?;
        sets.push(format!("model.edges.counts={}", text(&run.bigrams())));
        sets.push(format!("model.edges.min_count={}", kept.min_count));
    }
    let file = run.recipe().display().to_string();
    let resolved = from_text(&file, recipe.text().to_string(), &sets).map_err(Error::Config)?;
    replace_file(&run.recipe(), resolved.text().as_bytes())?;
    Ok(resolved)
}

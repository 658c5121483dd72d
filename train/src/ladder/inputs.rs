//! Data and tokenizer of a recipe, opened and checked once for all its stages.

use crate::data::Tokenizer;
use crate::error::Error;
use crate::learner::{TrainingData, ValidationData};
use crate::recipe::Recipe;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What a recipe learns from.
pub struct Inputs {
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// The training splits.
    pub train: Arc<TrainingData>,
    /// The validation splits.
    pub valid: ValidationData,
    /// Hashes of all splits, by path.
    pub sha256: BTreeMap<String, String>,
}

impl Inputs {
    /// Opens everything that the recipe names.
    ///
    /// # Errors
    /// `Invalid` for the first file that is missing, broken, or made with another tokenizer.
    pub fn open(recipe: &Recipe) -> Result<Self, Error> {
        let tokenizer = Tokenizer::load(&recipe.tokenizer.file)?;
        let sequences = recipe.batch.sequences;
        let train = TrainingData::open(&recipe.data, sequences, &tokenizer)?;
        let names = recipe.data.valid_splits().into_iter();
        let paths = recipe.data.valid.iter().map(|source| source.path.as_path());
        let splits: Vec<(String, &Path)> = names.zip(paths).collect();
        let tokens = recipe.watch.valid_tokens;
        let valid = ValidationData::open(&splits, &recipe.data, sequences, tokens, &tokenizer)?;
        let mut sha256 = train.sha256();
        sha256.extend(valid.sha256());
        Ok(Self {
            tokenizer: Arc::new(tokenizer),
            train: Arc::new(train),
            valid,
            sha256,
        })
    }
}

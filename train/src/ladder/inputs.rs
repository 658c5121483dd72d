//! Data and tokenizer of a recipe, opened and checked once for all its stages.

use crate::data::{Bigrams, Tokenizer};
use crate::error::{Error, Problem};
use crate::learner::{TrainingData, ValidationData};
use crate::recipe::{ModelConfig, Recipe};
use brillm::counts::PairCounts;
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
    /// How often each pair of tokens was seen, where the recipe names a file of it.
    pub counts: Option<Arc<PairCounts>>,
    /// Hashes of all splits and of the counts, by path.
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
        let counted = counts(recipe, &tokenizer)?;
        let counts = counted.map(|(path, bigrams)| {
            sha256.insert(path, bigrams.sha256());
            Arc::new(bigrams.counts)
        });
        Ok(Self {
            tokenizer: Arc::new(tokenizer),
            counts,
            train: Arc::new(train),
            valid,
            sha256,
        })
    }
}

/// The counts that a recipe names, with their path.
///
/// # Errors
/// `Invalid` if the file is broken or was made with another tokenizer.
pub fn counts(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<Option<(String, Bigrams)>, Error> {
    let ModelConfig::BriLlm(config) = &recipe.model else {
        return Ok(None);
    };
    let Some(path) = config.counts() else {
        return Ok(None);
    };
    let bigrams = Bigrams::load(path)?;
    if bigrams.tokenizer_sha256 != tokenizer.sha256() {
        let expected = "counts of the recipe's tokenizer";
        let problem = Problem::new(path, "", "counts of another tokenizer's tokens", expected);
        return Err(Error::Invalid(
            problem.advise("make them again with `nerve data bigrams`"),
        ));
    }
    Ok(Some((path.display().to_string(), bigrams)))
}

//! Opens and checks a recipe's data, tokenizer and pair counts once for all stages; lists the files that a new run copies.

use crate::data::{
    Beginning, Bigrams, DifficultySource, DocumentsRule, TokenSource, Tokenizer, Windows,
};
use crate::error::{Error, Problem};
use crate::learner::{TrainingData, ValidationData};
use crate::recipe::{Checked, Recipe};
use crate::render::Source;
use crate::run::NewInputs;
use brillm::counts::PairCounts;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The data and the tokenizer of a recipe.
pub struct Inputs {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The training splits.
    pub train: Arc<TrainingData>,
    /// The validation splits.
    pub valid: ValidationData,
    /// Counts of token pairs, if the recipe names a file of them.
    pub counts: Option<Arc<PairCounts>>,
    /// Hashes of all splits and of the counts, by path as the recipe's text has it.
    pub sha256: BTreeMap<String, String>,
}

impl Inputs {
    /// Opens everything that the recipe names.
    ///
    /// # Errors
    /// `Invalid` for the first file that is missing, broken, or made with another tokenizer.
    pub fn open(recipe: &Checked) -> Result<Self, Error> {
        let train = recipe.data.train.iter().map(|source| &*source.path);
        let valid = recipe.data.valid.iter().map(|source| &*source.path);
        recipe.elsewhere().check(train.chain(valid))?;
        let tokenizer = tokenizer(recipe)?;
        let sequences = recipe.batch.sequences;
        let train = TrainingData::open(&recipe.data, sequences, &tokenizer)?;
        let names = recipe.data.valid_splits().into_iter();
        let sources = recipe.data.valid.iter().map(|source| source.tokens());
        let splits: Vec<(String, TokenSource<'_>)> = names.zip(sources).collect();
        let tokens = recipe.watch.valid_tokens;
        let valid =
            ValidationData::open(&splits, &recipe.data, sequences, tokens, None, &tokenizer)?;
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
            sha256: recipe.elsewhere().as_written(&sha256),
        })
    }

    /// The splits, as they are printed before a training.
    pub fn described(&self, recipe: &Recipe) -> Vec<Source> {
        let source = |split: &str, windows: &Windows| Source {
            split: split.to_string(),
            path: windows.split().path().display().to_string(),
            tokens: windows.split().len(),
            documents: windows.split().documents().len(),
            reading: windows.split().reading().map(str::to_string),
            padding: (recipe.data.documents != DocumentsRule::RunOn).then(|| windows.padding()),
        };
        let train = self.train.sources().iter();
        let valid = self.valid.names().iter().zip(self.valid.sources());
        let train = train.map(|windows| source("train", windows));
        train
            .chain(valid.map(|(name, windows)| source(name, windows)))
            .collect()
    }
}

/// The recipe's tokenizer.
///
/// # Errors
/// `Invalid` if it cannot be read, or has more tokens than the model's embedding has rows.
pub fn tokenizer(recipe: &Recipe) -> Result<Tokenizer, Error> {
    let file = &recipe.tokenizer.file;
    let tokenizer = Tokenizer::load(file)?;
    let tokens = tokenizer.vocabulary_size();
    match recipe.tokenizer.rows {
        Some(rows) if rows < tokens => {
            let found = format!("{tokens} tokens");
            let expected =
                format!("at most {rows}, the rows of the model's embedding (tokenizer.rows)");
            Err(Error::Invalid(Problem::new(file, "", found, expected)))
        }
        _ => Ok(tokenizer),
    }
}

/// The files that a new run copies, and the hashes by which it recognises the others.
pub fn new_inputs(recipe: &Recipe, inputs: &Inputs) -> NewInputs {
    let mut copied = vec![(recipe.tokenizer.file.clone(), "tokenizer.json")];
    if let DifficultySource::File { path } = &recipe.data.difficulty {
        copied.push((path.clone(), "difficulty.json"));
    }
    if let Some(path) = recipe.model.counts() {
        copied.push((path.to_path_buf(), "bigrams.safetensors"));
    }
    let is_copied = |path: &Path| copied.iter().any(|(copied, _)| copied == path);
    let data = inputs.sha256.iter();
    let splits = inputs.train.sources().iter().chain(inputs.valid.sources());
    let lists: BTreeMap<PathBuf, String> = splits
        .filter_map(|windows| windows.split().list())
        .map(|(path, sha256)| (path, sha256.to_string()))
        .collect();
    let known = data
        .map(|(path, sha256)| (path.into(), sha256.clone()))
        .filter(|(path, _): &(PathBuf, String)| !is_copied(path))
        .chain(lists)
        .collect();
    NewInputs { known, copied }
}

/// The counts that a recipe names, with their path.
///
/// # Errors
/// `Invalid` if the file is broken or was made with another tokenizer.
pub fn counts(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<Option<(String, Bigrams)>, Error> {
    let Some(path) = recipe.model.counts() else {
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
    let start = match Beginning::of(recipe.data.start, tokenizer) {
        Beginning::Symbol(symbol) => Some(symbol),
        Beginning::Unmarked | Beginning::FirstToken => None,
    };
    if bigrams.start != start {
        let shown = |start: Option<u32>| match start {
            Some(id) => format!("documents behind {:?}", tokenizer.token_text(id)),
            None => "documents without a start symbol".to_string(),
        };
        let problem = Problem::new(path, "start", shown(bigrams.start), shown(start));
        let advice = "count again with `nerve data bigrams --start`, which takes what the recipe says in data.start";
        return Err(Error::Invalid(problem.advise(advice)));
    }
    let (found, expected) = (bigrams.counts.nodes(), tokenizer.vocabulary_size());
    if found != expected {
        let (found, expected) = (
            format!("{found} tokens"),
            format!("{expected}, as the tokenizer has"),
        );
        return Err(Error::Invalid(Problem::new(
            path, "tokens", found, expected,
        )));
    }
    Ok(Some((path.display().to_string(), bigrams)))
}

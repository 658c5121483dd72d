//! `Recipe`: a whole recipe as a Rust value, with its tables `[run]`, `[tokenizer]`, `[batch]`, `[watch]` and `[checkpoint]`;
//! the types of the other tables lie elsewhere. Nothing is read or checked here.

use super::placeholder::Placeholder;
use super::stage::Stage;
use super::table::Tables;
use crate::data::DataConfig;
use crate::device::DeviceConfig;
use crate::learner::average::AverageConfig;
use crate::learner::optimizer::OptimizerConfig;
use crate::model::family::ModelConfig;
use brian::Recompute;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny};
use std::path::PathBuf;

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Recipe {
    /// The format of this file: 2.
    pub format: u32,
    /// Where the run goes.
    pub run: RunConfig,
    /// What it runs on.
    pub device: DeviceConfig,
    /// How text becomes tokens; also the size of the vocabulary.
    pub tokenizer: TokenizerConfig,
    /// What it learns from.
    pub data: DataConfig,
    /// What learns.
    pub model: ModelConfig,
    /// How gradients become steps.
    #[serde(deserialize_with = "passed_by")]
    pub optimizer: OptimizerConfig,
    /// How many sequences make a step.
    pub batch: BatchConfig,
    /// The ladder.
    pub stage: Vec<Stage>,
    /// What is shown on the way.
    pub watch: WatchConfig,
    /// What is kept on the way.
    pub checkpoint: CheckpointConfig,
    /// A moving average of the weights, for evaluation in their place.
    pub average: Option<AverageConfig>,
    /// Hooks of the program, by their names.
    pub hook: Tables,
    /// Losses that are added, by their names: `z` and those of the program.
    pub loss: Tables,
}

/// Stands for what `open` reads, because only the registry knows its type.
fn passed_by<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OptimizerConfig, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer)?;
    OptimizerConfig::deserialize(Placeholder::silent()).map_err(D::Error::custom)
}

/// Where the run goes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RunConfig {
    /// Name of the run directory; not `last`, which means the newest run.
    pub name: String,
    /// The folder in which run directories are made.
    pub root: PathBuf,
    /// Decides initial values and every draw in training.
    pub seed: u64,
}

/// How text becomes tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TokenizerConfig {
    /// A `tokenizer.json`.
    pub file: PathBuf,
    /// Rows of the model's embedding, where there are more than tokens: rows without a token are never drawn. As many as tokens
    /// if it is left out.
    pub rows: Option<usize>,
}

impl Recipe {
    /// Rows of the model's embedding, of a tokenizer with so many tokens.
    pub fn rows(&self, tokens: usize) -> usize {
        self.tokenizer.rows.unwrap_or(tokens)
    }
}

/// How many sequences make a step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BatchConfig {
    /// Sequences that are computed at once.
    pub sequences: usize,
    /// Such batches per optimizer step.
    pub accumulate: usize,
    /// What is computed again in the backward pass, so that it need not be kept until then: more time, less memory, the same numbers.
    /// Nothing if it is left out. With `device.backend = "ndarray"` alone.
    pub recompute: Option<Recompute>,
}

/// What is shown on the way. An interval of 0 steps means never.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WatchConfig {
    /// Steps between two lines of metrics; at least 1.
    pub log_every_steps: u64,
    /// Steps between two validations.
    pub valid_every_steps: u64,
    /// Tokens of each validation source that are looked at.
    pub valid_tokens: u64,
    /// Steps between two samples.
    pub sample_every_steps: u64,
    /// Tokens per sample.
    pub sample_tokens: u64,
    /// The texts that are continued.
    pub sample_prompts: Vec<String>,
}

/// What is kept on the way.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CheckpointConfig {
    /// Steps between two checkpoints; at least 1.
    pub every_steps: u64,
    /// The newest ones that are kept; at least 2.
    pub keep_last: usize,
    /// Whether the one with the best validation loss is kept too.
    pub keep_best: bool,
}

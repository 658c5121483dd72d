//! Recipes: a run is one complete TOML file.
//!
//! Every value is written; nothing is inherited or filled in. A key may be left out only where this file says
//! `Option`. `load` turns text into a [`Checked`] recipe or into the list of everything that is wrong with it:
//! text → `set` → [`source`] and [`tree`] → `deserialize` → [`check`].

pub mod bundled;
pub mod check;
pub(crate) mod choice;
pub mod deserialize;
pub mod difference;
mod elsewhere;
mod fields;
pub mod load;
pub mod measure;
pub mod nearest;
mod open;
pub mod path;
mod placeholder;
pub mod report;
pub mod section;
mod set;
pub mod source;
pub mod stage;
pub mod sweep;
pub mod tree;
pub mod upgrade;

#[cfg(test)]
mod messages;

pub use crate::model::ModelConfig;
pub use check::remarks;
pub use load::{Checked, load, load_run};
pub use open::Hooks;
pub use stage::{Freeze, Gate, Policy, Stage, StageStart, Walk};

use crate::data::DataConfig;
use crate::device::DeviceConfig;
use crate::learner::OptimizerConfig;
use serde::Deserialize;
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
    pub optimizer: OptimizerConfig,
    /// How many sequences make a step.
    pub batch: BatchConfig,
    /// The ladder.
    pub stage: Vec<Stage>,
    /// What is shown on the way.
    pub watch: WatchConfig,
    /// What is kept on the way.
    pub checkpoint: CheckpointConfig,
    /// Hooks of the program, by their names.
    pub hook: Hooks,
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
}

/// How many sequences make a step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BatchConfig {
    /// Sequences that are computed at once.
    pub sequences: usize,
    /// Such batches per optimizer step.
    pub accumulate: usize,
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

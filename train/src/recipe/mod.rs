//! Recipes: a run is one complete TOML file.
//!
//! Every value is written; nothing is inherited or filled in. A key may be left out only where this file says
//! `Option`. `load` turns text into a [`Checked`] recipe or into the list of everything that is wrong with it:
//! text → `set` → [`source`] and [`tree`] → `deserialize` → [`check`].

mod brillm_model;
pub mod bundled;
pub mod check;
mod choice;
mod deserialize;
pub mod difference;
mod elsewhere;
mod fields;
pub mod load;
pub mod measure;
pub mod nearest;
pub mod path;
mod placeholder;
pub mod report;
mod set;
pub mod source;
pub mod stage;
pub mod sweep;
pub mod tree;

#[cfg(test)]
mod messages;

pub use brillm_model::{Edges, SignalConfig};
pub use check::remarks;
pub use load::{Checked, load, load_run};
pub use stage::{Freeze, Gate, Policy, Stage, StageStart, Walk};

use crate::data::DataConfig;
use crate::device::DeviceConfig;
use crate::learner::OptimizerConfig;
use brian::{BaselineConfig, BrianConfig};
use serde::Deserialize;
use std::path::PathBuf;

/// The format of recipes that this program reads.
pub const FORMAT: u32 = 1;

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Recipe {
    /// The format of this file: 1.
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

/// What learns.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelConfig {
    /// The decoder of fixed depth.
    Baseline(BaselineConfig),
    /// The decoder with a routed pool.
    Brian(BrianConfig),
    /// The graph of tokens.
    #[serde(rename = "brillm")]
    BriLlm(SignalConfig),
}

impl ModelConfig {
    /// What a stage with this policy trains: without one, a routed model is the plain decoder of the same blocks.
    pub fn under(&self, policy: &Policy) -> Self {
        match (self, policy) {
            (Self::Brian(config), Policy::None) => Self::Baseline(config.baseline()),
            (config, _) => config.clone(),
        }
    }

    /// The longest sequence, in tokens.
    pub fn context(&self) -> usize {
        match self {
            Self::Baseline(config) => config.context,
            Self::Brian(config) => config.context,
            // A running sum has no end.
            Self::BriLlm(_) => usize::MAX,
        }
    }
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

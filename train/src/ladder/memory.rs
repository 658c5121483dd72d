//! What a training needs at least, before anything is made: a refusal in a line instead of a process that is killed.

use super::Blueprint;
use super::Inputs;
use crate::device::{self, Task};
use crate::error::Error;
use crate::recipe::{ModelConfig, Recipe};
use brian::BaselineConfig;
use burn::tensor::backend::AutodiffBackend;
use std::io;

/// The size of a training.
pub struct Needs {
    /// Parameters of the largest stage.
    pub parameters: u64,
    weights: u64,
    gradients: u64,
    moments: u64,
    activations: u64,
}

impl Needs {
    /// Counts without creating a parameter.
    ///
    /// # Errors
    /// `Resource` if the device does not start.
    pub fn of(recipe: &Recipe, inputs: &Inputs) -> Result<Self, Error> {
        let vocabulary = inputs.tokenizer.vocabulary_size();
        let blueprint = Blueprint {
            recipe,
            vocabulary,
            counts: inputs.counts.as_ref(),
        };
        let parameters = device::run(&recipe.device, Count { blueprint })?;
        Ok(Self::of_sizes(recipe, vocabulary, parameters))
    }

    /// With so many parameters in the largest stage.
    pub fn of_sizes(recipe: &Recipe, vocabulary: usize, parameters: u64) -> Self {
        let (per_parameter, has_gradient) = match &recipe.model {
            // No gradient of the table's size is ever made.
            ModelConfig::BriLlm(config) => (config.storage.bytes(), false),
            _ => (4, true),
        };
        let weights = per_parameter * parameters;
        Self {
            parameters,
            weights,
            gradients: if has_gradient { weights } else { 0 },
            moments: 2 * weights,
            activations: activation_bytes(recipe, vocabulary),
        }
    }

    /// Bytes it cannot do without, by what they are for.
    pub fn by_kind(&self) -> [(&'static str, u64); 4] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("moments of the optimizer", self.moments),
            ("activations", self.activations),
        ]
    }

    /// Bytes it cannot do without. The truth is higher.
    pub fn bytes(&self) -> u64 {
        let bytes = self.by_kind().map(|(_, bytes)| bytes);
        bytes.into_iter().fold(0, u64::saturating_add)
    }

    /// Compares with the memory of this machine; a device with a memory of its own is not asked.
    ///
    /// # Errors
    /// `Resource` with both numbers and what to lower.
    pub fn check(&self, recipe: &Recipe) -> Result<(), Error> {
        let free = device::free_memory_bytes(&recipe.device);
        let Some(free) = free.filter(|free| *free < self.bytes()) else {
            return Ok(());
        };
        let cause = format!(
            "it needs at least {} MB and {} MB are free; lower batch.sequences (and raise batch.accumulate) or the \
             sizes in [model]",
            self.bytes() / 1_000_000,
            free / 1_000_000
        );
        Err(Error::resource(
            "memory",
            "hold this training",
            io::Error::other(cause),
        ))
    }
}

/// Logits and their softmax; per block the stream, the feed-forward's three inner values and two score matrices.
fn activation_bytes(recipe: &Recipe, vocabulary: usize) -> u64 {
    let model: BaselineConfig = match &recipe.model {
        ModelConfig::Baseline(config) => *config,
        ModelConfig::Brian(config) => config.baseline(),
        // A few rows and signals; the table is what counts.
        ModelConfig::BriLlm(_) => return 0,
    };
    let window = recipe.data.window;
    let per_block = 8 * model.d_model + 3 * model.d_ff + 2 * model.n_heads * window;
    let per_token = 3 * vocabulary + model.n_layers * per_block;
    let tokens = recipe.batch.sequences as u64 * window as u64;
    tokens.saturating_mul(4 * per_token as u64)
}

struct Count<'a> {
    blueprint: Blueprint<'a>,
}

impl Task for Count<'_> {
    type Output = u64;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<u64, Error> {
        let count = |stage: &crate::recipe::Stage| {
            let blueprint = &self.blueprint;
            blueprint.n_parameters::<B::InnerBackend>(&stage.policy, &device)
        };
        let stages = self.blueprint.recipe.stage.iter();
        Ok(stages.map(count).max().unwrap_or(0))
    }
}

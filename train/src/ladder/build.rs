//! What the recipe describes, as a model: fresh, to load into, or made from the one before.

use crate::recipe::{ModelConfig, Policy};
use crate::task::Decoder;
use burn::tensor::backend::Backend;

/// A model with the recipe's initial values.
pub(super) fn fresh_model<B: Backend>(
    config: &ModelConfig,
    policy: &Policy,
    vocabulary: usize,
    seed: u64,
    device: &B::Device,
) -> Decoder<B> {
    match config.under(policy) {
        ModelConfig::Baseline(config) => Decoder::Baseline(config.init(vocabulary, seed, device)),
        ModelConfig::Brian(config) => Decoder::Brian(config.init(vocabulary, seed, device)),
    }
}

/// A model to load into.
pub fn skeleton<B: Backend>(
    config: &ModelConfig,
    policy: &Policy,
    vocabulary: usize,
    device: &B::Device,
) -> Decoder<B> {
    match config.under(policy) {
        ModelConfig::Baseline(config) => Decoder::Baseline(config.skeleton(vocabulary, device)),
        ModelConfig::Brian(config) => Decoder::Brian(config.skeleton(vocabulary, device)),
    }
}

/// The model of the stage before, as this stage needs it.
pub(super) fn adapt<B: Backend>(
    config: &ModelConfig,
    policy: &Policy,
    carried: Decoder<B>,
    seed: u64,
) -> Decoder<B> {
    match (config, policy, carried) {
        (_, Policy::None, carried) => carried,
        (ModelConfig::Brian(config), _, Decoder::Baseline(baseline)) => {
            Decoder::Brian(config.wrap(baseline, seed))
        }
        (_, _, carried) => carried,
    }
}

//! The rules of the model's table. Its own crate knows what a model can be built from; here are the bounds beyond.

use super::{MOST, Section};
use crate::recipe::ModelConfig;
use brian::{ConfigError, Initial};

/// Blocks in a row; a deeper model is a mistake of the recipe.
const MOST_BLOCKS: u64 = 4096;

/// Reports every rule that the model breaks.
pub(super) fn check(model: &ModelConfig, section: &Section<'_>) {
    let bounds = bounds(model);
    for (field, size, most) in &bounds {
        section.field(field, size <= most, format!("at most {most}"));
    }
    // Products of sizes without a bound would overflow.
    if bounds.iter().all(|(_, size, most)| size <= most) {
        for error in own_rules(model) {
            section.field(error.field, false, error.expected);
        }
    }
    let initial = match model {
        ModelConfig::Baseline(config) => &config.initial,
        ModelConfig::Brian(config) => &config.initial,
    };
    if let Initial::Scaled { std } = initial {
        let holds = *std > 0.0 && *std <= 1.0;
        section
            .key("initial")
            .require("std", holds, "more than 0 and at most 1");
    }
}

/// The largest value of each size.
fn bounds(model: &ModelConfig) -> Vec<(&'static str, u64, u64)> {
    let sizes = match model {
        ModelConfig::Baseline(config) => vec![
            ("d_model", config.d_model, MOST),
            ("n_heads", config.n_heads, MOST),
            ("d_ff", config.d_ff, MOST),
            ("n_layers", config.n_layers, MOST_BLOCKS),
            ("context", config.context, MOST),
        ],
        ModelConfig::Brian(config) => vec![
            ("d_model", config.d_model, MOST),
            ("n_heads", config.n_heads, MOST),
            ("d_ff", config.d_ff, MOST),
            ("n_pre", config.n_pre, MOST_BLOCKS),
            ("n_pool", config.n_pool, MOST_BLOCKS),
            ("d_ff_pool", config.d_ff_pool, MOST),
            ("n_post", config.n_post, MOST_BLOCKS),
            ("context", config.context, MOST),
            ("position.d_position", config.position.d_position, MOST),
            ("route.max_steps", config.route.max_steps, MOST_BLOCKS),
            (
                "route.top_k_first",
                config.route.top_k_first,
                MOST_BLOCKS + 1,
            ),
            ("route.top_k", config.route.top_k, MOST_BLOCKS + 1),
        ],
    };
    sizes
        .into_iter()
        .map(|(key, size, most)| (key, size as u64, most))
        .collect()
}

fn own_rules(model: &ModelConfig) -> Vec<ConfigError> {
    match model {
        ModelConfig::Baseline(config) => config.check(),
        ModelConfig::Brian(config) => config.check(),
    }
}

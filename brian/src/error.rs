//! `ConfigError`, an invalid field of a model configuration with the value found and the values expected; the list that
//! collects them; and the check of the sizes that a baseline and a routed model share.

use crate::baseline::BaselineConfig;

/// One invalid field of a configuration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: found {found}, expected {expected}")]
pub struct ConfigError {
    /// The field's path inside the model's configuration: `n_heads`, `position.d_position`.
    pub field: &'static str,
    /// The value it has.
    pub found: String,
    /// The values it may have.
    pub expected: String,
}

/// The invalid fields of a configuration that were found so far.
#[derive(Default)]
pub(crate) struct Problems(pub Vec<ConfigError>);

impl Problems {
    /// Adds a field unless what is expected of it `holds`.
    pub fn require(
        &mut self,
        holds: bool,
        field: &'static str,
        found: impl ToString,
        expected: impl ToString,
    ) {
        if !holds {
            self.0.push(ConfigError {
                field,
                found: found.to_string(),
                expected: expected.to_string(),
            });
        }
    }

    /// Adds a field that counts nothing.
    pub fn at_least_1(&mut self, field: &'static str, value: usize) {
        self.require(value > 0, field, value, "at least 1");
    }
}

/// Checks what a baseline and a routed model share.
pub(crate) fn check_sizes(config: &BaselineConfig) -> Problems {
    let BaselineConfig {
        d_model, n_heads, ..
    } = *config;
    let mut problems = Problems::default();
    problems.at_least_1("d_model", d_model);
    problems.at_least_1("n_heads", n_heads);
    problems.at_least_1("d_ff", config.d_ff);
    problems.at_least_1("context", config.context);
    let pairs = 2 * n_heads;
    match config.d_head {
        Some(d_head) => problems.require(
            d_head > 0 && d_head.is_multiple_of(2),
            "d_head",
            d_head,
            "an even width for rotary pairs, at least 2",
        ),
        None => problems.require(
            pairs == 0 || d_model.is_multiple_of(pairs),
            "d_model",
            d_model,
            format!(
                "a multiple of 2 * n_heads = {pairs}, so that every head has an even width for its rotary pairs"
            ),
        ),
    }
    if let Some(n_kv_heads) = config.n_kv_heads {
        let divides = n_kv_heads > 0 && n_heads.is_multiple_of(n_kv_heads);
        let expected = format!("a divisor of n_heads = {n_heads}");
        problems.require(divides, "n_kv_heads", n_kv_heads, expected);
    }
    let above_1 = config.rope_base.is_finite() && config.rope_base > 1.0;
    problems.require(above_1, "rope_base", config.rope_base, "a number above 1");
    if let Some(scaling) = config.rope_scaling {
        scaling.check(&mut problems);
    }
    let epsilon = config.norm_epsilon;
    let above_0 = epsilon.is_finite() && epsilon > 0.0;
    problems.require(above_0, "norm_epsilon", epsilon, "a number above 0");
    problems
}

//! `ConfigError`, an invalid field of a model configuration with the value found and the values expected; the list that
//! collects them; and the check of the sizes that a baseline and a routed model share.

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

/// Checks the sizes that a baseline and a routed model share.
pub(crate) fn check_sizes(
    sizes: &crate::block::BlockSizes,
    context: usize,
    rope_base: f64,
) -> Problems {
    let mut problems = Problems::default();
    problems.at_least_1("d_model", sizes.d_model);
    problems.at_least_1("n_heads", sizes.n_heads);
    problems.at_least_1("d_ff", sizes.d_ff);
    problems.at_least_1("context", context);
    let pairs = 2 * sizes.n_heads;
    problems.require(
        pairs == 0 || sizes.d_model.is_multiple_of(pairs),
        "d_model",
        sizes.d_model,
        format!(
            "a multiple of 2 * n_heads = {pairs}, so that every head has an even width for its rotary pairs"
        ),
    );
    let above_1 = rope_base.is_finite() && rope_base > 1.0;
    problems.require(above_1, "rope_base", rope_base, "a number above 1");
    let epsilon = sizes.norm_epsilon;
    let above_0 = epsilon.is_finite() && epsilon > 0.0;
    problems.require(above_0, "norm_epsilon", epsilon, "a number above 0");
    problems
}

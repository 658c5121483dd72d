//! Errors in a model configuration: the field, the value found and the value expected.

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

impl ConfigError {
    pub(crate) fn new(field: &'static str, found: impl ToString, expected: impl ToString) -> Self {
        Self {
            field,
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }
}

/// Checks the sizes that a baseline and a routed model share.
pub(crate) fn check_sizes(
    sizes: &crate::block::BlockSizes,
    context: usize,
    rope_base: f64,
) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let positive = [
        ("d_model", sizes.d_model),
        ("n_heads", sizes.n_heads),
        ("d_ff", sizes.d_ff),
        ("context", context),
    ];
    for (field, value) in positive {
        if value == 0 {
            errors.push(ConfigError::new(field, value, "at least 1"));
        }
    }
    if sizes.n_heads > 0 && !sizes.d_model.is_multiple_of(2 * sizes.n_heads) {
        let expected = format!(
            "a multiple of 2 * n_heads = {}, so that every head has an even width for its rotary pairs",
            2 * sizes.n_heads
        );
        errors.push(ConfigError::new("d_model", sizes.d_model, expected));
    }
    if !(rope_base.is_finite() && rope_base > 1.0) {
        errors.push(ConfigError::new("rope_base", rope_base, "a number above 1"));
    }
    if !(sizes.norm_epsilon.is_finite() && sizes.norm_epsilon > 0.0) {
        errors.push(ConfigError::new(
            "norm_epsilon",
            sizes.norm_epsilon,
            "a number above 0",
        ));
    }
    errors
}

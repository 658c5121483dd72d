//! `ConfigError`, an invalid field of a model configuration with the value found and the values expected; the list that
//! collects them.

/// One invalid field of a configuration.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: found {found}, expected {expected}")]
pub struct ConfigError {
    /// The field's path inside the model's configuration: `n_heads`, `position.d_position`.
    pub field: String,
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
        field: &str,
        found: impl ToString,
        expected: impl ToString,
    ) {
        if !holds {
            self.0.push(ConfigError {
                field: field.to_string(),
                found: found.to_string(),
                expected: expected.to_string(),
            });
        }
    }

    /// Adds a field that counts nothing.
    pub fn at_least_1(&mut self, field: &str, value: usize) {
        self.require(value > 0, field, value, "at least 1");
    }
}

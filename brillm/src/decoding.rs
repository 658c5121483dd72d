//! Settings in which decoding differs from training: codes of positions, self-transitions, temperature; ours and the releases'.

use serde::Deserialize;

/// What is decided otherwise in decoding than in training (`docs/brillm.md`, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decoding {
    /// Which code a hop adds (D7).
    pub positions: Positions,
    /// Whether a token may follow itself (D18).
    pub self_transition: SelfTransition,
    /// What a temperature divides (D17).
    pub temperature: Temperature,
}

/// Which code a hop adds in decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// The same as in training.
    AsTrained,
    /// That of the position before (the reference).
    OneBack,
    /// They are counted from 0 again behind the prompt (the release of March 2025).
    Restart,
}

/// Whether a token may follow itself in decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelfTransition {
    /// It may.
    Allowed,
    /// It may not, although training has it as a target (the reference).
    Never,
}

/// What a temperature divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Temperature {
    /// The scores.
    Scores,
    /// The probabilities, which are normalised again: any temperature above 0 is 1 (the reference).
    Probabilities,
}

impl Decoding {
    /// As in training.
    pub const NATIVE: Self = Self {
        positions: Positions::AsTrained,
        self_transition: SelfTransition::Allowed,
        temperature: Temperature::Scores,
    };
    /// The reference's.
    pub const REFERENCE: Self = Self {
        positions: Positions::OneBack,
        self_transition: SelfTransition::Never,
        temperature: Temperature::Probabilities,
    };
    /// That of the release of March 2025.
    pub const DENSE_2025: Self = Self {
        positions: Positions::Restart,
        ..Self::REFERENCE
    };
}

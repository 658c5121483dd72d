//! `ResidualScale`: by how much what a block adds to the residual stream is multiplied, `x ← x + s attention(norm(x))` and
//! `x ← x + s feed_forward(norm(x))`, in training and wherever the block runs.

use crate::error::Problems;
use serde::Deserialize;
use std::ops::RangeInclusive;

/// What a constant factor may be: below, a block does nothing; beyond, the stream outgrows single precision.
const FACTORS: RangeInclusive<f64> = 1e-6..=10.0;

/// By how much the outputs of attention and of feed-forward are multiplied before they are added to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResidualScale {
    /// By `1/sqrt(2 * n)`, where a token passes at most `n` blocks: `n_layers`, or `n_pre + max_steps + n_post` on a route. The `2 * n`
    /// outputs of a pass, were they independent, then add up to the size of one (Yang et al. 2023, with `1/sqrt(n)`).
    Depth,
    /// By a number.
    Constant {
        /// That number, from 0.000001 to 10.
        factor: f64,
    },
}

impl ResidualScale {
    /// The factor of blocks in a model in which a token passes `n_blocks` of them.
    pub fn factor(self, n_blocks: usize) -> f64 {
        match self {
            Self::Depth => (2.0 * n_blocks as f64).sqrt().recip(),
            Self::Constant { factor } => factor,
        }
    }

    /// The factor, if it makes no block.
    pub(crate) fn check(self, problems: &mut Problems) {
        if let Self::Constant { factor } = self {
            let expected = format!("a number from {} to {}", FACTORS.start(), FACTORS.end());
            let holds = FACTORS.contains(&factor);
            problems.require(holds, "residual_scale.factor", factor, expected);
        }
    }
}

//! The draws of a pass: each is a function of (run, step of the training, sequence, token, step of the walk, purpose).
//!
//! None depends on the batch a sequence is in or on the tokens after it, so chance is causal too.

use crate::random;

/// What a draw decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The path of a random teacher.
    Teacher,
    /// Noise on the logit of an action.
    Noise(usize),
    /// Whether the router or the teacher decides.
    Blend,
    /// Which action a sampling router takes.
    Sample,
    /// Whether another block takes the place of the one chosen.
    Override,
    /// Which one.
    OverrideBlock,
}

impl Purpose {
    fn number(self) -> u64 {
        match self {
            Self::Teacher => 0,
            Self::Blend => 1,
            Self::Sample => 2,
            Self::Override => 3,
            Self::OverrideBlock => 4,
            Self::Noise(action) => 5 + action as u64,
        }
    }
}

/// The randomness of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    key: u64,
}

impl Draws {
    /// That of a step of a run.
    pub fn new(seed: u64, step: u64) -> Self {
        Self {
            key: random::key(seed, "route", step),
        }
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(self, purpose: Purpose, sequence: u64, token: usize, step: usize) -> f64 {
        let (key, position) = self.place(purpose, sequence, token, step);
        random::uniform(key, position)
    }

    /// Uniform in `0..n`.
    pub fn below(
        self,
        n: usize,
        purpose: Purpose,
        sequence: u64,
        token: usize,
        step: usize,
    ) -> usize {
        let drawn = self.uniform(purpose, sequence, token, step) * n as f64;
        (drawn as usize).min(n - 1)
    }

    /// Standard normal.
    pub fn normal(self, purpose: Purpose, sequence: u64, token: usize, step: usize) -> f64 {
        let (key, position) = self.place(purpose, sequence, token, step);
        random::normal(key, position)
    }

    fn place(self, purpose: Purpose, sequence: u64, token: usize, step: usize) -> (u64, u64) {
        let key = random::bits(random::bits(self.key, sequence), purpose.number());
        (key, (token as u64) << 20 | step as u64)
    }
}

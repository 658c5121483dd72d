//! `Rate`, the learning rate of a step and its share of the schedule's peak; `DecayBy`, which of the two weight decay is multiplied by;
//! `Scale`, what AdamW's settings are multiplied by for one parameter.

use serde::Deserialize;

/// What weight decay is multiplied by at a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayBy {
    /// The learning rate of the step: a higher peak decays more.
    #[default]
    LearningRate,
    /// The learning rate as a share of the schedule's peak, so that decay does not depend on the peak: the schedule multiplier of
    /// AdamW's paper (Loshchilov and Hutter 2019, algorithm 2), independent weight decay (Wortsman et al. 2023).
    Schedule,
}

impl DecayBy {
    /// The factor of weight decay at a step.
    pub fn factor(self, rate: Rate) -> f64 {
        match self {
            Self::LearningRate => rate.now,
            Self::Schedule => rate.of_peak,
        }
    }
}

/// The learning rate of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// What an update is multiplied by.
    pub now: f64,
    /// The same as a share of the schedule's peak.
    pub of_peak: f64,
}

impl Rate {
    /// The rate of a step in a schedule with this peak, which is more than 0.
    pub fn of(now: f64, peak: f64) -> Self {
        let of_peak = now / peak;
        Self { now, of_peak }
    }

    /// A rate that is its schedule's peak.
    pub fn at_peak(now: f64) -> Self {
        Self { now, of_peak: 1.0 }
    }

    /// A share of it: its place in the schedule is the same.
    pub(super) fn scaled(self, by: f64) -> Self {
        let now = self.now * by;
        Self { now, ..self }
    }
}

/// What AdamW's settings are multiplied by for a parameter of a model whose width is transferred. Weight decay has no such factor: it
/// takes what the rate of the step says, before this one. That is what the decay `m λ` of a map whose rate is `η / m` takes (Dey et
/// al. 2025, table 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// The learning rate.
    pub rate: f64,
    /// Epsilon.
    pub epsilon: f64,
}

//! Width transfer: settings found at a small width hold at a larger one (maximal update parametrization, Yang et al. 2022, "Tensor
//! Programs V", table 8; AdamW's epsilon by Dey et al. 2025, "Don't be lazy: CompleteP", table 1). `Ratios` are how much larger a
//! model is than its base; with what a parameter sums over (`described::FanIn`) they give every factor.
//!
//! With `m = d_model / base_d_model` and `h = d_head / base_d_head`, beside a model of the base's width:
//!
//! ```text
//!                                              initial deviation   rate of AdamW
//! fixed    embedding, head, gain, bias, …      1                   1
//! width    stream or feed-forward, to as many  1/√m                1/m
//! scores   the same, to a few numbers          1/m                 1/m
//! head     of a head                           1/√h                1/h
//!
//! logits 1/m,   queries 1/√h (scores q·k over d_head instead of its root),   epsilon of AdamW 1/m
//! ```
//!
//! A gradient is `m` times smaller at the larger width, for it comes through the logits: so is epsilon. At the base's own width all
//! factors are 1, which changes no bit.

use crate::described::{Described, Description, FanIn};
use crate::error::Problems;
use burn::module::ParamId;
use burn::tensor::backend::Backend;
use serde::Deserialize;
use std::collections::HashMap;

/// The model at which settings were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct WidthTransfer {
    /// The base's `d_model`.
    pub base_d_model: usize,
    /// The width of the base's heads: as wide as here if there are only more of them.
    pub base_d_head: usize,
}

impl WidthTransfer {
    /// All fields that are no base.
    pub(crate) fn check(self, problems: &mut Problems) {
        problems.at_least_1("width_transfer.base_d_model", self.base_d_model);
        problems.at_least_1("width_transfer.base_d_head", self.base_d_head);
    }

    /// How much larger a model of this width and with heads of this width is.
    pub(crate) fn ratios(self, d_model: usize, d_head: usize) -> Ratios {
        Ratios {
            width: d_model as f64 / self.base_d_model as f64,
            head: d_head as f64 / self.base_d_head as f64,
        }
    }
}

/// How much larger a model is than its base: 1 for one without a base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// Of the stream, `m`.
    pub width: f64,
    /// Of a head, `h`.
    pub head: f64,
}

impl Default for Ratios {
    fn default() -> Self {
        Self {
            width: 1.0,
            head: 1.0,
        }
    }
}

impl Ratios {
    /// What multiplies the standard deviation of initial values.
    pub fn initial(self, fan_in: FanIn) -> f64 {
        match fan_in {
            FanIn::Fixed => 1.0,
            FanIn::Width => self.width.sqrt().recip(),
            FanIn::Scores => self.width.recip(),
            FanIn::Head => self.head.sqrt().recip(),
        }
    }

    /// What multiplies the learning rate of AdamW.
    pub fn rate(self, fan_in: FanIn) -> f64 {
        match fan_in {
            FanIn::Fixed => 1.0,
            FanIn::Width | FanIn::Scores => self.width.recip(),
            FanIn::Head => self.head.recip(),
        }
    }

    /// What multiplies AdamW's epsilon.
    pub fn epsilon(self) -> f64 {
        self.width.recip()
    }

    /// What multiplies the logits.
    pub fn logits(self) -> f64 {
        self.width.recip()
    }

    /// What multiplies queries, beside `1/sqrt(d_head)`.
    pub fn queries(self) -> f64 {
        self.head.sqrt().recip()
    }
}

/// What AdamW's settings are multiplied by in a model: all by 1 if nothing is said.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateScales {
    /// What multiplies the rate of a parameter; 1 for one that is not here.
    pub rates: HashMap<ParamId, f64>,
    /// What multiplies epsilon.
    pub epsilon: f64,
}

impl Default for UpdateScales {
    fn default() -> Self {
        Self {
            rates: HashMap::new(),
            epsilon: 1.0,
        }
    }
}

impl UpdateScales {
    /// Those of a model, by what its modules say of their parameters.
    pub(crate) fn of<B: Backend, M: Described<B>>(model: &M, ratios: Ratios) -> Self {
        if ratios == Ratios::default() {
            return Self::default();
        }
        let description = Description::of(model);
        let fan_ins = description.fan_ins();
        Self {
            rates: fan_ins.map(|(id, of)| (id, ratios.rate(of))).collect(),
            epsilon: ratios.epsilon(),
        }
    }

    /// What multiplies the rate of a parameter.
    pub fn rate(&self, param: ParamId) -> f64 {
        self.rates.get(&param).copied().unwrap_or(1.0)
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests;

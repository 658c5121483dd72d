//! `Described`, by which a module declares of each parameter how it is initialised, what it sums over, and whether its products run
//! in the number type asked for; `Description` collects these declarations.
//!
//! It goes by a parameter's id and never by its name, so that a model may call its maps what it likes.

use burn::module::{Module, Param, ParamId};
use burn::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::collections::{HashMap, HashSet};

/// A module that says what its parameters are.
pub trait Described<B: Backend>: Module<B> {
    /// Says it of its own parameters, and lets the modules in it say it of theirs.
    fn describe(&self, to: &mut Description);
}

/// How a parameter starts.
pub enum Start {
    /// As a map `[d_in, d_out]`: what a parameter is of which nothing is said.
    Map,
    /// As a map whose last rows are for something that is multiplied by how much wider the stream is than at the base.
    MapBeside {
        /// How many.
        rows: usize,
    },
    /// As a map whose result is added to the residual stream.
    IntoStream,
    /// As an embedding.
    Embedding,
    /// As the bias beside a map.
    Bias {
        /// Width of what that map is applied to.
        d_in: usize,
    },
    /// With one value everywhere.
    Constant(f64),
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// With the values that belong to a seed.
    Own(Box<dyn Fn(u64) -> Vec<f32>>),
}

/// What a parameter sums over that grows with the width of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FanIn {
    /// Nothing: an embedding, a gain, a bias, a map from positions or codes.
    #[default]
    Fixed,
    /// The stream or the feed-forward, for something as wide or for something that is mapped on.
    Width,
    /// The same, for a few numbers that are scores.
    Scores,
    /// A head.
    Head,
}

/// What was said of the parameters of a model.
#[derive(Default)]
pub struct Description {
    starts: HashMap<ParamId, Start>,
    fan_ins: HashMap<ParamId, FanIn>,
    multiplies: HashSet<ParamId>,
}

impl Description {
    /// What a model says of its parameters.
    pub fn of<B: Backend, M: Described<B>>(model: &M) -> Self {
        let mut description = Self::default();
        model.describe(&mut description);
        description
    }

    /// Says how a parameter starts.
    pub fn starts<B: Backend, const D: usize>(&mut self, param: &Param<Tensor<B, D>>, how: Start) {
        self.starts.insert(param.id, how);
    }

    /// Says that the gain of a norm starts at one.
    pub fn norm<B: Backend>(&mut self, norm: &RmsNorm<B>) {
        self.starts(&norm.gamma, Start::Constant(1.0));
    }

    /// Says what a parameter sums over; without this it is nothing that grows.
    pub fn sums<B: Backend, const D: usize>(&mut self, param: &Param<Tensor<B, D>>, over: FanIn) {
        self.fan_ins.insert(param.id, over);
    }

    /// Says that the products with a map are made in the type that was asked for, so that a pass keeps the map in it.
    pub fn multiplies<B: Backend>(&mut self, map: &Linear<B>) {
        self.multiplies.insert(map.weight.id);
    }

    /// How a parameter starts.
    pub(crate) fn start(&self, param: ParamId) -> &Start {
        self.starts.get(&param).unwrap_or(&Start::Map)
    }

    /// What a parameter sums over.
    pub(crate) fn fan_in(&self, param: ParamId) -> FanIn {
        self.fan_ins.get(&param).copied().unwrap_or_default()
    }

    /// All parameters that sum over something that grows.
    pub(crate) fn fan_ins(&self) -> impl Iterator<Item = (ParamId, FanIn)> + '_ {
        self.fan_ins.iter().map(|(id, of)| (*id, *of))
    }

    /// Whether products with a parameter are made in the type that was asked for.
    pub(crate) fn is_multiplied(&self, param: ParamId) -> bool {
        self.multiplies.contains(&param)
    }
}

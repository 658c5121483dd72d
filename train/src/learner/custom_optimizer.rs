//! `CustomOptimizer`: the update rule of an optimizer that a program adds, tensor by tensor; a recipe names it by
//! `optimizer.kind`. `OptimizerTable` is the table `[optimizer]` of one, whatever its type.

use crate::device::{self, ForBackend};
use crate::recipe::choice::read_tagged;
use crate::recipe::section::Section;
use crate::recipe::table::{AnyConfig, Entry, table};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::fmt::{self, Debug};
use std::marker::PhantomData;

/// An optimizer that recipes can name.
pub trait CustomOptimizer: Send + Sync + 'static {
    /// The word in `optimizer.kind`.
    const KIND: &'static str;

    /// What it keeps of every parameter from step to step: words behind the parameter's path in checkpoints. Each is a tensor of
    /// the parameter's shape, and 0 before the first update.
    const MOMENTS: &'static [&'static str];

    /// The other keys of `[optimizer]`.
    type Config: DeserializeOwned + Clone + PartialEq + Debug + Send + Sync;

    /// Reports every rule that the table breaks.
    fn check(_config: &Self::Config, _section: &Section<'_>) {}

    /// The longest global gradient; longer ones are scaled to it.
    fn clip_norm(_config: &Self::Config) -> f64 {
        f64::INFINITY
    }

    /// A parameter after an update, and its [`Self::MOMENTS`].
    fn update<B: Backend, const D: usize>(
        config: &Self::Config,
        at: UpdateInfo,
        tensors: Tensors<B, D>,
    ) -> (Tensor<B, D>, Vec<Tensor<B, D>>);
}

/// When an update happens.
#[derive(Clone, Copy, Debug)]
pub struct UpdateInfo {
    /// Learning rate.
    pub rate: f64,
    /// How many updates of this parameter there are with this one.
    pub time: u64,
}

/// What an update reads. All have the parameter's shape.
pub struct Tensors<B: Backend, const D: usize> {
    /// The parameter.
    pub weights: Tensor<B, D>,
    /// Its gradient, clipped.
    pub gradient: Tensor<B, D>,
    /// What the optimizer keeps of it.
    pub moments: Vec<Tensor<B, D>>,
}

/// [`CustomOptimizer`], whatever its type.
pub struct OptimizerEntry {
    /// Its table.
    pub entry: Entry,
    moments: &'static [&'static str],
    clip_norm: fn(&dyn AnyConfig) -> f64,
    update: fn(&dyn AnyConfig, UpdateInfo, Erased) -> Box<dyn Any>,
}

/// [`Tensors`] of a backend and a number of dimensions.
struct Erased {
    backend: TypeId,
    dimensions: usize,
    tensors: Box<dyn Any>,
}

impl OptimizerEntry {
    pub(crate) fn of<O: CustomOptimizer>() -> Self {
        Self {
            entry: Entry {
                name: O::KIND,
                read: |reader| Some(Box::new(read_tagged::<O::Config>(Some(reader))?)),
                check: |config, section| O::check(table(config), section),
                metrics: |_| Vec::new(),
            },
            moments: O::MOMENTS,
            clip_norm: |config| O::clip_norm(table(config)),
            update: |config, at, given| {
                let of = Of::<O>(
                    table(config),
                    at,
                    given.dimensions,
                    given.tensors,
                    PhantomData,
                );
                device::for_backend(given.backend, of)
            },
        }
    }
}

struct Of<'a, O: CustomOptimizer>(
    &'a O::Config,
    UpdateInfo,
    usize,
    Box<dyn Any>,
    PhantomData<O>,
);

impl<O: CustomOptimizer> Of<'_, O> {
    fn update<B: Backend, const D: usize>(self) -> Box<dyn Any> {
        let tensors = self.3.downcast::<Tensors<B, D>>();
        Box::new(O::update(self.0, self.1, *tensors.expect(OF_THE_BACKEND)))
    }
}

impl<O: CustomOptimizer> ForBackend for Of<'_, O> {
    type Output = Box<dyn Any>;

    fn call<B: AutodiffBackend>(self) -> Box<dyn Any> {
        match self.2 {
            1 => self.update::<B::InnerBackend, 1>(),
            2 => self.update::<B::InnerBackend, 2>(),
            3 => self.update::<B::InnerBackend, 3>(),
            4 => self.update::<B::InnerBackend, 4>(),
            _ => unreachable!("a parameter has one to four dimensions"),
        }
    }
}

const OF_THE_BACKEND: &str = "tensors of the backend";

/// The table `[optimizer]` of a [`CustomOptimizer`].
pub struct OptimizerTable {
    entry: &'static OptimizerEntry,
    config: Box<dyn AnyConfig>,
}

impl OptimizerTable {
    pub(crate) fn new(entry: &'static OptimizerEntry, config: Box<dyn AnyConfig>) -> Self {
        Self { entry, config }
    }

    /// The word in `optimizer.kind`.
    pub fn kind(&self) -> &'static str {
        self.entry.entry.name
    }

    /// The longest global gradient.
    pub fn clip_norm(&self) -> f64 {
        (self.entry.clip_norm)(&*self.config)
    }

    /// What it keeps of every parameter.
    pub fn moments(&self) -> &'static [&'static str] {
        self.entry.moments
    }

    /// Reports every rule that the table breaks.
    pub fn check(&self, section: &Section<'_>) {
        (self.entry.entry.check)(&*self.config, section);
    }

    /// A parameter after an update, and what is kept of it.
    pub fn update<B: Backend, const D: usize>(
        &self,
        at: UpdateInfo,
        tensors: Tensors<B, D>,
    ) -> (Tensor<B, D>, Vec<Tensor<B, D>>) {
        let given = Erased {
            backend: TypeId::of::<B>(),
            dimensions: D,
            tensors: Box::new(tensors),
        };
        let updated = (self.entry.update)(&*self.config, at, given);
        *updated.downcast().expect(OF_THE_BACKEND)
    }
}

impl Clone for OptimizerTable {
    fn clone(&self) -> Self {
        Self::new(self.entry, self.config.clone_config())
    }
}

impl PartialEq for OptimizerTable {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.config.equals(&*other.config)
    }
}

impl Debug for OptimizerTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(self.kind()).field(&self.config).finish()
    }
}

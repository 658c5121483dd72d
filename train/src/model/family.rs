//! What `[model] kind = "…"` stands for: a table of a recipe, and how a model is made of it.

use super::Model;
use crate::device::{self, Dtype, ForBackend};
use crate::error::Error;
use crate::learner::OptimizerConfig;
use crate::metric::table::MetricInfo;
use crate::recipe::bundled::Bundled;
use crate::recipe::deserialize::Reader;
use crate::recipe::section::Section;
use crate::recipe::stage::{Policy, Stage};
use crate::run::TensorMap;
use brian::initial;
use brian::route::rules::Rules;
use brian::route::trace::Walks;
use brillm::counts::PairCounts;
use burn::tensor::backend::AutodiffBackend;
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Shapes of parameters, by path.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// What a model is made from besides its own table.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Who leads the walks of the stage.
    pub policy: &'a Policy,
    /// The recipe's optimizer.
    pub optimizer: &'a OptimizerConfig,
    /// The size of the tokenizer's vocabulary.
    pub vocabulary: usize,
    /// Decides initial values.
    pub seed: u64,
    /// How often each pair of tokens was seen, where the model names a file of it.
    pub counts: Option<&'a Arc<PairCounts>>,
    /// Whether the recipe's backend computes on the CPU.
    pub on_cpu: bool,
}

/// What a training of a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Bytes of a parameter.
    pub bytes_per_parameter: u64,
    /// Whether a gradient of the size of all parameters is made.
    pub has_gradients: bool,
    /// Bytes that a forward pass over one token keeps for the backward pass, at least.
    pub activation_bytes_per_token: u64,
}

/// A forward pass that was made.
#[derive(Clone, Copy)]
pub struct Ran<'a> {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub seq: usize,
    /// How tokens walked.
    pub rules: &'a Rules,
    /// Their walks, if there is a route.
    pub walks: Option<&'a Walks>,
}

/// A kind of model. Everything that the program does with a recipe of this kind it asks here; what has a default need not be
/// written.
pub trait ModelFamily: Send + Sync + 'static {
    /// The word in `model.kind`.
    const KIND: &'static str;

    /// The other keys of `[model]`.
    type Config: DeserializeOwned + Clone + PartialEq + Debug + Send + Sync;

    /// Kinds of optimizers that can train it.
    const OPTIMIZERS: &'static [&'static str] = &["adamw"];

    /// Types in which it can multiply.
    const DTYPES: &'static [Dtype] = &[Dtype::F32];

    /// Whether its tokens walk: stages may have a policy other than `none`.
    const ROUTES: bool = false;

    /// The longest sequence, in tokens.
    fn context(config: &Self::Config) -> usize;

    /// A model to load into: its parameters have shapes and need no values.
    fn skeleton<B: AutodiffBackend>(
        config: &Self::Config,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B>;

    /// A model with its initial values; by default those of [`initial::scaled`] with deviation 0.02.
    fn fresh<B: AutodiffBackend>(
        config: &Self::Config,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B> {
        let skeleton = Self::skeleton(config, given, device);
        initial::scaled(skeleton, 0.02, given.seed)
    }

    /// Makes of the model of the stage before the one of this stage.
    fn adapt<B: AutodiffBackend>(
        _config: &Self::Config,
        _given: &Given<'_>,
        carried: Model<B>,
    ) -> Model<B> {
        carried
    }

    /// Reports every rule that the table breaks.
    fn check(_config: &Self::Config, _section: &Section<'_>) {}

    /// Reports every rule that a stage breaks, because of this model.
    fn check_stage(_config: &Self::Config, _stage: &Stage, _section: &Section<'_>) {}

    /// The model in a few words: what is said when a training begins.
    fn describe(config: &Self::Config, _policy: &Policy) -> String {
        format!("{}, context {}", Self::KIND, Self::context(config))
    }

    /// The names that freezing knows in a stage with this policy. Without a list they are the first names of the parameters'
    /// paths, and compared when the stage begins.
    fn groups(_config: &Self::Config, _policy: &Policy) -> Option<&'static [&'static str]> {
        None
    }

    /// What is measured in this stage besides the numbers of every model.
    fn metrics(_config: &Self::Config, _stage: &Stage) -> Vec<MetricInfo> {
        Vec::new()
    }

    /// The files that the table names, so that a run which has moved finds them.
    fn files(_config: &mut Self::Config) -> Vec<&mut PathBuf> {
        Vec::new()
    }

    /// The file that says how often each pair of tokens was seen, if the table names one.
    fn counts(_config: &Self::Config) -> Option<&Path> {
        None
    }

    /// The number of parameters, where it can be counted without a skeleton.
    fn n_parameters(_config: &Self::Config, _given: &Given<'_>) -> Option<u64> {
        None
    }

    /// What training takes; `window` tokens are one sequence.
    fn account(_config: &Self::Config, vocabulary: usize, _window: usize) -> Account {
        Account {
            bytes_per_parameter: 4,
            has_gradients: true,
            // Logits and their softmax.
            activation_bytes_per_token: 4 * 3 * vocabulary as u64,
        }
    }

    /// FLOPs of a forward pass, if they can be counted.
    fn flops(_config: &Self::Config, _vocabulary: usize, _ran: &Ran<'_>) -> Option<f64> {
        None
    }

    /// The least and the most FLOPs of one token's forward pass in a stage, before anything has run.
    fn stage_flops(
        _config: &Self::Config,
        _vocabulary: usize,
        _stage: &Stage,
        _window: usize,
    ) -> Option<[f64; 2]> {
        None
    }

    /// Parameters that a token of a stage cannot use, of a model with these shapes.
    fn unused(_config: &Self::Config, _stage: &Stage, _shapes: &Shapes) -> u64 {
        0
    }

    /// That the tensors of a file can be those of this model, before a skeleton is made.
    ///
    /// # Errors
    /// `Invalid`, naming `file`.
    fn check_tensors(
        _config: &Self::Config,
        _given: &Given<'_>,
        _tensors: &TensorMap,
        _file: &Path,
    ) -> Result<(), Error> {
        Ok(())
    }

    /// Recipes that `nerve config new KIND` writes.
    fn recipes() -> Vec<Bundled> {
        Vec::new()
    }
}

/// Which model is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Initial values.
    Fresh,
    /// To load into.
    Skeleton,
}

/// [`ModelFamily`], whatever its types.
#[allow(missing_docs)]
pub trait Family: Send + Sync {
    fn kind(&self) -> &'static str;
    fn optimizers(&self) -> &'static [&'static str];
    fn dtypes(&self) -> &'static [Dtype];
    fn routes(&self) -> bool;
    fn read(&self, reader: Option<Reader<'_>>) -> Option<Box<dyn AnyConfig>>;
    fn context(&self, config: &dyn AnyConfig) -> usize;
    fn check(&self, config: &dyn AnyConfig, section: &Section<'_>);
    fn check_stage(&self, config: &dyn AnyConfig, stage: &Stage, section: &Section<'_>);
    fn describe(&self, config: &dyn AnyConfig, policy: &Policy) -> String;
    fn groups(&self, config: &dyn AnyConfig, policy: &Policy) -> Option<&'static [&'static str]>;
    fn metrics(&self, config: &dyn AnyConfig, stage: &Stage) -> Vec<MetricInfo>;
    fn files<'a>(&self, config: &'a mut dyn AnyConfig) -> Vec<&'a mut PathBuf>;
    fn counts<'a>(&self, config: &'a dyn AnyConfig) -> Option<&'a Path>;
    fn n_parameters(&self, config: &dyn AnyConfig, given: &Given<'_>) -> Option<u64>;
    fn account(&self, config: &dyn AnyConfig, vocabulary: usize, window: usize) -> Account;
    fn flops(&self, config: &dyn AnyConfig, vocabulary: usize, ran: &Ran<'_>) -> Option<f64>;
    fn stage_flops(
        &self,
        config: &dyn AnyConfig,
        vocabulary: usize,
        stage: &Stage,
        window: usize,
    ) -> Option<[f64; 2]>;
    fn unused(&self, config: &dyn AnyConfig, stage: &Stage, shapes: &Shapes) -> u64;
    fn check_tensors(
        &self,
        config: &dyn AnyConfig,
        given: &Given<'_>,
        tensors: &TensorMap,
        file: &Path,
    ) -> Result<(), Error>;
    fn recipes(&self) -> Vec<Bundled>;
    /// A `Model<B>` of the backend with this id, on a `B::Device`.
    fn make(&self, make: Make<'_>, backend: TypeId) -> Box<dyn Any>;
    /// The `Model<B>` of this stage, of the one that is carried over.
    fn adapt(
        &self,
        config: &dyn AnyConfig,
        given: &Given<'_>,
        carried: Box<dyn Any>,
        backend: TypeId,
    ) -> Box<dyn Any>;
}

/// What [`Family::make`] needs.
pub struct Make<'a> {
    /// The table.
    pub config: &'a dyn AnyConfig,
    /// What else is known.
    pub given: &'a Given<'a>,
    /// With which values.
    pub start: Start,
    /// The device, a `B::Device`.
    pub device: &'a dyn Any,
}

/// The table of a model, whatever its type.
#[allow(missing_docs)]
pub trait AnyConfig: Any + Debug + Send + Sync {
    fn clone_config(&self) -> Box<dyn AnyConfig>;
    fn equals(&self, other: &dyn AnyConfig) -> bool;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Clone + PartialEq + Debug + Send + Sync + 'static> AnyConfig for T {
    fn clone_config(&self) -> Box<dyn AnyConfig> {
        Box::new(self.clone())
    }

    fn equals(&self, other: &dyn AnyConfig) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// A family as an entry of the registry.
pub(crate) struct Registered<F>(pub PhantomData<fn() -> F>);

impl<F: ModelFamily> Registered<F> {
    fn of(config: &dyn AnyConfig) -> &F::Config {
        let config = config.as_any().downcast_ref();
        config.expect("a table is given to the family that has read it")
    }
}

impl<F: ModelFamily> Family for Registered<F> {
    fn kind(&self) -> &'static str {
        F::KIND
    }

    fn optimizers(&self) -> &'static [&'static str] {
        F::OPTIMIZERS
    }

    fn dtypes(&self) -> &'static [Dtype] {
        F::DTYPES
    }

    fn routes(&self) -> bool {
        F::ROUTES
    }

    fn read(&self, reader: Option<Reader<'_>>) -> Option<Box<dyn AnyConfig>> {
        let config: F::Config = Reader::read_choice(reader)?;
        Some(Box::new(config))
    }

    fn context(&self, config: &dyn AnyConfig) -> usize {
        F::context(Self::of(config))
    }

    fn check(&self, config: &dyn AnyConfig, section: &Section<'_>) {
        F::check(Self::of(config), section);
    }

    fn check_stage(&self, config: &dyn AnyConfig, stage: &Stage, section: &Section<'_>) {
        F::check_stage(Self::of(config), stage, section);
    }

    fn describe(&self, config: &dyn AnyConfig, policy: &Policy) -> String {
        F::describe(Self::of(config), policy)
    }

    fn groups(&self, config: &dyn AnyConfig, policy: &Policy) -> Option<&'static [&'static str]> {
        F::groups(Self::of(config), policy)
    }

    fn metrics(&self, config: &dyn AnyConfig, stage: &Stage) -> Vec<MetricInfo> {
        F::metrics(Self::of(config), stage)
    }

    fn files<'a>(&self, config: &'a mut dyn AnyConfig) -> Vec<&'a mut PathBuf> {
        let config = config.as_any_mut().downcast_mut();
        F::files(config.expect("a table is given to the family that has read it"))
    }

    fn counts<'a>(&self, config: &'a dyn AnyConfig) -> Option<&'a Path> {
        F::counts(Self::of(config))
    }

    fn n_parameters(&self, config: &dyn AnyConfig, given: &Given<'_>) -> Option<u64> {
        F::n_parameters(Self::of(config), given)
    }

    fn account(&self, config: &dyn AnyConfig, vocabulary: usize, window: usize) -> Account {
        F::account(Self::of(config), vocabulary, window)
    }

    fn flops(&self, config: &dyn AnyConfig, vocabulary: usize, ran: &Ran<'_>) -> Option<f64> {
        F::flops(Self::of(config), vocabulary, ran)
    }

    fn stage_flops(
        &self,
        config: &dyn AnyConfig,
        vocabulary: usize,
        stage: &Stage,
        window: usize,
    ) -> Option<[f64; 2]> {
        F::stage_flops(Self::of(config), vocabulary, stage, window)
    }

    fn unused(&self, config: &dyn AnyConfig, stage: &Stage, shapes: &Shapes) -> u64 {
        F::unused(Self::of(config), stage, shapes)
    }

    fn check_tensors(
        &self,
        config: &dyn AnyConfig,
        given: &Given<'_>,
        tensors: &TensorMap,
        file: &Path,
    ) -> Result<(), Error> {
        F::check_tensors(Self::of(config), given, tensors, file)
    }

    fn recipes(&self) -> Vec<Bundled> {
        F::recipes()
    }

    fn make(&self, make: Make<'_>, backend: TypeId) -> Box<dyn Any> {
        struct Made<'a, F>(Make<'a>, PhantomData<F>);

        impl<F: ModelFamily> ForBackend for Made<'_, F> {
            type Output = Box<dyn Any>;

            fn call<B: AutodiffBackend>(self) -> Box<dyn Any> {
                let Make { given, start, .. } = self.0;
                let config = Registered::<F>::of(self.0.config);
                let device = self.0.device.downcast_ref();
                let device: &B::Device = device.expect("a device of the backend");
                let model: Model<B> = match start {
                    Start::Fresh => F::fresh(config, given, device),
                    Start::Skeleton => F::skeleton(config, given, device),
                };
                Box::new(model)
            }
        }

        device::for_backend(backend, Made::<F>(make, PhantomData))
    }

    fn adapt(
        &self,
        config: &dyn AnyConfig,
        given: &Given<'_>,
        carried: Box<dyn Any>,
        backend: TypeId,
    ) -> Box<dyn Any> {
        struct Adapted<'a, F: ModelFamily>(&'a F::Config, &'a Given<'a>, Box<dyn Any>);

        impl<F: ModelFamily> ForBackend for Adapted<'_, F> {
            type Output = Box<dyn Any>;

            fn call<B: AutodiffBackend>(self) -> Box<dyn Any> {
                let carried: Box<Model<B>> = self.2.downcast().expect("a model of the backend");
                Box::new(F::adapt(self.0, self.1, *carried))
            }
        }

        device::for_backend(backend, Adapted::<F>(Self::of(config), given, carried))
    }
}

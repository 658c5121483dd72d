//! `ModelFamily`: the trait of a kind of model (its table, checks, initial model, metrics, FLOPs); `Family`: its registry
//! entry; `ModelConfig`: the table `[model]` that a family has read, from which models are made.

use super::boxed::Model;
use crate::collective::Ranks;
use crate::device::{self, Dtype, ForBackend};
use crate::error::Error;
use crate::learner::optimizer::OptimizerConfig;
use crate::metric::table::MetricInfo;
use crate::recipe::bundled::Bundled;
use crate::recipe::choice::read_tagged;
use crate::recipe::reader::Reader;
use crate::recipe::section::Section;
use crate::recipe::stage::{Policy, Stage};
use crate::recipe::table::{AnyConfig, table, table_mut};
use crate::run::TensorMap;
use brian::memory::MemoryConfig;
use brian::route::rules::Rules;
use brian::route::trace::Walks;
use brian::{Recompute, Segments, initial};
use brillm::counts::PairCounts;
use burn::tensor::backend::AutodiffBackend;
use serde::de::DeserializeOwned;
use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Shapes of parameters, by path.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// How many numbers tensors of these shapes have.
pub fn n_numbers<'a>(shapes: impl Iterator<Item = &'a Vec<usize>>) -> u64 {
    let size = |shape: &Vec<usize>| shape.iter().map(|&side| side as u64).product::<u64>();
    shapes.map(size).sum()
}

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
    /// The ranks that train together, where there may be several.
    pub ranks: Option<&'a Ranks>,
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
    /// The texts in them: several in one where documents are packed.
    pub texts: &'a Segments,
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
    const OPTIMIZERS: &'static [&'static str] = &["adamw", "muon"];

    /// Types in which it can multiply.
    const DTYPES: &'static [Dtype] = &[Dtype::F32];

    /// Whether its tokens walk: stages may have a policy other than `none`.
    const ROUTES: bool = false;

    /// Whether its passes can compute again what they do not keep: they read `recompute` of a batch's plan.
    const RECOMPUTES: bool = false;

    /// Tensors whose rows the ranks of a job share out, and whose values stay on the disk until a rank has read its own; each name
    /// stands for what follows it and a dot too.
    const TABLES: &'static [&'static str] = &[];

    /// The key `memory` of the table, if it takes memories of programs too.
    const MEMORY: Option<fn(&mut Self::Config) -> &mut MemoryConfig> = None;

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

    /// Reports what in a recipe, whose whole table is `root`, does not go with `data.documents = "packed"`. By default nothing does: a
    /// model has to keep the documents of a row apart, see [`LanguageModel::forward_batch`](super::LanguageModel::forward_batch).
    fn check_packed(_config: &Self::Config, root: &Section<'_>) {
        root.key("data").relate(
            "documents",
            &[root.path.key("model").key("kind")],
            false,
            format!(
                "\"run_on\" or \"separate\": a {} reads a window as one text",
                Self::KIND
            ),
        );
    }

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
    fn counted_parameters(_config: &Self::Config, _given: &Given<'_>) -> Option<u64> {
        None
    }

    /// What training takes; `window` tokens are one sequence.
    fn account(
        _config: &Self::Config,
        vocabulary: usize,
        _window: usize,
        _recompute: Option<Recompute>,
    ) -> Account {
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

/// A family as an entry of the registry: [`ModelFamily`], whatever its types. [`ModelConfig`] says what each member is.
#[allow(missing_docs)]
pub struct Family {
    pub kind: &'static str,
    pub optimizers: &'static [&'static str],
    pub dtypes: &'static [Dtype],
    pub routes: bool,
    pub recomputes: bool,
    pub has_memory: bool,
    pub tables: &'static [&'static str],
    pub recipes: fn() -> Vec<Bundled>,
    pub read: fn(Option<Reader<'_>>) -> Option<Box<dyn AnyConfig>>,
    memory: fn(&mut dyn AnyConfig) -> Option<&mut MemoryConfig>,
    files: fn(&mut dyn AnyConfig) -> Vec<&mut PathBuf>,
    /// A `Model<B>` of the backend with this id.
    make: fn(&dyn AnyConfig, Make<'_>, TypeId) -> Box<dyn Any>,
    of_table: OfTable,
}

impl Family {
    /// That of a type.
    pub fn of<F: ModelFamily>() -> Self {
        Self {
            kind: F::KIND,
            optimizers: F::OPTIMIZERS,
            dtypes: F::DTYPES,
            routes: F::ROUTES,
            recomputes: F::RECOMPUTES,
            has_memory: F::MEMORY.is_some(),
            tables: F::TABLES,
            recipes: F::recipes,
            read: |reader| Some(Box::new(read_tagged::<F::Config>(reader)?)),
            memory: |config| F::MEMORY.map(|memory| memory(table_mut(config))),
            files: |config| F::files(table_mut(config)),
            make: make::<F>,
            of_table: OfTable::of::<F>(),
        }
    }
}

/// Writes a method of [`ModelFamily`] that takes the table for the registry, and for the table itself.
macro_rules! of_table {
    ($($(#[$doc:meta])* fn $method:ident($($name:ident: $type:ty),*) -> $output:ty;)*) => {
        /// The methods of [`ModelFamily`] that take the table.
        struct OfTable {
            $($method: for<'a> fn(&'a dyn AnyConfig, $($type),*) -> $output,)*
        }

        impl OfTable {
            fn of<F: ModelFamily>() -> Self {
                Self {
                    $($method: |config, $($name),*| F::$method(table(config), $($name),*),)*
                }
            }
        }

        // One of them gives a part of the table.
        #[allow(clippy::needless_lifetimes)]
        impl ModelConfig {
            $($(#[$doc])* pub fn $method<'a>(&'a self, $($name: $type),*) -> $output {
                (self.family.of_table.$method)(&*self.config, $($name),*)
            })*
        }
    };
}

of_table! {
    /// The longest sequence, in tokens.
    fn context() -> usize;
    /// Reports every rule that the table breaks.
    fn check(section: &Section<'_>) -> ();
    /// Reports what does not go with packed documents.
    fn check_packed(root: &Section<'_>) -> ();
    /// Reports every rule that a stage breaks, because of this model.
    fn check_stage(stage: &Stage, section: &Section<'_>) -> ();
    /// The model in a few words.
    fn describe(policy: &Policy) -> String;
    /// The names that freezing knows, if they are known before the model is made.
    fn groups(policy: &Policy) -> Option<&'static [&'static str]>;
    /// What is measured in this stage besides the numbers of every model.
    fn metrics(stage: &Stage) -> Vec<MetricInfo>;
    /// The file that says how often each pair of tokens was seen, if the table names one.
    fn counts() -> Option<&'a Path>;
    /// What training takes.
    fn account(vocabulary: usize, window: usize, recompute: Option<Recompute>) -> Account;
    /// FLOPs of a forward pass, if they can be counted.
    fn flops(vocabulary: usize, ran: &Ran<'_>) -> Option<f64>;
    /// The least and the most FLOPs of one token's forward pass in a stage.
    fn stage_flops(vocabulary: usize, stage: &Stage, window: usize) -> Option<[f64; 2]>;
    /// Parameters that a token of a stage cannot use, of a model with these shapes.
    fn unused(stage: &Stage, shapes: &Shapes) -> u64;
    /// The number of parameters, where it can be counted without a skeleton.
    fn counted_parameters(given: &Given<'_>) -> Option<u64>;
    /// That the tensors of a file can be those of this model.
    ///
    /// # Errors
    /// `Invalid`, naming `file`.
    fn check_tensors(given: &Given<'_>, tensors: &TensorMap, file: &Path) -> Result<(), Error>;
}

/// What a model is made from besides the table.
struct Make<'a> {
    given: &'a Given<'a>,
    from: From<'a>,
}

/// What a model is made of.
enum From<'a> {
    /// Nothing: on a device, a `B::Device`.
    Start(Start, &'a dyn Any),
    /// The model of the stage before, a `Model<B>`.
    Carried(Box<dyn Any>),
}

fn make<F: ModelFamily>(config: &dyn AnyConfig, make: Make<'_>, backend: TypeId) -> Box<dyn Any> {
    struct Made<'a, F: ModelFamily>(&'a F::Config, Make<'a>);

    impl<F: ModelFamily> ForBackend for Made<'_, F> {
        type Output = Box<dyn Any>;

        fn call<B: AutodiffBackend>(self) -> Box<dyn Any> {
            let Make { given, from } = self.1;
            let on = |device: &dyn Any| -> B::Device {
                let device: Option<&B::Device> = device.downcast_ref();
                device.expect("a device of the backend").clone()
            };
            let model: Model<B> = match from {
                From::Start(Start::Fresh, device) => F::fresh(self.0, given, &on(device)),
                From::Start(Start::Skeleton, device) => F::skeleton(self.0, given, &on(device)),
                From::Carried(carried) => {
                    let carried = carried.downcast().expect("a model of the backend");
                    F::adapt(self.0, given, *carried)
                }
            };
            Box::new(model)
        }
    }

    device::for_backend(backend, Made::<F>(table(config), make))
}

/// `[model]` of a recipe: a family, and the table that it has read.
pub struct ModelConfig {
    family: &'static Family,
    config: Box<dyn AnyConfig>,
}

impl ModelConfig {
    /// What a family has read.
    pub(crate) fn new(family: &'static Family, config: Box<dyn AnyConfig>) -> Self {
        Self { family, config }
    }

    /// What is known of all tables of its kind.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// The word in `model.kind`.
    pub fn kind(&self) -> &'static str {
        self.family.kind
    }

    /// Whether stages may have a policy other than `none`.
    pub fn routes(&self) -> bool {
        self.family.routes
    }

    /// The table, if it is of this type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.config.as_any().downcast_ref()
    }

    /// The table, to change it, if it is of this type.
    pub fn get_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.config.as_any_mut().downcast_mut()
    }

    /// The key `memory` of the table, to be replaced, if it takes memories of programs.
    pub(crate) fn memory(&mut self) -> Option<&mut MemoryConfig> {
        (self.family.memory)(&mut *self.config)
    }

    /// The files that the table names.
    pub fn files(&mut self) -> Vec<&mut PathBuf> {
        (self.family.files)(&mut *self.config)
    }

    /// The number of parameters.
    pub fn n_parameters<B: AutodiffBackend>(&self, given: &Given<'_>, device: &B::Device) -> u64 {
        let skeleton = || self.make::<B>(given, Start::Skeleton, device);
        self.counted_parameters(given)
            .unwrap_or_else(|| skeleton().n_parameters())
    }

    /// A model with values, or to load into.
    pub fn make<B: AutodiffBackend>(
        &self,
        given: &Given<'_>,
        start: Start,
        device: &B::Device,
    ) -> Model<B> {
        self.make_from(given, From::Start(start, device))
    }

    /// Makes of the model of the stage before the one of this stage.
    pub fn adapt<B: AutodiffBackend>(&self, given: &Given<'_>, carried: Model<B>) -> Model<B> {
        self.make_from(given, From::Carried(Box::new(carried)))
    }

    fn make_from<B: AutodiffBackend>(&self, given: &Given<'_>, from: From<'_>) -> Model<B> {
        let make = Make { given, from };
        let made = (self.family.make)(&*self.config, make, TypeId::of::<B>());
        *made.downcast().expect("a model of the backend")
    }
}

impl Clone for ModelConfig {
    fn clone(&self) -> Self {
        Self::new(self.family, self.config.clone_config())
    }
}

impl PartialEq for ModelConfig {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.config.equals(&*other.config)
    }
}

impl Debug for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind(), self.config)
    }
}

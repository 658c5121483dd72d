//! The `[model]` of a recipe: a family, and the table that it has read.

use super::Model;
use super::family::{Account, AnyConfig, Family, Given, Make, Ran, Shapes, Start};
use crate::device::Dtype;
use crate::error::Error;
use crate::metric::table::MetricInfo;
use crate::recipe::section::Section;
use crate::recipe::stage::{Policy, Stage};
use crate::run::TensorMap;
use burn::tensor::backend::AutodiffBackend;
use std::any::TypeId;
use std::fmt;
use std::path::{Path, PathBuf};

/// What learns.
pub struct ModelConfig {
    family: &'static dyn Family,
    config: Box<dyn AnyConfig>,
}

impl ModelConfig {
    /// What a family has read.
    pub(crate) fn new(family: &'static dyn Family, config: Box<dyn AnyConfig>) -> Self {
        Self { family, config }
    }

    /// The word in `model.kind`.
    pub fn kind(&self) -> &'static str {
        self.family.kind()
    }

    /// The table, if it is of this type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.config.as_any().downcast_ref()
    }

    /// The table, to change it, if it is of this type.
    pub fn get_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.config.as_any_mut().downcast_mut()
    }

    /// Kinds of optimizers that can train it.
    pub fn optimizers(&self) -> &'static [&'static str] {
        self.family.optimizers()
    }

    /// Types in which it can multiply.
    pub fn dtypes(&self) -> &'static [Dtype] {
        self.family.dtypes()
    }

    /// Whether stages may have a policy other than `none`.
    pub fn routes(&self) -> bool {
        self.family.routes()
    }

    /// The longest sequence, in tokens.
    pub fn context(&self) -> usize {
        self.family.context(&*self.config)
    }

    /// Reports every rule that the table breaks.
    pub fn check(&self, section: &Section<'_>) {
        self.family.check(&*self.config, section);
    }

    /// Reports every rule that a stage breaks, because of this model.
    pub fn check_stage(&self, stage: &Stage, section: &Section<'_>) {
        self.family.check_stage(&*self.config, stage, section);
    }

    /// The model in a few words.
    pub fn describe(&self, policy: &Policy) -> String {
        self.family.describe(&*self.config, policy)
    }

    /// The names that freezing knows, if they are known before the model is made.
    pub fn groups(&self, policy: &Policy) -> Option<&'static [&'static str]> {
        self.family.groups(&*self.config, policy)
    }

    /// What is measured in this stage besides the numbers of every model.
    pub fn metrics(&self, stage: &Stage) -> Vec<MetricInfo> {
        self.family.metrics(&*self.config, stage)
    }

    /// The files that the table names.
    pub fn files(&mut self) -> Vec<&mut PathBuf> {
        self.family.files(&mut *self.config)
    }

    /// The file that says how often each pair of tokens was seen, if the table names one.
    pub fn counts(&self) -> Option<&Path> {
        self.family.counts(&*self.config)
    }

    /// What training takes.
    pub fn account(&self, vocabulary: usize, window: usize) -> Account {
        self.family.account(&*self.config, vocabulary, window)
    }

    /// FLOPs of a forward pass, if they can be counted.
    pub fn flops(&self, vocabulary: usize, ran: &Ran<'_>) -> Option<f64> {
        self.family.flops(&*self.config, vocabulary, ran)
    }

    /// The least and the most FLOPs of one token's forward pass in a stage.
    pub fn stage_flops(&self, vocabulary: usize, stage: &Stage, window: usize) -> Option<[f64; 2]> {
        self.family
            .stage_flops(&*self.config, vocabulary, stage, window)
    }

    /// Parameters that a token of a stage cannot use, of a model with these shapes.
    pub fn unused(&self, stage: &Stage, shapes: &Shapes) -> u64 {
        self.family.unused(&*self.config, stage, shapes)
    }

    /// The number of parameters.
    pub fn n_parameters<B: AutodiffBackend>(&self, given: &Given<'_>, device: &B::Device) -> u64 {
        let counted = self.family.n_parameters(&*self.config, given);
        counted.unwrap_or_else(|| {
            self.make::<B>(given, Start::Skeleton, device)
                .n_parameters()
        })
    }

    /// That the tensors of a file can be those of this model.
    ///
    /// # Errors
    /// `Invalid`, naming `file`.
    pub fn check_tensors(
        &self,
        given: &Given<'_>,
        tensors: &TensorMap,
        file: &Path,
    ) -> Result<(), Error> {
        self.family
            .check_tensors(&*self.config, given, tensors, file)
    }

    /// The model.
    pub fn make<B: AutodiffBackend>(
        &self,
        given: &Given<'_>,
        start: Start,
        device: &B::Device,
    ) -> Model<B> {
        let make = Make {
            config: &*self.config,
            given,
            start,
            device,
        };
        let made = self.family.make(make, TypeId::of::<B>()).downcast();
        *made.expect("a model of the backend")
    }

    /// Makes of the model of the stage before the one of this stage.
    pub fn adapt<B: AutodiffBackend>(&self, given: &Given<'_>, carried: Model<B>) -> Model<B> {
        let carried = Box::new(carried);
        let adapted = self
            .family
            .adapt(&*self.config, given, carried, TypeId::of::<B>());
        *adapted.downcast().expect("a model of the backend")
    }
}

impl Clone for ModelConfig {
    fn clone(&self) -> Self {
        Self {
            family: self.family,
            config: self.config.clone_config(),
        }
    }
}

impl PartialEq for ModelConfig {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.config.equals(&*other.config)
    }
}

impl fmt::Debug for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind(), self.config)
    }
}

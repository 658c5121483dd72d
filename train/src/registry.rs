//! `Registry`: the families of models and the added losses, built in or a program's, and the optimizers, hooks, teachers and
//! memories that a program adds.
//!
//! It is written once, before anything is read, and never changes.

use crate::error::{Error, Problem};
use crate::family::baseline::BaselineFamily;
use crate::family::brian::BrianFamily;
use crate::family::brillm::BriLlmFamily;
use crate::hook::custom::{CustomHook, HookEntry};
use crate::learner::custom_optimizer::{CustomOptimizer, OptimizerEntry};
use crate::learner::optimizer::OptimizerConfig;
use crate::model::family::{Family, ModelFamily};
use crate::model::loss::z::ZLoss;
use crate::model::loss::{CustomLoss, LossEntry};
use crate::model::memory::{CustomMemory, MemoryEntry};
use crate::model::teacher::{CustomTeacher, TeacherEntry};
use crate::recipe::bundled::{BUNDLED, Bundled};
use brian::memory::MemoryConfig;
use brian::route::policy::Teacher;
use std::sync::OnceLock;

static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// Families, optimizers, hooks, losses, teachers and memories by name.
pub struct Registry {
    families: Vec<&'static Family>,
    optimizers: Vec<&'static OptimizerEntry>,
    hooks: Vec<HookEntry>,
    losses: Vec<LossEntry>,
    teachers: Vec<&'static TeacherEntry>,
    memories: Vec<&'static MemoryEntry>,
}

impl Registry {
    /// What comes with this crate.
    pub fn built_in() -> Self {
        let empty = Self {
            families: Vec::new(),
            optimizers: Vec::new(),
            hooks: Vec::new(),
            losses: Vec::new(),
            teachers: Vec::new(),
            memories: Vec::new(),
        };
        empty
            .family::<BaselineFamily>()
            .family::<BrianFamily>()
            .family::<BriLlmFamily>()
            .loss::<ZLoss>()
    }

    /// With another family of models.
    ///
    /// # Panics
    /// If one of this kind is there already.
    pub fn family<F: ModelFamily>(mut self) -> Self {
        let taken = self.families.iter().any(|family| family.kind == F::KIND);
        assert!(!taken, "two families of the kind {}", F::KIND);
        self.families.push(Box::leak(Box::new(Family::of::<F>())));
        self
    }

    /// With another optimizer, for models whose parameters have gradients.
    ///
    /// # Panics
    /// If one of this kind is there already.
    pub fn optimizer<O: CustomOptimizer>(mut self) -> Self {
        let taken = self.optimizer_kinds().contains(&O::KIND);
        assert!(!taken, "two optimizers of the kind {}", O::KIND);
        let entry = Box::leak(Box::new(OptimizerEntry::of::<O>()));
        self.optimizers.push(entry);
        self
    }

    /// With another hook, which runs where a recipe has a table `[hook.NAME]`.
    ///
    /// # Panics
    /// If one of this name is there already.
    pub fn hook<H: CustomHook>(mut self) -> Self {
        let taken = self.hooks.iter().any(|hook| hook.entry.name == H::NAME);
        assert!(!taken, "two hooks of the name {}", H::NAME);
        self.hooks.push(HookEntry::of::<H>());
        self
    }

    /// With another loss, which a recipe adds with a table `[loss.NAME]`.
    ///
    /// # Panics
    /// If one of this name is there already.
    pub fn loss<L: CustomLoss>(mut self) -> Self {
        let taken = self.losses.iter().any(|loss| loss.entry.name == L::NAME);
        assert!(!taken, "two losses of the name {}", L::NAME);
        self.losses.push(LossEntry::of::<L>());
        self
    }

    /// With another teacher of walks, which a stage of a recipe names by `policy.teacher`.
    ///
    /// # Panics
    /// If one of this kind is there already.
    pub fn teacher<T: CustomTeacher>(mut self) -> Self {
        let taken = self.teacher_kinds().contains(&T::KIND);
        assert!(!taken, "two teachers of the kind {}", T::KIND);
        let entry = Box::leak(Box::new(TeacherEntry::of::<T>()));
        self.teachers.push(entry);
        self
    }

    /// With another memory of walks, which a recipe names by `model.memory`.
    ///
    /// # Panics
    /// If one of this kind is there already, or comes with the models.
    pub fn memory<M: CustomMemory>(mut self) -> Self {
        let mut own = self.memories.iter().map(|one| one.kind);
        let taken = own.any(|kind| kind == M::KIND) || MemoryConfig::BUILT_IN.contains(&M::KIND);
        assert!(!taken, "two memories of the kind {}", M::KIND);
        let entry = Box::leak(Box::new(MemoryEntry::of::<M>()));
        self.memories.push(entry);
        self
    }

    /// Makes it the one of this process.
    ///
    /// # Errors
    /// `Config` if a recipe was read before, or another registry was installed.
    pub fn install(self) -> Result<(), Error> {
        REGISTRY.set(self).map_err(|_| {
            let found = "a registry that is in use already";
            let expected = "one, installed before the first recipe is read";
            Error::config(Problem::new("registry", "", found, expected))
        })
    }

    /// The family of a kind.
    pub fn find_family(&self, kind: &str) -> Option<&'static Family> {
        let mut families = self.families.iter().copied();
        families.find(|family| family.kind == kind)
    }

    /// The kinds of all families.
    pub fn kinds(&self) -> Vec<&'static str> {
        self.families.iter().map(|family| family.kind).collect()
    }

    /// The kinds of all optimizers, those of the program last.
    pub fn optimizer_kinds(&self) -> Vec<&'static str> {
        let own = self.optimizers.iter().map(|one| one.entry.name);
        OptimizerConfig::BUILT_IN.into_iter().chain(own).collect()
    }

    /// The optimizer of the program of a kind.
    pub fn find_optimizer(&self, kind: &str) -> Option<&'static OptimizerEntry> {
        let mut optimizers = self.optimizers.iter().copied();
        optimizers.find(|one| one.entry.name == kind)
    }

    /// All hooks of programs.
    pub fn hooks(&self) -> &[HookEntry] {
        &self.hooks
    }

    /// All losses that recipes can add, those of the program last.
    pub fn losses(&self) -> &[LossEntry] {
        &self.losses
    }

    /// The kinds of all teachers, those of the program last.
    pub fn teacher_kinds(&self) -> Vec<&'static str> {
        let own = self.teachers.iter().map(|one| one.kind);
        Teacher::BUILT_IN.into_iter().chain(own).collect()
    }

    /// The teacher of the program of a kind.
    pub fn find_teacher(&self, kind: &str) -> Option<&'static TeacherEntry> {
        let mut teachers = self.teachers.iter().copied();
        teachers.find(|one| one.kind == kind)
    }

    /// All memories of the program.
    pub fn memories(&self) -> &[&'static MemoryEntry] {
        &self.memories
    }

    /// The recipes that come with the program, those of its own families last.
    pub fn recipes(&self) -> Vec<Bundled> {
        let own = self.families.iter().flat_map(|family| (family.recipes)());
        BUNDLED.into_iter().chain(own).collect()
    }
}

/// What this program knows.
pub fn registry() -> &'static Registry {
    REGISTRY.get_or_init(Registry::built_in)
}

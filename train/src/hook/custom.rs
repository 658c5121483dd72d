//! `CustomHook`: factory by which a program adds a hook: table `[hook.NAME]`, its check and metrics, `open` to make the `Hook`.
//! `HookEntry` stores such a factory without its type.

use crate::device::{self, ForBackend};
use crate::error::Error;
use crate::learner::Hook;
use crate::metric::table::MetricInfo;
use crate::model::Model;
use crate::recipe::root::Recipe;
use crate::recipe::section::Section;
use crate::recipe::stage::Stage;
use crate::recipe::table::{AnyConfig, Entry, table};
use burn::tensor::backend::AutodiffBackend;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::any::{Any, TypeId};
use std::fmt::Debug;
use std::marker::PhantomData;

/// A hook that recipes can name.
pub trait CustomHook: Send + Sync + 'static {
    /// The word behind `hook.`.
    const NAME: &'static str;

    /// The keys of its table.
    type Config: DeserializeOwned + Clone + PartialEq + Debug + Send + Sync;

    /// Reports every rule that the table breaks.
    fn check(_config: &Self::Config, _section: &Section<'_>) {}

    /// The numbers that it adds: only these can be logged, shown, and asked by gates and sweeps.
    fn metrics(_config: &Self::Config) -> Vec<MetricInfo> {
        Vec::new()
    }

    /// The hook for a stage, with what [`Hook::state`] gave at the checkpoint if the stage goes on.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn open<B: AutodiffBackend>(
        config: &Self::Config,
        recipe: &Recipe,
        stage: &Stage,
        state: Option<&Value>,
    ) -> Result<Box<dyn Hook<B, Model<B>>>, Error>;
}

/// [`CustomHook`], whatever its type.
pub struct HookEntry {
    /// Its table.
    pub entry: Entry,
    /// A `Result<Box<dyn Hook<B, Model<B>>>, Error>` of the backend with this id.
    open: fn(Open<'_>, TypeId) -> Box<dyn Any>,
}

impl HookEntry {
    pub(crate) fn of<H: CustomHook>() -> Self {
        Self {
            entry: Entry {
                name: H::NAME,
                read: |reader| Some(Box::new(reader.read::<H::Config>()?)),
                check: |config, section| H::check(table(config), section),
                metrics: |config| H::metrics(table(config)),
            },
            open: open::<H>,
        }
    }

    /// The hook for a backend.
    ///
    /// # Errors
    /// What the hook meets.
    pub fn open<B: AutodiffBackend>(
        &self,
        how: Open<'_>,
    ) -> Result<Box<dyn Hook<B, Model<B>>>, Error> {
        let opened = (self.open)(how, TypeId::of::<B>()).downcast();
        *opened.expect("a hook of the backend")
    }
}

/// What [`HookEntry::open`] needs.
#[derive(Clone, Copy)]
pub struct Open<'a> {
    /// The table.
    pub config: &'a dyn AnyConfig,
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The stage that begins or goes on.
    pub stage: &'a Stage,
    /// What the hook has left at the checkpoint.
    pub state: Option<&'a Value>,
}

fn open<H: CustomHook>(open: Open<'_>, backend: TypeId) -> Box<dyn Any> {
    struct Opened<'a, H>(Open<'a>, PhantomData<H>);

    impl<H: CustomHook> ForBackend for Opened<'_, H> {
        type Output = Box<dyn Any>;

        fn call<B: AutodiffBackend>(self) -> Box<dyn Any> {
            let Open {
                config,
                recipe,
                stage,
                state,
            } = self.0;
            Box::new(H::open::<B>(table(config), recipe, stage, state))
        }
    }

    device::for_backend(backend, Opened::<H>(open, PhantomData))
}

//! Tables of types that a program registers: what is read is known by name only, `[hook.NAME]` and `[loss.NAME]`.

use super::reader::Reader;
use super::section::Section;
use crate::metric::table::MetricInfo;
use serde::de::{Deserialize, Deserializer, IgnoredAny};
use std::any::Any;
use std::fmt::{self, Debug};

/// A table, whatever its type.
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

const ITS_OWN: &str = "a table is given to whoever has read it";

/// A table under its type.
pub(crate) fn table<T: 'static>(config: &dyn AnyConfig) -> &T {
    config.as_any().downcast_ref().expect(ITS_OWN)
}

/// The same, to change it.
pub(crate) fn table_mut<T: 'static>(config: &mut dyn AnyConfig) -> &mut T {
    config.as_any_mut().downcast_mut().expect(ITS_OWN)
}

/// Whoever reads a table under its name.
#[allow(missing_docs)]
pub trait Entry: Send + Sync {
    fn name(&self) -> &'static str;
    fn read(&self, reader: Reader<'_>) -> Option<Box<dyn AnyConfig>>;
    fn check(&self, config: &dyn AnyConfig, section: &Section<'_>);
    /// The numbers that it adds.
    fn metrics(&self, config: &dyn AnyConfig) -> Vec<MetricInfo>;
}

/// Tables by name, each with whoever has read it, in the order of the registry.
pub struct Tables<E: ?Sized + 'static>(pub(super) Vec<Table<E>>);

type Table<E> = (&'static E, Box<dyn AnyConfig>);

/// The tables `[hook.NAME]`.
pub type Hooks = Tables<dyn Entry>;

impl<E: Entry + ?Sized> Tables<E> {
    /// The table of this name, if the recipe has it.
    pub fn get(&self, name: &str) -> Option<&dyn AnyConfig> {
        let mut each = self.iter();
        let found = each.find(|(entry, _)| entry.name() == name);
        found.map(|(_, config)| config)
    }

    /// Every table with whoever has read it.
    pub fn iter(&self) -> impl Iterator<Item = (&'static E, &dyn AnyConfig)> {
        self.0.iter().map(|(entry, config)| (*entry, &**config))
    }
}

impl<E: ?Sized> Default for Tables<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E: Entry + ?Sized> Clone for Tables<E> {
    fn clone(&self) -> Self {
        let each = self.iter();
        Self(
            each.map(|(entry, config)| (entry, config.clone_config()))
                .collect(),
        )
    }
}

impl<E: Entry + ?Sized> PartialEq for Tables<E> {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |((entry, config), (other, of_other)): ((&E, &dyn AnyConfig), (&E, &dyn AnyConfig))| {
                entry.name() == other.name() && config.equals(of_other)
            };
        self.0.len() == other.0.len() && self.iter().zip(other.iter()).all(same)
    }
}

impl<E: Entry + ?Sized> Debug for Tables<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.iter().map(|(entry, config)| (entry.name(), config));
        f.debug_list().entries(named).finish()
    }
}

// The registry knows their types: `recipe/open.rs` reads them.
impl<'de, E: ?Sized> Deserialize<'de> for Tables<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<IgnoredAny>::deserialize(deserializer)?;
        Ok(Self::default())
    }
}

//! `Tables`: the tables `[hook.NAME]` and `[loss.NAME]` of a recipe, of types that only the registry knows; `AnyConfig`: a
//! table without its type; `Entry`: how a table of this name is read and checked. `open` fills them.

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

/// Whoever reads a table under its name, whatever its type.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The word behind `hook.` or `loss.`.
    pub name: &'static str,
    /// Reads the table; `None` if a type of its own refused a value.
    pub read: fn(Reader<'_>) -> Option<Box<dyn AnyConfig>>,
    /// Reports every rule that the table breaks.
    pub check: fn(&dyn AnyConfig, &Section<'_>),
    /// The numbers that it adds.
    pub metrics: fn(&dyn AnyConfig) -> Vec<MetricInfo>,
}

/// Tables by name, each with whoever has read it, in the order of the registry.
#[derive(Default)]
pub struct Tables(pub(super) Vec<(Entry, Box<dyn AnyConfig>)>);

impl Tables {
    /// The table of this name, if the recipe has it.
    pub fn get(&self, name: &str) -> Option<&dyn AnyConfig> {
        let mut each = self.iter();
        let found = each.find(|(entry, _)| entry.name == name);
        found.map(|(_, config)| config)
    }

    /// Every table with whoever has read it.
    pub fn iter(&self) -> impl Iterator<Item = (Entry, &dyn AnyConfig)> {
        self.0.iter().map(|(entry, config)| (*entry, &**config))
    }
}

impl Clone for Tables {
    fn clone(&self) -> Self {
        let each = self.iter();
        Self(
            each.map(|(entry, config)| (entry, config.clone_config()))
                .collect(),
        )
    }
}

impl PartialEq for Tables {
    fn eq(&self, other: &Self) -> bool {
        let has = |(entry, config): (Entry, &dyn AnyConfig)| {
            let found = other.get(entry.name);
            found.is_some_and(|other| config.equals(other))
        };
        self.0.len() == other.0.len() && self.iter().all(has)
    }
}

impl Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.iter().map(|(entry, config)| (entry.name, config));
        f.debug_list().entries(named).finish()
    }
}

// The registry knows their types: `recipe/open.rs` reads them.
impl<'de> Deserialize<'de> for Tables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<IgnoredAny>::deserialize(deserializer)?;
        Ok(Self::default())
    }
}

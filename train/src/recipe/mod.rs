//! Recipes: a run is one complete TOML file.
//!
//! Every value is written; nothing is inherited or filled in. A key may be left out only where this file says
//! `Option`. `load` turns text into a [`Checked`] recipe or into the list of everything that is wrong with it:
//! text → `set` → [`source`] and [`tree`] → `deserialize` → [`check`].

pub mod bundled;
pub mod check;
pub(crate) mod choice;
pub mod deserialize;
pub mod difference;
mod elsewhere;
mod fields;
pub mod load;
pub mod measure;
pub mod nearest;
mod open;
pub mod path;
mod placeholder;
pub mod reader;
pub mod report;
pub mod root;
pub mod section;
mod set;
pub mod source;
pub mod stage;
pub mod sweep;
pub mod table;
pub mod tree;
pub mod upgrade;

#[cfg(test)]
mod messages;

pub use crate::model::ModelConfig;
pub use check::remarks;
pub use load::{Checked, load, load_run};
pub use root::{BatchConfig, CheckpointConfig, Recipe, RunConfig, TokenizerConfig, WatchConfig};
pub use stage::{Freeze, Gate, Policy, Stage, StageStart, StartOptimizer, Walk};

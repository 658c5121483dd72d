//! Everything of Nerve besides the mathematics of its models: data, recipes, runs, the learner and its hooks, the command line.
//!
//! ```text
//! command → ladder → hook, metric, render → learner → task → data, run → brian
//! ```
//!
//! The binary `nerve` is [`main_with`] the built-in [`Registry`]; a program of your own adds its models and hooks to it.

#![recursion_limit = "256"]

pub mod allocator;
mod characters;
pub mod cli;
pub mod collective;
pub mod command;
pub mod data;
pub mod device;
pub mod error;
pub mod escape;
pub mod family;
pub mod file;
pub mod hash;
pub mod hook;
pub mod import;
pub mod keys;
pub mod ladder;
pub mod learner;
pub mod metric;
pub mod model;
pub mod paired;
mod program;
pub mod recipe;
pub mod registry;
pub mod render;
pub mod run;
pub mod say;
#[cfg(feature = "serve")]
pub mod serve;
pub mod signal;
pub mod task;
pub mod tasks;
pub mod text;

pub use program::main_with;
pub use registry::Registry;

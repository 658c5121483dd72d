//! Everything of Nerve that touches the world: data, recipes, runs, the learner and its hooks, the command line.
//!
//! ```text
//! command → learner, hook, metric, render → task → data, recipe, run → brian
//! ```
//!
//! The binary `nerve` is [`command::run`] on what [`cli::Cli`] parsed.

#![recursion_limit = "256"]

pub mod cli;
pub mod command;
pub mod data;
pub mod device;
pub mod error;
pub mod hook;
pub mod learner;
pub mod metric;
pub mod recipe;
pub mod render;
pub mod run;
pub mod signal;
pub mod task;

//! Everything of Nerve that touches the world: data, recipes, runs, the learner and its hooks, the command line.
//!
//! ```text
//! command → ladder → hook, metric, render → learner → task → data, run → brian
//! ```
//!
//! The binary `nerve` is [`command::run`] on what [`cli::Cli`] parsed.

#![recursion_limit = "256"]

pub mod allocator;
pub mod cli;
pub mod command;
pub mod data;
pub mod device;
pub mod error;
pub mod escape;
pub mod file;
pub mod hash;
pub mod hook;
pub mod import;
pub mod keys;
pub mod ladder;
pub mod learner;
pub mod metric;
pub mod paired;
pub mod recipe;
pub mod render;
pub mod run;
pub mod say;
pub mod signal;
pub mod task;
pub mod text;

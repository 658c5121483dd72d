//! What Nerve claims. One binary, because each one links all of Burn.

#![recursion_limit = "256"]

#[cfg(any(
    feature = "flex",
    feature = "wgpu",
    feature = "vulkan",
    feature = "cuda"
))]
mod agreement;
mod causality;
mod command;
mod decode;
mod determinism;
mod errors;
mod execution;
mod faults;
mod graph;
mod import;
mod losses;
mod optimizer;
mod parallel;
mod parameters;
mod parity;
mod recipes;
mod signal;
mod support;
mod tidy;
mod trace;

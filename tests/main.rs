//! Root of the integration tests: lists the modules of the one test binary, because each binary links all of Burn.

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
mod measures;
mod memory_reads;
mod moved_runs;
mod ngrams;
mod older_runs;
mod optimizer;
#[cfg(feature = "programs")]
mod own_model;
mod parallel;
mod parameters;
mod parity;
mod prepare;
mod pretrained;
mod recipes;
mod recompute;
mod reference;
mod serve;
mod signal;
mod speech;
mod state_dict;
mod support;
mod sweep;
mod tasks;
mod tidy;
mod token_files;
mod trace;
mod transfer;
#[cfg(target_arch = "x86_64")]
mod without_kernels;
mod wrong_files;

//! The global memory allocator of all Nerve programs: mimalloc with the ndarray backend, else the system's (decision 0016).

#[cfg(feature = "ndarray")]
use commonware_allocator::mimalloc::{Config, MiMalloc, Purge};
#[cfg(not(feature = "ndarray"))]
use std::alloc::System;

/// mimalloc: freed host memory, where ndarray tensors lie, is cached between training steps.
#[cfg(feature = "ndarray")]
pub type Allocator = MiMalloc;
/// The system allocator, for builds without ndarray.
#[cfg(not(feature = "ndarray"))]
pub type Allocator = System;

/// The value for the `#[global_allocator]` of a program.
#[cfg(feature = "ndarray")]
pub const fn allocator() -> Allocator {
    MiMalloc::new(Config {
        purge: Purge::Never,
        ..Config::DEFAULT
    })
}

/// The value for the `#[global_allocator]` of a program.
#[cfg(not(feature = "ndarray"))]
pub const fn allocator() -> Allocator {
    System
}

//! Where all programs of Nerve get their memory from; decision 0016.

#[cfg(feature = "ndarray")]
use commonware_allocator::mimalloc::{Config, MiMalloc, Purge};
#[cfg(not(feature = "ndarray"))]
use std::alloc::System;

/// Keeps what a training step gives back for the next one, for its tensors lie in the memory of the host.
#[cfg(feature = "ndarray")]
pub type Allocator = MiMalloc;
/// The system's: tensors lie somewhere else.
#[cfg(not(feature = "ndarray"))]
pub type Allocator = System;

/// For the `#[global_allocator]` of a program.
#[cfg(feature = "ndarray")]
pub const fn allocator() -> Allocator {
    MiMalloc::new(Config {
        purge: Purge::Never,
        ..Config::DEFAULT
    })
}

/// For the `#[global_allocator]` of a program.
#[cfg(not(feature = "ndarray"))]
pub const fn allocator() -> Allocator {
    System
}

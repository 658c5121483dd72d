//! A recipe's stages, one after the other: each starts fresh or from the one before, and a gate may stop the climb.

mod build;
mod climb;
mod gate;
mod inputs;
mod memory;
mod resume;
mod route;

pub use build::{Blueprint, load_into};
pub use climb::Ladder;
pub use inputs::{Inputs, counts};
pub use memory::Needs;
pub use resume::Position;
pub use route::route;

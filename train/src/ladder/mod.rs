//! Trains a recipe's stages in order: each starts fresh, from the stage before or from a run; a gate may stop the ladder.

mod branch;
mod build;
mod climb;
mod extend;
mod found;
mod gate;
mod inputs;
mod memory;
mod resume;
mod route;
mod survey;

pub use build::{Blueprint, load_into};
pub use climb::{Ladder, Position};
pub use extend::RequestedLength;
pub use found::find_inputs;
pub use inputs::{Inputs, counts, new_inputs, tokenizer};
pub use memory::{Checkpoints, Needs};
pub use resume::check_position;
pub use route::route;
pub use survey::{first_start, survey};

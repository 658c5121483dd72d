//! Foreign checkpoints → our parameters: maps of names and layouts, nothing else.

pub mod brian;

//! The families of models that come with the program: all that is known of each, in one place.

pub mod baseline;
pub mod brian;
pub mod brillm;

//! Model families that come with the program: `baseline`, `brian` and `brillm`, each a `ModelFamily` in its own module.

pub mod baseline;
pub mod brian;
pub mod brillm;

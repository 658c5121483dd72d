//! Tasks of `nerve eval --tasks`: local files with questions, measured as EleutherAI's lm-eval measures them, so that its numbers
//! through `nerve serve` are these (`docs/tasks.md`).
//!
//! | file | what |
//! |---|---|
//! | `definition` | the file of tasks |
//! | `documents` | the questions, from JSON lines |
//! | `scorer` | how likely a model finds texts, and how it goes on |
//! | `measure` | a task's answers and their figures |

pub mod definition;
mod documents;
pub mod measure;
pub mod scorer;

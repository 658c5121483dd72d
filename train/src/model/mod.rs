//! Interfaces of language models: traits for models, families, added losses, teachers and memories, the boxed `Model`, its passes
//! and sequences.
//!
//! | file | what |
//! |---|---|
//! | `language` | what has to be written of a model, and what may be |
//! | `loss` | losses that a program adds |
//! | `teacher` | teachers of walks that a program adds |
//! | `memory` | memories of walks that a program adds |
//! | `pass` | what a forward pass gives, and the loss of it |
//! | `boxed` | a model whose type is known at run time only, as a Burn module |
//! | `probabilities` | what logits stand for |
//! | `sequence` | one text in the middle of being read; several of them in slots |
//! | `family` | what `[model] kind = "…"` stands for: a family and its table |

mod boxed;
pub mod family;
mod language;
pub mod loss;
pub mod memory;
mod pass;
pub mod probabilities;
mod sequence;
pub mod teacher;

pub use boxed::Model;
pub use family::{Account, Given, ModelConfig, ModelFamily, Ran, Shapes, Start, n_numbers};
pub use language::{LanguageModel, OwnOptimizer, Recomputed};
pub use loss::CustomLoss;
pub use memory::CustomMemory;
pub use pass::Pass;
pub(crate) use sequence::Numbered;
pub use sequence::{CHUNK, Said, Sequence, Slots};
pub use teacher::CustomTeacher;

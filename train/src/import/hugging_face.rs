//! Decoders as Hugging Face lays them out in a directory: LLaMA 2 and 3, Mistral, Qwen 2 and 3.
//!
//! | file | what |
//! |---|---|
//! | `directory` | which files of a directory are read |
//! | `fields` | a JSON object whose fields are taken one by one, so that none is left over unseen |
//! | `family` | what the library fills in where `config.json` says nothing |
//! | `config` | `config.json` → our configuration, or the field that makes it another function |
//! | `rope` | rotary angles in the old and the new spelling |
//! | `names` | which tensor becomes which part of which parameter; reads them |
//! | `ids` | a tokenizer of plain numbers, for a model that comes without one |

mod config;
mod directory;
mod family;
mod fields;
mod ids;
mod names;
mod rope;
#[cfg(test)]
mod tests;

pub use config::{Described, Symbols, describe};
pub use directory::Directory;
pub use ids::tokenizer_of_ids;
pub use names::{compare, load};

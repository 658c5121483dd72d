//! The memory of a walk, in three kinds: what it is, and its modules. `pass` is where to start.
//!
//! At every step of a walk tokens write a slot, which they and later tokens read at later steps. It lives within one pass;
//! nothing is carried from one window of text to the next.
//!
//! Three kinds, after the reference. `hidden_code`: a short code of each token's hidden state, read before every decision of
//! the router and once more behind the exit. `key_value_prefix`: the keys and values of the blocks that were executed,
//! which later blocks of the pool attend to beside their own. `shared_code`: narrow codes of keys and values, made by maps that all blocks
//! share, in the place of a block's own keys and values; a token has one, not one per step.
//!
//! The first two are indexed by (slot, token): every step of the walk makes one slot, with an entry for every token that was
//! still walking. Token `t` may see slot `s` of token `u` if `u ≤ t` and `u` was walking at that step. The reference
//! appends, reads and writes for tokens that have left as well, which makes a token depend on how long others walk; its
//! way is [`Lifecycle::Reference`], for parity only.
//!
//! | file | what |
//! |---|---|
//! | `config` | which memory a model has |
//! | `window` | which slots are kept |
//! | `hidden_code`, `codes` | codes: parameters, and what one pass wrote |
//! | `custom`, `code_maps` | codes of a program; what `codes` asks of both kinds |
//! | `key_value_prefix`, `prefix` | keys and values: the same |
//! | `shared_code`, `shared` | codes that all blocks share: the same |
//! | `slots` | what tokens wrote, as rows, and which of it blocks see: grouped execution and decoding |
//! | `pass` | the walk's interface to whichever memory there is |
//! | `usage`, `record` | statistics of reads; the reads themselves, if they are asked for |

mod code_maps;
pub(crate) mod codes;
pub mod config;
pub mod custom;
pub mod hidden_code;
pub mod key_value_prefix;
pub mod pass;
mod prefix;
pub mod record;
#[cfg(all(test, feature = "ndarray"))]
mod record_tests;
mod shared;
pub mod shared_code;
#[cfg(all(test, feature = "ndarray"))]
mod shared_tests;
pub(crate) mod slots;
pub(crate) mod step;
#[cfg(all(test, feature = "ndarray"))]
mod tests;
pub mod usage;
pub mod window;

pub use config::{
    Adapters, AttendedConfig, BothConfig, Compression, HiddenCodeConfig, KeyValuePrefixConfig,
    Lifecycle, MemoryConfig, SharedCodeConfig, SharedCodes,
};
pub use custom::{CustomCodes, CustomMemory};
pub use hidden_code::HiddenCode;
pub use key_value_prefix::KeyValuePrefix;
pub use pass::{Both, Memory};
pub use record::{MemoryRead, ReadAt, ReadShare};
pub use shared_code::SharedCode;
pub use usage::MemoryUse;

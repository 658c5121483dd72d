//! Imports foreign checkpoints: file formats, and the mapping of names and layouts to our parameters.
//!
//! | file | what |
//! |---|---|
//! | `pickle`, `pytorch` | files of `torch.save`, of which nothing is executed |
//! | `safetensors_file` | safetensors, read in pieces |
//! | `source` | a file in either format |
//! | `shards` | which files a checkpoint is made of |
//! | `checkpoint` | all files as one: names without prefixes of wrappers, values that are finite |
//! | `number` | number types, and what is lost in converting to f32 |
//! | `json` | JSON files of any size |
//! | `vocabulary`, `frequency` | which token has which id, and which pair which row |
//! | `fit` | their tensors matched with ours, whatever the mapping |
//! | `state_dict` | a model of ours from tensors by name, the reference's or ours |
//! | `brian`, `brillm` | names and layouts of the two reference implementations |
//! | `hugging_face` | decoders as Hugging Face lays them out in a directory |
//!
//! ```text
//! paths ─► shards ─► source: pytorch, safetensors_file ─► checkpoint ─► fit ◄─ names of brian or brillm
//!                                                              └─► state_dict or brillm: values in our layout ─► run
//! ```
//!
//! Another architecture is a file beside `brian`, with a function from its names to [`fit::Target`]s.

pub mod brian;
pub mod brillm;
pub mod checkpoint;
pub mod fit;
pub mod frequency;
pub mod hugging_face;
mod json;
mod number;
mod pickle;
mod pytorch;
mod safetensors_file;
mod shards;
mod source;
pub mod state_dict;
#[cfg(test)]
mod tests;
pub mod vocabulary;

pub use checkpoint::{Checkpoint, Doubled};
pub use pytorch::Globals;
pub use source::dimensions;

use crate::error::Error;
use crate::run::{HostTensor, TensorMap};
use std::path::Path;

/// A function that receives the values of a tensor, piece by piece.
pub type Pieces<'a> = &'a mut dyn FnMut(&[f32]);

/// The size of such a piece in a file.
const PIECE_BYTES: usize = 1 << 20;

/// The floating-point tensors of one file, by their names in it, finite or not.
///
/// # Errors
/// `Invalid` if it is neither safetensors nor a file of `torch.save`.
pub fn read(path: &Path) -> Result<TensorMap, Error> {
    let mut file = source::open(path, Globals::Any)?;
    let mut tensors = TensorMap::new();
    for (name, stored) in file.tensors().clone() {
        if stored.dtype.number().is_some() {
            let mut values = Vec::new();
            file.read(&name, &mut |piece| values.extend_from_slice(piece))?;
            tensors.insert(name, HostTensor::new(stored.shape, values));
        }
    }
    Ok(tensors)
}

//! Foreign checkpoints → our parameters: formats, and maps of names and layouts.
//!
//! | file | what |
//! |---|---|
//! | `pickle`, `pytorch` | files of `torch.save`, of which nothing is executed |
//! | `safetensors_file` | safetensors, read in pieces |
//! | `source` | either of them |
//! | `number` | halves and doubles |
//! | `json` | JSON files of any size |
//! | `vocabulary`, `frequency` | which token has which id, and which pair which row |
//! | `fit` | a tensor of theirs beside ours |
//! | `brian`, `brillm` | names and layouts of the two reference implementations |

pub mod brian;
pub mod brillm;
pub mod fit;
pub mod frequency;
mod json;
mod number;
mod pickle;
mod pytorch;
mod safetensors_file;
mod source;
pub mod vocabulary;

pub use source::Source;

use crate::error::Error;
use crate::run::{TensorMap, read_tensors};
use std::path::Path;

/// Where the values of a tensor go, piece by piece.
pub type Pieces<'a> = &'a mut dyn FnMut(&[f32]);

/// The size of such a piece in a file.
const PIECE_BYTES: usize = 1 << 20;

/// Whether a path is read as safetensors; everything else is a file of torch.save.
fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "safetensors")
}

/// The tensors of a checkpoint, by their names in it: `.safetensors`, or a file of `torch.save`.
///
/// # Errors
/// `Invalid` if the file is neither.
pub fn read(path: &Path) -> Result<TensorMap, Error> {
    match is_safetensors(path) {
        true => read_tensors(path),
        false => pytorch::read_pytorch(path),
    }
}

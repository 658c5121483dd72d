//! Foreign checkpoints → our parameters: formats, and maps of names and layouts.

pub mod brian;
mod pickle;
mod pytorch;

use crate::error::Error;
use crate::run::{TensorMap, read_tensors};
use std::path::Path;

/// The tensors of a checkpoint, by their names in it: `.safetensors`, or a file of `torch.save`.
///
/// # Errors
/// `Invalid` if the file is neither.
pub fn read(path: &Path) -> Result<TensorMap, Error> {
    match path.extension().is_some_and(|end| end == "safetensors") {
        true => read_tensors(path),
        false => pytorch::read_pytorch(path),
    }
}

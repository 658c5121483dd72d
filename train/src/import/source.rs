//! `Source`: a safetensors or PyTorch file; opening it reads names, shapes and number types, and no value yet.

use super::Pieces;
use super::json::quoted;
use super::number::{Cast, Dtype, Number};
use super::pytorch::{Globals, PytorchFile};
use super::safetensors_file::SafetensorsFile;
use crate::error::{Error, Problem};
use std::collections::BTreeMap;
use std::path::Path;

/// The largest number of tensors in a file: with more, their names alone take much memory.
pub const MOST_TENSORS: usize = 1 << 16;

/// The longest name of a tensor that is shown in a message, in characters.
const MOST_SHOWN: usize = 160;

/// A tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The lengths of its dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its number type.
    pub dtype: Dtype,
}

impl Stored {
    /// The number of its values.
    ///
    /// # Panics
    /// If its size overflows, which must have been checked before.
    pub fn len(&self) -> usize {
        product(&self.shape).expect("a size that was checked")
    }

    /// The type and the number of its values.
    ///
    /// # Panics
    /// If they are whole numbers.
    pub fn numbers(&self) -> (Number, usize) {
        let number = self.dtype.number().expect("floating-point numbers");
        (number, self.len())
    }

    /// How many bytes they take; `None` if that overflows.
    pub fn bytes(&self) -> Option<u64> {
        let bytes = product(&self.shape)?.checked_mul(self.dtype.size)?;
        Some(bytes as u64)
    }
}

/// An entry of a file that is not a tensor, or not one of plain numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub kind: String,
}

/// An open file, whose values are not read yet.
pub trait Source {
    /// All tensors by name, those of whole numbers too.
    fn tensors(&self) -> &BTreeMap<String, Stored>;

    /// The other entries.
    fn asides(&self) -> &[Aside] {
        &[]
    }

    /// The key under which the tensors lie; empty if they are the whole file.
    fn key(&self) -> &str {
        ""
    }

    /// Reads the values of a tensor in row-major order, piece by piece; returns what was lost in converting to f32.
    ///
    /// # Errors
    /// `Invalid` if the file does not hold them, or their checksum is wrong.
    ///
    /// # Panics
    /// If there is no such tensor, or it holds whole numbers.
    fn read(&mut self, name: &str, pieces: Pieces<'_>) -> Result<Cast, Error>;
}

/// Opens a file, as safetensors if it is named so, else as one of `torch.save`, and reads names and shapes.
///
/// # Errors
/// `Invalid` if the file is missing or broken, or names a class or function that is not allowed.
pub fn open(path: &Path, globals: Globals) -> Result<Box<dyn Source>, Error> {
    match path.extension() {
        Some(end) if end == "safetensors" => Ok(Box::new(SafetensorsFile::open(path)?)),
        _ => Ok(Box::new(PytorchFile::open(path, globals)?)),
    }
}

/// The error for a tensor of a file.
pub fn in_tensor(
    path: &Path,
    name: &str,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> Error {
    Error::Invalid(Problem::new(path, place(name), found, expected))
}

/// A tensor by its name, for a message.
pub fn place(name: &str) -> String {
    format!("tensor {}", quoted(name, MOST_SHOWN))
}

/// A shape for a message, however many dimensions there are.
pub fn dimensions(shape: &[usize]) -> String {
    match shape {
        [first, second, third, fourth, _, _, ..] => {
            let more = shape.len() - 4;
            format!("[{first}, {second}, {third}, {fourth}, and {more} more]")
        }
        shape => format!("{shape:?}"),
    }
}

/// The number of values of a shape; `None` if it overflows.
pub fn product(shape: &[usize]) -> Option<usize> {
    let mut lengths = shape.iter();
    lengths.try_fold(1usize, |product, &n| product.checked_mul(n))
}

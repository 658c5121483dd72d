//! A checkpoint file in either format; names, shapes and number types are known before any value is read.

use super::number::{Cast, Dtype};
use super::pytorch::{Globals, PytorchFile};
use super::safetensors_file::SafetensorsFile;
use super::{Pieces, is_safetensors};
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

    /// How many bytes they take; `None` if that overflows.
    pub fn bytes(&self) -> Option<u64> {
        let bytes = product(&self.shape)?.checked_mul(self.dtype.size())?;
        Some(bytes as u64)
    }

    /// Its shape for a message, however many dimensions there are.
    pub fn dimensions(&self) -> String {
        dimensions(&self.shape)
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

/// An open file.
pub enum Source {
    /// A file of `torch.save`.
    Pytorch(Box<PytorchFile>),
    /// A file of safetensors.
    Safetensors(SafetensorsFile),
}

impl Source {
    /// Reads names and shapes.
    ///
    /// # Errors
    /// `Invalid` if the file is missing or broken, or names a class or function that is not allowed.
    pub fn open(path: &Path, globals: Globals) -> Result<Self, Error> {
        match is_safetensors(path) {
            true => SafetensorsFile::open(path).map(Self::Safetensors),
            false => PytorchFile::open(path, globals).map(|file| Self::Pytorch(Box::new(file))),
        }
    }

    /// All tensors by name, those of whole numbers too.
    pub fn tensors(&self) -> &BTreeMap<String, Stored> {
        match self {
            Self::Pytorch(file) => file.tensors(),
            Self::Safetensors(file) => file.tensors(),
        }
    }

    /// The other entries.
    pub fn asides(&self) -> &[Aside] {
        match self {
            Self::Pytorch(file) => file.asides(),
            Self::Safetensors(_) => &[],
        }
    }

    /// The key under which the tensors lie; empty if they are the whole file.
    pub fn key(&self) -> &str {
        match self {
            Self::Pytorch(file) => file.key(),
            Self::Safetensors(_) => "",
        }
    }

    /// Reads the values of a tensor in row-major order, piece by piece; returns what was lost in converting to f32.
    ///
    /// # Errors
    /// `Invalid` if the file does not hold them.
    ///
    /// # Panics
    /// If there is no such tensor, or it holds whole numbers.
    pub fn read(&mut self, name: &str, pieces: Pieces<'_>) -> Result<Cast, Error> {
        match self {
            Self::Pytorch(file) => file.read(name, pieces),
            Self::Safetensors(file) => file.read(name, pieces),
        }
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
    match name.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("tensor {:?}…", &name[..end]),
        None => format!("tensor {name:?}"),
    }
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

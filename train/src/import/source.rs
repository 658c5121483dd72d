//! A checkpoint in either format, of which names and shapes are known before any value is read.

use super::pytorch::{Globals, PytorchFile};
use super::safetensors_file::SafetensorsFile;
use super::{Pieces, is_safetensors};
use crate::error::Error;
use std::collections::BTreeMap;
use std::path::Path;

/// An open checkpoint.
pub enum Source {
    /// Of `torch.save`.
    Pytorch(PytorchFile),
    /// Of safetensors.
    Safetensors(SafetensorsFile),
}

impl Source {
    /// Reads names and shapes.
    ///
    /// # Errors
    /// `Invalid` if the file is missing or broken, or holds more than tensors.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match is_safetensors(path) {
            true => SafetensorsFile::open(path).map(Self::Safetensors),
            false => PytorchFile::open(path, Globals::OfTensors).map(Self::Pytorch),
        }
    }

    /// The shapes of all tensors.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        match self {
            Self::Pytorch(file) => file.shapes(),
            Self::Safetensors(file) => file.shapes(),
        }
    }

    /// Hands over the values of a tensor in row-major order, piece by piece.
    ///
    /// # Errors
    /// `Invalid` if the file does not hold them.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn read(&mut self, name: &str, pieces: Pieces<'_>) -> Result<(), Error> {
        match self {
            Self::Pytorch(file) => file.read(name, pieces),
            Self::Safetensors(file) => file.read(name, pieces),
        }
    }
}

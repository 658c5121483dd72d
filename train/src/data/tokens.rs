//! `Tokens`: token ids in memory, in two or four bytes each, as wide as their vocabulary needs.

use std::ops::Range;

use super::writer::Width;

/// Ids in their order.
#[derive(Debug)]
pub(super) enum Tokens {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Tokens {
    /// No ids yet, with room for so many.
    pub fn with_capacity(width: Width, n: usize) -> Self {
        match width {
            Width::U16 => Self::U16(Vec::with_capacity(n)),
            Width::U32 => Self::U32(Vec::with_capacity(n)),
        }
    }

    /// Appends an id.
    ///
    /// # Panics
    /// If the id is wider than these tokens.
    pub fn push(&mut self, id: u32) {
        match self {
            Self::U16(tokens) => tokens.push(id.try_into().expect("an id of the vocabulary")),
            Self::U32(tokens) => tokens.push(id),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::U16(tokens) => tokens.len(),
            Self::U32(tokens) => tokens.len(),
        }
    }

    pub fn get(&self, position: usize) -> u32 {
        match self {
            Self::U16(tokens) => u32::from(tokens[position]),
            Self::U32(tokens) => tokens[position],
        }
    }

    pub fn range(&self, range: Range<usize>) -> Vec<u32> {
        match self {
            Self::U16(tokens) => tokens[range].iter().map(|id| u32::from(*id)).collect(),
            Self::U32(tokens) => tokens[range].to_vec(),
        }
    }
}

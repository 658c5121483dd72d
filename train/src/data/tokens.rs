//! `Tokens`: token ids in two or four bytes each, as wide as their vocabulary needs: in memory, or left in their file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::writer::Width;

/// Ids in their order.
#[derive(Debug)]
pub(super) enum Tokens {
    U16(Vec<u16>),
    U32(Vec<u32>),
    /// In a file, for whoever reads them one after the other.
    OnDisk(OnDisk),
}

/// Ids in a file.
#[derive(Debug)]
pub(super) struct OnDisk {
    pub file: File,
    /// Where the first one lies.
    pub offset: u64,
    pub width: Width,
    pub n: usize,
}

const READ: &str = "tokens on the disk are read with `read`";

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
            Self::OnDisk(_) => unreachable!("{READ}"),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::U16(tokens) => tokens.len(),
            Self::U32(tokens) => tokens.len(),
            Self::OnDisk(tokens) => tokens.n,
        }
    }

    pub fn get(&self, position: usize) -> u32 {
        match self {
            Self::U16(tokens) => u32::from(tokens[position]),
            Self::U32(tokens) => tokens[position],
            Self::OnDisk(_) => unreachable!("{READ}"),
        }
    }

    pub fn range(&self, range: Range<usize>) -> Vec<u32> {
        match self {
            Self::U16(tokens) => tokens[range].iter().map(|id| u32::from(*id)).collect(),
            Self::U32(tokens) => tokens[range].to_vec(),
            Self::OnDisk(_) => unreachable!("{READ}"),
        }
    }

    /// The ids in a range, wherever they are.
    pub fn read(&self, range: Range<usize>) -> io::Result<Vec<u32>> {
        let Self::OnDisk(tokens) = self else {
            return Ok(self.range(range));
        };
        let width = tokens.width.bytes();
        let mut bytes = vec![0; range.len() * width];
        let offset = tokens.offset + (range.start * width) as u64;
        tokens.file.read_exact_at(&mut bytes, offset)?;
        Ok(ids(tokens.width, &bytes).collect())
    }
}

/// The ids that bytes of a file stand for.
pub(super) fn ids(width: Width, bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(width.bytes()).map(|id| match id {
        [a, b] => u32::from(u16::from_le_bytes([*a, *b])),
        id => u32::from_le_bytes(id.try_into().expect("two or four bytes")),
    })
}

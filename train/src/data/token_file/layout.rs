//! `TokenFormat` and `Layout`: how a file holds token ids: with which header, in which type, from which byte on.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Problem;

/// How a file of another program holds token ids; all numbers are little-endian.
#[derive(Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenFormat {
    /// Two bytes per id from the first byte on, as nanoGPT's `.bin`.
    U16,
    /// Four bytes per id from the first byte on.
    U32,
    /// 256 numbers of four bytes (magic number, version, how many ids, zeros), then two or four bytes per id, as llm.c's
    /// `.bin`.
    LlmC,
    /// NumPy's `.npy`: one dimension of u16, u32, i32 or i64.
    Npy,
}

impl fmt::Display for TokenFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U16 | Self::U32 => "a file without a header",
            Self::LlmC => "a file with llm.c's header",
            Self::Npy => "a .npy file",
        })
    }
}

/// The type of an id in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    U16,
    U32,
    I32,
    I64,
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// The id of some bytes, or the number that is none.
    pub fn id(self, bytes: &[u8]) -> Result<u32, i64> {
        let four = || std::array::from_fn(|i| bytes[i]);
        match self {
            Self::U16 => Ok(u32::from(u16::from_le_bytes([bytes[0], bytes[1]]))),
            Self::U32 => Ok(u32::from_le_bytes(four())),
            Self::I32 => {
                let id = i32::from_le_bytes(four());
                u32::try_from(id).map_err(|_| id.into())
            }
            Self::I64 => {
                let id = i64::from_le_bytes(std::array::from_fn(|i| bytes[i]));
                u32::try_from(id).map_err(|_| id)
            }
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::I64 => "i64",
        })
    }
}

/// Where ids lie in a file. `first_byte + n * element.bytes()` is the size of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub format: TokenFormat,
    pub element: Element,
    pub first_byte: u64,
    pub n: u64,
}

/// What does not fit: a problem whose file is not known here.
#[derive(Debug)]
pub(super) struct Wrong {
    place: String,
    found: String,
    expected: String,
    advice: String,
}

impl Wrong {
    pub fn new(
        place: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            found: found.into(),
            expected: expected.into(),
            advice: String::new(),
        }
    }

    pub fn advise(self, advice: &str) -> Self {
        let advice = advice.to_string();
        Self { advice, ..self }
    }

    pub fn problem(self, path: &Path) -> Problem {
        Problem::new(path, self.place, self.found, self.expected).advise(self.advice)
    }
}

impl Layout {
    /// Whether the ids end where the file does.
    pub fn require(&self, size: u64) -> Result<(), Wrong> {
        let Self { n, first_byte, .. } = *self;
        let width = self.element.bytes() as u64;
        if n == 0 {
            return Err(Wrong::new("", "no ids", "at least one"));
        }
        let expected = n.checked_mul(width);
        let expected = expected.and_then(|bytes| bytes.checked_add(first_byte));
        if expected == Some(size) {
            return Ok(());
        }
        let of_ids = match (first_byte, expected) {
            (0, _) => format!("a multiple of the {width} bytes of an id"),
            (_, None) => format!("more than any file has, for {n} ids of {width} bytes"),
            (_, Some(expected)) => format!(
                "{expected}: a header of {first_byte} and {n} ids of {width} bytes by that header"
            ),
        };
        Err(Wrong::new("", format!("{size} bytes"), of_ids))
    }
}

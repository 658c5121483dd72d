//! `TokenFormat` and `Layout`: how a file holds token ids, found by its first bytes, its size and what the user says of it.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::writer::{HEADER_BYTES, Width};
use super::npy;
use crate::error::Problem;

/// How a file of another program holds token ids; all numbers are little-endian.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
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
    advice: &'static str,
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
            advice: "",
        }
    }

    pub fn problem(self, path: &Path) -> Problem {
        Problem::new(path, self.place, self.found, self.expected).advise(self.advice)
    }
}

impl Layout {
    /// Finds the layout of a file of `size` bytes by its beginning: its first kilobyte, or all of NumPy's header.
    pub fn find(head: &[u8], size: u64, format: Option<TokenFormat>) -> Result<Self, Wrong> {
        if size == 0 {
            return Err(Wrong::new("", "an empty file", "token ids"));
        }
        let said = said(head);
        let layout = match (said, format) {
            (None, None) => return Err(silent(size)),
            (Some(said), Some(format)) if said != format => {
                let expected = match format {
                    TokenFormat::U16 | TokenFormat::U32 => "ids from the first byte on",
                    TokenFormat::LlmC => "llm.c's header",
                    TokenFormat::Npy => "a .npy file",
                };
                let wrong = Wrong::new("byte 0", said.to_string(), expected);
                let advice = "leave the format out: the file says it itself";
                return Err(Wrong { advice, ..wrong });
            }
            (Some(TokenFormat::LlmC), _) | (None, Some(TokenFormat::LlmC)) => llm_c(head, size)?,
            (Some(_), _) | (None, Some(TokenFormat::Npy)) => npy::layout(head)?,
            (None, Some(TokenFormat::U16)) => raw(TokenFormat::U16, Element::U16, size),
            (None, Some(TokenFormat::U32)) => raw(TokenFormat::U32, Element::U32, size),
        };
        layout.require(size)?;
        Ok(layout)
    }

    fn require(&self, size: u64) -> Result<(), Wrong> {
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

/// What a file says of itself: magic numbers are never the beginning of ids by accident, for the vocabulary would have to be of
/// more than 55,000 tokens, and the next ids those of version and zeros.
fn said(head: &[u8]) -> Option<TokenFormat> {
    let magics = [Width::U16, Width::U32].map(|width| width.magic()[0].to_le_bytes());
    match head {
        head if head.starts_with(npy::MAGIC) => Some(TokenFormat::Npy),
        head if magics.iter().any(|magic| head.starts_with(magic)) => Some(TokenFormat::LlmC),
        _ => None,
    }
}

/// Of a file without a header nobody knows how wide its ids are.
fn silent(size: u64) -> Wrong {
    let found = format!("{size} bytes without a header that says how wide ids are");
    let expected = "llm.c's header, a .npy file, or a format that is said";
    Wrong {
        advice: "say format = \"u16\" (two bytes per id, as nanoGPT's) or \"u32\" beside the path in the recipe, or --format \
                 on the command line",
        ..Wrong::new("", found, expected)
    }
}

fn raw(format: TokenFormat, element: Element, size: u64) -> Layout {
    Layout {
        format,
        element,
        first_byte: 0,
        // Rounded up, so that a size that does not fit is found.
        n: size.div_ceil(element.bytes() as u64),
    }
}

fn llm_c(head: &[u8], size: u64) -> Result<Layout, Wrong> {
    let Some(header) = head.get(..HEADER_BYTES) else {
        let expected = format!("a header of {HEADER_BYTES} bytes");
        return Err(Wrong::new(
            format!("byte {size}"),
            "the end of the file",
            expected,
        ));
    };
    let field =
        |i: usize| i32::from_le_bytes(header[4 * i..4 * i + 4].try_into().expect("four bytes"));
    let mut widths = [(Width::U16, Element::U16), (Width::U32, Element::U32)].into_iter();
    let known = widths.find(|(width, _)| width.magic()[0] == field(0));
    let Some((width, element)) = known else {
        let [two, four] = [Width::U16, Width::U32].map(|width| width.magic()[0]);
        let expected = format!("llm.c's magic number, {two} or {four}");
        return Err(Wrong::new("byte 0", field(0).to_string(), expected));
    };
    let version = width.magic()[1];
    if field(1) != version {
        let (found, magic) = (format!("version {}", field(1)), field(0));
        let expected = format!("version {version} behind the magic number {magic}");
        return Err(Wrong::new("byte 4", found, expected));
    }
    let Ok(n @ 1..) = u64::try_from(field(2)) else {
        let found = format!("{} ids", field(2));
        return Err(Wrong::new("byte 8", found, "at least one"));
    };
    Ok(Layout {
        format: TokenFormat::LlmC,
        element,
        first_byte: HEADER_BYTES as u64,
        n,
    })
}

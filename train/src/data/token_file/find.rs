//! Finds the layout of a file of token ids by its first bytes, its size and what the user says of it.

use super::super::writer::{HEADER_BYTES, Width};
use super::layout::{Element, Layout, TokenFormat, Wrong};
use super::npy;

/// The layout of a file of `size` bytes by its beginning: its first kilobyte, or all of NumPy's header.
pub(super) fn find(head: &[u8], size: u64, format: Option<TokenFormat>) -> Result<Layout, Wrong> {
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
            return Err(wrong.advise("leave the format out: the file says it itself"));
        }
        (Some(TokenFormat::LlmC), _) | (None, Some(TokenFormat::LlmC)) => llm_c(head, size)?,
        (Some(_), _) | (None, Some(TokenFormat::Npy)) => npy::layout(head)?,
        (None, Some(TokenFormat::U16)) => raw(TokenFormat::U16, Element::U16, size),
        (None, Some(TokenFormat::U32)) => raw(TokenFormat::U32, Element::U32, size),
    };
    layout.require(size)?;
    Ok(layout)
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
    Wrong::new("", found, expected).advise(
        "say format = \"u16\" (two bytes per id, as nanoGPT's) or \"u32\" beside the path in the recipe, or --format on the \
         command line",
    )
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

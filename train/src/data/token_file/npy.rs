//! The header of NumPy's `.npy` files, versions 1 to 3: magic number, version, length, and a Python dictionary of three keys.

use super::layout::{Element, Layout, TokenFormat, Wrong};
use crate::text::shortened;

/// The first bytes of every file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read; that of one dimension has some hundred bytes.
pub(super) const HEADER_BYTES_MAX: u64 = 1 << 20;

/// Headers are padded to a multiple of this.
const ALIGNMENT: usize = 64;

/// The bytes up to the array, if the beginning of a file says so.
pub(super) fn header_bytes(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(MAGIC)?;
    match *rest {
        [1, _, a, b, ..] => Some(10 + u64::from(u16::from_le_bytes([a, b]))),
        [2 | 3, _, a, b, c, d, ..] => Some(12 + u64::from(u32::from_le_bytes([a, b, c, d]))),
        _ => None,
    }
}

/// The layout by the beginning of a file, which has to hold the whole header.
pub(super) fn layout(head: &[u8]) -> Result<Layout, Wrong> {
    let Some(end) = header_bytes(head) else {
        let version = head.get(MAGIC.len()).filter(|_| head.starts_with(MAGIC));
        return Err(match version {
            Some(version) if head.len() >= 12 => {
                Wrong::new("byte 6", format!("version {version}"), "version 1, 2 or 3")
            }
            Some(_) => Wrong::new("", "a file that ends in its header", "a whole .npy file"),
            None => Wrong::new("byte 0", "another beginning", "NumPy's magic number"),
        });
    };
    let start = if head[MAGIC.len()] == 1 { 10 } else { 12 };
    let Some(text) = usize::try_from(end)
        .ok()
        .and_then(|end| head.get(start..end))
    else {
        let found = format!("a header up to byte {end}");
        let expected = format!("one within the file's {} first bytes", head.len());
        return Err(Wrong::new("byte 8", found, expected));
    };
    let text = String::from_utf8_lossy(text);
    let header = Header::parse(text.trim()).ok_or_else(|| {
        let found = format!("{:?}", shortened(text.trim()));
        let expected = "a dictionary of descr, fortran_order and shape";
        Wrong::new(format!("byte {start}"), found, expected)
    })?;
    let wrong = |key: &str, found: &str, expected: &str| {
        Wrong::new(
            format!("header, {key}"),
            shortened(found).to_string(),
            expected,
        )
    };
    let element = match header.descr.trim_matches(['\'', '"']) {
        "<u2" => Element::U16,
        "<u4" => Element::U32,
        "<i4" => Element::I32,
        "<i8" => Element::I64,
        _ => {
            let expected = "'<u2', '<u4', '<i4' or '<i8'";
            return Err(wrong("descr", &header.descr, expected));
        }
    };
    if header.fortran_order != "False" {
        let expected = "False: rows in C's order";
        return Err(wrong("fortran_order", &header.fortran_order, expected));
    }
    let expected = "one dimension, as (1000,)";
    let inner = header
        .shape
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'));
    let length = inner.and_then(|inner| inner.trim().strip_suffix(','));
    let n = length.and_then(|length| length.trim().parse().ok());
    let n = n.ok_or_else(|| wrong("shape", &header.shape, expected))?;
    Ok(Layout {
        format: TokenFormat::Npy,
        element,
        first_byte: end,
        n,
    })
}

/// The three values of the dictionary, as they are spelled.
#[derive(Debug, Default, PartialEq)]
struct Header {
    descr: String,
    fortran_order: String,
    shape: String,
}

impl Header {
    /// `{'descr': '<u2', 'fortran_order': False, 'shape': (7,), }`, each key once.
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('{')?.strip_suffix('}')?.trim();
        let mut header = Self::default();
        while !rest.is_empty() {
            let (key, behind) = rest.split_once(':')?;
            let (value, behind) = value(behind.trim_start())?;
            let slot = match key.trim().trim_matches(['\'', '"']) {
                "descr" => &mut header.descr,
                "fortran_order" => &mut header.fortran_order,
                "shape" => &mut header.shape,
                _ => return None,
            };
            if !slot.is_empty() || value.is_empty() {
                return None;
            }
            *slot = value.to_string();
            rest = behind.trim_start();
        }
        let parts = [&header.descr, &header.fortran_order, &header.shape];
        parts.iter().all(|part| !part.is_empty()).then_some(header)
    }
}

/// A value up to the comma behind it, which may stand inside of brackets or quotes, and the rest.
fn value(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut quote) = (0u32, None);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"', None) => quote = Some(c),
            ('(' | '[', None) => depth += 1,
            (')' | ']', None) => depth = depth.checked_sub(1)?,
            (',', None) if depth == 0 => return Some((text[..at].trim_end(), &text[at + 1..])),
            _ => {}
        }
    }
    (depth == 0 && quote.is_none()).then(|| (text.trim_end(), ""))
}

/// The header of a file of so many ids (version 1.0), as NumPy writes it.
pub fn header(descr: &str, n: u64) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({n},), }}");
    let length = (10 + text.len() + 1).next_multiple_of(ALIGNMENT) - 10;
    let mut header = [
        MAGIC,
        &[1, 0],
        &(length as u16).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat();
    header.resize(10 + length - 1, b' ');
    header.push(b'\n');
    header
}

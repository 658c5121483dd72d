//! Normalises full-width to half-width forms: a Chinese text writes `，` and `１`, a vocabulary may only have `,` and `1`.
//!
//! In `tokenizer.json` this is a sequence of plain replacements, which Python's `tokenizers` also applies.

use serde_json::{Value, json};

/// The ideographic space.
const SPACE: char = '\u{3000}';

/// The full-width `!` to `~`, each as far above its half-width form.
const FORMS: std::ops::RangeInclusive<char> = '\u{ff01}'..='\u{ff5e}';
const ABOVE: u32 = 0xfee0;

/// The half-width form of a character; the character itself if it is none.
pub(super) fn half_width(c: char) -> char {
    match c {
        SPACE => ' ',
        c if FORMS.contains(&c) => char::from_u32(u32::from(c) - ABOVE).unwrap_or(c),
        c => c,
    }
}

/// This normalisation as the `normalizer` of a `tokenizer.json`.
pub(super) fn normalizer() -> Value {
    let replacement = |c: char| {
        let (from, to) = (c.to_string(), half_width(c).to_string());
        json!({ "type": "Replace", "pattern": { "String": from }, "content": to })
    };
    let all = std::iter::once(SPACE).chain(FORMS);
    let all: Vec<Value> = all.map(replacement).collect();
    json!({ "type": "Sequence", "normalizers": all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_width_forms_change_and_land_on_printable_ascii() {
        let changed: Vec<char> = (0..=char::MAX as u32)
            .filter_map(char::from_u32)
            .filter(|&c| half_width(c) != c)
            .collect();
        assert_eq!(changed.len(), 95);
        assert!(
            changed
                .iter()
                .all(|&c| (' '..='~').contains(&half_width(c)))
        );
        let text: String = "１，２：（ａ）\u{3000}。、～"
            .chars()
            .map(half_width)
            .collect();
        assert_eq!(text, "1,2:(a) 。、~");
    }
}

//! What a tokenizer does not give back: tried with short texts, for files of other programs need not keep everything.

use super::{SpelledSpecials, Tokenizer};

/// What a text holds, and such a text.
pub(super) const PROBES: [(&str, &str); 14] = [
    ("letters", "a"),
    ("capital letters", "A"),
    ("digits", "1"),
    ("a space at the beginning", " a"),
    ("a space at the end", "a "),
    ("runs of spaces", "a  a"),
    ("line ends", "a\na"),
    ("carriage returns", "a\r\na"),
    ("tabs", "a\ta"),
    ("spaces before a full stop", "a ."),
    ("accents", "\u{e9}"),
    ("accents as characters of their own", "e\u{301}"),
    ("other scripts and emoji", "字😀"),
    ("control characters", "\u{1}"),
];

impl Tokenizer {
    /// What decoding does not give back as it was, among such things as capital letters, line ends and accents. Nothing for
    /// tokenizers such as we train: of those, only a character that was not seen is lost, as `<unk>`, which is counted.
    pub fn losses(&self) -> Vec<&'static str> {
        let is_lost = |text: &str| self.decode(&self.encode(text)) != text;
        let probes = PROBES.iter().filter(|_| !self.checked.is_own);
        let lost = probes.filter(|(_, text)| is_lost(text));
        lost.map(|(name, _)| *name).collect()
    }

    /// Says which special tokens a text can spell that is to be read as text: the model itself has them as words.
    pub(super) fn noting_spelled_specials(mut self) -> Self {
        if self.checked.is_own || self.spelled_specials != SpelledSpecials::Text {
            return self;
        }
        let is_special = |id: &u32| self.checked.pieces[*id as usize].is_special;
        let specials = self.added.iter().copied().filter(is_special);
        let specials = specials.filter(|id| Some(*id) != self.checked.unknown);
        let spelled = specials.filter(|id| self.encode(&self.token_text(*id)).contains(id));
        let names: Vec<String> = spelled.map(|id| self.token_text(id)).collect();
        if let Some(first) = names.first() {
            self.checked.notes.push(format!(
                "{} special tokens, such as {first}, are words of the model itself: spelled out in a text, they are read as \
                 special tokens in any case",
                names.len()
            ));
        }
        self
    }
}

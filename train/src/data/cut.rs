//! Safe places to cut a text without changing its token ids: `Cut` says which are known, `word_end` finds the next one.

/// Where a text can be cut so that its parts get the same token ids as the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Between any two lines: each byte or character is a token.
    Lines,
    /// Before white space that follows another character: for byte pairs within words of GPT-2's pattern.
    Words,
    /// Before a space that follows a character other than white space: for byte pairs within words of the patterns of
    /// LLaMA 3 and Qwen, where a word may end with line ends.
    Spaces,
    /// No safe position is known.
    Nowhere,
}

/// The first position at or after `from` where white space follows another character; never 0.
///
/// The pattern of GPT-2, `'s|…| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, cuts at every such position, whatever
/// comes before and after: no token continues with white space after another character. The pattern looks ahead only
/// after white space and never looks back, so it needs nothing beyond such a position. Special tokens contain no white
/// space.
///
/// A cut after a line end would not be safe: the pattern splits `a\n\nb` into `a`, `\n`, `\n`, `b`, but `a\n\n` into
/// `a`, `\n\n`.
pub(super) fn word_end(text: &str, from: usize) -> Option<usize> {
    // One character back, so that the one before `from` is known.
    let start = text.floor_char_boundary(from.saturating_sub(1));
    let mut is_inside_word = false;
    for (at, character) in text[start..].char_indices() {
        if character.is_whitespace() && is_inside_word && start + at >= from {
            return Some(start + at);
        }
        is_inside_word = !character.is_whitespace();
    }
    None
}

/// The first position at or after `from` where a space follows a character other than white space; never 0.
///
/// In the patterns of LLaMA 3 and Qwen only line ends follow another character within a word. Unicode's NFC neither changes
/// a space nor joins it with what lies before.
pub(super) fn space_end(text: &str, from: usize) -> Option<usize> {
    let start = text.floor_char_boundary(from);
    let mut spaces = text[start..].match_indices(' ').map(|(at, _)| start + at);
    spaces.find(|at| *at >= from && follows_a_word(text, *at))
}

/// The last such position within the last `most` bytes.
pub(super) fn last_space(text: &str, most: usize) -> Option<usize> {
    let start = text.ceil_char_boundary(text.len().saturating_sub(most));
    let mut spaces = text[start..].rmatch_indices(' ').map(|(at, _)| start + at);
    spaces.find(|at| follows_a_word(text, *at))
}

fn follows_a_word(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    before.is_some_and(|character| !character.is_whitespace())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use brian::random;

    /// A text in which words, numbers, specials and all kinds of white space follow each other at random.
    pub fn mixed_text(seed: u64, n_parts: u64) -> String {
        const PARTS: [&str; 24] = [
            "word",
            "hat",
            "I'll",
            "'s",
            "12",
            "3.5",
            "!",
            "...",
            "語。",
            "é",
            "👩‍👩‍👧",
            "<s>",
            "</s",
            " ",
            " ",
            " ",
            "  ",
            "\n",
            "\n",
            "\r\n",
            "\n\n",
            "\t",
            "\u{a0}",
            "\u{3000}",
        ];
        let key = random::key(seed, "mixed text", 0);
        let part = |i| PARTS[random::bits(key, i) as usize % PARTS.len()];
        (0..n_parts).map(part).collect()
    }

    #[test]
    fn a_word_ends_before_the_first_white_space_and_not_inside_a_run_of_it() {
        let cases = [
            ("ab cd", 0, Some(2)),
            ("ab cd", 2, Some(2)),
            ("ab cd", 3, None),
            ("  a\r\n\nb", 0, Some(3)),
            ("  a\r\n\nb", 4, None),
            ("語\u{3000}b", 1, Some(3)),
            ("語\n", 2, Some(3)),
            (" \n\n", 0, None),
            ("", 0, None),
            ("ab", 9, None),
        ];
        for (text, from, place) in cases {
            assert_eq!(word_end(text, from), place, "{text:?} from {from}");
        }
    }

    #[test]
    fn a_space_behind_a_word_is_found_from_either_side() {
        let cases = [
            ("ab cd e", 0, Some(2)),
            ("ab cd e", 3, Some(5)),
            ("ab cd e", 6, None),
            ("a.\n b  c", 0, Some(5)),
            (" a", 0, None),
            ("語\u{3000} b", 1, None),
            ("語 b", 1, Some(3)),
            ("", 0, None),
            ("a b", 9, None),
        ];
        for (text, from, place) in cases {
            assert_eq!(space_end(text, from), place, "{text:?} from {from}");
        }
        assert_eq!(last_space("ab cd  e", 99), Some(5));
        assert_eq!(last_space("ab cd  e", 3), Some(5));
        assert_eq!(last_space("ab cd  e", 2), None);
        assert_eq!(last_space("語語", 1), None);
    }
}

//! `Characters`: text that comes in bytes, of which a character may need those of several tokens.

/// Bytes on their way to text: a character may need those of several tokens. What comes out is, all together, what
/// `String::from_utf8_lossy` makes of all bytes at once.
#[derive(Debug, Default)]
pub(crate) struct Characters {
    pending: Vec<u8>,
}

impl Characters {
    /// What is complete with these bytes.
    pub fn add(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut complete = 0;
        for chunk in self.pending.utf8_chunks() {
            let invalid = chunk.invalid();
            text.push_str(chunk.valid());
            complete += chunk.valid().len();
            if can_go_on(invalid) && complete + invalid.len() == self.pending.len() {
                break;
            }
            if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            complete += invalid.len();
        }
        self.pending.drain(..complete);
        text
    }

    /// What is left at the end.
    pub fn rest(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// Whether bytes begin a character that is not complete yet.
fn can_go_on(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_bytes_are_dealt_out_the_text_is_the_same() {
        let broken = [b"\xf0\x9f", &b"\xe2\x82"[..], b"a\xff\xc3\xa9\xed\xa0\x80"].concat();
        let texts = ["naïve 😀 字".as_bytes(), b"\xf0\x9f\x98", &broken, b""];
        for bytes in texts {
            for piece in 1..=5 {
                let mut characters = Characters::default();
                let streamed = bytes.chunks(piece).map(|piece| characters.add(piece));
                let mut streamed = streamed.collect::<String>();
                streamed += &characters.rest();
                assert_eq!(streamed, String::from_utf8_lossy(bytes), "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_character_comes_with_its_last_byte() {
        let mut characters = Characters::default();
        let shown = "é字".bytes().map(|byte| characters.add(&[byte]));
        assert_eq!(shown.collect::<Vec<_>>(), ["", "é", "", "", "字"]);
    }
}

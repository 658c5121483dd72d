//! The bytes of text that a token stands for, from its spelling in the file and the decoders that undo it.

use std::collections::HashMap;

use serde_json::Value;

use super::parts::Parts;

/// GPT-2's spelling of each byte as a visible character.
pub(super) fn byte_characters() -> Vec<char> {
    let mut hidden = '\u{100}'..;
    let character = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => hidden.next().expect("there are more characters than bytes"),
    };
    (0..=255).map(character).collect()
}

/// How the tokens of a file spell bytes.
pub(super) struct Speller<'a> {
    rules: Vec<Rule<'a>>,
    has_byte_tokens: bool,
    prefix: Option<&'a str>,
}

enum Rule<'a> {
    /// GPT-2's alphabet: one character for each byte.
    Alphabet(HashMap<char, u8>),
    /// A text that stands for another, such as `▁` for a space.
    Replace(&'a str, &'a str),
    /// A token begins a word, behind a space, unless it has this prefix.
    Words(&'a str),
}

impl<'a> Speller<'a> {
    pub fn of(parts: &Parts<'a>, model: &'a Value) -> Self {
        let text = |part: &'a Value, pointer: &str, default| {
            let text = part.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or(default)
        };
        let rule = |part: &&'a Value| match part["type"].as_str()? {
            "ByteLevel" => Some(Rule::Alphabet(
                byte_characters().into_iter().zip(0..=255).collect(),
            )),
            "Metaspace" => Some(Rule::Replace(text(part, "/replacement", "▁"), " ")),
            "BPEDecoder" => Some(Rule::Replace(text(part, "/suffix", "</w>"), " ")),
            "WordPiece" => Some(Rule::Words(text(part, "/prefix", "##"))),
            "Replace" => {
                let from = text(part, "/pattern/String", "");
                (!from.is_empty()).then(|| Rule::Replace(from, text(part, "/content", "")))
            }
            _ => None,
        };
        let mut rules: Vec<Rule> = parts.decoders.iter().filter_map(rule).collect();
        if parts.decoders.is_empty() && model["type"] == "WordPiece" {
            rules.push(Rule::Words(text(model, "/continuing_subword_prefix", "##")));
        }
        Self {
            rules,
            has_byte_tokens: model["byte_fallback"] == true || parts.decodes_by("ByteFallback"),
            prefix: model["continuing_subword_prefix"].as_str(),
        }
    }

    /// The bytes of a token behind others.
    pub fn bytes(&self, token: &str) -> Vec<u8> {
        if let Some(byte) = byte_token(token).filter(|_| self.has_byte_tokens) {
            return vec![byte];
        }
        let mut text = token.to_string();
        for rule in &self.rules {
            text = match rule {
                Rule::Alphabet(bytes) => {
                    let spelled = text.chars().map(|c| bytes.get(&c).copied());
                    match spelled.collect::<Option<Vec<u8>>>() {
                        Some(bytes) => return bytes,
                        // As the library reads it.
                        None => text,
                    }
                }
                Rule::Replace(from, to) => text.replace(from, to),
                Rule::Words(prefix) => match text.strip_prefix(prefix) {
                    Some(rest) => rest.to_string(),
                    None => format!(" {text}"),
                },
            };
        }
        if self.rules.is_empty()
            && let Some(rest) = self.prefix.and_then(|prefix| text.strip_prefix(prefix))
        {
            return rest.as_bytes().to_vec();
        }
        text.into_bytes()
    }
}

/// The byte of a token such as `<0x0A>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn tokens_stand_for_the_bytes_that_their_decoders_make_of_them() {
        let pieces = json!({ "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 }
        ]});
        let level = json!({ "type": "ByteLevel" });
        let meta = json!({ "type": "Metaspace", "replacement": "▁" });
        let words = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
        let suffix = json!({ "type": "BPEDecoder", "suffix": "</w>" });
        let cases = [
            (&pieces, "▁the", " the"),
            (&pieces, "▁▁", "  "),
            (&pieces, "<0x0A>", "\n"),
            (&pieces, "<0xA>", "<0xA>"),
            (&level, "Ġthe", " the"),
            (&level, "a b", "a b"),
            (&level, "<0x0A>", "<0x0A>"),
            (&meta, "▁a", " a"),
            (&words, "##b", "b"),
            (&words, "a", " a"),
            (&suffix, "a</w>", "a "),
            (&Value::Null, "▁a", "▁a"),
        ];
        for (decoder, token, expected) in cases {
            let file = json!({ "decoder": decoder });
            let parts = Parts::of(Path::new("t.json"), &file).unwrap();
            let model = Value::Null;
            let speller = Speller::of(&parts, &model);
            assert_eq!(
                speller.bytes(token),
                expected.as_bytes(),
                "{decoder} {token}"
            );
        }
    }
}

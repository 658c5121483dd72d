//! Reads the parts of a `tokenizer.json` around its model: normalizers, pre-tokenizers, decoders and templates, as flat lists;
//! a part that is not known is refused by its name.

use std::path::Path;

use serde_json::Value;

use super::super::cut::Cut;
use crate::error::Problem;
use crate::text::beginning;

const NORMALIZERS: [&str; 13] = [
    "BertNormalizer",
    "ByteLevel",
    "Lowercase",
    "NFC",
    "NFD",
    "NFKC",
    "NFKD",
    "Nmt",
    "Precompiled",
    "Prepend",
    "Replace",
    "Strip",
    "StripAccents",
];
const PRE_TOKENIZERS: [&str; 11] = [
    "BertPreTokenizer",
    "ByteLevel",
    "CharDelimiterSplit",
    "Digits",
    "FixedLength",
    "Metaspace",
    "Punctuation",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
];
/// Without `CTC`, which joins repeated tokens: it is for speech.
const DECODERS: [&str; 8] = [
    "BPEDecoder",
    "ByteFallback",
    "ByteLevel",
    "Fuse",
    "Metaspace",
    "Replace",
    "Strip",
    "WordPiece",
];
const POST_PROCESSORS: [&str; 4] = [
    "BertProcessing",
    "ByteLevel",
    "RobertaProcessing",
    "TemplateProcessing",
];

/// Patterns whose words never hold a space behind another character.
pub(super) const WORD_PATTERNS: [&str; 3] = [
    // GPT-2
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // LLaMA 3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// The parts of a file, each list in the order of its work, without the sequences that hold them.
pub(super) struct Parts<'a> {
    pub normalizers: Vec<&'a Value>,
    pub pre_tokenizers: Vec<&'a Value>,
    pub decoders: Vec<&'a Value>,
    pub post_processors: Vec<&'a Value>,
}

impl<'a> Parts<'a> {
    pub fn of(path: &Path, json: &'a Value) -> Result<Self, Problem> {
        let list = |key: &str, items: &str, known: &[&str]| {
            let mut all = Vec::new();
            flatten(path, &format!("/{key}"), &json[key], items, known, &mut all)?;
            Ok(all)
        };
        Ok(Self {
            normalizers: list("normalizer", "normalizers", &NORMALIZERS)?,
            pre_tokenizers: list("pre_tokenizer", "pretokenizers", &PRE_TOKENIZERS)?,
            decoders: list("decoder", "decoders", &DECODERS)?,
            post_processors: list("post_processor", "processors", &POST_PROCESSORS)?,
        })
    }

    /// Whether a decoder of this type takes part.
    pub fn decodes_by(&self, name: &str) -> bool {
        self.decoders.iter().any(|part| part["type"] == name)
    }

    /// Whether bytes are cut into words and spelled in GPT-2's alphabet, and nothing else happens to them.
    pub fn is_literal(&self) -> bool {
        let is_of = |part: &Value, name: &str| part["type"] == name;
        let keeps = |part: &Value| {
            is_of(part, "ByteLevel")
                || is_of(part, "Digits")
                || is_of(part, "Split") && part["behavior"] == "Isolated"
        };
        let parts = || self.pre_tokenizers.iter().copied();
        let mut levels = parts().filter(|part| is_of(part, "ByteLevel"));
        let adds_no_space = |part: &Value| part["add_prefix_space"] == false;
        self.normalizers.is_empty()
            && parts().all(keeps)
            && levels.next().is_some_and(adds_no_space)
            && levels.next().is_none()
    }

    /// Where a text can be cut, if no added token says otherwise.
    pub fn cut(&self) -> Cut {
        let is_nfc = |part: &Value| part["type"] == "NFC";
        // A space never changes or joins anything in NFC; in other forms it can come from something else.
        if !self.normalizers.iter().copied().all(is_nfc) {
            return Cut::Nowhere;
        }
        let mut cut = Cut::Nowhere;
        for part in &self.pre_tokenizers {
            let pattern = part.pointer("/pattern/Regex").and_then(Value::as_str);
            let known = pattern.and_then(|it| WORD_PATTERNS.iter().position(|one| *one == it));
            let is_split = part["type"] == "Split"
                && part["behavior"] == "Isolated"
                && part["invert"] == false;
            let is_level = part["type"] == "ByteLevel" && part["add_prefix_space"] == false;
            let is_regex = is_level && part["use_regex"] != false;
            match known.filter(|_| is_split) {
                Some(0) if cut == Cut::Nowhere => cut = Cut::Words,
                None if is_regex && cut == Cut::Nowhere => cut = Cut::Words,
                Some(0) => {}
                Some(_) => cut = Cut::Spaces,
                None if is_level || part["type"] == "Digits" => {}
                None => return Cut::Nowhere,
            }
        }
        match cut {
            Cut::Words if !self.normalizers.is_empty() => Cut::Spaces,
            cut => cut,
        }
    }

    /// The tokens that the template puts around a text, with `…` where the text is; `None` without a template.
    pub fn template(&self) -> Option<Vec<String>> {
        let text = || "…".to_string();
        let named = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let parts = self.post_processors.iter();
        let mut templates = parts.filter_map(|part| match part["type"].as_str()? {
            "TemplateProcessing" => {
                let single = part["single"].as_array()?.iter();
                let piece = |piece: &Value| match piece.pointer("/SpecialToken/id") {
                    Some(id) => named(id),
                    None => text(),
                };
                Some(single.map(piece).collect())
            }
            "BertProcessing" | "RobertaProcessing" => {
                let [before, behind] = ["cls", "sep"].map(|key| named(&part[key][0]));
                Some(vec![before, text(), behind])
            }
            _ => None,
        });
        let around: Vec<String> = templates.next()?;
        (around.len() > 1).then_some(around)
    }
}

/// The types of parts, in order.
pub(super) fn names(parts: &[&Value]) -> String {
    let names = parts.iter().filter_map(|part| part["type"].as_str());
    names.collect::<Vec<_>>().join(", ")
}

fn flatten<'a>(
    path: &Path,
    pointer: &str,
    part: &'a Value,
    items: &str,
    known: &[&str],
    all: &mut Vec<&'a Value>,
) -> Result<(), Problem> {
    let of_type = || format!("one of type Sequence, {}", known.join(", "));
    match part["type"].as_str() {
        _ if part.is_null() => Ok(()),
        Some("Sequence") => {
            let Some(parts) = part[items].as_array() else {
                let pointer = format!("{pointer}/{items}");
                let found = shortened(&part[items].to_string());
                return Err(Problem::new(path, pointer, found, "a list"));
            };
            for (i, part) in parts.iter().enumerate() {
                let pointer = format!("{pointer}/{items}/{i}");
                flatten(path, &pointer, part, items, known, all)?;
            }
            Ok(())
        }
        Some(name) if known.contains(&name) => {
            all.push(part);
            Ok(())
        }
        Some(name) => {
            let pointer = format!("{pointer}/type");
            Err(Problem::new(path, pointer, quoted(name), of_type()))
        }
        None => {
            let found = shortened(&part.to_string());
            Err(Problem::new(path, pointer, found, of_type()))
        }
    }
}

/// A text as JSON spells it, not too long.
pub(super) fn quoted(text: &str) -> String {
    shortened(&format!("{text:?}"))
}

/// A text, cut where it gets too long for a message.
pub(super) fn shortened(text: &str) -> String {
    beginning(text, 80)
}

//! Checks a `tokenizer.json` and returns its vocabulary: bytes, characters or byte pairs, without gaps or contradictions.
//!
//! The library itself panics on some broken files and renumbers others silently; both are caught here.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::half_width::normalizer;
use super::{Kind, Normalise, Specials};
use crate::error::Problem;
use crate::text::json_complaint;

/// Matches one character in Oniguruma (Python) and fancy-regex (here); a dot would leave out line ends.
pub(super) const CHARACTER_PATTERN: &str = r"[\s\S]";

/// One entry of the vocabulary.
pub(super) struct Piece {
    /// Its text as the file spells it.
    pub text: String,
    /// The bytes that it stands for; none for added tokens.
    pub bytes: Vec<u8>,
    /// Whether it is one of the added tokens.
    pub is_added: bool,
    /// Whether it is an added token that its file calls special.
    pub is_special: bool,
}

/// A vocabulary that passed all checks.
pub(super) struct Checked {
    pub kind: Kind,
    pub pieces: Vec<Piece>,
    pub specials: Specials,
    /// How a text is normalised before tokenization.
    pub normalise: Normalise,
    /// Whether GPT-2's pattern cuts the unchanged text into words, so that a space after a letter begins a new one.
    pub cuts_at_spaces: bool,
}

/// GPT-2's spelling of each byte as a visible character.
pub(super) fn byte_characters() -> Vec<char> {
    let mut hidden = '\u{100}'..;
    let character = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => hidden.next().expect("there are more characters than bytes"),
    };
    (0..=255).map(character).collect()
}

/// Checks the bytes of a file.
pub(super) fn check(path: &Path, file: &[u8]) -> Result<Checked, Problem> {
    let json: Value = serde_json::from_slice(file).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        Problem::new(path, place, json_complaint(&e), "a tokenizer.json")
    })?;
    let checker = Checker { path, json: &json };
    for pointer in ["/truncation", "/padding", "/model/dropout"] {
        checker.absent(pointer, &[Value::Null])?;
    }
    match checker.text("/model/type")? {
        "BPE" => checker.pairs(),
        "WordLevel" => checker.characters(),
        other => Err(checker.problem("/model/type", quoted(other), "\"BPE\" or \"WordLevel\"")),
    }
}

/// What ends a document in tokenizers of others.
const ENDS: [&str; 4] = ["</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"];

struct Checker<'a> {
    path: &'a Path,
    json: &'a Value,
}

impl Checker<'_> {
    fn pairs(&self) -> Result<Checked, Problem> {
        let normalise = match self.json["normalizer"]["type"] == "NFKC" && self.is_of_others() {
            true => Normalise::Nfkc,
            false => self.no_normalizer()?,
        };
        for pointer in [
            "/model/continuing_subword_prefix",
            "/model/end_of_word_suffix",
        ] {
            self.absent(pointer, &[Value::Null, Value::from("")])?;
        }
        self.byte_level("/pre_tokenizer")?;
        self.byte_level("/decoder")?;
        let mut pieces = self.pieces()?;
        let specials = self.specials(&pieces)?;
        let bytes: HashMap<char, u8> = byte_characters().into_iter().zip(0..=255).collect();
        for piece in pieces.iter_mut().filter(|piece| !piece.is_added) {
            let spelled = piece.text.chars().map(|c| bytes.get(&c).copied());
            piece.bytes = spelled.collect::<Option<Vec<u8>>>().ok_or_else(|| {
                let found = format!("the token {}", quoted(&piece.text));
                let expected = "characters of GPT-2's byte alphabet only";
                self.problem("/model/vocab", found, expected)
            })?;
        }
        let texts: HashSet<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
        let mut alphabet = byte_characters().into_iter();
        let missing = alphabet.find(|c| !texts.contains(c.to_string().as_str()));
        if let Some(missing) = missing.filter(|_| !self.is_of_others()) {
            let found = format!("no token {missing:?}");
            return Err(self.problem("/model/vocab", found, "all 256 bytes"));
        }
        let n_merges = self.merges(&texts)?;
        let own_pattern = self.json["pre_tokenizer"]["type"] == "ByteLevel";
        let uses_regex = self.json["pre_tokenizer"]["use_regex"] != false;
        let adds_space = self.json["pre_tokenizer"]["add_prefix_space"] != false;
        let is_bytes = pieces.len() == 260
            && n_merges == 0
            && own_pattern
            && !uses_regex
            && !adds_space
            && self.plain_added()
            && (0..256).all(|id| pieces[id].bytes == [id as u8]);
        Ok(Checked {
            kind: if is_bytes { Kind::Byte } else { Kind::Bpe },
            specials,
            pieces,
            normalise,
            // Unicode's forms can join or move what lies beside a space.
            cuts_at_spaces: own_pattern
                && uses_regex
                && !adds_space
                && normalise == Normalise::None
                && self.plain_added(),
        })
    }

    fn characters(&self) -> Result<Checked, Problem> {
        let expected = "a character tokenizer of `nerve tokenizer train`";
        let normalise = match self.json["normalizer"] == normalizer() {
            true => Normalise::HalfWidth,
            false => self.no_normalizer()?,
        };
        let pattern = self.json.pointer("/pre_tokenizer/pattern/Regex");
        if pattern.and_then(Value::as_str) != Some(CHARACTER_PATTERN) {
            let found = pattern.map_or("another pre-tokenizer".into(), Value::to_string);
            return Err(self.problem("/pre_tokenizer/pattern/Regex", found, expected));
        }
        for (pointer, value) in [
            ("/pre_tokenizer/behavior", "Isolated"),
            ("/decoder/type", "Fuse"),
            ("/model/unk_token", "<unk>"),
        ] {
            let found = self.text(pointer)?;
            if found != value {
                return Err(self.problem(pointer, quoted(found), &quoted(value)));
            }
        }
        let mut pieces = self.pieces()?;
        let specials = self.specials(&pieces)?;
        if !self.plain_added() {
            let found = "other tokens than characters and the four specials";
            return Err(self.problem("/added_tokens", found, expected));
        }
        for piece in pieces.iter_mut().filter(|piece| !piece.is_added) {
            if piece.text.chars().count() != 1 {
                let found = format!("the token {}", quoted(&piece.text));
                return Err(self.problem("/model/vocab", found, "single characters"));
            }
            piece.bytes = piece.text.clone().into_bytes();
        }
        Ok(Checked {
            kind: Kind::Character,
            specials,
            pieces,
            normalise,
            cuts_at_spaces: false,
        })
    }

    fn no_normalizer(&self) -> Result<Normalise, Problem> {
        self.absent("/normalizer", &[Value::Null])?;
        Ok(Normalise::None)
    }

    /// The vocabulary and the added tokens by id, each id exactly once.
    fn pieces(&self) -> Result<Vec<Piece>, Problem> {
        let vocabulary = self.json.pointer("/model/vocab").and_then(Value::as_object);
        let empty = Map::new();
        let vocabulary = vocabulary.unwrap_or(&empty);
        let mut named: Vec<(String, &str, &Value)> = Vec::new();
        for (text, id) in vocabulary {
            named.push((format!("/model/vocab/{}", escaped(text)), text, id));
        }
        for (i, token) in self.added().iter().enumerate() {
            let text = self.text(&format!("/added_tokens/{i}/content"))?;
            let pointer = format!("/added_tokens/{i}/id");
            match vocabulary.get(text) {
                Some(id) if *id == token["id"] => {}
                Some(id) => {
                    let expected = format!("{id} as in /model/vocab");
                    return Err(self.problem(&pointer, token["id"].to_string(), &expected));
                }
                None => named.push((pointer, text, &token["id"])),
            }
        }
        if named.len() <= self.added().len() {
            let expected = "the special tokens and at least one more";
            return Err(self.problem("/model/vocab", format!("{} tokens", named.len()), expected));
        }
        let mut is_special = HashMap::new();
        for token in self.added() {
            let text = token["content"].as_str();
            is_special.extend(text.map(|text| (text, token["special"] == true)));
        }
        let mut pieces: Vec<Option<Piece>> = named.iter().map(|_| None).collect();
        for (pointer, text, id) in &named {
            let expected = format!("ids from 0 to {}, each once", named.len() - 1);
            let slot = id.as_u64().and_then(|id| pieces.get_mut(id as usize));
            match slot {
                Some(slot @ None) if !text.is_empty() => {
                    *slot = Some(Piece {
                        text: text.to_string(),
                        bytes: Vec::new(),
                        is_added: is_special.contains_key(text),
                        is_special: is_special.get(text) == Some(&true),
                    });
                }
                Some(Some(other)) => {
                    let found = format!("id {id}, which is also that of {}", quoted(&other.text));
                    return Err(self.problem(pointer, found, &expected));
                }
                Some(None) => return Err(self.problem(pointer, "an empty token", "some text")),
                None => return Err(self.problem(pointer, format!("id {id}"), &expected)),
            }
        }
        Ok(pieces.into_iter().flatten().collect())
    }

    /// Whether it lacks some of our special tokens, and says itself what is unknown.
    fn is_of_others(&self) -> bool {
        let mut ours = Specials::TEXTS.iter();
        let has_all = ours.all(|text| self.added().iter().any(|token| token["content"] == *text));
        !has_all && self.json["model"]["unk_token"].is_string()
    }

    fn specials(&self, pieces: &[Piece]) -> Result<Specials, Problem> {
        let id = |text: &str| {
            let is_this = |piece: &Piece| piece.is_added && piece.text == text;
            pieces.iter().position(is_this).map(|id| id as u32)
        };
        if self.is_of_others() {
            let text = self.text("/model/unk_token")?;
            let unknown = id(text).ok_or_else(|| {
                let found = format!("{}, which is no added token", quoted(text));
                self.problem("/model/unk_token", found, "an added token")
            })?;
            return Ok(Specials {
                begin: id("<s>"),
                end: ENDS.iter().find_map(|text| id(text)),
                pad: id("[PAD]").or_else(|| id("<pad>")),
                unknown,
            });
        }
        let mut ids = [0; 4];
        for (own, text) in ids.iter_mut().zip(Specials::TEXTS) {
            *own = match id(text) {
                Some(0) => {
                    let found = format!("{text} with id 0");
                    let expected = "special tokens with ids above 0";
                    return Err(self.problem("/added_tokens", found, expected));
                }
                Some(id) => id,
                None => {
                    let expected = "the special tokens <s>, </s>, <pad> and <unk>";
                    return Err(self.problem("/added_tokens", format!("no {text}"), expected));
                }
            };
        }
        Ok(Specials::from_ids(ids))
    }

    fn merges(&self, texts: &HashSet<&str>) -> Result<usize, Problem> {
        let merges = self.json.pointer("/model/merges").and_then(Value::as_array);
        let merges =
            merges.ok_or_else(|| self.problem("/model/merges", "no list", "a list of pairs"))?;
        for (i, merge) in merges.iter().enumerate() {
            let pair = match merge {
                Value::String(text) => text.split_once(' '),
                Value::Array(pair) => match &pair[..] {
                    [Value::String(left), Value::String(right)] => {
                        Some((left.as_str(), right.as_str()))
                    }
                    _ => None,
                },
                _ => None,
            };
            let known = pair.is_some_and(|(left, right)| {
                let joined = format!("{left}{right}");
                [left, right, &joined]
                    .iter()
                    .all(|text| texts.contains(text))
            });
            if !known {
                let expected = "two tokens of the vocabulary whose join is one too";
                let pointer = format!("/model/merges/{i}");
                return Err(self.problem(&pointer, merge.to_string(), expected));
            }
        }
        Ok(merges.len())
    }

    fn byte_level(&self, pointer: &str) -> Result<(), Problem> {
        let found = self.json.pointer(pointer).unwrap_or(&Value::Null);
        let found = found.to_string();
        match found.contains("\"ByteLevel\"") {
            true => Ok(()),
            false => Err(self.problem(pointer, shortened(&found), "one of type ByteLevel")),
        }
    }

    fn absent(&self, pointer: &str, allowed: &[Value]) -> Result<(), Problem> {
        match self.json.pointer(pointer) {
            Some(value) if !allowed.contains(value) => {
                let expected = "null: text must come back unchanged";
                Err(self.problem(pointer, shortened(&value.to_string()), expected))
            }
            _ => Ok(()),
        }
    }

    fn added(&self) -> &[Value] {
        self.json["added_tokens"]
            .as_array()
            .map_or(&[], Vec::as_slice)
    }

    /// Whether the added tokens are the specials alone, of others those that they have, matched wherever they are spelled
    /// out.
    fn plain_added(&self) -> bool {
        let flags = ["single_word", "lstrip", "rstrip", "normalized"];
        let unknown = &self.json["model"]["unk_token"];
        let of_others = self.is_of_others();
        let is_special = |token: &Value| {
            let text = &token["content"];
            let end = || ENDS.iter().any(|end| text == end);
            Specials::TEXTS.iter().any(|special| text == special)
                || of_others && (text == unknown || end())
        };
        let is_plain = |token: &Value| flags.iter().all(|flag| token[flag] == false);
        let mut added = self.added().iter();
        added.all(|token| is_special(token) && is_plain(token))
    }

    fn text(&self, pointer: &str) -> Result<&str, Problem> {
        let value = self.json.pointer(pointer).unwrap_or(&Value::Null);
        let problem = || self.problem(pointer, shortened(&value.to_string()), "a text");
        value.as_str().ok_or_else(problem)
    }

    fn problem(&self, pointer: &str, found: impl Into<String>, expected: &str) -> Problem {
        Problem::new(self.path, pointer, found, expected)
    }
}

fn quoted(text: &str) -> String {
    shortened(&format!("{text:?}"))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

/// A key as JSON pointers spell it, without line ends.
fn escaped(key: &str) -> String {
    let plain = key.replace('~', "~0").replace('/', "~1");
    plain.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Tokenizer};
    use super::*;

    fn broken(kind: Kind, change: impl Fn(&mut Value)) -> String {
        let texts = std::iter::once(Ok("the hat the hat".to_string()));
        let size = (kind == Kind::Bpe).then_some(264);
        let path = tempfile::tempdir().unwrap().keep().join("broken.json");
        Tokenizer::train(kind, texts, size)
            .unwrap()
            .save(&path)
            .unwrap();
        let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        let error = Tokenizer::load(&path).err().unwrap();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert_eq!(text.lines().count(), 1);
        text.split_once("broken.json: ").unwrap().1.to_string()
    }

    #[test]
    fn each_way_to_be_broken_is_named_with_its_place() {
        let hole = broken(Kind::Character, |json| {
            json["model"]["vocab"]["t"] = 99.into()
        });
        assert!(hole.starts_with("/model/vocab/t: found id 99"), "{hole}");
        let twice = broken(Kind::Bpe, |json| json["model"]["vocab"]["A"] = 5.into());
        assert!(twice.contains("which is also that of"), "{twice}");
        let special = broken(Kind::Byte, |json| {
            json["added_tokens"][2]["content"] = "<p>".into()
        });
        assert!(
            special.starts_with("/added_tokens: found no <pad>"),
            "{special}"
        );
        let merge = broken(Kind::Bpe, |json| {
            json["model"]["merges"][1] = serde_json::json!(["t", "zz"])
        });
        assert!(
            merge.starts_with("/model/merges/1: found [\"t\",\"zz\"]"),
            "{merge}"
        );
        let empty = broken(Kind::Bpe, |json| json["model"]["vocab"] = Value::Null);
        assert!(empty.starts_with("/model/vocab: found 4 tokens"), "{empty}");
        let model = broken(Kind::Byte, |json| json["model"]["type"] = "Unigram".into());
        assert!(
            model.starts_with("/model/type: found \"Unigram\""),
            "{model}"
        );
        let order = broken(Kind::Byte, |json| {
            json["added_tokens"].as_array_mut().unwrap().reverse()
        });
        assert!(order.contains("numbers differently"), "{order}");
    }

    #[test]
    fn a_file_that_is_no_json_is_named_with_line_and_column() {
        let problem = check(Path::new("x.json"), b"{\n  \"version\": ]")
            .err()
            .unwrap();
        assert!(
            problem.to_string().starts_with("x.json: line 2, column"),
            "{problem}"
        );
        let deep = check(Path::new("x.json"), "[".repeat(100_000).as_bytes());
        assert!(deep.err().unwrap().found.contains("recursion limit"));
    }
}

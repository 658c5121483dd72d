//! Checks a `tokenizer.json` and returns its vocabulary and how a text is cut; names the place of what contradicts itself.
//!
//! The library itself panics on some broken files and numbers some added tokens differently; both are caught here.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::super::cut::Cut;
use super::half_width::normalizer;
use super::parts::{Parts, names, quoted, shortened};
use super::specials::{KEY, Specials};
use super::spell::Speller;
use super::{Kind, Normalise};
use crate::error::Problem;
use crate::text::json_complaint;

/// Matches one character in Oniguruma (Python) and fancy-regex (here); a dot would leave out line ends.
pub(super) const CHARACTER_PATTERN: &str = r"[\s\S]";

/// The largest vocabulary: several lists of this length are made. A file has more bytes than its highest id besides.
const VOCABULARY_MAX: usize = 1 << 24;

/// One entry of the vocabulary; without text, an id that no token has.
#[derive(Clone, Default)]
pub(super) struct Piece {
    /// Its text as the file spells it.
    pub text: String,
    /// The bytes that it stands for; none for special and unknown tokens.
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
    /// Every id that ends a document, rising.
    pub ends: Vec<u32>,
    /// The id that the model gives to what it does not know.
    pub unknown: Option<u32>,
    /// How a text is normalised before tokenization.
    pub normalise: Normalise,
    /// The types of the normalizers.
    pub normalizers: String,
    /// What the file's template puts around a text, `…`.
    pub template: Option<Vec<String>>,
    /// Where a text can be cut so that its parts get the same ids as the whole.
    pub cut: Cut,
    /// Whether nothing is changed or added before a text is cut into tokens, each of which stands for its own bytes.
    pub is_literal: bool,
    /// Whether the ids have the form of those that we train: bytes join to the text.
    pub is_own: bool,
    /// What is done otherwise than the file says.
    pub notes: Vec<String>,
}

/// Checks the bytes of a file.
pub(super) fn check(path: &Path, file: &[u8]) -> Result<Checked, Problem> {
    let json: Value = serde_json::from_slice(file).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        Problem::new(path, place, json_complaint(&e), "a tokenizer.json")
    })?;
    let parts = Parts::of(path, &json)?;
    let most = file.len().min(VOCABULARY_MAX);
    let (json, parts) = (&json, &parts);
    let checker = Checker { path, json, parts };
    checker.checked(most)
}

struct Checker<'a> {
    path: &'a Path,
    json: &'a Value,
    parts: &'a Parts<'a>,
}

impl Checker<'_> {
    fn checked(&self, most: usize) -> Result<Checked, Problem> {
        let kind = match self.text("/model/type")? {
            "BPE" => Kind::Bpe,
            "WordLevel" => Kind::Word,
            "Unigram" => Kind::Unigram,
            "WordPiece" => Kind::WordPiece,
            other => {
                let expected = "\"BPE\", \"Unigram\", \"WordPiece\" or \"WordLevel\"";
                return Err(self.problem("/model/type", quoted(other), expected));
            }
        };
        let dropout = &self.json["model"]["dropout"];
        if !dropout.is_null() && dropout.as_f64() != Some(0.0) {
            let expected = "null: a text must always get the same ids";
            return Err(self.problem("/model/dropout", dropout.to_string(), expected));
        }
        let mut notes = Vec::new();
        let vocabulary = self.vocabulary()?;
        let mut pieces = self.pieces(&vocabulary, most, &mut notes)?;
        let unknown = self.unknown(kind, &vocabulary)?;
        let n_merges = match kind {
            Kind::Bpe => self.merges(&vocabulary)?,
            _ => 0,
        };
        let template = self.parts.template();
        let (specials, ends) = self.specials(&pieces, template.as_deref(), unknown)?;
        let speller = Speller::of(self.parts, &self.json["model"]);
        for (id, piece) in (0..).zip(&mut pieces) {
            piece.bytes = match piece.is_added {
                _ if piece.is_special || Some(id) == unknown => Vec::new(),
                true => piece.text.clone().into_bytes(),
                false => speller.bytes(&piece.text),
            };
        }
        let is_literal = kind == Kind::Bpe && self.parts.is_literal();
        let cut = match kind {
            Kind::Bpe if self.added_hold_no_space() => self.parts.cut(),
            _ => Cut::Nowhere,
        };
        let mut checked = Checked {
            kind,
            pieces,
            specials,
            ends,
            unknown,
            normalise: self.normalise(),
            normalizers: names(&self.parts.normalizers),
            template,
            cut,
            is_literal,
            is_own: false,
            notes,
        };
        if self.is_characters(&checked) {
            (checked.kind, checked.is_own) = (Kind::Character, true);
        } else if is_literal && n_merges == 0 && self.is_bytes(&checked) {
            (checked.kind, checked.is_own) = (Kind::Byte, true);
        } else if is_literal && cut == Cut::Words {
            let named = |text: &&str| checked.added().any(|piece| piece.text == *text);
            let ours = Specials::TEXTS.iter().filter(|text| named(text)).count();
            checked.is_own = ours == checked.added().count() && self.plain_added();
        }
        self.note_parts(&mut checked);
        Ok(checked)
    }

    /// Says what the file asks for and is not done, and which bytes have no token.
    fn note_parts(&self, checked: &mut Checked) {
        for key in ["truncation", "padding"] {
            if !self.json[key].is_null() {
                let note =
                    format!("the file asks for {key}, which is not done: texts are read whole");
                checked.notes.push(note);
            }
        }
        if checked.kind == Kind::Bpe && self.parts.decodes_by("ByteLevel") {
            let pieces = checked.pieces.iter().filter(|piece| !piece.is_added);
            let known: HashSet<&[u8]> = pieces.map(|piece| &piece.bytes[..]).collect();
            let missing = (0..=255)
                .filter(|byte| !known.contains(&[*byte][..]))
                .count();
            if missing > 0 {
                // A part without any token could not be told from none.
                checked.cut = Cut::Nowhere;
                let read = match checked.unknown {
                    Some(_) => "are unknown",
                    None => "are left out of a text",
                };
                let note = format!("{missing} of 256 bytes have no token and {read}");
                checked.notes.push(note);
            }
        }
    }

    /// Whether it is of the kind of our own tokenizers of characters, for which ids are looked up here.
    fn is_characters(&self, checked: &Checked) -> bool {
        let json = self.json;
        let pattern = json.pointer("/pre_tokenizer/pattern/Regex");
        let is_single = |piece: &Piece| piece.is_added || piece.text.chars().count() == 1;
        checked.kind == Kind::Word
            && pattern.and_then(Value::as_str) == Some(CHARACTER_PATTERN)
            && json["pre_tokenizer"]["behavior"] == "Isolated"
            && json["pre_tokenizer"]["invert"] != true
            && json["decoder"]["type"] == "Fuse"
            && matches!(checked.normalise, Normalise::None | Normalise::HalfWidth)
            && self.plain_added()
            && checked.pieces.iter().all(is_single)
    }

    /// Whether it is our own tokenizer of bytes.
    fn is_bytes(&self, checked: &Checked) -> bool {
        let pieces = &checked.pieces;
        pieces.len() == 256 + Specials::TEXTS.len()
            && self.json["pre_tokenizer"]["use_regex"] == false
            && self.plain_added()
            && (0..256).all(|id| pieces[id].bytes == [id as u8])
    }

    fn normalise(&self) -> Normalise {
        match &self.parts.normalizers[..] {
            [] => Normalise::None,
            [one] if one["type"] == "NFKC" => Normalise::Nfkc,
            _ if self.json["normalizer"] == normalizer() => Normalise::HalfWidth,
            _ => Normalise::Other,
        }
    }

    /// The vocabulary of the model: text, id, and where it stands.
    fn vocabulary(&self) -> Result<HashMap<&str, u64>, Problem> {
        let mut all = HashMap::new();
        match self.json.pointer("/model/vocab") {
            Some(Value::Array(list)) if self.json["model"]["type"] == "Unigram" => {
                for (id, entry) in (0..).zip(list) {
                    let text = entry[0].as_str().filter(|_| entry[1].is_number());
                    let Some(text) = text else {
                        let found = shortened(&entry.to_string());
                        let pointer = format!("/model/vocab/{id}");
                        return Err(self.problem(&pointer, found, "a text and its score"));
                    };
                    // Trainers list a special token again where a text spells it; the last one is used, as in the library.
                    all.insert(text, id);
                }
            }
            Some(Value::Object(map)) if self.json["model"]["type"] != "Unigram" => {
                for (text, id) in map {
                    let Some(id) = id.as_u64() else {
                        let pointer = format!("/model/vocab/{}", escaped(text));
                        return Err(self.problem(&pointer, format!("id {id}"), "a whole number"));
                    };
                    all.insert(text.as_str(), id);
                }
            }
            _ => {}
        }
        Ok(all)
    }

    /// All tokens by id. The library numbers added tokens that the model does not have behind the vocabulary without holes;
    /// so do we, and say so.
    fn pieces(
        &self,
        vocabulary: &HashMap<&str, u64>,
        most: usize,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Piece>, Problem> {
        if vocabulary.is_empty() {
            let found = format!("{} tokens", self.added().len());
            let expected = "the special tokens and at least one more";
            return Err(self.problem("/model/vocab", found, expected));
        }
        // Where a token stands: of an added one its place, of others the model's vocabulary.
        let mut named: Vec<(&str, u64, Option<usize>)> = vocabulary
            .iter()
            .map(|(text, id)| (*text, *id, None))
            .collect();
        named.sort_unstable_by_key(|(text, id, _)| (*id, *text));
        let said: HashSet<u64> = self
            .added()
            .iter()
            .filter_map(|token| token["id"].as_u64())
            .collect();
        let mut added = HashMap::new();
        let listed = self.json["model"]["vocab"].as_array().map(Vec::len);
        let mut next = listed.unwrap_or(vocabulary.len()) as u64;
        if next > vocabulary.len() as u64 {
            let twice = next - vocabulary.len() as u64;
            notes.push(format!(
                "{twice} tokens are listed twice: the last of each is used, as in the library"
            ));
        }
        for (i, token) in self.added().iter().enumerate() {
            let text = self.text(&format!("/added_tokens/{i}/content"))?;
            let id = &token["id"];
            let wrong = |found: String, expected: &str| {
                Err(self.problem(&format!("/added_tokens/{i}/id"), found, expected))
            };
            if added.insert(text, token["special"] == true).is_some() {
                return wrong(format!("{} twice", quoted(text)), "each token once");
            }
            match (vocabulary.get(text), id.as_u64()) {
                (Some(known), Some(id)) if *known == id => continue,
                (Some(known), _) => {
                    return wrong(id.to_string(), &format!("{known} as in /model/vocab"));
                }
                (None, Some(id)) if id == next => {}
                (None, Some(id)) if id > next && !said.contains(&next) => notes.push(format!(
                    "{} has id {next}: the file says {id}, but the library, in Python too, leaves no hole before it",
                    quoted(text)
                )),
                (None, _) => {
                    let found = format!("id {id} of {}, which the library numbers differently", quoted(text));
                    return wrong(found, &format!("id {next}"));
                }
            }
            named.push((text, next, Some(i)));
            next += 1;
        }
        let expected = format!("ids below {most}, each once");
        let mut pieces = Vec::new();
        for (text, id, place) in named {
            let wrong = |found: String, expected: &str| {
                let pointer = match place {
                    Some(i) => format!("/added_tokens/{i}/id"),
                    None if self.json["model"]["vocab"].is_array() => format!("/model/vocab/{id}"),
                    None => format!("/model/vocab/{}", escaped(text)),
                };
                Err(self.problem(&pointer, found, expected))
            };
            if text.is_empty() {
                return wrong("an empty token".to_string(), "some text");
            }
            let Some(place) = usize::try_from(id).ok().filter(|id| *id < most) else {
                return wrong(format!("id {id}"), &expected);
            };
            if pieces.len() <= place {
                pieces.resize(place + 1, Piece::default());
            }
            let piece: &mut Piece = &mut pieces[place];
            if !piece.text.is_empty() {
                let found = format!("id {id}, which is also that of {}", quoted(&piece.text));
                return wrong(found, &expected);
            }
            piece.text = text.to_string();
            piece.is_added = added.contains_key(text);
            piece.is_special = added.get(text) == Some(&true);
        }
        Ok(pieces)
    }

    /// The id that the model gives to what it does not know. Where it needs one and has none, the library fails on a text.
    fn unknown(&self, kind: Kind, vocabulary: &HashMap<&str, u64>) -> Result<Option<u32>, Problem> {
        let model = &self.json["model"];
        if kind == Kind::Unigram {
            let listed = model["vocab"].as_array().map_or(0, Vec::len);
            let id = model["unk_id"]
                .as_u64()
                .filter(|id| (*id as usize) < listed);
            let found = || shortened(&model["unk_id"].to_string());
            let expected = "the id of a token, for characters that have none";
            let id = id.ok_or_else(|| self.problem("/model/unk_id", found(), expected))?;
            return Ok(Some(id as u32));
        }
        if kind == Kind::Bpe && model["unk_token"].is_null() {
            return Ok(None);
        }
        let text = self.text("/model/unk_token")?;
        let id = vocabulary.get(text).ok_or_else(|| {
            let found = format!("{}, which is no token", quoted(text));
            self.problem("/model/unk_token", found, "a token of /model/vocab")
        })?;
        Ok(Some(*id as u32))
    }

    /// The special tokens, and every id that ends a document.
    fn specials(
        &self,
        pieces: &[Piece],
        template: Option<&[String]>,
        unknown: Option<u32>,
    ) -> Result<(Specials, Vec<u32>), Problem> {
        let said = self
            .added()
            .first()
            .map_or(&Value::Null, |token| &token[KEY]);
        if said.is_null() {
            let added = (0..).zip(pieces).filter(|(_, piece)| piece.is_added);
            let added: Vec<(&str, u32)> = added.map(|(id, piece)| (&piece.text[..], id)).collect();
            let around = template.unwrap_or_default();
            let [first, last] = [around.first(), around.last()].map(|at| at.map(String::as_str));
            return Ok(Specials::by_name(&added, (first, last), unknown));
        }
        let pointer = format!("/added_tokens/0/{KEY}");
        let found = || shortened(&said.to_string());
        let (specials, ends) =
            Specials::said(said).map_err(|expected| self.problem(&pointer, found(), &expected))?;
        let ids = specials
            .named()
            .into_iter()
            .filter_map(|(_, id)| id)
            .chain(ends.iter().copied());
        let is_none = |id: &u32| {
            pieces
                .get(*id as usize)
                .is_none_or(|piece| piece.text.is_empty())
        };
        match ids.into_iter().find(is_none) {
            Some(id) => Err(self.problem(&pointer, format!("id {id}"), "ids of tokens")),
            None => Ok((specials, ends)),
        }
    }

    fn merges(&self, vocabulary: &HashMap<&str, u64>) -> Result<usize, Problem> {
        let merges = self.json.pointer("/model/merges").and_then(Value::as_array);
        let merges =
            merges.ok_or_else(|| self.problem("/model/merges", "no list", "a list of pairs"))?;
        // Of the right one, the library leaves out as many bytes as the prefix has.
        let prefix = self.json["model"]["continuing_subword_prefix"].as_str();
        let prefix_bytes = prefix.map_or(0, str::len);
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
                let joined = right
                    .get(prefix_bytes..)
                    .map(|rest| format!("{left}{rest}"));
                let all = [Some(left), Some(right), joined.as_deref()];
                all.iter()
                    .all(|text| text.is_some_and(|text| vocabulary.contains_key(text)))
            });
            if !known {
                let expected = "two tokens of the vocabulary whose join is one too";
                let pointer = format!("/model/merges/{i}");
                return Err(self.problem(&pointer, shortened(&merge.to_string()), expected));
            }
        }
        Ok(merges.len())
    }

    fn added(&self) -> &[Value] {
        self.json["added_tokens"]
            .as_array()
            .map_or(&[], Vec::as_slice)
    }

    /// Whether all added tokens are special and matched wherever they are spelled out.
    fn plain_added(&self) -> bool {
        let flags = ["single_word", "lstrip", "rstrip", "normalized"];
        let is_plain = |token: &Value| flags.iter().all(|flag| token[flag] == false);
        let mut added = self.added().iter();
        added.all(|token| token["special"] == true && is_plain(token))
    }

    /// Whether no added token holds white space or takes some from beside it.
    fn added_hold_no_space(&self) -> bool {
        let flags = ["single_word", "lstrip", "rstrip"];
        let is_plain = |token: &Value| flags.iter().all(|flag| token[flag] == false);
        let has_space = |token: &Value| {
            token["content"]
                .as_str()
                .is_none_or(|text| text.contains(char::is_whitespace))
        };
        self.added()
            .iter()
            .all(|token| is_plain(token) && !has_space(token))
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

impl Checked {
    /// The added tokens.
    fn added(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(|piece| piece.is_added)
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
            json["model"]["vocab"]["t"] = 99_999_999.into()
        });
        assert!(
            hole.starts_with("/model/vocab/t: found id 99999999, expected ids below "),
            "{hole}"
        );
        let twice = broken(Kind::Bpe, |json| json["model"]["vocab"]["A"] = 5.into());
        assert!(twice.contains("which is also that of"), "{twice}");
        let same = broken(Kind::Byte, |json| {
            json["added_tokens"][2]["content"] = "<s>".into()
        });
        assert!(
            same.starts_with("/added_tokens/2/id: found \"<s>\" twice"),
            "{same}"
        );
        let part = broken(Kind::Byte, |json| json["decoder"]["type"] = "CTC".into());
        assert!(
            part.starts_with("/decoder/type: found \"CTC\", expected one of"),
            "{part}"
        );
        let nested =
            broken(
                Kind::Byte,
                |json| {
                    json["normalizer"] =
                        serde_json::json!({"type": "Sequence", "normalizers": [{"type": "Rot13"}]})
                },
            );
        assert!(
            nested.starts_with("/normalizer/normalizers/0/type: found \"Rot13\""),
            "{nested}"
        );
        let unknown = broken(Kind::Bpe, |json| json["model"]["unk_token"] = "<x>".into());
        assert!(
            unknown.starts_with("/model/unk_token: found \"<x>\""),
            "{unknown}"
        );
        let drops = broken(Kind::Bpe, |json| json["model"]["dropout"] = 0.1.into());
        assert!(drops.starts_with("/model/dropout: found 0.1"), "{drops}");
        let prefix = broken(Kind::Bpe, |json| {
            json["model"]["continuing_subword_prefix"] = "####".into()
        });
        assert!(prefix.starts_with("/model/merges/0: found"), "{prefix}");
        let merge = broken(Kind::Bpe, |json| {
            json["model"]["merges"][1] = serde_json::json!(["t", "zz"])
        });
        assert!(
            merge.starts_with("/model/merges/1: found [\"t\",\"zz\"]"),
            "{merge}"
        );
        let empty = broken(Kind::Bpe, |json| json["model"]["vocab"] = Value::Null);
        assert!(empty.starts_with("/model/vocab: found 4 tokens"), "{empty}");
        let model = broken(Kind::Byte, |json| json["model"]["type"] = "Viterbi".into());
        assert!(
            model.starts_with("/model/type: found \"Viterbi\""),
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

//! Reads a vocabulary file of the reference, one JSON object of tokens and ids, into `Vocabulary`: tokens by id and back.
//!
//! Rows of the weights are numbered along the order of this file, so ids must be 0, 1, 2, … in it.

use super::json::{self, Entries, Fault, Whole, shown};
use crate::error::{Error, Problem};
use serde::de::MapAccess;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What is expected of such a file.
const EXPECTED: &str = "an object of tokens and their ids";

/// More tokens than anybody means.
const MOST_TOKENS: usize = 1 << 20;

/// Tokens by id.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    path: PathBuf,
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    /// Reads a file.
    ///
    /// # Errors
    /// `Invalid` with line and column if it is missing, has another form, or the ids are not 0, 1, 2, … in its order.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let fault = Fault::default();
        let read = Self {
            path: path.to_path_buf(),
            tokens: Vec::new(),
            ids: HashMap::new(),
        };
        let (Ids { read, .. }, _) = json::read(
            path,
            &fault,
            Ids {
                fault: &fault,
                read,
            },
        )?;
        match read.tokens.is_empty() {
            false => Ok(read),
            true => Err(Error::Invalid(Problem::new(path, "", "no token", EXPECTED))),
        }
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens by id.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }
}

struct Ids<'f> {
    fault: &'f Fault,
    read: Vocabulary,
}

impl Entries for Ids<'_> {
    const EXPECTED: &'static str = EXPECTED;

    fn entry<'de, A: MapAccess<'de>>(&mut self, name: String, map: &mut A) -> Result<(), A::Error> {
        let (what, fault, read) = ("an id", self.fault, &mut self.read);
        let id = map.next_value_seed(Whole { what, fault })?;
        let expected = read.tokens.len();
        if id != expected as u64 {
            let found = format!("id {id} of {}", shown(&name));
            let expected = format!("id {expected}: ids count from 0 in the order of the file");
            return Err(fault.stop(found, expected));
        }
        if let Some(first) = read.ids.insert(name.clone(), id as u32) {
            let found = format!("{} a second time, first with id {first}", shown(&name));
            return Err(fault.stop(found, "every token once"));
        }
        if expected == MOST_TOKENS {
            let expected = format!("at most {MOST_TOKENS} tokens");
            return Err(fault.stop("more tokens", expected));
        }
        read.tokens.push(name);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A vocabulary from the text of its file.
    pub fn vocabulary(text: &str) -> Result<Vocabulary, Error> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("vocab.json");
        std::fs::write(&path, text).unwrap();
        Vocabulary::load(&path)
    }

    fn refusal(text: &str) -> String {
        let error = vocabulary(text).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert_eq!(text.lines().count(), 1);
        text.split_once("vocab.json: ").unwrap().1.to_string()
    }

    #[test]
    fn tokens_stand_in_the_order_of_the_file() {
        let vocabulary = vocabulary(r#"{"<unk>": 0, "z": 1, "a": 2, "的": 3, "\"": 4}"#).unwrap();
        assert_eq!(vocabulary.tokens(), ["<unk>", "z", "a", "的", "\""]);
        assert_eq!((vocabulary.id("a"), vocabulary.id("b")), (Some(2), None));
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let cases = [
            (
                "{\"a\": 0,\n\"b\": 2}",
                "line 2, column 7: found id 2 of \"b\", expected id 1: ids count",
            ),
            ("{\"a\": 0, \"b\": 0}", "found id 0 of \"b\", expected id 1"),
            (
                "{\"a\": 0, \"a\": 1}",
                "found \"a\" a second time, first with id 0",
            ),
            (
                "{\"a\": 0.0}",
                "found 0.0, expected an id, a whole number of at least 0",
            ),
            ("{\"a\": -1}", "found -1, expected an id"),
            ("{\"a\": \"0\"}", "found the text \"0\", expected an id"),
            ("{\"a\": null}", "found null, expected an id"),
            ("{\"a\": {}}", "found an object, expected an id"),
            (
                "{}",
                "found no token, expected an object of tokens and their ids",
            ),
            ("[1]", "found invalid type: sequence, expected an object"),
            ("{\"a\": 0} x", "found no JSON (trailing characters)"),
            ("{\"a\": 0", "found no JSON (EOF while parsing an object)"),
            ("", "found no JSON (EOF while parsing a value)"),
            ("{\"a\\n\": 7}", "found id 7 of \"a\\n\""),
        ];
        for (text, expected) in cases {
            let refusal = refusal(text);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
        let missing = Vocabulary::load(Path::new("nowhere.json")).unwrap_err();
        assert!(missing.to_string().contains("found no such file"));
        assert!(
            Vocabulary::load(Path::new("."))
                .unwrap_err()
                .to_string()
                .contains("a directory")
        );
    }

    #[test]
    fn no_cut_and_no_changed_byte_is_a_panic() {
        let whole = r#"{"<unk>": 0, "a": 1, "的": 2}"#.as_bytes();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("vocab.json");
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Vocabulary::load(&path)
        };
        for length in 0..whole.len() {
            assert_eq!(check(&whole[..length]).unwrap_err().exit_code(), 3);
        }
        for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 1 << bit;
            if let Err(error) = check(&flipped) {
                assert_eq!(error.exit_code(), 3);
                assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}

//! `Tokenizer` of bytes, characters or byte pairs: trains, loads, saves and decodes; encoding is in `tokenizer/encode.rs`.
//! It is kept as a `tokenizer.json` that Python's `tokenizers` reads.
//!
//! Ids equal those of Python's `tokenizers` with `add_special_tokens=False` and `encode_special_tokens = True`: a special
//! token that is spelled out in a text (`</s>`) is read as text, unless [`SpelledSpecials::Parse`] is chosen. Our special
//! tokens are `<s>`, `</s>`, `<pad>` and `<unk>`, never id 0.
//!
//! Files of other programs are read as they come, and encoded and decoded by the library: byte pairs, Unigram, WordPiece or
//! whole words, with any of its normalizers, pre-tokenizers and decoders. Their special tokens are found by their names, or
//! given with [`Tokenizer::with_specials`]; some have none. What the file's template would put around a text is left out:
//! documents are bounded by the special tokens, as our own are. Decoding need not give back the same text, see
//! [`Tokenizer::losses`], but every byte of a text belongs to one token, see [`Encoded`].

mod check;
mod encode;
mod half_width;
mod losses;
#[cfg(test)]
mod others;
mod parts;
mod span;
mod specials;
mod spell;
mod train;

use std::collections::HashMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Problem};
use crate::file;
use crate::hash::hexadecimal;
use check::{Checked, Piece};
#[cfg(test)]
use encode::chunks;
pub use encode::{Encoded, SpelledSpecials};
pub use specials::Specials;

/// The largest tokenizer file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What one token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One byte of UTF-8; id = byte.
    Byte,
    /// One Unicode character; characters that training did not see become `<unk>`.
    Character,
    /// A sequence of bytes, or of characters and bytes, that is frequent in the training text.
    Bpe,
    /// A piece of a text, chosen among all ways to cut it by its probability; in files of others only.
    #[value(skip)]
    Unigram,
    /// The longest beginning of a word, or of its rest, that is known; in files of others only.
    #[value(skip)]
    WordPiece,
    /// A word; in files of others only.
    #[value(skip)]
    Word,
}

/// How a text is normalised before tokenization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Normalise {
    /// Nothing.
    #[default]
    None,
    /// Full-width forms become half-width: `，` and `１` are read as `,` and `1`.
    HalfWidth,
    /// Unicode's NFKC; in files of others only.
    #[value(skip)]
    Nfkc,
    /// Otherwise, see [`Tokenizer::normalizers`]; in files of others only.
    #[value(skip)]
    Other,
}

/// A tokenizer: text to ids and back.
pub struct Tokenizer {
    checked: Checked,
    encoder: tokenizers::Tokenizer,
    /// The ids of the 256 bytes, where byte pairs have them.
    byte_ids: Vec<Option<u32>>,
    character_ids: HashMap<char, u32>,
    /// The ids of the added tokens, rising.
    added: Vec<u32>,
    /// The characters with which they begin.
    added_starts: Vec<char>,
    spelled_specials: SpelledSpecials,
    file: Vec<u8>,
}

impl Tokenizer {
    /// Learns a vocabulary from texts; `Kind::Byte` needs none and reads none.
    ///
    /// # Errors
    /// `Config` if the vocabulary is too small for its kind or above 1,048,576 or the kind is one that only others make,
    /// `Invalid` if there is no text, or what `texts` yields.
    pub fn train(
        kind: Kind,
        texts: impl Iterator<Item = Result<String, Error>> + Send,
        vocabulary_size: Option<usize>,
    ) -> Result<Self, Error> {
        let json = match kind {
            Kind::Byte => train::byte(vocabulary_size)?,
            Kind::Character => train::character(texts, vocabulary_size, Normalise::None)?,
            Kind::Bpe => train::bpe(texts, vocabulary_size)?,
            Kind::Unigram | Kind::WordPiece | Kind::Word => return Err(train::of_others(kind)),
        };
        Self::from_bytes(Path::new("tokenizer.json"), json.into_bytes())
    }

    /// Learns a vocabulary of characters from texts that are normalised first.
    ///
    /// # Errors
    /// As [`Tokenizer::train`].
    pub fn train_characters(
        normalise: Normalise,
        texts: impl Iterator<Item = Result<String, Error>>,
        vocabulary_size: Option<usize>,
    ) -> Result<Self, Error> {
        let json = train::character(texts, vocabulary_size, normalise)?;
        Self::from_bytes(Path::new("tokenizer.json"), json.into_bytes())
    }

    /// A tokenizer of these tokens, by id: single characters and one `<unk>`. Full-width forms are read as half-width ones,
    /// unless the vocabulary has some itself.
    ///
    /// # Errors
    /// `Invalid`, naming `file`, if a token is anything else.
    pub fn of_characters(file: &Path, tokens: &[String]) -> Result<Self, Error> {
        let json = train::of_characters(file, tokens)?;
        Self::from_bytes(file, json.into_bytes())
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// `Invalid` with the place in the JSON if the file has a part that is not known or contradicts itself.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let expected = "a tokenizer.json (`nerve tokenizer train` makes one)";
        let bytes = file::read_regular(path, expected, FILE_BYTES_MAX)?;
        Self::from_bytes(path, bytes)
    }

    /// Writes the file that `load` reads, byte for byte as it was loaded or trained.
    ///
    /// # Errors
    /// `Resource` if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        fs::write(path, &self.file).map_err(|e| Error::resource(path, "write", e))
    }

    /// The text of ids; special tokens are left out, bytes that are not UTF-8 become U+FFFD. Files of others say themselves
    /// how ids become text, as in Python; some then leave out a space at the beginning.
    pub fn decode(&self, ids: &[u32]) -> String {
        match self.checked.is_own {
            true => self.continued(ids),
            false => {
                let text = self.encoder.decode(ids, true);
                text.unwrap_or_else(|_| self.continued(ids))
            }
        }
    }

    /// The text of ids that continue others, so that a space at its beginning is kept.
    pub fn continued(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.bytes(*id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes that an id stands for behind others: none for a special, the unknown token or an id that no token has.
    pub fn bytes(&self, id: u32) -> &[u8] {
        match self.checked.pieces.get(id as usize) {
            Some(piece) => &piece.bytes,
            None => &[],
        }
    }

    /// One more than the highest id, added tokens included. Some ids below it may have no token; a model may have more rows.
    pub fn vocabulary_size(&self) -> usize {
        self.checked.pieces.len()
    }

    /// The ids of the special tokens.
    pub fn specials(&self) -> Specials {
        self.checked.specials
    }

    /// The same tokenizer with these special tokens instead of those that are found by their names. `other_ends` end a text
    /// that is drawn, as `specials.end` does. The file is written anew and says so, under a key that other programs do not
    /// read, so that a saved tokenizer keeps them.
    ///
    /// # Errors
    /// `Invalid` if an id has no token, or the file has no added token.
    pub fn with_specials(self, specials: Specials, other_ends: &[u32]) -> Result<Self, Error> {
        let path = Path::new("tokenizer.json");
        let file = specials.written_to(other_ends, &self.file).ok_or_else(|| {
            let expected = "at least one, which special tokens are said in";
            Error::Invalid(Problem::new(
                path,
                "/added_tokens",
                "no added token",
                expected,
            ))
        })?;
        let tokenizer = Self::from_bytes(path, file)?;
        Ok(tokenizer.with_spelled_specials(self.spelled_specials))
    }

    /// Every id that ends a document or a turn, rising.
    pub fn ends(&self) -> &[u32] {
        &self.checked.ends
    }

    /// How many tokens there are, added ones included.
    pub fn n_tokens(&self) -> usize {
        let pieces = self.checked.pieces.iter();
        pieces.filter(|piece| !piece.text.is_empty()).count()
    }

    /// The types of the file's normalizers; empty without any.
    pub fn normalizers(&self) -> &str {
        &self.checked.normalizers
    }

    /// What the file's template puts around a text, `…`; it is left out here.
    pub fn template(&self) -> Option<&[String]> {
        self.checked.template.as_deref()
    }

    /// What is done otherwise than the file says or a user may expect, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.checked.notes
    }

    /// The added tokens, by rising id: special tokens and others outside the vocabulary proper.
    pub fn added(&self) -> impl ExactSizeIterator<Item = (&str, u32)> {
        let text = |id: u32| self.checked.pieces[id as usize].text.as_str();
        self.added.iter().map(move |id| (text(*id), *id))
    }

    /// The token that an empty text begins with: the end of the document before, or without such a token the first one of
    /// the vocabulary.
    pub fn start(&self) -> u32 {
        let mut pieces = (0..).zip(&self.checked.pieces);
        let first = pieces.find(|(_, piece)| !piece.text.is_empty());
        let first = first.map_or(0, |(id, _)| id);
        self.checked.specials.end.unwrap_or(first)
    }

    /// The start symbol, put before a document as context: `<s>`, else the symbol that ends documents; `None` without either.
    pub fn start_symbol(&self) -> Option<u32> {
        self.checked.specials.start_symbol()
    }

    /// How a text is normalised before tokenization.
    pub fn normalise(&self) -> Normalise {
        self.checked.normalise
    }

    /// What a token of this tokenizer stands for.
    pub fn kind(&self) -> Kind {
        self.checked.kind
    }

    /// How many bytes of UTF-8 each id stands for; 0 for the specials.
    pub fn token_bytes(&self) -> Vec<u32> {
        let pieces = self.checked.pieces.iter();
        pieces.map(|piece| piece.bytes.len() as u32).collect()
    }

    /// The token as the file spells it (`Ġthe`); empty for an id outside the vocabulary.
    pub fn token_text(&self, id: u32) -> String {
        let piece = self.checked.pieces.get(id as usize);
        piece.map(|piece| piece.text.clone()).unwrap_or_default()
    }

    /// The file, byte for byte as it was loaded or trained.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// SHA-256 of the file, in hexadecimal.
    pub fn sha256(&self) -> String {
        hexadecimal(&Sha256::digest(&self.file))
    }

    /// A tokenizer from the bytes of a file, which messages call `path`.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_bytes(path: &Path, file: Vec<u8>) -> Result<Self, Error> {
        let checked = check::check(path, &file).map_err(Error::Invalid)?;
        let invalid = |found: String| {
            let expected = "a file that the `tokenizers` library accepts";
            Error::Invalid(Problem::new(path, "", found, expected))
        };
        // Some broken files make the library panic, while it reads them or first texts.
        let opened = catch_unwind(|| {
            let encoder = tokenizers::Tokenizer::from_bytes(&file)?;
            if !checked.is_own {
                for (_, text) in losses::PROBES {
                    encoder.encode(text, false)?;
                }
            }
            Ok::<_, tokenizers::Error>(encoder)
        });
        let encoder =
            opened.unwrap_or_else(|_| Err("something that makes the library panic".into()));
        let mut encoder = encoder.map_err(|e| invalid(one_line(&e.to_string())))?;
        // Without these a text is read whole, and its tokens say where they come from, white space included.
        encoder.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        encoder.with_padding(None);
        encoder
            .with_truncation(None)
            .map_err(|e| invalid(one_line(&e.to_string())))?;
        // A byte without a token is unknown.
        let mut byte_ids = vec![checked.unknown; 256];
        let mut character_ids = HashMap::new();
        let (mut added, mut added_starts) = (Vec::new(), Vec::new());
        let has_text = |(_, piece): &(u32, &Piece)| !piece.text.is_empty();
        for (id, piece) in (0..).zip(&checked.pieces).filter(has_text) {
            let text = &piece.text;
            // The library numbers added tokens itself and only logs when the file says otherwise.
            if encoder.token_to_id(text) != Some(id) {
                return Err(invalid(format!(
                    "token {text:?} with id {id}, which the library numbers differently"
                )));
            }
            let first = text.chars().next();
            match (checked.kind, &piece.bytes[..]) {
                _ if piece.is_added => {
                    added.push(id);
                    added_starts.extend(first.filter(|_| piece.is_special || checked.is_own));
                }
                (Kind::Character, _) => character_ids.extend(first.map(|c| (c, id))),
                (_, [byte]) if checked.is_literal => byte_ids[usize::from(*byte)] = Some(id),
                _ => {}
            }
        }
        added_starts.sort_unstable();
        added_starts.dedup();
        let tokenizer = Self {
            checked,
            encoder,
            byte_ids,
            character_ids,
            added,
            added_starts,
            spelled_specials: SpelledSpecials::default(),
            file,
        };
        Ok(tokenizer
            .with_spelled_specials(SpelledSpecials::default())
            .noting_spelled_specials())
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::cut::Cut;
    use super::super::cut::tests::mixed_text;
    use super::*;

    const TEXTS: [&str; 6] = [
        "the cat and the hat and the bat in the hat",
        "  spaces\t\ttabs\r\n\n\nlines ",
        "naïve 日本語 👩‍👩‍👧 e\u{301} \u{0}\u{feff}",
        "don't we'll I'm 1234 5,678",
        "",
        "</ s> <<s <pad",
    ];

    fn three_kinds() -> Vec<Tokenizer> {
        let kinds = [
            (Kind::Byte, None),
            (Kind::Character, None),
            (Kind::Bpe, Some(300)),
        ];
        let texts = || TEXTS.iter().map(|text| Ok(text.to_string()));
        let train = |(kind, size)| Tokenizer::train(kind, texts(), size).unwrap();
        kinds.into_iter().map(train).collect()
    }

    #[test]
    fn every_kind_gives_back_the_text_it_was_given() {
        for tokenizer in three_kinds() {
            for text in TEXTS {
                assert_eq!(
                    tokenizer.decode(&tokenizer.encode(text)),
                    text,
                    "{:?}",
                    tokenizer.kind()
                );
            }
        }
    }

    #[test]
    fn token_bytes_add_up_to_the_bytes_of_the_text() {
        for tokenizer in three_kinds() {
            let sizes = tokenizer.token_bytes();
            for text in TEXTS {
                let ids = tokenizer.encode(text);
                let bytes: u32 = ids.iter().map(|id| sizes[*id as usize]).sum();
                assert_eq!(bytes as usize, text.len());
            }
        }
    }

    #[test]
    fn our_short_cuts_give_the_ids_of_the_library() {
        for rule in [SpelledSpecials::Text, SpelledSpecials::Parse] {
            for tokenizer in three_kinds() {
                let tokenizer = tokenizer.with_spelled_specials(rule);
                for text in TEXTS
                    .into_iter()
                    .chain(["a<s>b</s><pad><unk>", "<s", "unseen ξ"])
                {
                    let library = tokenizer.encoder.encode_fast(text, false).unwrap();
                    assert_eq!(tokenizer.encode(text), library.get_ids(), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn specials_in_a_text_are_text_unless_they_are_to_be_parsed() {
        let text = "a<s>b</s><pad><unk></s";
        for tokenizer in three_kinds() {
            assert_eq!(tokenizer.count_spelled(text), 4);
            let specials = tokenizer.specials();
            let of_ours = [specials.begin, specials.end, specials.pad].map(Option::unwrap);
            let n_specials = |ids: &[u32]| ids.iter().filter(|id| of_ours.contains(id)).count();
            assert_eq!(n_specials(&tokenizer.encode(text)), 0);
            if tokenizer.kind() != Kind::Character {
                assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
            }
            let parsing = tokenizer.with_spelled_specials(SpelledSpecials::Parse);
            let ids = parsing.encode(text);
            assert_eq!(n_specials(&ids), 3);
            assert!(ids.contains(&specials.unknown.unwrap()));
        }
    }

    #[test]
    fn spans_add_up_to_the_bytes_of_the_text_and_only_what_differs_is_listed() {
        for rule in [SpelledSpecials::Text, SpelledSpecials::Parse] {
            for tokenizer in three_kinds() {
                let tokenizer = tokenizer.with_spelled_specials(rule);
                for text in TEXTS.into_iter().chain(["a<s>b</s>", "unseen ξ"]) {
                    assert_eq!(bytes_of_spans(&tokenizer, text), text.len(), "{text:?}");
                }
                assert_eq!(tokenizer.encode_spans(&[TEXTS[0]])[0].spans, []);
            }
        }
        let parsing = three_kinds().pop().unwrap();
        let parsing = parsing.with_spelled_specials(SpelledSpecials::Parse);
        assert_eq!(parsing.encode_spans(&["</s>a"])[0].spans, [(0, 4)]);
        let characters = three_kinds().remove(1);
        assert_eq!(characters.encode_spans(&["aξb"])[0].spans, [(1, 2)]);
    }

    /// The bytes of the source of all ids of a text.
    pub(super) fn bytes_of_spans(tokenizer: &Tokenizer, text: &str) -> usize {
        let encoded = tokenizer.encode_spans(&[text]).remove(0);
        for (position, span) in &encoded.spans {
            let id = encoded.ids[*position as usize];
            assert_ne!(tokenizer.bytes(id).len() as u64, *span);
        }
        encoded.bytes(tokenizer).sum::<u64>() as usize
    }

    #[test]
    fn cutting_a_long_text_does_not_change_its_ids() {
        let tokenizer = three_kinds().pop().unwrap();
        let text = TEXTS.join(" ").repeat(20);
        let whole = tokenizer.encoder.encode_fast(text.as_str(), false).unwrap();
        for size in [1, 7, 100] {
            let cut: Vec<u32> = chunks(&text, size, Cut::Words)
                .flat_map(|chunk| tokenizer.encode(chunk))
                .collect();
            assert_eq!(cut, whole.get_ids());
        }
        assert!(chunks(&text, 1, Cut::Words).count() > 50);
    }

    #[test]
    fn chunks_of_any_text_have_the_ids_of_the_whole() {
        let tokenizer = Tokenizer::train(
            Kind::Bpe,
            std::iter::once(Ok(mixed_text(0, 20_000))),
            Some(600),
        )
        .unwrap();
        for seed in 1..6 {
            let text = mixed_text(seed, 20_000);
            let whole = tokenizer.encoder.encode_fast(text.as_str(), false).unwrap();
            for size in [0, 1, 50] {
                let cut: Vec<u32> = chunks(&text, size, Cut::Words)
                    .flat_map(|chunk| tokenizer.encode(chunk))
                    .collect();
                assert_eq!(cut, whole.get_ids());
            }
        }
    }

    #[test]
    fn a_text_of_one_word_per_line_is_cut_too() {
        for text in ["word\n", "word\r\n", "語。\n", "1\n"] {
            let text = text.repeat(1000);
            assert!(chunks(&text, 100, Cut::Words).all(|chunk| chunk.len() <= 110));
        }
    }

    #[test]
    fn specials_follow_the_other_tokens_and_are_never_zero() {
        for tokenizer in three_kinds() {
            let size = tokenizer.vocabulary_size() as u32;
            let ids = [size - 4, size - 3, size - 2, size - 1];
            let expected = ["begin", "end", "pad", "unknown"]
                .into_iter()
                .zip(ids.map(Some));
            assert!(tokenizer.specials().named().into_iter().eq(expected));
            assert!(tokenizer.added().eq(Specials::TEXTS.into_iter().zip(ids)));
            assert_eq!(tokenizer.token_bytes()[size as usize - 4..], [0; 4]);
        }
        assert_eq!(three_kinds()[0].vocabulary_size(), 260);
    }

    #[test]
    fn byte_pairs_are_learned_up_to_the_size_asked_for() {
        let text = "the cat sat on the mat and that was that ".repeat(3);
        let train = |size| {
            Tokenizer::train(Kind::Bpe, std::iter::once(Ok(text.clone())), Some(size)).unwrap()
        };
        assert_eq!(train(270).vocabulary_size(), 270);
        assert!(train(270).encode(&text).len() > train(280).encode(&text).len());
        // The text has no more pairs that occur twice.
        assert!(train(1000).vocabulary_size() < 400);
    }

    #[test]
    fn a_saved_tokenizer_loads_as_itself() {
        let path = tempfile::tempdir().unwrap().keep().join("tokenizer.json");
        for tokenizer in three_kinds() {
            tokenizer.save(&path).unwrap();
            let loaded = Tokenizer::load(&path).unwrap();
            assert_eq!(loaded.sha256(), tokenizer.sha256());
            assert_eq!(loaded.kind(), tokenizer.kind());
            assert_eq!(loaded.encode(TEXTS[2]), tokenizer.encode(TEXTS[2]));
        }
    }

    #[test]
    fn training_twice_gives_the_same_file() {
        let hashes = || {
            three_kinds()
                .iter()
                .map(Tokenizer::sha256)
                .collect::<Vec<_>>()
        };
        assert_eq!(hashes(), hashes());
    }

    #[test]
    fn a_directory_is_no_tokenizer() {
        let error = Tokenizer::load(".").err().unwrap();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().starts_with(".: found a directory"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Tokenizer::load("nowhere.json").err().unwrap();
        assert_eq!(error.exit_code(), 3);
        assert!(
            error
                .to_string()
                .starts_with("nowhere.json: found no such file")
        );
    }

    #[test]
    fn an_empty_text_begins_behind_the_end_of_another() {
        let bytes = three_kinds().remove(0);
        assert_eq!((bytes.start_symbol(), bytes.start()), (Some(256), 257));
    }
}

//! Makes the text of a `tokenizer.json`: all bytes, characters or byte pairs learned from texts, or a given character list.

use std::collections::HashMap;
use std::ops::RangeBounds;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, TokenizerBuilder,
};

use super::super::cut::Cut;
use super::check::CHARACTER_PATTERN;
use super::encode::chunks;
use super::half_width::{half_width, normalizer};
use super::spell::byte_characters;
use super::{Kind, Normalise, Specials, one_line};
use crate::error::{Error, Problem};

const SPECIALS: usize = Specials::TEXTS.len();

/// Merging a word takes the library time quadratic in its length, so a run of a million spaces must not be one word.
const CHUNK_BYTES: usize = 1 << 10;

/// The library reserves memory for a whole vocabulary before it learns the first token.
const VOCABULARY_MAX: usize = 1 << 20;

/// Refuses a vocabulary that is too large, or of another size than its kind can have.
fn require_size(
    vocabulary_size: Option<usize>,
    of_kind: impl RangeBounds<usize>,
    expected: String,
) -> Result<(), Error> {
    let Some(found) = vocabulary_size else {
        return Ok(());
    };
    let expected = match of_kind.contains(&found) {
        _ if found > VOCABULARY_MAX => format!("at most {VOCABULARY_MAX}"),
        true => return Ok(()),
        false => expected,
    };
    let problem = Problem::new("command line", "--vocabulary", found.to_string(), expected);
    let advice = "the four special tokens are part of the vocabulary";
    Err(Error::config(problem.advise(advice)))
}

/// A byte tokenizer: 256 tokens, no merges, id = byte.
pub(super) fn byte(vocabulary_size: Option<usize>) -> Result<String, Error> {
    let size = 256 + SPECIALS;
    let expected = format!("exactly {size} for bytes");
    require_size(vocabulary_size, size..=size, expected)?;
    let characters = byte_characters().into_iter();
    let characters = characters.map(|character| character.to_string());
    let vocabulary: HashMap<String, usize> = characters.zip(0..).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let model = json!({"type": "BPE", "vocab": vocabulary, "merges": []});
    rewritten(&Value::Null, &level, &level, &model, &ours(256))
}

/// A tokenizer of the most frequent characters; ties are ordered by code point.
pub(super) fn character(
    texts: impl Iterator<Item = Result<String, Error>>,
    vocabulary_size: Option<usize>,
    normalise: Normalise,
) -> Result<String, Error> {
    let minimum = 1 + SPECIALS;
    let expected = format!("at least {minimum} for characters");
    require_size(vocabulary_size, minimum.., expected)?;
    let mut counts: HashMap<char, u64> = HashMap::new();
    for text in texts {
        for c in text?.chars() {
            let c = match normalise {
                Normalise::HalfWidth => half_width(c),
                _ => c,
            };
            *counts.entry(c).or_default() += 1;
        }
    }
    if counts.is_empty() {
        return Err(no_text());
    }
    let mut characters: Vec<(char, u64)> = counts.into_iter().collect();
    characters.sort_unstable_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
    characters.truncate(vocabulary_size.map_or(usize::MAX, |size| size - SPECIALS));

    let names = characters.iter().map(|(c, _)| c.to_string());
    let names = names.chain(Specials::TEXTS.iter().map(|text| text.to_string()));
    let vocabulary = names.zip(0..).collect();
    words(vocabulary, normalise, &ours(characters.len()))
}

/// A tokenizer from a given vocabulary: single characters, and `<unk>`.
pub(super) fn of_characters(file: &Path, tokens: &[String]) -> Result<String, Error> {
    let unknown = Specials::TEXTS[3];
    let wrong = |place: String, found: String| {
        let expected = "single characters and <unk>";
        let problem = Problem::new(file, place, found, expected);
        Error::Invalid(problem.advise("name the --tokenizer that has these tokens"))
    };
    let mut known = HashMap::new();
    let mut normalise = Normalise::HalfWidth;
    for (id, token) in tokens.iter().enumerate() {
        let mut characters = token.chars();
        match (characters.next(), characters.next()) {
            (Some(c), None) if half_width(c) != c => normalise = Normalise::None,
            (Some(_), None) => {}
            _ if token == unknown => {}
            _ => return Err(wrong(format!("id {id}"), format!("the token {token:?}"))),
        }
        known.insert(token.clone(), id);
    }
    let Some(&id) = known.get(unknown) else {
        return Err(wrong(String::new(), "no <unk>".to_string()));
    };
    words(known, normalise, &[(unknown, id)])
}

/// A file whose tokens are single characters.
fn words(
    vocabulary: HashMap<String, usize>,
    normalise: Normalise,
    added: &[(&str, usize)],
) -> Result<String, Error> {
    let normalizer = match normalise {
        Normalise::HalfWidth => normalizer(),
        _ => Value::Null,
    };
    let pre_tokenizer = json!({
        "type": "Split", "pattern": {"Regex": CHARACTER_PATTERN}, "behavior": "Isolated", "invert": false
    });
    let model = json!({"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"});
    let decoder = json!({"type": "Fuse"});
    rewritten(&normalizer, &pre_tokenizer, &decoder, &model, added)
}

/// Our special tokens, behind all others.
fn ours(first: usize) -> Vec<(&'static str, usize)> {
    Specials::TEXTS.into_iter().zip(first..).collect()
}

/// A byte-pair tokenizer: merges of the most frequent adjacent pairs, within words of GPT-2's pattern.
pub(super) fn bpe(
    texts: impl Iterator<Item = Result<String, Error>> + Send,
    vocabulary_size: Option<usize>,
) -> Result<String, Error> {
    let minimum = 256 + SPECIALS;
    let expected = format!("at least {minimum} for byte pairs");
    require_size(vocabulary_size, minimum.., expected)?;
    let size = vocabulary_size.unwrap_or(minimum);
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(size - SPECIALS)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(byte_characters().into_iter().collect())
        .build()
        .into();
    let level = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::<
        ModelWrapper,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >::new()
    .with_model(BPE::default().into())
    .with_pre_tokenizer(Some(level.into()))
    .with_decoder(Some(level.into()))
    .build()
    .map_err(library)?;

    let mut failure = None;
    let mut is_empty = true;
    let readable = texts.map_while(|text| match text {
        Ok(text) => {
            is_empty &= text.is_empty();
            Some(text)
        }
        Err(error) => {
            failure = Some(error);
            None
        }
    });
    let chunked = readable.flat_map(|text| training_chunks(&text));
    tokenizer.train(&mut trainer, chunked).map_err(library)?;
    match (failure, is_empty) {
        (Some(error), _) => return Err(error),
        (None, true) => return Err(no_text()),
        (None, false) => {}
    }
    let specials = Specials::TEXTS.map(|text| AddedToken::from(text, true));
    tokenizer.add_special_tokens(specials).map_err(library)?;
    let text = serde_json::to_string_pretty(&tokenizer).map_err(|e| library(Box::new(e)))?;
    Ok(text + "\n")
}

/// A text in chunks of limited length, cut between words where there are any.
fn training_chunks(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for mut rest in chunks(text, CHUNK_BYTES, Cut::Words) {
        while rest.len() > 2 * CHUNK_BYTES {
            let (chunk, tail) = rest.split_at(rest.floor_char_boundary(CHUNK_BYTES));
            all.push(chunk.to_string());
            rest = tail;
        }
        all.push(rest.to_string());
    }
    all
}

/// Assembles a file and lets the library write it, so that its layout is the library's.
fn rewritten(
    normalizer: &Value,
    pre_tokenizer: &Value,
    decoder: &Value,
    model: &Value,
    added: &[(&str, usize)],
) -> Result<String, Error> {
    let special = |(text, id): &(&str, usize)| {
        json!({
            "id": id, "content": text, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false
        })
    };
    let added: Vec<Value> = added.iter().map(special).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model
    });
    let tokenizer = tokenizers::Tokenizer::from_bytes(file.to_string()).map_err(library)?;
    Ok(tokenizer.to_string(true).map_err(library)? + "\n")
}

/// A kind that is read and not trained.
pub(super) fn of_others(kind: Kind) -> Error {
    let found = format!("{kind:?}");
    Error::config(Problem::typed("--kind", found, "byte, character or bpe"))
}

fn no_text() -> Error {
    let found = "no text in the files given";
    let problem = Problem::new("tokenizer training", "", found, "at least one character");
    Error::Invalid(problem.advise("name files that hold text"))
}

fn library(error: tokenizers::Error) -> Error {
    let found = one_line(&error.to_string());
    let expected = "a tokenizer that the library can write";
    Error::Invalid(Problem::new("tokenizer training", "", found, expected))
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Tokenizer};

    fn train(
        kind: Kind,
        text: &str,
        size: Option<usize>,
    ) -> Result<Tokenizer, crate::error::Error> {
        Tokenizer::train(kind, std::iter::once(Ok(text.to_string())), size)
    }

    #[test]
    fn a_vocabulary_too_small_for_its_kind_says_the_minimum() {
        let cases = [
            (Kind::Byte, 259, "260"),
            (Kind::Character, 4, "5"),
            (Kind::Bpe, 259, "260"),
        ];
        for (kind, size, minimum) in cases {
            let error = train(kind, "text", Some(size)).err().unwrap();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(minimum), "{error}");
        }
    }

    #[test]
    fn a_vocabulary_too_large_for_any_kind_says_the_maximum() {
        for kind in [Kind::Byte, Kind::Character, Kind::Bpe] {
            for size in [(1 << 20) + 1, 99_999_999_999, usize::MAX] {
                let error = train(kind, "text", Some(size)).err().unwrap();
                assert_eq!(error.exit_code(), 2);
                assert!(error.to_string().contains("at most 1048576"), "{error}");
            }
        }
    }

    #[test]
    fn characters_are_ordered_by_frequency_then_code_point() {
        let tokenizer = train(Kind::Character, "bbbcaca", None).unwrap();
        assert_eq!(tokenizer.encode("bac"), [0, 1, 2]);
        let small = train(Kind::Character, "bbbcaca", Some(6)).unwrap();
        assert_eq!(
            small.encode("bac"),
            [0, 1, small.specials().unknown.unwrap()]
        );
    }

    #[test]
    fn chunks_are_short_and_join_to_the_text() {
        let texts = [
            "word ".repeat(9999),
            " ".repeat(99_999),
            "語".repeat(9999),
            String::new(),
        ];
        for text in texts {
            let chunks = super::training_chunks(&text);
            assert_eq!(chunks.concat(), text);
            assert!(
                chunks
                    .iter()
                    .all(|chunk| chunk.len() <= 2 * super::CHUNK_BYTES)
            );
        }
    }

    #[test]
    fn no_text_is_an_error_and_not_an_empty_vocabulary() {
        for kind in [Kind::Character, Kind::Bpe] {
            assert_eq!(train(kind, "", None).err().unwrap().exit_code(), 3);
        }
    }
}

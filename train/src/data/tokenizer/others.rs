//! Tests of tokenizers made by other programs: full-width forms, missing special tokens, byte pairs that lack some bytes, and
//! the families of other projects, with the library as the judge.

use super::super::cut::Cut;
use super::*;

#[test]
fn full_width_forms_have_the_ids_of_half_width_ones_as_in_the_library() {
    let text = "甲，乙１２ａ\u{3000}乙";
    let train = |normalise| {
        let texts = std::iter::once(Ok(text.to_string()));
        Tokenizer::train_characters(normalise, texts, None).unwrap()
    };
    let tokens = ["甲", "<unk>", ",", "1", "乙", " ", "a"].map(str::to_string);
    let of_others = Tokenizer::of_characters(Path::new("vocab.json"), &tokens).unwrap();
    for tokenizer in [train(Normalise::HalfWidth), of_others] {
        assert_eq!(tokenizer.normalise(), Normalise::HalfWidth);
        assert_eq!(tokenizer.encode("，１ａ\u{3000}"), tokenizer.encode(",1a "));
        for text in [text, "甲<unk>，＜unk＞丙", "", "１<s>2"] {
            let library = tokenizer.encoder.encode_fast(text, false).unwrap();
            assert_eq!(tokenizer.encode(text), library.get_ids(), "{text:?}");
            assert_eq!(tests::bytes_of_spans(&tokenizer, text), text.len());
        }
        let spans = &tokenizer.encode_spans(&["甲，丙"])[0].spans;
        assert_eq!(spans, &[(1, 3), (2, 3)]);
        let parsing = tokenizer.with_spelled_specials(SpelledSpecials::Parse);
        for text in ["甲<unk>，＜unk＞丙", "１<s>2"] {
            let library = parsing.encoder.encode_fast(text, false).unwrap();
            assert_eq!(parsing.encode(text), library.get_ids(), "{text:?}");
        }
    }
    let plain = train(Normalise::None);
    assert_ne!(plain.encode("，"), plain.encode(","));
}

#[test]
fn a_vocabulary_of_others_keeps_its_ids_and_lacks_what_it_lacks() {
    let of = |tokens: &[&str]| {
        let tokens: Vec<String> = tokens.iter().map(|token| token.to_string()).collect();
        Tokenizer::of_characters(Path::new("vocab.json"), &tokens)
    };
    let tokenizer = of(&["<unk>", "的", "，", "b"]).unwrap();
    assert_eq!(tokenizer.encode("b的z,，"), [3, 1, 0, 0, 2]);
    assert_eq!(tokenizer.decode(&[3, 0, 1]), "b的");
    assert_eq!(tokenizer.normalise(), Normalise::None);
    let specials = tokenizer.specials();
    assert_eq!(
        (specials.begin, specials.end, specials.pad),
        (None, None, None)
    );
    assert_eq!((specials.unknown, tokenizer.start()), (Some(0), 0));
    for (tokens, found) in [
        (
            vec!["<unk>", "ab"],
            "id 1: found the token \"ab\", expected single characters and <unk>",
        ),
        (vec!["<unk>", "a", ""], "id 2: found the token \"\""),
        (vec!["a", "b"], "found no <unk>"),
    ] {
        let error = of(&tokens).err().unwrap();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains(found), "{error}");
    }
}

/// Byte pairs as the English release has them: its own special tokens first, and not all bytes.
fn of_others(unknown: &str) -> Result<Tokenizer, Error> {
    let added = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let tokens = added.into_iter().chain(["Ġ", "a", "b", "c", "Ġa", "bc"]);
    let vocabulary: serde_json::Map<_, _> = tokens
        .zip(0..)
        .map(|(token, id)| (token.to_string(), serde_json::json!(id)))
        .collect();
    let added = added.into_iter().zip(0..).map(|(content, id)| {
        serde_json::json!({
            "id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false
        })
    });
    let level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true
    });
    let file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": { "type": "NFKC" }, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
            "merges": [["Ġ", "a"], ["b", "c"]]
        }
    });
    Tokenizer::from_bytes(Path::new("bpe.json"), file.to_string().into_bytes())
}

#[test]
fn byte_pairs_of_others_load_without_our_special_tokens_and_without_all_bytes() {
    let tokenizer = of_others("[UNK]").unwrap();
    for (text, ids) in [
        ("a bc", vec![9, 5, 10]),
        ("a%b", vec![9, 1, 7]),
        ("é", vec![5, 1, 1]),
        ("ａ", vec![9]),
        ("", vec![]),
        (" ", vec![5]),
    ] {
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(tests::bytes_of_spans(&tokenizer, text), text.len());
    }
    // The space in front is nowhere in the text; the ligature and the unknown sign are.
    let spans = &tokenizer.encode_spans(&["ａ%é"])[0].spans;
    assert_eq!(spans, &[(0, 3), (1, 1), (2, 1), (3, 1)]);
    assert_eq!(tokenizer.cut(), Cut::Nowhere);
    assert_eq!(tokenizer.decode(&[9, 1, 5, 10]), " a bc");
    assert_eq!(
        (tokenizer.kind(), tokenizer.normalise()),
        (Kind::Bpe, Normalise::Nfkc)
    );
    let specials = tokenizer.specials();
    assert_eq!(
        (specials.pad, specials.unknown, specials.end),
        (Some(0), Some(1), None)
    );
    let error = of_others("[NONE]").err().unwrap().to_string();
    assert!(
        error.contains("/model/unk_token: found \"[NONE]\", which is no token"),
        "{error}"
    );
}

/// A file around a model, with added tokens (text, id, special).
fn file(
    model: serde_json::Value,
    added: &[(&str, u32, bool)],
    parts: serde_json::Value,
) -> Vec<u8> {
    let added = added.iter().map(|(content, id, special)| {
        serde_json::json!({
            "id": id, "content": content, "special": special, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false
        })
    });
    let mut file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(), "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model
    });
    for (key, part) in parts.as_object().unwrap() {
        file[key] = part.clone();
    }
    file.to_string().into_bytes()
}

fn read(file: Vec<u8>) -> Tokenizer {
    Tokenizer::from_bytes(Path::new("t.json"), file).unwrap()
}

/// Byte pairs that were learned from mixed text, cut by a pattern.
fn byte_pairs(
    pattern: &str,
    normalizer: serde_json::Value,
    added: &[(&str, u32, bool)],
) -> Vec<u8> {
    let text = super::super::cut::tests::mixed_text(0, 20_000);
    let learned = Tokenizer::train(Kind::Bpe, std::iter::once(Ok(text)), Some(400)).unwrap();
    let learned: serde_json::Value = serde_json::from_slice(learned.file()).unwrap();
    let level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    let split = serde_json::json!({
        "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false
    });
    let cut = serde_json::json!({ "type": "Sequence", "pretokenizers": [split, level] });
    let parts =
        serde_json::json!({ "normalizer": normalizer, "pre_tokenizer": cut, "decoder": level });
    file(learned["model"].clone(), added, parts)
}

const SENTENCE: &str = r#"{ "normalizer": { "type": "Sequence", "normalizers": [
    { "type": "Prepend", "prepend": "▁" }, { "type": "Replace", "pattern": { "String": " " }, "content": "▁" } ] },
  "decoder": { "type": "Sequence", "decoders": [
    { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" },
    { "type": "Strip", "content": " ", "start": 1, "stop": 0 } ] } }"#;

#[test]
fn long_texts_are_cut_where_the_patterns_of_others_allow_it() {
    let nfc = serde_json::json!({ "type": "NFC" });
    for (pattern, normalizer) in [
        (1, serde_json::Value::Null),
        (2, nfc),
        (0, serde_json::Value::Null),
    ] {
        let added = [("<|endoftext|>", 396, true), ("<think>", 397, false)];
        let tokenizer = read(byte_pairs(
            parts::WORD_PATTERNS[pattern],
            normalizer,
            &added,
        ));
        assert_eq!(
            tokenizer.cut(),
            [Cut::Words, Cut::Spaces][usize::from(pattern > 0)]
        );
        for seed in 1..4 {
            let text =
                super::super::cut::tests::mixed_text(seed, 5_000) + " <think> e\u{301} .\n\n x";
            let whole = tokenizer.encoder.encode_fast(text.as_str(), false).unwrap();
            for size in [0, 50] {
                let parts = chunks(&text, size, tokenizer.cut());
                let cut: Vec<u32> = parts.flat_map(|part| tokenizer.encode(part)).collect();
                assert_eq!(cut, whole.get_ids());
            }
            assert_eq!(tests::bytes_of_spans(&tokenizer, &text), text.len());
        }
    }
}

#[test]
fn pieces_with_byte_tokens_lose_nothing_and_own_every_byte() {
    let mut vocabulary =
        serde_json::json!({ "<unk>": 0, "<s>": 1, "</s>": 2, "▁": 259, "a": 260, "▁a": 261 });
    for byte in 0..256 {
        vocabulary[format!("<0x{byte:02X}>")] = (byte + 3).into();
    }
    let model = serde_json::json!({
        "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocabulary,
        "merges": [["▁", "a"]]
    });
    let added = [("<unk>", 0, true), ("<s>", 1, true), ("</s>", 2, true)];
    let tokenizer = read(file(model, &added, serde_json::from_str(SENTENCE).unwrap()));
    assert_eq!(tokenizer.encode("a é"), [261, 259, 0xc3 + 3, 0xa9 + 3]);
    for text in ["a é", "  a\n\ta", "字</s>", ""] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text)), text);
        assert_eq!(tests::bytes_of_spans(&tokenizer, text), text.len());
    }
    // Behind others a space is kept.
    assert_eq!(
        (tokenizer.decode(&[261]), tokenizer.continued(&[261])),
        ("a".into(), " a".into())
    );
    assert_eq!(tokenizer.losses(), Vec::<&str>::new());
    assert_eq!(tokenizer.cut(), Cut::Nowhere);
}

#[test]
fn word_pieces_say_what_they_lose_and_own_every_byte() {
    let model = serde_json::json!({
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": { "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "##b": 5, ".": 6 }
    });
    let parts = serde_json::json!({
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 }
    });
    let added = [
        ("[PAD]", 0, true),
        ("[UNK]", 1, true),
        ("[CLS]", 2, true),
        ("[SEP]", 3, true),
    ];
    let tokenizer = read(file(model, &added, parts));
    assert_eq!(tokenizer.encode(" Ab  z a. "), [4, 5, 1, 4, 6]);
    assert_eq!(tests::bytes_of_spans(&tokenizer, " Ab  z a. "), 10);
    assert_eq!(tokenizer.decode(&[4, 5, 4, 6]), "ab a.");
    assert!(tokenizer.losses().contains(&"capital letters"));
    let specials = tokenizer.specials();
    assert_eq!(
        (specials.begin, specials.end, specials.pad),
        (Some(2), Some(3), Some(0))
    );
    assert_eq!(tokenizer.template().unwrap(), ["[CLS]", "…", "[SEP]"]);
    assert!(tokenizer.notes()[0].contains("truncation"));
    // Nothing is left of white space.
    assert!(tokenizer.encode(" \n").is_empty());
}

#[test]
fn a_model_that_has_special_tokens_as_words_says_so() {
    let model = serde_json::json!({
        "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["</s>", 0.0], ["▁", -2.0], ["▁a", -1.0]]
    });
    let meta = serde_json::json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    let parts = serde_json::json!({ "pre_tokenizer": meta, "decoder": meta });
    let tokenizer = read(file(model, &[("</s>", 1, true)], parts));
    assert_eq!(tokenizer.kind(), Kind::Unigram);
    assert_eq!(tokenizer.encode("a z</s>"), [3, 2, 0, 1]);
    assert_eq!(tests::bytes_of_spans(&tokenizer, "a z</s>"), 7);
    assert!(tokenizer.notes()[0].starts_with("1 special tokens, such as </s>"));
}

#[test]
fn ids_may_have_holes_and_specials_may_have_any() {
    let model = serde_json::json!({
        "type": "WordLevel", "unk_token": "[UNK]", "vocab": { "<s>": 0, "[UNK]": 2, "a": 9 }
    });
    let parts = serde_json::json!({ "pre_tokenizer": { "type": "Whitespace" } });
    let added = [("<s>", 0, true), ("</s>", 12, true)];
    let tokenizer = read(file(model, &added, parts));
    assert_eq!((tokenizer.vocabulary_size(), tokenizer.n_tokens()), (10, 4));
    assert_eq!(
        (tokenizer.token_text(9), tokenizer.token_text(5)),
        ("a".into(), String::new())
    );
    // The library counts the tokens, in Python too.
    assert!(tokenizer.notes()[0].starts_with("\"</s>\" has id 3: the file says 12"));
    let parsing = tokenizer.with_spelled_specials(SpelledSpecials::Parse);
    assert_eq!(parsing.encode("<s>a b</s>"), [0, 9, 2, 3]);
}

#[test]
fn special_tokens_that_are_given_stay_with_the_file() {
    let added = [("<|endoftext|>", 396, true), ("<|im_end|>", 397, true)];
    let found = read(byte_pairs(
        parts::WORD_PATTERNS[2],
        serde_json::Value::Null,
        &added,
    ));
    assert_eq!(
        (found.specials().end, found.ends()),
        (Some(396), &[396, 397][..])
    );
    let given = Specials {
        begin: Some(397),
        end: Some(397),
        pad: Some(396),
        unknown: None,
    };
    let told = found.with_specials(given, &[396]).unwrap();
    let loaded = read(told.file().to_vec());
    assert_eq!((loaded.specials(), loaded.ends()), (given, &[396, 397][..]));
    assert_eq!(loaded.encode("the hat"), told.encode("the hat"));
    let twice = loaded.with_specials(Specials::default(), &[]).unwrap();
    assert_eq!(
        (twice.specials(), twice.ends(), twice.start()),
        (Specials::default(), &[][..], 0)
    );
    let outside = Specials {
        end: Some(398),
        ..given
    };
    let error = twice.with_specials(outside, &[]).err().unwrap().to_string();
    assert!(
        error.contains("/added_tokens/0/nerve_specials: found id 398, expected ids of tokens"),
        "{error}"
    );
}

#[test]
fn a_file_that_makes_the_library_panic_is_refused() {
    for normalizer in [
        serde_json::json!({ "type": "Prepend", "prepend": "" }),
        serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" }),
    ] {
        let file = byte_pairs(parts::WORD_PATTERNS[0], normalizer, &[]);
        let error = Tokenizer::from_bytes(Path::new("t.json"), file)
            .err()
            .unwrap();
        assert_eq!(error.exit_code(), 3);
        assert!(
            error.to_string().contains("makes the library panic"),
            "{error}"
        );
    }
}

//! Tests of tokenizers made by other programs: full-width forms, missing special tokens, byte pairs that lack some bytes.

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
    assert_eq!((specials.unknown, tokenizer.start()), (0, 0));
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
    assert_eq!(tokenizer.cut(), super::super::cut::Cut::Nowhere);
    assert_eq!(tokenizer.decode(&[9, 1, 5, 10]), " a bc");
    assert_eq!(
        (tokenizer.kind(), tokenizer.normalise()),
        (Kind::Bpe, Normalise::Nfkc)
    );
    let specials = tokenizer.specials();
    assert_eq!(
        (specials.pad, specials.unknown, specials.end),
        (Some(0), 1, None)
    );
    let error = of_others("[NONE]").err().unwrap().to_string();
    assert!(
        error.contains("/model/unk_token: found \"[NONE]\", which is no added token"),
        "{error}"
    );
}

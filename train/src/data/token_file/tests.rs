//! Tests of reading other programs' token ids: formats and types, documents, what does not fit, files of arbitrary bytes.

use std::fs;

use super::super::shard::Split;
use super::super::tokenizer::{Kind, Tokenizer};
use super::*;

/// As NumPy writes it; a header of version 1 has two bytes of length, later ones four.
fn npy(version: u8, dictionary: &str, array: &[u8]) -> Vec<u8> {
    let length = dictionary.len() as u32;
    let length = match version {
        1 => (length as u16).to_le_bytes().to_vec(),
        _ => length.to_le_bytes().to_vec(),
    };
    let head = [npy::MAGIC, &[version, 0], &length, dictionary.as_bytes()].concat();
    [&head, array].concat()
}

fn dictionary(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
}

fn llm_c(fields: [i32; 3], ids: &[u8]) -> Vec<u8> {
    let mut bytes = fields.map(i32::to_le_bytes).concat();
    bytes.resize(HEADER_BYTES, 0);
    [&bytes, ids].concat()
}

fn byte_tokenizer() -> Tokenizer {
    Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap()
}

fn opened(bytes: &[u8], format: Option<TokenFormat>) -> Result<Split, Error> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("ids.bin");
    fs::write(&path, bytes).unwrap();
    let source = TokenSource {
        path: &path,
        format,
    };
    Split::open_for(source, &byte_tokenizer())
}

fn refusal(bytes: &[u8], format: Option<TokenFormat>) -> String {
    let error = opened(bytes, format).err().unwrap();
    assert_eq!(error.exit_code(), 3);
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.split_once("ids.bin: ").unwrap().1.to_string()
}

/// `a b </s> c`.
const IDS: [u16; 4] = [97, 98, 257, 99];

fn two() -> Vec<u8> {
    IDS.map(u16::to_le_bytes).concat()
}

fn four() -> Vec<u8> {
    IDS.map(|id| u32::from(id).to_le_bytes()).concat()
}

fn eight() -> Vec<u8> {
    IDS.map(|id| i64::from(id).to_le_bytes()).concat()
}

#[test]
fn the_same_ids_come_out_of_every_format() {
    let cases = [
        (two(), Some(TokenFormat::U16), "without a header of u16 ids"),
        (
            four(),
            Some(TokenFormat::U32),
            "without a header of u32 ids",
        ),
        (
            llm_c([20_240_520, 1, 4], &two()),
            None,
            "llm.c's header of u16 ids",
        ),
        (
            llm_c([20_240_801, 7, 4], &four()),
            Some(TokenFormat::LlmC),
            "llm.c's header of u32 ids",
        ),
        (npy(1, &dictionary("<u2", "(4,)"), &two()), None, "of u16"),
        (npy(2, &dictionary("<u4", "(4,)"), &four()), None, "of u32"),
        (npy(3, &dictionary("<i4", "( 4 ,)"), &four()), None, "i32"),
        (
            npy(1, &dictionary("<i8", "(4,)"), &eight()),
            Some(TokenFormat::Npy),
            "a .npy file of i64 ids",
        ),
        (
            npy(
                1,
                r#"{"shape":(4,),"fortran_order":False,"descr":"<u2"}"#,
                &two(),
            ),
            None,
            "u16",
        ),
    ];
    for (bytes, format, said) in cases {
        let split = opened(&bytes, format).unwrap();
        assert_eq!(split.tokens(0..4), IDS.map(u32::from), "{said}");
        let reading = split.reading().unwrap();
        assert!(reading.contains(said), "{reading}");
        assert!(
            reading.ends_with("a document ends behind each </s> (id 257)"),
            "{reading}"
        );
        let documents = split.documents().iter();
        let documents: Vec<_> = documents
            .map(|one| (one.start, one.tokens, one.bytes))
            .collect();
        assert_eq!(documents, [(0, 3, 2), (3, 1, 1)]);
        use sha2::{Digest, Sha256};
        assert_eq!(
            split.sha256(),
            crate::hash::hexadecimal(&Sha256::digest(&bytes))
        );
        assert!(split.list().is_none() && !split.ends_documents());
    }
}

#[test]
fn a_part_of_a_document_counts_the_bytes_of_its_tokens() {
    let tokenizer = byte_tokenizer();
    for ids in [&IDS[..], &IDS[..3], &[257, 97, 257, 257, 98]] {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let split = opened(&bytes, Some(TokenFormat::U16)).unwrap();
        let token_bytes = tokenizer.token_bytes();
        for start in 0..ids.len() {
            for end in start..=ids.len() {
                let by_hand = ids[start..end].iter().filter(|id| **id < 256).count();
                let bytes = split.span_bytes(start..end, &token_bytes);
                assert_eq!(bytes, by_hand as u64, "{ids:?} {start}..{end}");
            }
        }
    }
}

#[test]
fn without_an_end_in_it_a_file_is_one_stream_and_says_so() {
    let ids = [97u16, 98].map(u16::to_le_bytes).concat();
    let split = opened(&ids, Some(TokenFormat::U16)).unwrap();
    assert_eq!(split.documents().len(), 1);
    let reading = split.reading().unwrap();
    assert!(
        reading.ends_with("one stream, for it has no </s> (id 257)"),
        "{reading}"
    );
}

#[test]
fn what_does_not_fit_is_one_line_with_its_place() {
    let raw = |format| Some(format);
    let cases: Vec<(Vec<u8>, Option<TokenFormat>, &str)> = vec![
        (Vec::new(), None, "found an empty file, expected token ids"),
        (
            two(),
            None,
            "found 8 bytes without a header that says how wide ids are",
        ),
        (
            two()[..7].into(),
            raw(TokenFormat::U16),
            "found 7 bytes, expected a multiple of the 2",
        ),
        (
            two()[..6].into(),
            raw(TokenFormat::U32),
            "found 6 bytes, expected a multiple of the 4",
        ),
        // Read as wider or narrower than they are.
        (
            two(),
            raw(TokenFormat::U32),
            "index 0 (byte 0): found id 6422625, expected ids from 0 to 259",
        ),
        (
            two(),
            raw(TokenFormat::Npy),
            "byte 0: found another beginning",
        ),
        (
            two(),
            raw(TokenFormat::LlmC),
            "byte 8: found the end of the file, expected a header",
        ),
        (
            llm_c([7, 1, 4], &two()),
            raw(TokenFormat::LlmC),
            "byte 0: found 7, expected llm.c's magic",
        ),
        (
            llm_c([20_240_520, 1, 4], &two()),
            raw(TokenFormat::U16),
            "byte 0: found a file with llm.c's header",
        ),
        (
            llm_c([20_240_520, 7, 4], &two()),
            None,
            "byte 4: found version 7, expected version 1 behind",
        ),
        (
            llm_c([20_240_801, 1, 4], &four()),
            None,
            "byte 4: found version 1, expected version 7 behind",
        ),
        (llm_c([20_240_520, 1, 0], &[]), None, "byte 8: found 0 ids"),
        (
            llm_c([20_240_520, 1, -4], &two()),
            None,
            "byte 8: found -4 ids",
        ),
        (
            llm_c([20_240_520, 1, 5], &two()),
            None,
            "found 1032 bytes, expected 1034",
        ),
        (
            llm_c([20_240_520, 1, 3], &two()),
            None,
            "found 1032 bytes, expected 1030",
        ),
        (
            llm_c([20_240_520, 1, i32::MAX], &two()),
            None,
            "found 1032 bytes, expected 4294968318",
        ),
        (
            llm_c([20_240_520, 1, 4], &two())[..900].into(),
            None,
            "byte 900: found the end of the file",
        ),
        (
            llm_c([20_240_520, 1, 1], &260u16.to_le_bytes()),
            None,
            "index 0 (byte 1024): found id 260, expected ids from 0 to 259",
        ),
        (
            npy(1, &dictionary("<i8", "(1,)"), &(-1i64).to_le_bytes()),
            None,
            "found id -1, expected ids from 0",
        ),
        (
            npy(1, &dictionary("<i8", "(1,)"), &(1i64 << 33).to_le_bytes()),
            None,
            "found id 8589934592",
        ),
        (
            npy(1, &dictionary("<i4", "(1,)"), &(-7i32).to_le_bytes()),
            None,
            "found id -7",
        ),
        (
            npy(4, &dictionary("<u2", "(4,)"), &two()),
            None,
            "byte 6: found version 4",
        ),
        (
            npy(1, &dictionary("<u2", "(5,)"), &two()),
            None,
            "and 5 ids of 2 bytes by that header",
        ),
        (
            npy(1, &dictionary("<u2", "(0,)"), &[]),
            None,
            "found no ids",
        ),
        (
            npy(1, &dictionary("<u2", "(2, 2)"), &two()),
            None,
            "header, shape: found (2, 2), expected one dimension",
        ),
        (
            npy(1, &dictionary("<u2", "()"), &two()),
            None,
            "header, shape: found ()",
        ),
        (
            npy(1, &dictionary("<u2", "(-4,)"), &two()),
            None,
            "header, shape: found (-4,)",
        ),
        (
            npy(1, &dictionary("<u2", "(99999999999999999999999,)"), &two()),
            None,
            "header, shape: found (9999",
        ),
        (
            npy(1, &dictionary("<i8", "(18446744073709551615,)"), &eight()),
            None,
            "expected more than any file has",
        ),
        (
            npy(1, &dictionary("|O", "(4,)"), &two()),
            None,
            "header, descr: found '|O', expected '<u2'",
        ),
        (
            npy(1, &dictionary(">u2", "(4,)"), &two()),
            None,
            "header, descr: found '>u2'",
        ),
        (
            npy(1, &dictionary("<f4", "(4,)"), &four()),
            None,
            "header, descr: found '<f4'",
        ),
        (
            npy(
                1,
                "{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (4,)}",
                &two(),
            ),
            None,
            "header, descr: found [('a', '<u2')]",
        ),
        (
            npy(
                1,
                "{'descr': '<u2', 'fortran_order': True, 'shape': (4,), }",
                &two(),
            ),
            None,
            "header, fortran_order: found True",
        ),
        (
            npy(1, "{'descr': '<u2', 'shape': (4,), }", &two()),
            None,
            "expected a dictionary of descr",
        ),
        (
            npy(1, "os.system('x')", &two()),
            None,
            "byte 10: found \"os.system('x')\"",
        ),
        (
            b"\x93NUMPY\x02\0\xff\xff\xff\xffabc".into(),
            None,
            "byte 8: found a header up to byte 4294967307",
        ),
        (
            b"\x93NUMPY\x01".into(),
            None,
            "found a file that ends in its header",
        ),
    ];
    for (bytes, format, expected) in cases {
        let text = refusal(&bytes, format);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn no_bytes_make_it_panic_or_take_memory() {
    let whole = [
        llm_c([20_240_520, 1, 4], &two()),
        npy(1, &dictionary("<u2", "(4,)"), &two()),
        npy(2, &dictionary("<i8", "(4,)"), &eight()),
    ];
    let formats = [
        None,
        Some(TokenFormat::U16),
        Some(TokenFormat::LlmC),
        Some(TokenFormat::Npy),
    ];
    for bytes in &whole {
        let ends = (0..bytes.len()).filter(|end| *end < 140 || end % 97 == 0);
        for end in ends {
            for format in formats {
                let _ = find(&bytes[..end], end as u64, format)
                    .map_err(|wrong| wrong.problem(Path::new("x")));
            }
        }
        for at in 0..bytes.len().min(100) {
            for byte in [0, 1, 0x20, 0x28, 0x2c, 0x39, 0x7b, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let _ = find(&changed, bytes.len() as u64, None);
            }
        }
    }
}

#[test]
fn a_file_is_ours_by_what_lies_beside_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("train.bin");
    fs::write(&path, llm_c([20_240_520, 1, 4], &two())).unwrap();
    let source = TokenSource::from(path.as_path());
    assert!(!Split::is_prepared(source));
    for beside in ["manifest.json", "train.documents.jsonl"] {
        let file = place.path().join(beside);
        fs::write(&file, "{}").unwrap();
        assert!(Split::is_prepared(source), "{beside}");
        let format = Some(TokenFormat::LlmC);
        assert!(!Split::is_prepared(TokenSource { format, ..source }));
        fs::remove_file(file).unwrap();
    }
    let numpy = place.path().join("train.npy");
    fs::write(&numpy, "").unwrap();
    assert!(!Split::is_prepared(numpy.as_path().into()));
    let (sha256, list) = Split::hashes(source).unwrap();
    let split = Split::open_for(source, &byte_tokenizer()).unwrap();
    assert_eq!((split.sha256(), list), (&*sha256, None));
}

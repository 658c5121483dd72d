//! Tests of Parquet and Arrow tables as sources of documents: labels, absent texts, nested columns, damage.

use std::sync::Arc;

use arrow_array::{Int32Array, StringArray};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use sha2::{Digest, Sha256};

use super::super::{Document, DocumentReader, ReadRules};
use super::*;

/// Four rows: a text with signs that JSON escapes, none, one inside of an absent struct, a plain one.
fn table() -> RecordBatch {
    let texts = [
        Some("one \"line\"\nand \u{8a9e}"),
        None,
        Some("two"),
        Some("three"),
    ];
    let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    let inner = Fields::from(vec![Field::new("body", DataType::Utf8, true)]);
    let present = vec![true, true, false, true];
    let meta = StructArray::new(inner, vec![texts.clone()], Some(present.into()));
    let tasks: ArrayRef = Arc::new(StringArray::from(vec![
        Some("copy"),
        None,
        None,
        Some("sum"),
    ]));
    let levels: ArrayRef = Arc::new(Int32Array::from(vec![Some(2), None, Some(0), Some(-1)]));
    let other: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3, 4]));
    let columns: [(&str, ArrayRef, bool); 5] = [
        ("id", other, false),
        ("text", texts, true),
        ("task", tasks, true),
        ("difficulty", levels, true),
        ("meta", Arc::new(meta), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn parquet_file(compression: Compression) -> Vec<u8> {
    let table = table();
    let properties = WriterProperties::builder().set_compression(compression);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, table.schema(), Some(properties.build()));
    let writer_of = writer.as_mut().unwrap();
    writer_of.write(&table).unwrap();
    writer.unwrap().close().unwrap();
    bytes
}

fn arrow_file() -> Vec<u8> {
    let table = table();
    let mut writer = FileWriter::try_new(Vec::new(), &table.schema()).unwrap();
    writer.write(&table).unwrap();
    writer.write(&table.slice(3, 1)).unwrap();
    writer.into_inner().unwrap()
}

fn arrow_stream() -> Vec<u8> {
    let table = table();
    let mut writer = StreamWriter::try_new(Vec::new(), &table.schema()).unwrap();
    writer.write(&table).unwrap();
    writer.into_inner().unwrap()
}

fn open(bytes: &[u8], field: &str) -> Result<DocumentReader, Error> {
    let path = tempfile::tempdir().unwrap().keep().join("t.table");
    std::fs::write(&path, bytes).unwrap();
    let rules = ReadRules {
        field: field.to_string(),
        ..ReadRules::default()
    };
    DocumentReader::open(path, &rules, None)
}

fn texts(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|one| one.text.as_str()).collect()
}

#[test]
fn a_parquet_or_arrow_table_gives_its_texts_with_their_labels() {
    let files = [
        (parquet_file(Compression::UNCOMPRESSED), 3),
        (parquet_file(Compression::SNAPPY), 3),
        (parquet_file(Compression::ZSTD(Default::default())), 3),
        (parquet_file(Compression::GZIP(Default::default())), 3),
        (arrow_file(), 4),
        (arrow_stream(), 3),
    ];
    for (bytes, n) in files {
        let mut reader = open(&bytes, "text").unwrap();
        assert!(reader.is_jsonl() && reader.notes()[0].contains("row n is called line n"));
        let documents: Vec<Document> = reader.by_ref().map(Result::unwrap).collect();
        assert_eq!(documents.len(), n);
        assert_eq!(
            texts(&documents)[..3],
            ["one \"line\"\nand \u{8a9e}", "two", "three"]
        );
        let labels = |one: &Document| (one.task.clone(), one.difficulty);
        assert_eq!(labels(&documents[0]), (Some("copy".into()), Some(2)));
        assert_eq!(labels(&documents[1]), (None, Some(0)));
        // A difficulty below zero is none, and said.
        assert_eq!(labels(&documents[2]), (Some("sum".into()), None));
        let counts = reader.counts();
        // A row without a text is left out, as `null` in JSONL is.
        assert_eq!(
            (counts.records_skipped, counts.labels_ignored as usize),
            (1, n - 2)
        );
        assert_eq!(reader.bytes_read(), bytes.len() as u64);
        assert_eq!(
            reader.sha256(),
            crate::hash::hexadecimal(&Sha256::digest(&bytes))
        );
    }
}

#[test]
fn a_parquet_column_may_lie_within_another_and_must_hold_texts() {
    let bytes = parquet_file(Compression::SNAPPY);
    let documents: Vec<Document> = open(&bytes, "meta.body")
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(texts(&documents), ["one \"line\"\nand \u{8a9e}", "three"]);
    let cases = [
        (
            "body",
            "the columns \"id\", \"text\", \"task\", \"difficulty\", \"meta\", expected a column \"body\" of texts",
        ),
        ("id", "found Int32 in column \"id\""),
        ("meta", "in column \"meta\""),
    ];
    for (field, expected) in cases {
        let error = open(&bytes, field).err().unwrap();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().ends_with("--field"), "{error}");
    }
}

#[test]
fn a_damaged_parquet_or_arrow_table_is_one_line_and_no_panic() {
    for bytes in [
        parquet_file(Compression::SNAPPY),
        arrow_file(),
        arrow_stream(),
    ] {
        let mut refused = 0;
        for at in (12..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            for bytes in [&changed[..], &bytes[..at]] {
                let read =
                    open(bytes, "text").and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
                let Err(error) = read else {
                    continue;
                };
                refused += 1;
                assert_eq!((error.exit_code(), error.lines().len()), (3, 1), "{error}");
            }
        }
        assert!(refused > 10, "{refused}");
    }
}

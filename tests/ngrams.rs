//! Tests of `nerve data ngrams`: losses of small texts against values by hand, the end of a document included, and errors
//! where nothing can be measured. `tests/scripts/ngram_reference.py` has larger cases.

use crate::support::{Finished, Workplace};

/// What n-grams of documents, one per line, lose on the same documents.
fn ngrams(workplace: &Workplace, lines: &str, end_of_document: bool, flags: &str) -> Finished {
    workplace.write("text.txt", lines);
    let prepare = format!(
        "data prepare text.txt --document line --output data --valid 0 --force --end-of-document {end_of_document} \
         --tokenizer assets/tokenizers/byte.json"
    );
    workplace.nerve(&prepare).expect(0);
    workplace.nerve(&format!(
        "data ngrams data/train.bin --valid data/train.bin --json {flags}"
    ))
}

#[test]
fn every_token_of_a_document_is_predicted_its_end_included() {
    let workplace = Workplace::new();
    let lines = "ab\n".repeat(200);
    let found = ngrams(&workplace, &lines, true, "--order 3").expect(0);
    assert!(
        found
            .stderr
            .contains("discounts of 3-grams cannot be estimated"),
        "{}",
        found.stderr
    );
    let answer = found.json();
    assert_eq!(answer["predictable_ids"], 258);
    let row = &answer["rows"][0];
    assert_eq!(row["targets"], 600);
    assert_eq!(row["bytes"], 400);
    assert_eq!(row["documents"], 200);
    assert!(row["standard_error"].as_f64().unwrap() < 1e-12);
    assert_eq!(row["fallback_discounts"], serde_json::json!([1, 2, 3]));
    // Continuation counts of 1 lose 0.5 each, counts of 200 lose 1.5; a b and b </s> have a shorter context of 0.5 each.
    let unigram = 0.5 / 3.0 + 0.5 / 258.0;
    let certain = |shorter: f64| -((198.5 + 1.5 * shorter) / 200.0).ln();
    let expected = (certain(unigram) + 2.0 * certain(0.5 + 0.5 * unigram)) / 3.0;
    let loss = row["loss/lm"].as_f64().unwrap();
    assert!((loss - expected).abs() < 1e-9, "{loss} and {expected}");
}

#[test]
fn nothing_to_measure_is_an_error() {
    let workplace = Workplace::new();
    let letters = "a\nb\na\n";
    let refused = |flags: &str| ngrams(&workplace, letters, false, flags).expect(3).stderr;
    // Behind the start symbol a single token is one target, and no 3-gram.
    let error = refused("--order 3");
    assert!(
        error.contains("found no n-gram of more than 2 tokens"),
        "{error}"
    );
    let error = refused("--order 1 --start first_token");
    assert!(
        error.contains("found 3 documents of one token each"),
        "{error}"
    );
    let two = ngrams(&workplace, letters, false, "--order 2").expect(0);
    assert_eq!(two.json()["rows"][0]["targets"], 3);
}

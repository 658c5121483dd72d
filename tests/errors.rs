//! What a user can get wrong: one line each that names file, place, found and expected, and the right exit code.
//!
//! These texts are what a user reads, so they are held here word for word.

use crate::support::Workplace;

/// Runs a line and compares exit code and the error, with the temporary directory left out.
fn check(workplace: &Workplace, line: &str, code: i32, expected: &str) {
    let finished = workplace.nerve(line).expect(code);
    let place = format!("{}/", workplace.path("").display()).replace("//", "/");
    let found = finished.stderr.replace(&place, "");
    let found = found.lines().last().unwrap_or("");
    assert_eq!(found, format!("error: {expected}"), "{line}");
}

#[test]
fn mistakes_in_a_recipe() {
    let workplace = Workplace::with_stories();
    let fit = "fit assets/recipes/brian/tiny.toml --set";
    check(
        &workplace,
        &format!("{fit} model.d_modl=64"),
        2,
        "assets/recipes/brian/tiny.toml: --set model.d_modl: found no such key, expected a key of the recipe; \
         did you mean model.d_model (line 33)?",
    );
    check(
        &workplace,
        &format!("{fit} model.d_model=wide"),
        2,
        "assets/recipes/brian/tiny.toml: line 33, model.d_model, from --set: found string \"wide\", expected a \
         whole number of at least 0",
    );
    check(
        &workplace,
        &format!("{fit} stage.fixed.learning_rate.peak=nan"),
        2,
        "assets/recipes/brian/tiny.toml: line 77, stage.fixed.learning_rate.peak, from --set: found float nan, \
         expected a finite number",
    );
    check(
        &workplace,
        "fit none.toml",
        2,
        "none.toml: found no such file, expected a recipe; `nerve config new` writes one",
    );
}

#[test]
fn mistakes_in_data() {
    let workplace = Workplace::new();
    workplace.write("empty.txt", "");
    workplace.write("latin1.txt", b"one\ntwo \xe9\n");
    workplace.write("long.txt", vec![b'x'; 100_000_000]);
    workplace.write("short.txt", "a few words\n");
    let prepare = "data prepare --output out --tokenizer assets/tokenizers/byte.json";
    for (file, expected) in [
        (
            "none.txt",
            "none.txt: found no such file, expected a text file",
        ),
        ("empty.txt", "empty.txt: found an empty file, expected text"),
        (
            "latin1.txt",
            "latin1.txt: line 2, byte 8: found 0xe9, which is no UTF-8 there, expected UTF-8",
        ),
        (
            "long.txt",
            "long.txt: line 1: found more than 16777216 bytes, expected a line of at most 16777216 bytes",
        ),
    ] {
        check(&workplace, &format!("{prepare} {file}"), 3, expected);
    }
    assert!(!workplace.path("out").exists(), "nothing half-made is left");
}

#[test]
fn a_vocabulary_that_is_too_small() {
    let workplace = Workplace::new();
    workplace.write("text.txt", "a few words\n");
    let train = "tokenizer train --output t.json --vocabulary 200 --kind";
    check(&workplace, &format!("{train} bpe text.txt"), 2, "");
    check(&workplace, &format!("{train} byte"), 2, "");
}

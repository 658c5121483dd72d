//! Tests of messages for a user's mistakes in recipes, data, tokenizers and output paths: one line that names file, place,
//! found and expected value, and the exit code.
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
    let recipe = "assets/recipes/brian/tiny.toml";
    let cases = [
        (
            "model.d_modl=64",
            "--set model.d_modl: found no such key in the recipe, expected a path that exists; \
             did you mean model.d_model (line 35)?",
        ),
        (
            "model.d_model=wide",
            "line 35, model.d_model, from --set: found string \"wide\", expected a whole number",
        ),
        (
            "stage.fixed.learning_rate.peak=nan",
            "line 95, stage.fixed.learning_rate.peak, from --set: found float nan, expected a finite number",
        ),
        (
            "batch.sequences=-1",
            "line 76, batch.sequences, from --set: found integer -1, expected a whole number of at least 0",
        ),
        (
            "model.position.layout=ring",
            "line 53, model.position.layout, from --set: found string \"ring\", expected one of \"open_arc\", \
             \"circle\", \"closed_circle\", \"random\", \"none\"",
        ),
        (
            "stage.baseline.gate.metric=valid/loss",
            "line 87, stage.baseline.gate.metric, from --set: found string \"valid/loss\", expected one of \
             \"valid/loss/lm\", \"valid/loss/total\", \"valid/bits_per_byte\"; did you mean \"valid/loss/lm\"?",
        ),
    ];
    for (set, expected) in cases {
        let line = format!("fit {recipe} --set {set}");
        check(&workplace, &line, 2, &format!("{recipe}: {expected}"));
    }
    let expected =
        "none.toml: found no such file, expected a recipe; `nerve config new` writes one";
    check(&workplace, "fit none.toml", 2, expected);
    let unknown = workplace.nerve("fit").expect(2);
    assert!(
        unknown.stderr.contains("required arguments"),
        "{}",
        unknown.stderr
    );
    assert!(
        !workplace.path("runs").exists(),
        "no mistake leaves a run behind"
    );
}

#[test]
fn all_mistakes_in_a_recipe_are_told_at_once() {
    let workplace = Workplace::with_stories();
    let line = "config check assets/recipes/brian/tiny.toml --set model.d_model=wide --set batch.sequences=0 \
                --set run.name=../x";
    let refused = workplace.nerve(line).expect(2);
    let mistakes: Vec<&str> = refused
        .stderr
        .lines()
        .filter(|line| line.contains("from --set"))
        .collect();
    assert_eq!(mistakes.len(), 3, "{}", refused.stderr);
    let json = workplace.nerve(&format!("{line} --json")).expect(2).json();
    assert_eq!(json["files"][0]["ok"], false);
    assert_eq!(
        json["files"][0]["problems"].as_array().unwrap().len(),
        3,
        "{json}"
    );
}

#[test]
fn mistakes_in_data() {
    let workplace = Workplace::with_stories();
    workplace.write("empty.txt", "");
    workplace.write("latin1.txt", b"one\ntwo \xe9\n");
    workplace.write("long.txt", vec![b'x'; 100_000_000]);
    let prepare = "data prepare --output out --tokenizer assets/tokenizers/byte.json";
    for (file, expected) in [
        (
            "none.txt",
            "none.txt: found no such file, expected a text or JSONL file",
        ),
        (
            "empty.txt",
            "empty.txt: found an empty file, expected some text",
        ),
        (
            "latin1.txt",
            "latin1.txt: line 2, byte 8: found 0xe9, which is no UTF-8 there, expected UTF-8 text; convert the \
             file or choose --on-bad-utf8 replace or skip",
        ),
        (
            "long.txt",
            "long.txt: line 1: found 100000000 bytes, expected at most 16777216; break the line or raise \
             --max-line-bytes",
        ),
    ] {
        check(&workplace, &format!("{prepare} {file}"), 3, expected);
    }
    assert!(!workplace.path("out").exists(), "nothing half-made is left");
    let fit = "fit assets/recipes/brian/tiny.toml --set";
    check(
        &workplace,
        &format!("{fit} data.train.0.path=none.bin"),
        3,
        "none.bin: found no such file, expected a .bin file of `nerve data prepare`",
    );
    check(
        &workplace,
        &format!("{fit} tokenizer.file=assets/tokenizers/byte.json"),
        3,
        "data/stories/train.bin: found tokens of another tokenizer, expected tokens of the recipe's tokenizer.file; \
         name the tokenizer.json beside the data, or prepare the data again",
    );
    check(
        &workplace,
        "sample none",
        3,
        "runs: found no such file, expected a directory of runs",
    );
    assert!(
        !workplace.path("runs").exists(),
        "no mistake leaves a run behind"
    );
}

#[test]
fn mistakes_with_a_tokenizer() {
    let workplace = Workplace::new();
    workplace.write("text.txt", "a few words\n");
    let four = "the four special tokens are part of the vocabulary";
    let train = "tokenizer train --output t.json text.txt --kind";
    for (kind, vocabulary, expected) in [
        ("byte", 200, "exactly 260 for bytes"),
        ("bpe", 200, "at least 260 for byte pairs"),
        ("character", 4, "at least 5 for characters"),
    ] {
        let expected =
            format!("command line: --vocabulary: found {vocabulary}, expected {expected}; {four}");
        let line = format!("{train} {kind} --vocabulary {vocabulary}");
        check(&workplace, &line, 2, &expected);
    }
    check(
        &workplace,
        "data prepare text.txt --output out --tokenizer text.txt",
        3,
        "text.txt: line 1, column 1: found no JSON (expected value), expected a tokenizer.json",
    );
}

#[test]
fn a_place_that_cannot_be_written_is_a_resource_error() {
    let workplace = Workplace::with_stories();
    let line = "fit assets/recipes/brian/tiny.toml --set run.root=/proc/none";
    let refused = workplace.nerve(line).expect(4);
    assert!(
        refused
            .stderr
            .contains("error: /proc/none: cannot create the directory"),
        "{}",
        refused.stderr
    );
}

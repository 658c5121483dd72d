//! Tests of `nerve data prepare` and `nerve tokenizer train` on pipes, long texts and special tokens spelled out in a text, of
//! a signal midway, and of `--text` and `--prompt` that begin with a hyphen.

use crate::support::Workplace;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use train::data::tokenizer::{Kind, Tokenizer};
use train::data::{SpelledSpecials, Split};

const BYTES: &str = "--tokenizer assets/tokenizers/byte.json";

#[test]
fn a_stream_is_prepared_as_its_file_is() {
    let workplace = Workplace::new();
    let lines: String = (0..40)
        .map(|i| format!("{{\"text\": \"document number {i}\"}}\n"))
        .collect();
    workplace.write("a.JSONL", &lines);
    let prepare = |file: &str| format!("data prepare {file} {BYTES} --output out --force");
    workplace.nerve(&prepare("a.JSONL")).expect(0);
    let train = || fs::read(workplace.path("out/train.bin")).unwrap();
    let of_file = train();
    let mut command = workplace.command(&prepare("-"));
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut piped = command.stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = piped.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let finished = piped.wait_with_output().unwrap();
    let said = String::from_utf8(finished.stderr).unwrap();
    assert!(finished.status.success(), "{said}");
    assert!(said.contains("nerve: -: read as JSONL"), "{said}");
    assert_eq!(train(), of_file);
}

#[test]
fn a_signal_leaves_nothing_and_so_does_the_next_one_after_a_kill() {
    let workplace = Workplace::new();
    workplace.write("a.txt", "word word word word\n".repeat(10));
    let names = || -> Vec<String> {
        let entries = fs::read_dir(workplace.path("data")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    };
    // It waits for the end of its input, so the signal finds it in the middle.
    let start = || {
        let line = format!("data prepare - --document line {BYTES} --output data/x");
        let mut command = workplace.command(&line);
        command
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let text = "word word word word\n".repeat(200_000);
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        while !workplace.path("data").exists() || names().len() < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        child
    };
    let mut stopped = start();
    let kill = Command::new("kill")
        .args(["-INT", &stopped.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(stopped.wait().unwrap().code(), Some(130));
    assert!(names().is_empty(), "{:?}", names());

    let mut killed = start();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(names().len(), 2, "{:?}", names());
    let prepare = format!("data prepare a.txt {BYTES} --output data/x");
    workplace.nerve(&prepare).expect(0);
    assert_eq!(names(), ["x"]);
}

#[test]
fn a_long_text_has_the_ids_of_the_whole_with_any_tokenizer() {
    let workplace = Workplace::new();
    let text = "Once upon a time there was a cat and it sat on the mat.\n".repeat(25_000);
    workplace.write("long.txt", &text);
    let file = fs::read(workplace.path("assets/tokenizers/story_bpe.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&file).unwrap();
    json["pre_tokenizer"]["add_prefix_space"] = json!(true);
    workplace.write("prefix.json", json.to_string());
    // A full stop and a line end are one word.
    json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{L}+| ?[^\\s\\p{L}]+[\\r\\n]*|\\s+"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]});
    workplace.write("pattern.json", json.to_string());
    for name in [
        "assets/tokenizers/story_bpe.json",
        "prefix.json",
        "pattern.json",
    ] {
        let line =
            format!("data prepare long.txt --tokenizer {name} --valid 0 --output out --force");
        workplace.nerve(&line).expect(0);
        let split = Split::open(workplace.path("out/train.bin")).unwrap();
        let tokenizer = Tokenizer::load(workplace.path(name)).unwrap();
        assert!(
            split.tokens(0..split.len()) == tokenizer.encode(&text),
            "{name}"
        );
        let bytes = split.span_bytes(0..split.len() - 1, &tokenizer.token_bytes());
        let last = split.span_bytes(split.len() - 1..split.len(), &tokenizer.token_bytes());
        assert_eq!(bytes + last, text.len() as u64, "{name}");
    }
}

#[test]
fn specials_in_a_text_are_text_and_said() {
    let workplace = Workplace::new();
    workplace.write("a.txt", "<p>Price <s>9 EUR</s> now 4 EUR</p>\n".repeat(10));
    let prepare =
        format!("data prepare a.txt --document line --valid 0 {BYTES} --output out --force");
    let said = workplace.nerve(&prepare).expect(0).stderr;
    assert!(
        said.contains("a.txt: 20 special tokens, such as </s>"),
        "{said}"
    );
    let ends = || {
        let split = Split::open(workplace.path("out/train.bin")).unwrap();
        assert_eq!(split.documents()[0].bytes, 35);
        assert_eq!(split.span_bytes(0..split.len(), &[1; 260]), 350);
        let end = split.specials().end.unwrap();
        split
            .tokens(0..split.len())
            .iter()
            .filter(|id| **id == end)
            .count()
    };
    assert_eq!(ends(), 10);
    workplace
        .nerve(&format!("{prepare} --specials parse"))
        .expect(0);
    assert_eq!(ends(), 20);
    let manifest = fs::read_to_string(workplace.path("out/manifest.json")).unwrap();
    assert!(manifest.contains("\"specials\": \"parse\""), "{manifest}");
    let bytes = Tokenizer::train(Kind::Byte, std::iter::empty(), None).unwrap();
    assert_eq!(bytes.spelled_specials(), SpelledSpecials::Text);
}

#[test]
fn a_text_that_begins_with_a_hyphen_is_a_text() {
    let workplace = Workplace::new();
    let mut inspect =
        workplace.command("tokenizer inspect assets/tokenizers/byte.json --json --text");
    let output = inspect.args(["- item"]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["text"]["ids"], json!([45, 32, 105, 116, 101, 109]));
    for verb in ["sample", "route"] {
        let refused = workplace
            .nerve(&format!("{verb} none --prompt -5"))
            .expect(3);
        assert!(
            refused.stderr.contains("expected a directory of runs"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn a_tokenizer_is_trained_on_what_can_be_prepared() {
    let workplace = Workplace::new();
    workplace.write("a.txt", b"na\xefve\nmore </s> text\n".repeat(20));
    let train = "tokenizer train a.txt --kind character --output t.json";
    let refused = workplace.nerve(train).expect(3);
    assert!(refused.stderr.contains("--on-bad-utf8 replace or skip"));
    let said = workplace
        .nerve(&format!("{train} --on-bad-utf8 skip"))
        .expect(0)
        .stderr;
    assert!(said.contains("a.txt: 20 of 40 lines left out"), "{said}");
    assert!(said.contains("20 special tokens"), "{said}");
    // m o r e space < / s > t x, the line end and four specials.
    let size = || {
        Tokenizer::load(workplace.path("t.json"))
            .unwrap()
            .vocabulary_size()
    };
    assert_eq!(size(), 16);
    workplace
        .nerve(&format!(
            "{train} --on-bad-utf8 skip --specials parse --force"
        ))
        .expect(0);
    assert_eq!(size(), 12);
}

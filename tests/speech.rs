//! Tests of `nerve sample`: a text begins behind the start symbol and stops at its end, and `--stream` and `--prompt-file` give
//! the same text; wrong options are refused.

use crate::support::Workplace;

#[test]
fn a_text_ends_with_its_document_and_begins_behind_the_start_symbol() {
    let workplace = Workplace::new();
    workplace.write("ab.txt", "ab\n".repeat(60));
    let prepare = "data prepare ab.txt --document line --output ab --tokenizer assets/tokenizers/byte.json \
                   --split every --valid 0.1";
    workplace.nerve(prepare).expect(0);
    let fit = "fit assets/recipes/baseline/tiny.toml --render none --set stage.baseline.steps=100 --set data.window=5 \
               --set model.context=5 --set data.documents=run_on --set model.d_model=16 --set model.n_heads=1 --set model.d_ff=16 --set model.n_layers=1 \
               --set stage.baseline.learning_rate={kind='constant',peak=1e-2,warmup_steps=0} --set batch.sequences=8 \
               --set watch.sample_every_steps=100 --set watch.sample_prompts=['a'] --set watch.valid_every_steps=0 \
               --set tokenizer.file=ab/tokenizer.json --set data.train.0.path=ab/train.bin --set data.valid.0.path=ab/valid.bin";
    let run = workplace.nerve(fit).expect(0).answer().to_string();
    let sample = |flags: &str| {
        let line = format!("sample {run} --tokens 7 --temperature 0 {flags}");
        workplace.nerve(&line)
    };
    // Nothing, then a, then b, then the end: an empty prompt is a document's beginning.
    let first = sample("--json").expect(0).json();
    let expected = serde_json::json!([{ "text": "ab", "tokens": 3, "stop_reason": "end" }]);
    assert_eq!(first["samples"], expected);
    assert_eq!(sample("--prompt a").expect(0).stdout, "ab\n");
    assert!(sample("").expect(0).stderr.contains("--ignore-end goes on"));
    // Behind an end the start symbol comes, which is not drawn and no text: a b </s> a b </s> a.
    let beyond = sample("--ignore-end --json").expect(0).json();
    let expected = serde_json::json!([{ "text": "ababa", "tokens": 7, "stop_reason": "length" }]);
    assert_eq!(beyond["samples"], expected);
    let logged = std::fs::read_to_string(workplace.path(&run).join("samples.jsonl")).unwrap();
    assert!(
        logged.contains("\"text\":\"b\"") && logged.contains("\"stop_reason\":\"end\""),
        "{logged}"
    );
}

#[test]
fn every_model_streams_the_text_that_it_prints_at_once() {
    let workplace = Workplace::with_older_runs();
    let long = "Once upon a time. ".repeat(30);
    workplace.write("long.txt", &long);
    for run in ["ladder", "brillm"] {
        let sample = |flags: &str| {
            let line =
                format!("sample {run} --tokens 60 --ignore-end --seed 5 --temperature 1.5 {flags}");
            workplace.nerve(&line).expect(0)
        };
        let flags = "--top-k 200 --top-p 0.99 --min-p 0.0001";
        let whole = sample(&format!("--prompt Once {flags}")).stdout;
        let streamed = sample(&format!("--prompt Once {flags} --stream")).stdout;
        assert_eq!(whole, format!("Once{streamed}"), "{run}");
        let of_file = sample("--prompt-file long.txt");
        let streamed = sample("--prompt-file long.txt --stream");
        assert_eq!(
            of_file.stdout,
            format!("{long}{}", streamed.stdout),
            "{run}"
        );
        for finished in [of_file, streamed] {
            let is_cut = finished.stderr.contains("the model sees the last");
            assert_eq!(is_cut, run == "ladder", "{}", finished.stderr);
        }
    }
    let wrong = |flags: &str, expected: &str| {
        let error = workplace.nerve(&format!("sample ladder {flags}"));
        let error = error.expect(2).stderr;
        assert!(error.contains(expected), "{error}");
    };
    wrong(
        "--min-p 2",
        "--min-p: found 2, expected a number from 0 to 1",
    );
    wrong("--stream --json", "cannot be used with");
    wrong("--n 0", "invalid value '0'");
}

//! Tests that `nerve eval` counts the same bytes and every token of a held-out text, under any tokenizer, window length and
//! rule for documents.

use crate::support::Workplace;
use serde_json::Value;

/// A baseline of two steps on a prepared directory, and what `nerve eval` says of its held-out split.
fn measured(workplace: &Workplace, data: &str, sets: &str) -> Value {
    let fit = format!(
        "fit assets/recipes/baseline/tiny.toml --render none --set stage.baseline.steps=2 \
         --set model.d_model=8 --set model.n_heads=1 --set model.d_ff=8 --set model.n_layers=1 \
         --set stage.baseline.learning_rate={{kind='constant',peak=1e-3,warmup_steps=0}} \
         --set watch.sample_every_steps=0 --set watch.valid_every_steps=0 \
         --set tokenizer.file={data}/tokenizer.json \
         --set data.train.0.path={data}/train.bin --set data.valid.0.path={data}/valid.bin {sets}"
    );
    let run = workplace.nerve(&fit).expect(0).answer().to_string();
    let eval = workplace.nerve(&format!("eval {run} --json")).expect(0);
    eval.json()["splits"][0].clone()
}

#[test]
fn one_text_has_the_same_bytes_under_every_tokenizer_and_all_of_its_tokens_are_targets() {
    let workplace = Workplace::new();
    // Characters that no tokenizer here has learned, of two, three and four bytes, and one that half-width changes.
    let lines: Vec<String> = (0..40)
        .map(|i| match i % 4 {
            0 => format!("line {i}: \u{e9}t\u{e9}"),
            1 => format!("\u{65e5}\u{672c}\u{ff0c} {i}"),
            2 => format!("\u{1f600} and {i}"),
            _ => format!("plain {i}"),
        })
        .collect();
    workplace.write("text.txt", lines.join("\n"));
    let plain: Vec<&String> = lines.iter().filter(|line| line.is_ascii()).collect();
    workplace.write(
        "plain.txt",
        plain
            .iter()
            .map(|line| line.as_str())
            .collect::<Vec<_>>()
            .join("\n"),
    );
    let train = |options: &str, name: &str| {
        let line = format!("tokenizer train plain.txt {options} --output {name}.json");
        workplace.nerve(&line).expect(0);
    };
    train("--kind byte", "byte");
    train("--kind bpe --vocabulary 280", "pairs");
    train("--kind character", "character");
    train("--kind character --normalise half_width", "half_width");
    let mut bytes = Vec::new();
    for tokenizer in ["byte", "pairs", "character", "half_width"] {
        let prepare = format!(
            "data prepare text.txt --document line --split every --valid 0.25 --output {tokenizer} \
             --tokenizer {tokenizer}.json"
        );
        workplace.nerve(&prepare).expect(0);
        let stats = workplace
            .nerve(&format!("data stats {tokenizer} --json"))
            .expect(0)
            .json();
        let tokens = &stats["splits"]["valid"]["tokens"];
        for sets in [
            "",
            "--set data.window=7",
            "--set data.documents=run_on",
            "--set data.documents=packed",
        ] {
            let split = measured(&workplace, tokenizer, sets);
            assert_eq!(&split["targets"], tokens, "{tokenizer} {sets}");
            assert_eq!(split["documents"], 10);
            bytes.push(split["bytes"].as_u64().unwrap());
        }
    }
    let held_out: usize = lines.iter().step_by(4).map(String::len).sum();
    assert!(
        bytes.iter().all(|&found| found == held_out as u64),
        "{bytes:?} and {held_out}"
    );
}

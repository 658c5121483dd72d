//! Tests of `nerve sweep`, which never shows runs of another definition and goes on after a failed row, and of `nerve runs`:
//! list, show, compare and prune.

use crate::support::Workplace;
use serde_json::Value;
use std::fs;

const BASE: &str = "batch.sequences=2 stage.baseline.steps=2 stage.baseline.learning_rate.warmup_steps=1 model.d_model=16 \
                    model.n_heads=2 model.d_ff=16 model.n_layers=1 watch.valid_tokens=128 watch.valid_every_steps=1 \
                    watch.log_every_steps=1 watch.sample_every_steps=0 checkpoint.every_steps=1";

const SWEEP: &str = r#"format = 1
question = "Is wider better?"
recipe = "base.toml"
seeds = [1, 2]
compare = ["valid/loss/lm"]
[[row]]
name = "control"
set = {}
[[row]]
name = "wide"
set = { "model.d_ff" = 32 }
"#;

/// A few stories, a recipe of two steps and a sweep of two rows and two seeds over it.
fn workplace() -> Workplace {
    let workplace = Workplace::with_few_stories();
    let sets: Vec<String> = BASE
        .split_whitespace()
        .map(|set| format!("--set {set}"))
        .collect();
    let line = format!(
        "config show assets/recipes/baseline/tiny.toml {}",
        sets.join(" ")
    );
    let base = workplace.nerve(&line).expect(0).stdout;
    workplace.write("base.toml", base);
    workplace.write("s.toml", SWEEP);
    workplace
}

fn edit(workplace: &Workplace, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(workplace.path(file)).unwrap();
    assert!(text.contains(from), "{text}");
    workplace.write(file, text.replace(from, to));
}

/// The lines of a refusal, and that nothing was trained.
fn refused(workplace: &Workplace, line: &str) -> Vec<String> {
    let before = fs::read_dir(workplace.path("runs")).unwrap().count();
    let refused = workplace.nerve(line).expect(2);
    assert_eq!(refused.stdout, "");
    assert_eq!(
        fs::read_dir(workplace.path("runs")).unwrap().count(),
        before
    );
    let lines = refused
        .stderr
        .lines()
        .filter(|line| line.contains("another definition"));
    lines.map(str::to_string).collect()
}

#[test]
fn a_sweep_shows_no_numbers_of_another_definition() {
    let workplace = workplace();
    let first = workplace
        .nerve("sweep s.toml --render none --json")
        .expect(0);
    assert!(
        first.stderr.contains("4 runs: 4 new; 8 steps left, about "),
        "{}",
        first.stderr
    );
    let table = first.json();
    let loss = |run: usize| {
        table["runs"][run]["numbers"]["valid/loss/lm"]
            .as_f64()
            .unwrap()
    };
    let differences = [loss(2) - loss(0), loss(3) - loss(1)];
    let found = &table["rows"][1]["minus_control"];
    let mean = (differences[0] + differences[1]) / 2.0;
    assert!(
        (found["mean"].as_f64().unwrap() - mean).abs() < 1e-12,
        "{table:#}"
    );
    // Of two values s / √2 is half their distance, and t of one degree of freedom is tan(0.475 π).
    let half = (differences[0] - differences[1]).abs() / 2.0 * 12.706_204_736_432_1;
    let high = found["interval_95"][1].as_f64().unwrap();
    assert!((high - mean - half).abs() < 1e-9, "{table:#}");
    let kept: Value =
        serde_json::from_slice(&fs::read(workplace.path("runs/s.sweep.json")).unwrap()).unwrap();
    assert_eq!(kept, table);
    let text = fs::read_to_string(workplace.path("runs/s.sweep.txt")).unwrap();

    // Comments and the order of keys are no definition; nor is the folder in which the same content lies.
    edit(
        &workplace,
        "base.toml",
        "\nseed = 1 ",
        "\n# seed\nseed = 1 ",
    );
    workplace.nerve("data prepare few.jsonl --output data/copy --valid 0.3 --tokenizer assets/tokenizers/story_bpe.json").expect(0);
    edit(&workplace, "base.toml", "data/stories/", "data/copy/");
    let again = workplace.nerve("sweep s.toml --render none").expect(0);
    assert!(
        again.stderr.contains("4 runs: 4 done; 0 steps left"),
        "{}",
        again.stderr
    );
    assert_eq!(again.stdout, text);
    edit(&workplace, "base.toml", "data/copy/", "data/stories/");

    // A row.
    edit(
        &workplace,
        "s.toml",
        "\"model.d_ff\" = 32",
        "\"model.d_ff\" = 24",
    );
    let lines = refused(&workplace, "sweep s.toml");
    assert_eq!(
        lines[0],
        "error: runs/s-wide-s1: row wide, seed 1: found a run of another definition: model.d_ff is 32 there and 24 now, expected \
         what the row says now; undo the change, or train anew beside the old run with --again"
    );
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(refused(&workplace, "sweep s.toml --dry-run"), lines);
    let plan = workplace
        .nerve("sweep s.toml --dry-run --again --json")
        .expect(0)
        .json();
    let what: Vec<&str> = plan["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["what"].as_str().unwrap())
        .collect();
    assert_eq!(what, ["done", "done", "again", "again"]);
    let anew = workplace
        .nerve("sweep s.toml --again --render none --json")
        .expect(0)
        .json();
    assert_eq!(anew["runs"][2]["run"], "runs/s-wide-s1-2");
    assert_eq!(anew["runs"][0], table["runs"][0]);
    // From then on the run that fits counts, and the old one is still there.
    workplace.nerve("sweep s.toml").expect(0);
    edit(
        &workplace,
        "s.toml",
        "\"model.d_ff\" = 24",
        "\"model.d_ff\" = 32",
    );
    assert_eq!(
        workplace.nerve("sweep s.toml --json").expect(0).json(),
        table
    );

    // The base recipe: all four runs.
    edit(
        &workplace,
        "base.toml",
        "weight_decay = 0.1",
        "weight_decay = 0.2",
    );
    let lines = refused(&workplace, "sweep s.toml");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(
        lines
            .iter()
            .all(|line| line.contains("optimizer.weight_decay is 0.1 there and 0.2 now")),
        "{lines:?}"
    );
    edit(
        &workplace,
        "base.toml",
        "weight_decay = 0.2",
        "weight_decay = 0.1",
    );

    // The data, under the same path.
    let prepare = |valid: &str, tokenizer: &str| {
        let line = format!(
            "data prepare few.jsonl --output data/stories --valid {valid} --force --tokenizer {tokenizer}"
        );
        workplace.nerve(&line).expect(0);
    };
    prepare("0.5", "assets/tokenizers/story_bpe.json");
    let lines = refused(&workplace, "sweep s.toml");
    assert_eq!(lines.len(), 4, "{lines:?}");
    for split in ["train.0", "valid.stories"] {
        let named = format!("data.{split}.path is \"data/stories/");
        assert!(
            lines[0].contains(&named) && lines[0].contains("(sha256 "),
            "{lines:?}"
        );
    }

    // The tokenizer, which makes other data too.
    prepare("0.3", "assets/tokenizers/byte.json");
    edit(&workplace, "base.toml", "story_bpe.json", "byte.json");
    let lines = refused(&workplace, "sweep s.toml");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(
        lines[0].contains(
            "tokenizer.file is \"assets/tokenizers/story_bpe.json\" (sha256 2a87c843) there"
        ),
        "{lines:?}"
    );
    edit(&workplace, "base.toml", "byte.json", "story_bpe.json");
    prepare("0.3", "assets/tokenizers/story_bpe.json");
    assert_eq!(
        workplace.nerve("sweep s.toml --json").expect(0).json(),
        table
    );
}

#[test]
fn a_row_that_fails_does_not_stop_the_others_and_a_start_that_changed_is_another_definition() {
    let workplace = workplace();
    let one = SWEEP.replace("[1, 2]", "[1]");
    let gate = "set = { \"stage.baseline.gate\" = { metric = \"valid/loss/lm\", at_most = 0.5 } }";
    let with_gate = one.replacen("set = {}", gate, 1);
    edit(
        &workplace,
        "base.toml",
        "freeze = []",
        "gate = { metric = \"valid/loss/lm\", at_most = 9.5 }\nfreeze = []",
    );
    workplace.write("s.toml", with_gate);
    let failed = workplace.nerve("sweep s.toml --render none").expect(1);
    assert!(
        failed
            .stderr
            .contains("error: 1 of 2 runs failed (row control, seed 1)"),
        "{}",
        failed.stderr
    );
    assert!(
        failed
            .stdout
            .contains("Row control, seed 1 failed: gate of stage baseline"),
        "{}",
        failed.stdout
    );
    let list = workplace
        .nerve("runs list --json --sort valid/loss/lm")
        .expect(0)
        .json();
    let names: Vec<&str> = list["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["status"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"failed") && names.contains(&"done"),
        "{list:#}"
    );

    // A row that begins with the weights of a run that is trained anew is not the row that it was.
    let start = "set = { \"stage.baseline.start\" = { kind = \"run\", path = \"runs/first\" } }";
    workplace.write("t.toml", one.replacen("set = {}", start, 1));
    let first = |seed: u64| {
        workplace.nerve(&format!(
            "fit base.toml --render none --set run.name=first --set run.seed={seed}"
        ))
    };
    first(5).expect(0);
    workplace.nerve("sweep t.toml --render none").expect(0);
    assert!(
        workplace
            .nerve("sweep t.toml")
            .expect(0)
            .stderr
            .contains("2 done")
    );
    fs::rename(workplace.path("runs/first"), workplace.path("runs/old")).unwrap();
    first(6).expect(0);
    let lines = refused(&workplace, "sweep t.toml");
    assert!(
        lines[0].contains("stage baseline started from runs/first at step 2 (weights "),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 1);
}

#[test]
fn runs_are_listed_shown_compared_and_pruned() {
    let workplace = workplace();
    let fit = |name: &str, set: &str| {
        let line = format!("fit base.toml --render none --set run.name={name} --set {set}");
        workplace.nerve(&line).expect(0);
    };
    fit("a", "stage.baseline.steps=4");
    fit("b", "model.d_ff=32");
    let list = workplace
        .nerve("runs list --sort valid/loss/lm --json")
        .expect(0)
        .json();
    let row = |name: &str| {
        let rows = list["runs"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap().clone()
    };
    assert_eq!(
        (&row("a")["step"], &row("a")["saved_step"]),
        (&Value::from(4), &Value::from(4))
    );
    assert_eq!(row("b")["valid"]["split"], "valid");
    assert!(
        row("b")["valid"]["bits_per_byte"].as_f64().unwrap() > 0.0,
        "{list:#}"
    );
    let unknown = workplace.nerve("runs list --sort valid/loss/ml").expect(2);
    assert!(
        unknown.stderr.contains("valid/bits_per_byte")
            && unknown.stderr.contains("did you mean \"valid/loss/lm\"?")
    );

    let show = workplace.nerve("runs show b").expect(0).stdout;
    for expected in [
        "parameters",
        "2 of 2 steps",
        "tokens of",
        "model.d_ff = 32, there 256",
    ] {
        assert!(show.contains(expected), "{expected}: {show}");
    }

    let compared = workplace.nerve("runs compare a b --json").expect(0).json();
    let changed: Vec<&str> = compared["changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["key"].as_str().unwrap())
        .collect();
    assert_eq!(changed, ["model.d_ff", "stage.baseline.steps"]);
    let at = compared["points"]
        .as_array()
        .unwrap()
        .iter()
        .find(|point| point["split"] == "valid")
        .unwrap();
    assert_eq!(
        (&at["at"], &at["runs"][0]["step"], &at["runs"][1]["step"]),
        (&"equal steps".into(), &2.into(), &2.into())
    );
    // The interval over documents is about the difference of what `eval` measures.
    let loss = |run: &str| {
        workplace
            .nerve(&format!("eval {run} --json"))
            .expect(0)
            .json()["splits"][0]["loss/lm"]
            .as_f64()
            .unwrap()
    };
    let of_documents = &compared["documents"]["runs"][1]["minus_first"];
    let mean = of_documents["mean"].as_f64().unwrap();
    assert!(
        (mean - (loss("b") - loss("a"))).abs() < 1e-5,
        "{compared:#}"
    );
    let [low, high] = [0, 1].map(|end| of_documents["interval_95"][end].as_f64().unwrap());
    assert!(low < mean && mean < high, "{compared:#}");

    let nobody = workplace
        .command("runs prune a")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(2));
    let listed = workplace
        .nerve("runs prune --dry-run --json")
        .expect(0)
        .json();
    let removals = listed["removals"].as_array().unwrap().len();
    let there = || workplace.checkpoints("runs/a").len() + workplace.checkpoints("runs/b").len();
    let before = there();
    workplace.nerve("runs prune --yes").expect(0);
    assert_eq!(there(), before - removals, "{listed:#}");
    assert!(workplace.path("runs/a/ckpt/step-00000004").is_dir());
    workplace.nerve("runs verify a").expect(0);
    let not_failed = workplace.nerve("runs prune a --failed --yes").expect(2);
    assert!(
        not_failed
            .stderr
            .contains("found a run that is done, expected a run that failed"),
        "{}",
        not_failed.stderr
    );
}

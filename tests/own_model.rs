//! Tests of a program with a model and a hook of its own (`train/examples/looped.rs`): training, exact resume, evaluation,
//! sampling, sweeps, and messages for mistakes in its tables.

use crate::determinism::check_every_resume;
use crate::support::{Workplace, lines};
use serde_json::Value;

const LOOPED: &str = env!("CARGO_BIN_EXE_looped-under-test");

/// Fewer and smaller than the recipe that the example brings.
const SMALL: &str = "batch.sequences=3 stage.looped.steps=8 stage.looped.learning_rate.warmup_steps=2 model.d_model=16 \
                     model.n_heads=2 model.d_ff=16 model.turns=3 watch.log_every_steps=1 watch.valid_every_steps=4 \
                     watch.valid_tokens=256 watch.sample_every_steps=4 watch.sample_tokens=4 checkpoint.every_steps=1 \
                     checkpoint.keep_last=100";

/// A few stories, and `looped.toml` in small.
fn workplace() -> Workplace {
    let workplace = Workplace::with_few_stories().of_program(LOOPED);
    let recipe = workplace.nerve("config new looped").expect(0).stdout;
    workplace.write("looped.toml", recipe);
    let sets: String = SMALL
        .split_whitespace()
        .map(|set| format!(" --set {set}"))
        .collect();
    let small = workplace.nerve(&format!("config show looped.toml{sets}"));
    workplace.write("looped.toml", small.expect(0).stdout);
    workplace
}

#[test]
fn a_model_of_a_programs_own_is_trained_resumed_to_the_bit_measured_and_sampled() {
    let workplace = workplace();
    let run = workplace
        .nerve("fit looped.toml --render none")
        .expect(0)
        .answer()
        .to_string();
    let log = lines(&workplace.path(&run).join("metrics.jsonl"));
    let of = |split: &str, name: &str| -> Vec<f64> {
        let lines = log.iter().filter(|line| line["split"] == split);
        lines.filter_map(|line| line[name].as_f64()).collect()
    };
    let loss = of("train", "loss/lm");
    assert!(loss.len() == 8 && loss[7] < loss[0], "{loss:?}");
    // What the model measures, in training and as a mean over a validation; what the hook makes of it.
    assert_eq!(of("train", "turns/last_change").len(), 8);
    assert_eq!(of("valid", "turns/last_change").len(), 3);
    let change = of("train", "turns/last_change");
    let ratio = of("train", "turns/ratio");
    assert_eq!((ratio.len(), ratio[0]), (8, 1.0));
    assert!((ratio[7] - change[7] / change[6]).abs() < 1e-12);
    check_every_resume(&workplace, &run);
    let measured = workplace.nerve(&format!("eval {run} --json")).expect(0);
    let measured: Value = measured.json();
    assert!(measured.to_string().contains("bits_per_byte"), "{measured}");
    let sampled = workplace.nerve(&format!("sample {run} --prompt Once --tokens 5 --json"));
    assert!(sampled.expect(0).stdout.contains("Once"));
    let listed = workplace.nerve("runs list").expect(0).stdout;
    assert!(listed.contains("looped-tiny"), "{listed}");
    let cost = workplace.nerve("estimate looped.toml").expect(0).stdout;
    assert!(cost.contains("looped"), "{cost}");
    workplace
        .nerve(&format!("bench {run} --rounds 1 --warm-up 0"))
        .expect(0);
    // The built-in models are there as before.
    let ladder = workplace.nerve("config new brian").expect(0).stdout;
    assert!(ladder.contains("kind = \"brian\""));
}

#[test]
fn mistakes_in_the_tables_of_a_programs_own_are_named_like_all_others() {
    let workplace = workplace();
    for (set, expected) in [
        (
            "model.n_heads=3",
            "model.n_heads, from --set: found integer 3, expected a divisor of d_model",
        ),
        (
            "model.turns=0",
            "model.turns, from --set: found integer 0, expected a whole number from 1 to 1048576",
        ),
        ("model.kind=lopped", "did you mean \"looped\"?"),
        (
            "hook.settling.least_change=few",
            "hook.settling.least_change, from --set: found string \"few\", expected a number",
        ),
        (
            "device.dtype=bf16",
            "expected \"f32\": products of a looped are",
        ),
        (
            "stage.looped.policy=sequential",
            "expected \"none\": a looped has no pool",
        ),
        (
            "stage.looped.freeze=[{group='embeddings',until_step=2}]",
            "did you mean \"embedding\"?",
        ),
        (
            "stage.looped.gate={metric='valid/turns/change',at_most=1.0}",
            "did you mean \"valid/turns/last_change\"?",
        ),
    ] {
        let line = format!("fit looped.toml --render none --set {set}");
        let refused = workplace.nerve(&line).expect(2).stderr;
        assert!(refused.contains(expected), "{set}: {refused}");
    }
    // What one program knows another does not: it names what is missing instead of leaving it out.
    let without = Workplace::with_few_stories();
    let text = std::fs::read_to_string(workplace.path("looped.toml")).unwrap();
    without.write("looped.toml", text);
    let refused = without.nerve("fit looped.toml").expect(2).stderr;
    assert!(refused.contains("model.kind"), "{refused}");
    assert!(
        refused.contains("hook.settling: found an unknown hook"),
        "{refused}"
    );
}

#[test]
fn a_hook_of_a_programs_own_stops_a_training_and_a_sweep_compares_its_models() {
    let workplace = workplace();
    let stopped =
        workplace.nerve("fit looped.toml --render none --set hook.settling.least_change=1e9");
    let stopped = stopped.expect(1).stderr;
    assert!(
        stopped.contains("the last of 3 turns changes the state"),
        "{stopped}"
    );
    workplace.write(
        "turns.toml",
        r#"format = 1
question = "Do more turns help?"
recipe = "looped.toml"
seeds = [1, 2]
compare = ["valid/loss/lm", "valid/turns/last_change"]
[[row]]
name = "three"
set = {}
[[row]]
name = "one"
set = { "model.turns" = 1 }
"#,
    );
    let report = workplace
        .nerve("sweep turns.toml --render none")
        .expect(0)
        .stdout;
    for shown in ["three", "one", "valid/turns/last_change"] {
        assert!(report.contains(shown), "{report}");
    }
}

//! Tests of `batch.recompute = "blocks"` in whole runs: the same weights, moments and logs, a run that begins or ends to compute blocks
//! again, and at most half the memory where blocks have most of it.

use crate::support::{Finished, Workplace};
use std::fs;

const AGAIN: &str = "batch.recompute=blocks";

/// On one thread: nobody is idle, so that what waits for somebody waits as long as it can.
fn fit(workplace: &Workplace, recipe: &str, name: &str, sets: &[&str]) -> Finished {
    let mut line = format!("fit {recipe} --render none --set run.name={name}");
    for set in sets {
        line += &format!(" --set {set}");
    }
    let alone = [("RAYON_NUM_THREADS", "1")];
    workplace.nerve_with(&line, &alone).expect(0)
}

#[test]
fn blocks_that_run_again_change_no_bit_of_a_run() {
    let gains = ["model.route.execution=dense", "model.visits={gains=true}"];
    let short = ["data.window=64", "model.context=64"];
    let ladders = [
        (Workplace::with_routes(), gains),
        (Workplace::with_parallel_routes(), short),
    ];
    for (workplace, [one, other]) in ladders {
        let result = |name, recompute: &[&str]| {
            let sets = [&[one, other, "batch.accumulate=2"], recompute].concat();
            let run = fit(&workplace, "routes.toml", name, &sets);
            workplace.result_of(run.answer())
        };
        let [kept, again] = [result("kept", &[]), result("again", &[AGAIN])];
        assert!(kept.1.len() > 20 && kept == again, "{one}");
    }
}

/// Every resume is made on fewer checkpoints of the run that keeps nothing, and gives the run that keeps all.
#[test]
fn a_resumed_run_whose_blocks_run_again_is_the_run_that_never_stopped_and_kept_all() {
    let workplace = Workplace::with_few_stories();
    let sets = [
        "stage.baseline.steps=6",
        "stage.fixed.steps=6",
        "stage.baseline.learning_rate.warmup_steps=2",
        "stage.fixed.learning_rate.warmup_steps=2",
        "watch.log_every_steps=1",
        "checkpoint.every_steps=2",
        "checkpoint.keep_last=100",
    ];
    let kept = fit(&workplace, "ladder.toml", "kept", &sets);
    let whole = workplace.result_of(kept.answer());
    let again = [&sets[..], &[AGAIN]].concat();
    let run = fit(&workplace, "ladder.toml", "again", &again);
    for kept in [4, 2] {
        for newer in &workplace.checkpoints(run.answer())[kept..] {
            fs::remove_dir_all(newer).unwrap();
        }
        let line = format!("fit --resume {} --render none", run.answer());
        workplace.nerve(&line).expect(0);
        assert!(workplace.result_of(run.answer()) == whole, "from {kept}");
    }
}

/// 16 blocks on 8192 tokens, in a row and in a pool.
#[test]
fn blocks_that_run_again_halve_the_memory_of_a_run() {
    let workplace = Workplace::with_stories();
    let shape = [
        "batch.sequences=128",
        "stage.baseline.steps=2",
        "stage.baseline.learning_rate.warmup_steps=1",
        "watch.log_every_steps=1",
        "watch.valid_every_steps=0",
        "watch.sample_every_steps=0",
    ];
    let pool = [
        "model.n_pool=16",
        "stage.baseline.policy=sequential",
        "stage.fixed.steps=1",
        "stage.fixed.learning_rate.warmup_steps=0",
    ];
    let models = [
        (
            "assets/recipes/baseline/tiny.toml",
            &["model.n_layers=16"][..],
        ),
        ("ladder.toml", &pool),
    ];
    for (recipe, model) in models {
        let megabytes = |name, recompute: &[&str]| {
            let sets = [&shape, model, recompute].concat();
            let run = fit(&workplace, recipe, name, &sets);
            let log = workplace.path(run.answer()).join("metrics.jsonl");
            let log = fs::read_to_string(log).unwrap();
            let lines = log.lines().map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["peak_memory_mb"].as_f64()
            });
            lines.flatten().fold(0.0, f64::max)
        };
        let kept = megabytes("kept", &[]);
        let again = megabytes("again", &[AGAIN]);
        assert!(
            again > 0.0 && again < kept / 2.0,
            "{recipe}: {again} and not {kept} MB"
        );
    }
}

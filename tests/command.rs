//! Tests of the program `nerve` on small recipes: training in stages, gates, frozen groups, a learning router, log and output,
//! import of a reference checkpoint, and `estimate`.

use crate::support::{Workplace, lines};
use serde_json::Value;

#[test]
fn the_ladder_learns_and_its_second_stage_starts_where_the_first_ended() {
    let workplace = Workplace::with_stories();
    let fit = workplace
        .nerve("fit assets/recipes/brian/tiny.toml --render plain")
        .expect(0);
    let run = fit.answer();
    assert!(fit.stderr.contains("stage 2 of 2 fixed"), "{}", fit.stderr);
    let metrics = lines(&workplace.path(run).join("metrics.jsonl"));
    let valid = |stage: &str| -> Vec<f64> {
        let of_stage = |line: &&Value| line["stage"] == stage && line["split"] == "valid";
        metrics
            .iter()
            .filter(of_stage)
            .map(|line| line["loss/lm"].as_f64().unwrap())
            .collect()
    };
    let (baseline, fixed) = (valid("baseline"), valid("fixed"));
    // 512 tokens: a uniform guess costs ln 512 = 6.2 nats.
    assert!(baseline[0] > 6.0, "{baseline:?}");
    assert!(*baseline.last().unwrap() < 4.0, "{baseline:?}");
    let gap = (fixed[0] - baseline.last().unwrap()).abs();
    assert!(gap < 1e-5, "the wrapped model differs by {gap:e}");
    assert!(fixed.last() < baseline.last(), "{fixed:?}");

    let eval = workplace
        .nerve(&format!("eval {run} --tokens 8192 --json"))
        .expect(0)
        .json();
    let measured = eval["splits"][0]["loss/lm"].as_f64().unwrap();
    assert!(
        (measured - fixed.last().unwrap()).abs() < 1e-9,
        "{measured} and {fixed:?}"
    );

    let sample =
        |line: &str| workplace.nerve(&format!("sample {run} --prompt Once --tokens 20 {line}"));
    let first = sample("--seed 7").expect(0).stdout;
    assert!(first.starts_with("Once"), "{first}");
    assert_eq!(sample("--seed 7").expect(0).stdout, first);
    assert_ne!(sample("--seed 8").expect(0).stdout, first);

    let bench = format!("bench {run} --rounds 2 --warm-up 0 --tokens 8 --json");
    let bench = workplace.nerve(&bench).expect(0).json();
    let speeds = bench["speeds"].as_array().unwrap();
    let names: Vec<_> = speeds
        .iter()
        .map(|speed| speed["what"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["evaluate", "prefill", "decode", "sample", "train"]);
    for speed in speeds {
        assert!(
            speed["tokens_per_second"].as_f64().unwrap() > 0.0,
            "{bench}"
        );
    }
    // Backward costs twice what forward costs.
    let flops = |speed: &Value| {
        speed["gflops"].as_f64().unwrap() / speed["tokens_per_second"].as_f64().unwrap()
    };
    let ratio = flops(&speeds[4]) / flops(&speeds[0]);
    assert!((ratio - 3.0).abs() < 1e-9, "{ratio}");

    let list = workplace.nerve("runs list --json").expect(0).json();
    assert_eq!(list["runs"][0]["status"], "done", "{list}");
    workplace.nerve(&format!("runs verify {run}")).expect(0);
}

#[test]
fn a_shut_gate_ends_the_ladder_with_1_and_its_number() {
    let workplace = Workplace::with_stories();
    let line = "fit assets/recipes/brian/tiny.toml --render none --set stage.baseline.steps=21 \
                --set stage.baseline.gate.at_most=0.5";
    let refused = workplace.nerve(line).expect(1);
    assert!(
        refused
            .stderr
            .contains("gate of stage baseline: valid/loss/lm: found "),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("expected at most 0.5"),
        "{}",
        refused.stderr
    );
    let metrics = lines(&workplace.path("runs/brian-tiny/metrics.jsonl"));
    assert!(metrics.iter().all(|line| line["stage"] == "baseline"));
}

#[test]
fn frozen_groups_keep_their_bits_until_their_step() {
    let workplace = Workplace::with_stories();
    let fit = "fit ladder.toml --render none --set stage.baseline.steps=4 --set stage.fixed.steps=4 \
               --set stage.baseline.learning_rate.warmup_steps=1 \
               --set stage.fixed.learning_rate.warmup_steps=1 --set checkpoint.every_steps=1 \
               --set checkpoint.keep_last=100 --set watch.valid_every_steps=0 \
               --set stage.fixed.freeze=[{group='pre',until_step=2},{group='embedding',until_step=3}]";
    let run = workplace.nerve(fit).expect(0).answer().to_string();
    let weights = |step: u64, path: &str| {
        let name = format!("ckpt/step-{step:08}/model-00001-of-00001.safetensors");
        let file = workplace.path(&run).join(name);
        train::run::read_tensors(&file).unwrap()[path]
            .values
            .clone()
    };
    // Pre blocks are the baseline's first: the wrapped model has another path for the same weights.
    let before = weights(4, "blocks.0.attention.output.weight");
    let pre = "pre.0.attention.output.weight";
    assert!(weights(6, pre) == before);
    assert!(weights(7, pre) != before);
    let embedding = weights(4, "embedding.weight");
    assert!(weights(7, "embedding.weight") == embedding);
    assert!(weights(8, "embedding.weight") != embedding);
    let pool = "pool.0.block.attention.output.weight";
    assert!(weights(5, pool) != weights(6, pool));
}

#[test]
fn lines_for_programs_are_those_of_the_log_and_lines_for_people_say_what_begins() {
    let workplace = Workplace::with_few_stories();
    let fit = "fit ladder.toml --set stage.baseline.steps=2 --set stage.fixed.steps=2 \
               --set stage.baseline.learning_rate.warmup_steps=1 --set stage.fixed.learning_rate.warmup_steps=1 \
               --set watch.log_every_steps=1 --set watch.valid_every_steps=2 --set watch.sample_every_steps=0";
    let finished = workplace.nerve(&format!("{fit} --render json")).expect(0);
    let shown = finished.stderr.lines().filter(|line| line.starts_with('{'));
    workplace.write("shown.jsonl", shown.collect::<Vec<_>>().join("\n"));
    let shown = lines(&workplace.path("shown.jsonl"));
    let logged = lines(&workplace.path(finished.answer()).join("metrics.jsonl"));
    assert!(logged.len() >= 6);
    assert_eq!(shown, logged);

    let finished = workplace.nerve(&format!("{fit} --render plain")).expect(0);
    let first: Vec<&str> = finished.stderr.lines().take(6).collect();
    let begins = [
        "model: ",
        "data: train ",
        "data: valid ",
        "run: runs/",
        "numbers: ",
        "stage 1 of 2 baseline: 2 steps",
    ];
    for (line, begin) in first.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line} {}", finished.stderr);
    }
    assert!(
        finished
            .stderr
            .contains("step 2/2 · stage 2 of 2 fixed · lm ")
    );
}

#[test]
fn a_recipe_out_of_the_program_is_a_recipe_for_the_program() {
    let workplace = Workplace::with_stories();
    let recipe = workplace
        .nerve("config new brian --size tiny")
        .expect(0)
        .stdout;
    workplace.write("r.toml", recipe);
    workplace.nerve("config check r.toml").expect(0);
    workplace.nerve("fit r.toml --dry-run").expect(0);
    assert!(!workplace.path("runs").exists(), "a dry run writes nothing");
}

#[test]
fn asking_for_a_backend_that_is_not_compiled_in_names_the_feature() {
    let workplace = Workplace::with_stories();
    let refused = workplace
        .nerve("fit assets/recipes/brian/tiny.toml --device cuda")
        .expect(2);
    assert!(
        refused.stderr.contains("--features cuda"),
        "{}",
        refused.stderr
    );
    let refused = workplace
        .nerve("fit assets/recipes/brian/tiny.toml --set device.dtype=bf16")
        .expect(2);
    let expected = "device.dtype: found products in bf16 on ndarray, expected \"f32\"";
    assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    assert!(
        !workplace.path("runs").exists(),
        "a refused run writes nothing"
    );
    let doctor = workplace.nerve("doctor").expect(0);
    assert!(
        ["ndarray", "GFLOP/s", "autotune cache", "free"]
            .iter()
            .all(|word| doctor.stdout.contains(word)),
        "{}",
        doctor.stdout
    );
}

/// The numbers of a stage's validations, in order.
fn validations(metrics: &[Value], stage: &str, name: &str) -> Vec<f64> {
    let of_stage = |line: &&Value| line["stage"] == stage && line["split"] == "valid";
    let numbers = metrics
        .iter()
        .filter(of_stage)
        .map(|line| line[name].as_f64().unwrap());
    numbers.collect()
}

#[test]
fn a_router_learns_to_say_what_the_fixed_route_does_and_to_leave() {
    let workplace = Workplace::with_routes();
    let line = "fit routes.toml --render none --set stage.imitation.steps=150 --set stage.imitation.learning_rate.peak=5e-3 --set watch.valid_every_steps=20 \
                --set checkpoint.every_steps=100 --set stage.exit.steps=40 --set stage.exit.learning_rate.peak=5e-3 --set stage.exit.walk.loss.cost=30.0";
    let run = workplace.nerve(line).expect(0);
    let run = run.answer();
    let metrics = lines(&workplace.path(run).join("metrics.jsonl"));
    let accuracy = validations(&metrics, "imitation", "route/imitation_accuracy");
    assert!(*accuracy.last().unwrap() > 0.98, "{accuracy:?}");
    // Every stage starts where the one before ended.
    let losses = |stage| validations(&metrics, stage, "loss/lm");
    let gap = (losses("imitation")[0] - losses("fixed").last().unwrap()).abs();
    assert!(gap < 1e-5, "{gap:e}");
    // A block that costs more than it is worth is not executed.
    let steps = validations(&metrics, "exit", "route/steps_mean");
    assert!(steps.last() < steps.first(), "{steps:?}");

    let report = workplace
        .nerve(&format!(
            "route {run} --tokens 300 --json --html route.html --svg route.svg"
        ))
        .expect(0)
        .json();
    let walked = report["numbers"]["route/steps_mean"].as_f64().unwrap();
    assert!(
        (walked - steps.last().unwrap()).abs() < 1e-9,
        "{walked} {steps:?}"
    );
    for file in ["route.html", "route.svg"] {
        assert!(workplace.path(file).is_file());
    }
    let shown = workplace
        .nerve(&format!("route {run} --prompt copy"))
        .expect(0)
        .stdout;
    assert!(shown.contains("c "), "{shown}");

    // Another run can start with these weights, and the loss of the plain one says how hard a document is.
    let continued = format!(
        "fit routes.toml --render none --set stage.baseline.start={{kind='run',path='{run}'}}"
    );
    workplace.nerve(&continued).expect(3);
    let plain = workplace
        .nerve("config show routes.toml --set run.name=plain")
        .expect(0)
        .stdout;
    let end = plain.find("[[stage]]\n# The same weights inside").unwrap();
    let watch = plain.find("[watch]").unwrap();
    workplace.write("plain.toml", plain[..end].to_string() + &plain[watch..]);
    let plain = workplace.nerve("fit plain.toml --render none").expect(0);
    let plain = plain.answer();
    workplace
        .nerve(&format!("eval {plain} --difficulty difficulty.json"))
        .expect(0);
    let taught = format!(
        "fit routes.toml --render none --set stage.baseline.start={{kind='run',path='{plain}'}} \
         --set data.difficulty={{kind='file',path='difficulty.json'}}"
    );
    workplace.nerve(&taught).expect(0);
}

#[test]
fn a_collapsed_router_ends_the_run_with_6_if_that_is_wanted() {
    let workplace = Workplace::with_routes();
    let line = "fit routes.toml --render none --set stage.exit.steps=12 \
                --set stage.exit.walk.constraint.early_exit_penalty=1000 --set stage.exit.walk.constraint.min_exit_step=9";
    let told = workplace.nerve(line).expect(0);
    assert!(
        told.stderr.contains("the router has collapsed"),
        "{}",
        told.stderr
    );
    let refused = workplace
        .nerve(&format!("{line} --fail-on-collapse"))
        .expect(6);
    assert!(refused.stderr.contains("collapsed"), "{}", refused.stderr);
}

#[test]
fn a_checkpoint_of_the_reference_becomes_a_run() {
    let workplace = Workplace::with_routes();
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/brian/position_independent_input/weights.safetensors"
    );
    // Nineteen letters and four special tokens.
    workplace.write("letters.txt", "abcdefghijklmnopqrs");
    workplace
        .nerve("tokenizer train letters.txt --kind character --output letters.json")
        .expect(0);
    let sizes = "--set run.name=imported --set tokenizer.file=letters.json --set model.d_model=16 --set model.n_heads=2 \
                 --set model.d_ff=64 --set model.d_ff_pool=64 --set model.position.d_position=6 --set model.exit=projection";
    let table = workplace
        .nerve(&format!(
            "import {fixture} --recipe routes.toml {sizes} --dry-run"
        ))
        .expect(0)
        .stdout;
    assert!(
        table.contains("route_blocks.2.block.attn.qkv.weight"),
        "{table}"
    );
    assert!(
        table.lines().skip(1).all(|line| line.ends_with("fits")),
        "{table}"
    );
    let run = workplace
        .nerve(&format!("import {fixture} --recipe routes.toml {sizes}"))
        .expect(0);
    let sample = format!(
        "sample {} --prompt abc --tokens 5 --temperature 0",
        run.answer()
    );
    workplace.nerve(&sample).expect(0);
    let wrong =
        format!("import {fixture} --recipe routes.toml {sizes} --set model.position.d_position=5");
    let refused = workplace.nerve(&wrong).expect(3);
    assert!(
        refused.stderr.contains("has another shape"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_a_recipe_will_cost_is_told_without_data_and_without_its_device() {
    let workplace = Workplace::new();
    let line =
        "estimate assets/recipes/brian/r125_parallel.toml --vocabulary 32000 --gflops 100000";
    let text = workplace.nerve(line).expect(0).stdout;
    assert!(text.contains("not counted: several paths"), "{text}");
    let cost = |line: &str| -> Value {
        let finished = workplace
            .nerve(&format!("estimate {line} --json"))
            .expect(0);
        serde_json::from_str(&finished.stdout).unwrap()
    };
    let line = "assets/recipes/brian/r125.toml --vocabulary 32000 --gflops 100000";
    let estimate = cost(line);
    let stages = estimate["stages"].as_array().unwrap();
    let of = |stage: usize, key: &str| stages[stage][key].as_f64().unwrap();
    assert_eq!(of(0, "parameters"), 137_841_408.0);
    assert_eq!(of(4, "parameters"), 139_521_609.0);
    assert!(of(4, "active_parameters") <= of(4, "parameters"));
    // By hand: 12 blocks of 4 d² for keys and values, 4 d² + 6 d d_ff else and 4 d per key, and the head.
    let (d_model, d_ff, seq, vocabulary) = (768.0, 3072.0, 2048.0, 32_000.0);
    let block = 8.0 * d_model * d_model + 6.0 * d_model * d_ff + 4.0 * d_model * seq;
    let expected = 12.0 * block + 2.0 * d_model * vocabulary;
    assert_eq!(of(0, "flops_per_token"), expected);
    let seconds = 3.0 * expected * of(0, "tokens") / 1e14;
    assert!((of(0, "seconds") / seconds - 1.0).abs() < 1e-9);
    assert!(of(4, "flops_per_token") < of(4, "flops_per_token_most"));
    let unknown = "estimate assets/recipes/brian/r125.toml --vocabulary 32000 --json";
    let unknown: Value = serde_json::from_str(&workplace.nerve(unknown).expect(0).stdout).unwrap();
    assert!(unknown["seconds"].is_null());
    // A graph's size follows from its counts; a vocabulary alone gives the most it can be.
    workplace
        .nerve("estimate assets/recipes/brillm/tiny.toml")
        .expect(2);
    let graph = cost("assets/recipes/brillm/tiny.toml --vocabulary 100 --gflops 1");
    assert_eq!(graph["graph"]["edges"], 10_000);
    assert_eq!(graph["graph"]["table_bytes"], 10_001 * 16 * 17 * 4);
    assert_eq!(graph["stages"][0]["flops_per_token"], 2.0 * 256.0 * 101.0);
    assert!(graph["seconds"].as_f64().unwrap() > 0.0);
}

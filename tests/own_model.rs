//! Tests of programs with a model and a hook (`train/examples/looped.rs`), an optimizer, a loss, a teacher and a memory (`parts.rs`)
//! of their own: training, exact resume, evaluation, sampling, sweeps, and messages for mistakes in their tables.

use crate::determinism::check_every_resume;
use crate::support::{Workplace, lines};
use serde_json::Value;

const LOOPED: &str = env!("CARGO_BIN_EXE_looped-under-test");
const PARTS: &str = env!("CARGO_BIN_EXE_parts-under-test");

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

/// `baseline.toml`, small, with the optimizer and the loss of `parts.rs`.
fn workplace_of_parts() -> Workplace {
    let workplace = Workplace::with_few_stories().of_program(PARTS);
    let shown = workplace.nerve(
        "config show assets/recipes/baseline/tiny.toml --set batch.sequences=3 --set stage.baseline.steps=8 \
         --set stage.baseline.learning_rate.warmup_steps=2 --set model.d_model=16 --set model.n_heads=2 \
         --set watch.log_every_steps=1 --set watch.valid_every_steps=4 --set watch.valid_tokens=256 \
         --set checkpoint.every_steps=1 --set checkpoint.keep_last=100",
    );
    let recipe = with_lion(&shown.expect(0).stdout);
    let loss = "[loss.normaliser]\nweight = 0.01\n";
    workplace.write("baseline.toml", format!("{recipe}\n{loss}"));
    workplace
}

/// A recipe with the optimizer of `parts.rs` in the place of its own.
fn with_lion(recipe: &str) -> String {
    let (before, rest) = recipe.split_once("[optimizer]").unwrap();
    let (_, after) = rest.split_once("\n[").unwrap();
    let lion = "kind = \"lion\"\nbetas = [0.9, 0.99]\nweight_decay = 0.1\nclip_norm = 1.0\n";
    format!("{before}[optimizer]\n{lion}\n[{after}")
}

#[test]
fn an_optimizer_and_a_loss_of_a_programs_own_train_and_resume_to_the_bit() {
    let workplace = workplace_of_parts();
    let fitted = workplace.nerve("fit baseline.toml --render none").expect(0);
    let run = fitted.answer().to_string();
    let log = lines(&workplace.path(&run).join("metrics.jsonl"));
    let of = |split: &str, name: &str| -> Vec<f64> {
        let lines = log.iter().filter(|line| line["split"] == split);
        lines.filter_map(|line| line[name].as_f64()).collect()
    };
    let [total, language, normaliser] =
        ["total", "lm", "normaliser"].map(|name| of("train", &format!("loss/{name}")));
    assert_eq!([total.len(), language.len(), normaliser.len()], [8; 3]);
    assert!(language[7] < language[0], "{language:?}");
    for step in 0..8 {
        let expected = language[step] + 0.01 * normaliser[step];
        assert!((total[step] - expected).abs() < 1e-5, "step {step}");
    }
    assert_eq!(of("valid", "loss/normaliser").len(), 3);
    check_every_resume(&workplace, &run);
    // Another program names what it does not know, instead of leaving it out.
    let without = Workplace::with_few_stories();
    let text = std::fs::read_to_string(workplace.path("baseline.toml")).unwrap();
    without.write("baseline.toml", text);
    let refused = without.nerve("fit baseline.toml").expect(2).stderr;
    for expected in [
        "optimizer.kind: found string \"lion\", expected one of \"adamw\", \"muon\", \"row_adamw\"",
        "loss.normaliser: found an unknown loss",
    ] {
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn mistakes_in_a_programs_own_optimizer_and_loss_are_named_like_all_others() {
    let workplace = workplace_of_parts();
    for (set, expected) in [
        ("optimizer.kind=loin", "did you mean \"lion\"?"),
        (
            "optimizer.betas=[0.9,1.0]",
            "optimizer.betas, from --set: found",
        ),
        (
            "loss.normaliser.weight=-1.0",
            "loss.normaliser.weight, from --set: found float -1.0, expected at least 0",
        ),
        ("optimizer.epsilon=0.9", "optimizer.epsilon"),
    ] {
        let line = format!("fit baseline.toml --render none --set {set}");
        let refused = workplace.nerve(&line).expect(2).stderr;
        assert!(refused.contains(expected), "{set}: {refused}");
    }
    let graph = workplace.nerve("config new brillm").expect(0).stdout;
    workplace.write("graph.toml", with_lion(&graph));
    let refused = workplace.nerve("config check graph.toml").expect(2).stderr;
    let expected = "expected row_adamw: the model is a graph";
    assert!(refused.contains(expected), "{refused}");
}

const STRIDE: &str = "{kind='stride',blocks=2,n_steps=2}";
const MEAN: &str = "{kind='mean',d_code=6,window=2}";

/// `routes.toml`: the two stages of the ladder that have a teacher, small, with that of `parts.rs` and with its memory.
fn workplace_of_teachers() -> Workplace {
    let workplace = Workplace::with_routes().of_program(PARTS);
    let ladder = std::fs::read_to_string(workplace.path("routes.toml")).unwrap();
    let parts: Vec<&str> = ladder.split("[[stage]]").collect();
    let (_, tail) = ladder.split_once("[watch]").unwrap();
    let stages = format!("[[stage]]{}[[stage]]{}", parts[3], parts[4]);
    workplace.write("taught.toml", format!("{}{stages}[watch]{tail}", parts[0]));
    let shown = workplace.nerve(&format!(
        "config show taught.toml --set stage.imitation.start=fresh --set checkpoint.every_steps=1 \
         --set model.d_model=16 --set model.n_heads=2 --set model.d_ff=16 --set model.d_ff_pool=16 \
         --set stage.imitation.policy.teacher={STRIDE} --set stage.scheduled.policy.teacher={STRIDE} \
         --set model.memory={MEAN}"
    ));
    workplace.write("routes.toml", shown.expect(0).stdout);
    workplace
}

#[test]
fn a_teacher_and_a_memory_of_a_programs_own_lead_are_read_and_resume_to_the_bit() {
    let workplace = workplace_of_teachers();
    let fitted = workplace.nerve("fit routes.toml --render plain").expect(0);
    let shown = "the teacher stride leads, the router imitates it";
    assert!(fitted.stderr.contains(shown), "{}", fitted.stderr);
    let run = fitted.answer().to_string();
    let log = lines(&workplace.path(&run).join("metrics.jsonl"));
    let of = |name: &str| -> Vec<f64> {
        let led = |line: &&Value| line["split"] == "train" && line["stage"] == "imitation";
        let lines = log.iter().filter(led);
        lines.filter_map(|line| line[name].as_f64()).collect()
    };
    // Every token runs two blocks, two apart in a pool of three, and leaves at the third step.
    assert_eq!(of("route/steps_mean"), [2.0; 4]);
    assert_eq!(of("route/exit/3"), [1.0; 4]);
    assert_eq!(
        [of("route/advance"), of("route/recur")],
        [[0.0; 4], [0.0; 4]]
    );
    // Sequences begin at drawn blocks.
    assert!(of("route/path_diversity").iter().any(|&paths| paths > 1.5));
    let imitation = of("loss/imitation");
    assert!(imitation[3] < imitation[0], "{imitation:?}");
    check_every_resume(&workplace, &run);
    // The memory is read, and has learnt to say something.
    let measured = |flag: &str| -> Value {
        let line = format!("eval {run} --json {flag}");
        workplace.nerve(&line).expect(0).json()
    };
    let of = |measured: &Value| measured["splits"][0]["loss/lm"].as_f64().unwrap();
    let [with, without] = ["", "--without-memory"].map(measured);
    assert_ne!(of(&with), of(&without), "{with}");
    let sampled = workplace.nerve(&format!("sample {run} --prompt copy --tokens 5 --json"));
    assert!(sampled.expect(0).stdout.contains("copy"));
    let named = |name: &str| {
        log.iter()
            .filter_map(|line| line[name].as_f64())
            .collect::<Vec<_>>()
    };
    let share = named("memory/share");
    assert!(
        share.len() > 2 && share[0] < share[share.len() - 1],
        "{share:?}"
    );
    assert!(named("memory/open").iter().all(|&open| open == 1.0));
    workplace.nerve("estimate routes.toml").expect(0);
    // Another program names what it does not know.
    let without = Workplace::with_routes();
    let text = std::fs::read_to_string(workplace.path("routes.toml")).unwrap();
    without.write("routes.toml", text);
    let refused = without.nerve("fit routes.toml").expect(2).stderr;
    for expected in [
        "stage.imitation.policy.teacher.kind: found string \"stride\", expected one of \"sequential\"",
        "model.memory.kind: found string \"mean\", expected one of \"none\", \"hidden_code\", \"key_value_prefix\", \"shared_code\", \"both\"",
    ] {
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn mistakes_in_a_programs_own_teacher_are_named_like_all_others() {
    let workplace = workplace_of_teachers();
    for (teacher, expected) in [
        (
            "{kind='strid',blocks=2,n_steps=2}",
            "did you mean \"stride\"?",
        ),
        (
            "path",
            ".teacher, from --set: found string \"path\", expected a table { kind = \"path\", blocks }",
        ),
        ("sequental", "did you mean \"sequential\"?"),
        (
            "stride",
            ".teacher.blocks, from --set: found no such key, expected a whole number",
        ),
        (
            "{kind='stride',blocks=4,n_steps=2}",
            ".teacher.blocks, from --set: found integer 4, expected a whole number from 1 to 3",
        ),
        (
            "{kind='stride',blocks=2,n_steps=6}",
            ".teacher.n_steps, from --set: found integer 6, expected a whole number from 1 to 5",
        ),
        (
            "{kind='stride',blocks=2,n_step=2}",
            ".teacher.n_step, from --set: found an unknown key, expected a known one; did you mean n_steps?",
        ),
        (
            "5",
            ".teacher, from --set: found integer 5, expected one of \"sequential\", \"mixed_skip_recur\", \
             \"balanced_coverage\", \"random_internal\", \"path\", \"stride\"",
        ),
    ] {
        let set = format!("--set stage.scheduled.policy.teacher={teacher}");
        let refused = workplace.nerve(&format!("config check routes.toml {set}"));
        let refused = refused.expect(2).stderr;
        assert!(refused.contains(expected), "{teacher}: {refused}");
        // A line for each of the two keys.
        assert!(refused.lines().count() <= 2, "{teacher}: {refused}");
    }
}

#[test]
fn mistakes_in_a_programs_own_memory_are_named_like_all_others() {
    let workplace = workplace_of_teachers();
    let beam = "model.route.parallel={kind='sequence_beam',width=1,branch_cost=0.0,score_decay=1.0,parent_exit='branch'}";
    for (set, expected) in [
        (
            "model.memory={kind='mead',d_code=6,window=2}",
            ".memory.kind, from --set: found string \"mead\", expected one of \"none\", \"hidden_code\", \"key_value_prefix\", \"shared_code\", \
             \"both\", \"mean\"; did you mean \"mean\"?",
        ),
        (
            "model.memory={kind='mean',d_code=17,window=2}",
            ".memory.d_code, from --set: found integer 17, expected a whole number from 1 to 16",
        ),
        (
            "model.memory={kind='mean',d_code=6,windows=2}",
            ".memory.windows, from --set: found an unknown key, expected a known one; did you mean window?",
        ),
        (
            "model.memory={kind='mean',d_code=6,window=0}",
            ".memory.window, from --set: found integer 0, expected at least 1",
        ),
        (
            "model.memory={kind='mean',d_code=6,window=4097}",
            ".memory.window, from --set: found integer 4097, expected at most 4096",
        ),
        (beam, "expected none, or a beam of every token"),
    ] {
        let refused = workplace.nerve(&format!("config check routes.toml --set {set}"));
        let refused = refused.expect(2).stderr;
        assert!(refused.contains(expected), "{set}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{set}: {refused}");
    }
}

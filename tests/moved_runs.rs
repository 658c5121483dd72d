//! Tests of runs that were moved (`--data` finds their files by hash), of `--extend` behind a shut gate, and of `config check`
//! and `--dry-run`, which list all missing files.

use crate::support::{Finished, Workplace};
use std::fs;
use std::path::Path;

const FIT: &str = "fit ladder.toml --render none --set watch.valid_tokens=256 --set watch.sample_every_steps=0 \
                   --set watch.valid_every_steps=4 --set checkpoint.every_steps=4 --set batch.sequences=2 \
                   --set stage.baseline.learning_rate.warmup_steps=1 --set stage.baseline.steps=4 \
                   --set stage.fixed.learning_rate.warmup_steps=1 --set stage.fixed.steps=4";

/// Runs a line from another directory.
fn nerve_in(workplace: &Workplace, folder: &Path, line: &str) -> Finished {
    let mut command = workplace.command(line);
    command.current_dir(folder).env("RAYON_NUM_THREADS", "2");
    command.output().unwrap().into()
}

fn loss(finished: Finished) -> f64 {
    let json = finished.expect(0).json();
    json["splits"][0]["loss/lm"].as_f64().unwrap()
}

#[test]
fn a_moved_run_is_sampled_measured_and_resumed_from_anywhere() {
    let workplace = Workplace::with_few_stories();
    let run = workplace.nerve(FIT).expect(0);
    let before = loss(workplace.nerve(&format!("eval {} --json", run.answer())));
    let elsewhere = workplace.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(workplace.path(run.answer()), elsewhere.join("moved")).unwrap();
    let nerve = |line: &str| nerve_in(&workplace, &elsewhere, line);
    // The tokenizer lies in the run, the data where they were.
    assert_eq!(loss(nerve("eval ./moved --json")), before);

    fs::rename(workplace.path("data/stories"), elsewhere.join("found")).unwrap();
    nerve("sample ./moved --prompt Once --tokens 2").expect(0);
    let missing = nerve("eval ./moved --json").expect(3);
    let manifest = fs::read_to_string(elsewhere.join("found/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let sha256 = manifest["files"]["valid.bin"]["sha256"].as_str().unwrap();
    assert_eq!(
        missing.stderr.lines().last().unwrap(),
        format!(
            "error: data/stories/valid.bin: found no such file, expected the data of this run, with hash {sha256}; \
             name a folder that holds them with --data DIR"
        )
    );
    assert_eq!(loss(nerve("eval ./moved --json --data .")), before);
    nerve("fit --resume ./moved --render none --extend fixed=5").expect(3);
    nerve("fit --resume ./moved --render none --extend fixed=5 --data found").expect(0);

    // Another tokenizer in the place of the run's own is none.
    fs::copy(
        workplace.path("assets/tokenizers/byte.json"),
        elsewhere.join("moved/inputs/tokenizer.json"),
    )
    .unwrap();
    nerve("sample ./moved --prompt Once --tokens 2").expect(0);
    fs::remove_file(workplace.path("assets")).unwrap();
    let changed = nerve("sample ./moved --prompt Once --tokens 2").expect(3);
    assert!(
        changed.stderr.contains(
            "moved/inputs/tokenizer.json: found another tokenizer than the run was trained with"
        ),
        "{}",
        changed.stderr
    );
}

#[test]
fn a_stage_behind_a_shut_gate_goes_on_and_the_ladder_with_it() {
    let workplace = Workplace::with_few_stories();
    let recipe = fs::read_to_string(workplace.path("ladder.toml")).unwrap();
    let second = recipe.rfind("[[stage]]").unwrap();
    let with_gate = |bound: f64| {
        let gate = format!("gate = {{ metric = \"valid/loss/lm\", at_most = {bound} }}\n\n");
        workplace.write(
            "gate.toml",
            [&recipe[..second], &gate, &recipe[second..]].concat(),
        );
        let line = FIT.replace("ladder.toml", "gate.toml");
        workplace.nerve(&line).expect(1).stderr
    };
    let measured = with_gate(0.5);
    let number = measured.split("found ").nth(1).unwrap();
    let number: f64 = number.split(',').next().unwrap().parse().unwrap();
    let shut = with_gate(number - 0.01);
    assert!(
        shut.contains("`nerve fit --resume runs/brian-tiny-2 --extend baseline=STEPS`"),
        "{shut}"
    );
    let longer = workplace
        .nerve("fit --resume runs/brian-tiny-2 --render none --extend baseline=40")
        .expect(0);
    assert!(
        longer
            .stderr
            .contains("stage baseline goes on from step 4 to 40 at the learning rate 0.0003"),
        "{}",
        longer.stderr
    );
    let shown = workplace
        .nerve("runs show runs/brian-tiny-2 --json")
        .expect(0)
        .json();
    assert_eq!(shown["run"]["step"], 44);
    assert_eq!(shown["run"]["stage"], "fixed");
    let refused = workplace
        .nerve("fit --resume runs/brian-tiny-2 --extend baseline=80")
        .expect(2);
    assert!(
        refused
            .stderr
            .contains("the stages after baseline were trained on its weights"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_check_and_a_dry_run_say_all_that_is_missing() {
    let workplace = Workplace::new();
    let recipe = "assets/recipes/brian/tiny.toml --set tokenizer.file=none.json --set stage.baseline.start={kind='run',path='before'}";
    let expected = [
        "error: before: found no such file, expected a run directory",
        "data/stories/train.bin: found no such file, expected a .bin file of `nerve data prepare`",
        "data/stories/valid.bin: found no such file, expected a .bin file of `nerve data prepare`",
        "none.json: found no such file, expected a tokenizer.json (`nerve tokenizer train` makes one)",
    ];
    for line in [
        format!("config check {recipe}"),
        format!("fit {recipe} --dry-run"),
    ] {
        let refused = workplace.nerve(&line).expect(3);
        assert_eq!(
            refused.stderr.lines().collect::<Vec<_>>(),
            expected,
            "{line}"
        );
    }
    let json = workplace
        .nerve(&format!("config check {recipe} --json"))
        .expect(3)
        .json();
    assert_eq!(
        json["files"][0]["problems"].as_array().unwrap().len(),
        4,
        "{json}"
    );
}

//! Tests of token ids of other programs in the place of prepared data: exported files train, measure and resume as the splits they
//! came from, a changed file is noticed, and one without a header says what it wants.

use crate::support::Workplace;
use std::fs;

const FIT: &str = "fit ladder.toml --render none --set watch.valid_tokens=256 --set watch.sample_every_steps=0 \
                   --set watch.log_every_steps=1 --set watch.valid_every_steps=2 --set checkpoint.every_steps=2 \
                   --set checkpoint.keep_last=100 --set batch.sequences=2 --set data.difficulty=none \
                   --set stage.baseline.learning_rate.warmup_steps=1 --set stage.baseline.steps=4 \
                   --set stage.fixed.learning_rate.warmup_steps=1 --set stage.fixed.steps=2";

/// Stories as two files of other programs, one without a header.
fn exported() -> (Workplace, String) {
    let workplace = Workplace::with_few_stories();
    fs::create_dir(workplace.path("theirs")).unwrap();
    let export = |split: &str, rest: &str| {
        let line = format!("data export data/stories/{split}.bin --output theirs/{rest}");
        workplace.nerve(&line).expect(0)
    };
    export("train", "train.bin --format u16");
    let said = export("valid", "valid.npy").stderr;
    assert!(
        said.contains("ids of 2 bytes in a .npy file; documents end with id"),
        "{said}"
    );
    let theirs = format!(
        "{FIT} --set data.train.0.path=theirs/train.bin --set data.train.0.format=u16 \
         --set data.valid.0.path=theirs/valid.npy"
    );
    (workplace, theirs)
}

#[test]
fn ids_of_other_programs_train_as_the_split_they_came_from_and_resume_to_the_bit() {
    let (workplace, theirs) = exported();
    let ours = workplace.nerve(FIT).expect(0).answer().to_string();
    let finished = workplace.nerve(&theirs).expect(0);
    let run = finished.answer();
    let said = "read as a file without a header of u16 ids; a document ends behind each";
    let lines = workplace.nerve(
        &theirs
            .replace("none", "plain")
            .replace("difficulty=plain", "difficulty=none"),
    );
    assert!(lines.expect(0).stderr.contains(said));
    let whole = workplace.result_of(run);
    assert!(
        whole == workplace.result_of(&ours),
        "the same ids and documents"
    );
    workplace.copy_run(run, "runs/stopped");
    for checkpoint in workplace.checkpoints("runs/stopped").split_off(1) {
        fs::remove_dir_all(checkpoint).unwrap();
    }
    workplace
        .nerve("fit --resume ./runs/stopped --render none")
        .expect(0);
    assert!(workplace.result_of("runs/stopped") == whole);

    let eval = |rest: &str| workplace.nerve(&format!("eval {run} --json {rest}"));
    let own = eval("").expect(0).json();
    let named = eval("--data theirs/valid.npy").expect(0).json();
    let prepared = eval("--data data/stories/valid.bin").expect(0).json();
    for measured in [&named, &prepared] {
        for number in ["loss/lm", "bytes", "bits_per_byte"] {
            assert_eq!(
                measured["splits"][0][number], own["splits"][0][number],
                "{number}"
            );
        }
    }
    let silent = eval("--data theirs/train.bin").expect(3).stderr;
    assert!(
        silent.contains("without a header that says how wide ids are"),
        "{silent}"
    );
    eval("--data theirs/train.bin --format u16").expect(0);
    let shown = workplace
        .nerve(&format!("runs show {run}"))
        .expect(0)
        .stdout;
    assert!(shown.contains("token ids of another program"), "{shown}");

    // They are found by their hash where they are now, and not where they are others.
    fs::rename(workplace.path("theirs"), workplace.path("moved")).unwrap();
    eval("").expect(3);
    eval("--data moved").expect(0);
    fs::rename(workplace.path("moved"), workplace.path("theirs")).unwrap();
    let file = workplace.path("theirs/train.bin");
    let mut bytes = fs::read(&file).unwrap();
    bytes.swap(0, 2);
    bytes.swap(1, 3);
    fs::write(&file, bytes).unwrap();
    let changed = workplace
        .nerve(&format!(
            "fit --resume {run} --render none --extend fixed=3"
        ))
        .expect(3);
    let found = "theirs/train.bin: found content that changed since the run was made";
    assert!(changed.stderr.contains(found), "{}", changed.stderr);
}

#[test]
fn files_of_ids_that_do_not_fit_are_refused_before_training() {
    let (workplace, theirs) = exported();
    let refused = |line: &str, expected: &str| {
        let stderr = workplace.nerve(line).expect(3).stderr;
        let errors = stderr.lines().filter(|line| line.starts_with("error: "));
        let errors: Vec<&str> = errors.collect();
        assert!(
            errors.len() == 1 && errors[0].contains(expected),
            "{expected}: {stderr}"
        );
    };
    let silent = theirs.replace(" --set data.train.0.format=u16", "");
    refused(&silent, "say format = \"u16\"");
    let other = format!("{theirs} --set tokenizer.file=assets/tokenizers/byte.json");
    refused(&other, "theirs/train.bin: index ");
    refused(&theirs.replace("=u16", "=llm_c"), "found ");
    refused(
        &theirs.replace("valid.npy", "none.npy"),
        "none.npy: found no such file",
    );
    assert!(
        !workplace.path("runs").exists(),
        "no mistake leaves a run behind"
    );
    let bigrams = "data bigrams theirs/train.bin --output counts.safetensors";
    refused(
        bigrams,
        "name the tokenizer that made the ids with --tokenizer",
    );
    let known = format!("{bigrams} --tokenizer data/stories/tokenizer.json --format u16");
    let counted = workplace.nerve(&known).expect(0).stderr;
    assert!(counted.contains("a document ends behind each"), "{counted}");
}

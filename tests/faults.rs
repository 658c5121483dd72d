//! Tests of training runs under faults: damaged checkpoints, a second process, a full disk, signals, changed recipe or data, a
//! loss that is not finite, closed stderr and too little memory.

use crate::support::Workplace;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use train::run::{RunDirectory, checkpoint};

const FIT: &str = "fit ladder.toml --render none --set watch.valid_every_steps=0 \
                   --set checkpoint.keep_last=100 --set checkpoint.every_steps=2 \
                   --set stage.baseline.learning_rate.warmup_steps=1 --set stage.baseline.steps=6 \
                   --set stage.fixed.learning_rate.warmup_steps=1";

/// A run of ten steps.
fn short_run(workplace: &Workplace) -> String {
    let line = format!("{FIT} --set stage.fixed.steps=4");
    workplace.nerve(&line).expect(0).answer().to_string()
}

/// Whatever is done to the newest checkpoint, it is named and passed over, and the result is the same.
fn check_fallback(damage: impl Fn(&Workplace, &[std::path::PathBuf]), named: &str) {
    let workplace = Workplace::with_stories();
    let run = short_run(&workplace);
    let whole = workplace.result_of(&run);
    let checkpoints = workplace.checkpoints(&run);
    damage(&workplace, &checkpoints);
    let verified = workplace.nerve(&format!("runs verify {run}")).expect(1);
    assert!(verified.stderr.contains(named), "{}", verified.stderr);
    let resumed = workplace
        .nerve(&format!("fit --resume {run} --render none"))
        .expect(0);
    assert!(resumed.stderr.contains(named), "{}", resumed.stderr);
    assert!(resumed.stderr.contains("passed over"), "{}", resumed.stderr);
    assert!(workplace.result_of(&run) == whole);
}

#[test]
fn a_truncated_checkpoint_is_named_and_the_older_one_used() {
    let damage = |_: &Workplace, checkpoints: &[std::path::PathBuf]| {
        let file = checkpoints
            .last()
            .unwrap()
            .join("model-00001-of-00001.safetensors");
        let length = file.metadata().unwrap().len();
        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_len(length - 1)
            .unwrap();
    };
    check_fallback(damage, "step-00000010/model-00001-of-00001.safetensors");
}

#[test]
fn a_flipped_bit_is_named_and_the_older_one_used() {
    let damage = |_: &Workplace, checkpoints: &[std::path::PathBuf]| {
        let file = checkpoints
            .last()
            .unwrap()
            .join("optim-00001-of-00001.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1 << 3;
        fs::write(file, bytes).unwrap();
    };
    check_fallback(damage, "step-00000010/optim-00001-of-00001.safetensors");
}

#[test]
fn a_file_of_another_checkpoint_is_named_and_the_older_one_used() {
    let damage = |_: &Workplace, checkpoints: &[std::path::PathBuf]| {
        let [.., other, newest] = checkpoints else {
            panic!("two checkpoints")
        };
        let file = "model-00001-of-00001.safetensors";
        fs::copy(other.join(file), newest.join(file)).unwrap();
    };
    check_fallback(damage, "step-00000010/model-00001-of-00001.safetensors");
}

#[test]
fn a_second_fit_on_the_same_run_ends_with_5_and_says_who_has_it() {
    let workplace = Workplace::with_stories();
    let run = short_run(&workplace);
    let lock = File::options()
        .write(true)
        .open(workplace.path(&run).join("LOCK"))
        .unwrap();
    lock.lock().unwrap();
    let second = workplace.nerve(&format!("fit --resume {run}")).expect(5);
    assert!(
        second.stderr.contains("LOCK: found the run locked by"),
        "{}",
        second.stderr
    );
}

#[test]
fn a_full_disk_ends_with_4_and_leaves_the_last_checkpoint() {
    let workplace = Workplace::with_stories();
    let run = short_run(&workplace);
    let kept = workplace.checkpoints(&run).len() - 1;
    fs::remove_dir_all(&workplace.checkpoints(&run)[kept]).unwrap();
    // A limit on file sizes fails a write in the middle as a full disk does.
    let program = env!("CARGO_BIN_EXE_nerve-under-test");
    let script = format!("ulimit -f 200; exec {program} fit --resume {run} --render none");
    let limited = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(workplace.path(""))
        .output()
        .unwrap();
    let stderr = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("cannot write"), "{stderr}");
    assert_eq!(workplace.checkpoints(&run).len(), kept);
    workplace.nerve(&format!("runs verify {run}")).expect(0);
    workplace
        .nerve(&format!("fit --resume {run} --render none"))
        .expect(0);
    assert_eq!(workplace.checkpoints(&run).len(), kept + 1);
}

#[test]
fn a_signal_saves_first_and_the_resumed_run_is_the_run_that_was_never_stopped() {
    let workplace = Workplace::with_stories();
    let line = format!("{FIT} --set stage.fixed.steps=300 --set checkpoint.every_steps=1000");
    let whole = workplace
        .nerve(&format!("{line} --set run.name=whole"))
        .expect(0);
    let mut signals = vec![("TERM", 143), ("INT", 130)];
    // Under `nohup` the program inherits that a hang-up means nothing, and keeps to it.
    if !hang_up_is_ignored() {
        signals.push(("HUP", 129));
    }
    for (signal, code) in signals {
        let run = format!("runs/{signal}");
        let log = workplace.path(&run).join("metrics.jsonl");
        let mut child = workplace
            .command(&format!("{line} --set run.name={signal}"))
            .spawn()
            .unwrap();
        wait_for_lines(&log, 3);
        let kill = format!("kill -{signal} {}", child.id());
        std::process::Command::new("bash")
            .args(["-c", &kill])
            .status()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let shown = workplace
            .nerve(&format!("runs show {run} --json"))
            .expect(0);
        assert!(shown.stdout.contains("stopped"), "{}", shown.stdout);
        workplace
            .nerve(&format!("fit --resume {run} --render none"))
            .expect(0);
        assert!(
            workplace.result_of(&run) == workplace.result_of(whole.answer()),
            "{signal}"
        );
    }
}

/// The lowest bit of the mask of ignored signals is SIGHUP.
fn hang_up_is_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1
}

fn wait_for_lines(log: &Path, lines: usize) {
    let start = Instant::now();
    while fs::read_to_string(log).unwrap_or_default().lines().count() < lines {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} stays short",
            log.display()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_recipe_or_data_that_changed_since_the_checkpoint_is_refused() {
    let workplace = Workplace::with_stories();
    let run = short_run(&workplace);
    let recipe = workplace.path(&run).join("recipe.toml");
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, text.replace("seed = 1 ", "seed = 2 ")).unwrap();
    let changed = workplace.nerve(&format!("fit --resume {run}")).expect(2);
    assert!(
        changed
            .stderr
            .contains("recipe.toml: found content that changed"),
        "{}",
        changed.stderr
    );
    fs::write(&recipe, text).unwrap();
    let prepare = "data prepare assets/samples/stories.jsonl --output data/stories --force \
                   --tokenizer assets/tokenizers/story_bpe.json --valid 0.2";
    workplace.nerve(prepare).expect(0);
    let changed = workplace.nerve(&format!("fit --resume {run}")).expect(3);
    assert!(
        changed
            .stderr
            .contains("train.bin: found content that changed"),
        "{}",
        changed.stderr
    );
}

#[test]
fn a_loss_that_is_no_number_ends_with_6_and_is_not_saved() {
    let workplace = Workplace::with_stories();
    let run = short_run(&workplace);
    let checkpoints = workplace.checkpoints(&run);
    let [.., before, last] = &checkpoints[..] else {
        panic!("two checkpoints")
    };
    let mut snapshot = checkpoint::load(before).unwrap();
    fs::remove_dir_all(before).unwrap();
    fs::remove_dir_all(last).unwrap();
    let gamma = snapshot.model.get_mut("norm.gamma").unwrap();
    let mut values = gamma.floats().into_owned();
    // Finite, so that it is read; its products are not.
    values[3] = f32::MAX;
    *gamma = train::run::HostTensor::new(gamma.shape.clone(), values);
    let directory = RunDirectory::open(&workplace.path(&run)).unwrap();
    checkpoint::save(&directory, &snapshot, 100).unwrap();
    let failed = workplace
        .nerve(&format!("fit --resume {run} --render none"))
        .expect(6);
    assert!(
        failed
            .stderr
            .contains("step 9 of stage fixed: found a loss of NaN"),
        "{}",
        failed.stderr
    );
    assert!(
        failed.stderr.contains("source:window 0:"),
        "{}",
        failed.stderr
    );
    assert_eq!(workplace.checkpoints(&run).last(), Some(before));
}

#[test]
fn a_stderr_that_is_closed_costs_no_step() {
    let workplace = Workplace::with_stories();
    let program = env!("CARGO_BIN_EXE_nerve-under-test");
    for render in ["plain", "json"] {
        let line = format!("{FIT} --set stage.fixed.steps=4 --set run.name={render}");
        let line = line.replace("--render none", &format!("--render {render}"));
        let script = format!("exec {program} {line} 2>&-");
        let finished = std::process::Command::new("bash")
            .args(["-c", &script])
            .current_dir(workplace.path(""))
            .output()
            .unwrap();
        assert_eq!(finished.status.code(), Some(0));
        assert_eq!(workplace.checkpoints(&format!("runs/{render}")).len(), 5);
    }
}

#[test]
fn a_training_that_no_memory_can_hold_is_refused_before_it_starts() {
    let workplace = Workplace::with_stories();
    let refused = workplace
        .nerve("fit ladder.toml --set batch.sequences=1000000")
        .expect(4);
    assert!(
        refused
            .stderr
            .contains("memory: cannot hold this training: it needs at least"),
        "{}",
        refused.stderr
    );
    assert!(!workplace.path("runs").exists());
}

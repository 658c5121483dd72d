//! Tests that files with right checksums but wrong content, weights that are not finite, and pipes or devices in the place of
//! files are refused in a short line; and that a run writes through no link.

use crate::graph::counted;
use crate::support::Workplace;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use train::run::checkpoint::{self, Best, Snapshot};
use train::run::{HostTensor, RunDirectory};

const FIT: &str = "fit ladder.toml --render none --set watch.valid_every_steps=0 --set checkpoint.every_steps=1 \
                   --set stage.baseline.learning_rate.warmup_steps=1 --set stage.baseline.steps=2 \
                   --set stage.fixed.learning_rate.warmup_steps=1 --set stage.fixed.steps=2";

/// A ladder with one step left.
fn ladder() -> (Workplace, String) {
    let workplace = Workplace::with_stories();
    let run = workplace.nerve(FIT).expect(0).answer().to_string();
    fs::remove_dir_all(workplace.checkpoints(&run).pop().unwrap()).unwrap();
    (workplace, run)
}

/// Writes the newest checkpoint again, changed, with right checksums.
fn change(workplace: &Workplace, run: &str, whole: &Snapshot, change: impl Fn(&mut Snapshot)) {
    let newest = workplace.checkpoints(run).pop().unwrap();
    fs::remove_dir_all(newest).unwrap();
    let mut snapshot = whole.clone();
    change(&mut snapshot);
    let directory = RunDirectory::open(&workplace.path(run)).unwrap();
    checkpoint::save(&directory, &snapshot, 100).unwrap();
}

fn newest(workplace: &Workplace, run: &str) -> Snapshot {
    checkpoint::load(workplace.checkpoints(run).last().unwrap()).unwrap()
}

/// The verb ends with 3 and one line, at once.
fn refused(workplace: &Workplace, line: &str, expected: &str) {
    let start = Instant::now();
    let refused = workplace.nerve(line).expect(3);
    // Debug machines are slow; what must not happen is a wait or a table of the size that the file speaks of.
    assert!(start.elapsed() < Duration::from_secs(5), "{line}");
    let errors = refused.stderr.lines();
    let errors: Vec<&str> = errors.filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", refused.stderr);
    assert!(errors[0].contains(expected), "{expected}: {}", errors[0]);
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "{}", path.display());
}

type Change = fn(&mut Snapshot);

#[test]
fn a_checkpoint_that_is_whole_and_wrong_is_refused_with_the_field_named() {
    let (workplace, run) = ladder();
    let whole = newest(&workplace, &run);
    let cases: [(Change, &str); 12] = [
        (
            |s| s.state.stage_index = 7,
            "stage_index: found 7, expected 0 to 1",
        ),
        (
            |s| s.state.stage = "baseline".into(),
            "stage: found \"baseline\", expected \"fixed\"",
        ),
        (
            |s| s.state.stage_step = 3,
            "stage_step: found 3, expected at most 2",
        ),
        (
            |s| s.state.micro_batches = 99,
            "micro_batches: found 99, expected 3",
        ),
        (
            |s| s.state.tokens = u64::MAX,
            "tokens: found 18446744073709551615, expected at most",
        ),
        (
            |s| s.state.wall_s = -1.0,
            "wall_s: found -1, expected seconds",
        ),
        (
            |s| {
                s.state.best = Some(Best {
                    step: 9,
                    value: 1.0,
                })
            },
            "best.step: found 9, expected at most 3",
        ),
        (
            |s| {
                s.state.optimizer_times.insert("norm.gamma".into(), 9);
            },
            "optimizer_times: found 9, expected at most 3",
        ),
        (
            |s| drop(s.optimizer.remove("norm.gamma.moment_1")),
            "tensor norm.gamma.moment_1: found nothing",
        ),
        (
            |s| {
                drop(s.optimizer.insert(
                    "norm.gamma.moment_1".into(),
                    HostTensor::new(vec![1, 64], vec![0.0; 64]),
                ))
            },
            "tensor norm.gamma.moment_1: found shape [1, 64], expected shape [64]",
        ),
        (
            |s| {
                drop(s.optimizer.insert(
                    "norm.gamma.moment_2".into(),
                    HostTensor::new(vec![64], vec![-1.0; 64]),
                ))
            },
            "tensor norm.gamma.moment_2: found a negative number at index 0",
        ),
        (
            |s| {
                drop(
                    s.model
                        .insert("norm.gamma".into(), HostTensor::new(vec![], vec![1.0])),
                )
            },
            "tensor norm.gamma: found shape [], expected shape [64]",
        ),
    ];
    let resume = format!("fit --resume {run} --render none");
    for (wrong, expected) in cases {
        change(&workplace, &run, &whole, wrong);
        refused(&workplace, &resume, expected);
    }
    change(&workplace, &run, &whole, |_| ());
    workplace.nerve(&resume).expect(0);
}

#[test]
fn weights_that_are_not_finite_are_named_by_every_verb_that_uses_them() {
    let (workplace, run) = ladder();
    let whole = newest(&workplace, &run);
    change(&workplace, &run, &whole, |snapshot| {
        let gamma = snapshot.model.get_mut("norm.gamma").unwrap();
        let mut values = gamma.floats().into_owned();
        (values[3], values[9]) = (f32::NAN, f32::INFINITY);
        *gamma = HostTensor::new(gamma.shape.clone(), values);
    });
    let named =
        "tensor norm.gamma: found 2 of 64 values that are not finite, the first, NaN, at index 3";
    for verb in ["eval", "sample", "bench", "fit --resume"] {
        refused(&workplace, &format!("{verb} {run}"), named);
    }
    let start =
        format!("fit ladder.toml --set stage.baseline.start={{kind=\"run\",path=\"{run}\"}}");
    refused(&workplace, &start, named);
    let verified = workplace.nerve(&format!("runs verify {run}")).expect(1);
    assert!(verified.stderr.contains(named), "{}", verified.stderr);
}

#[test]
fn finite_weights_whose_products_are_not_are_refused_by_what_they_give() {
    let (workplace, run) = ladder();
    let whole = newest(&workplace, &run);
    change(&workplace, &run, &whole, |snapshot| {
        let gamma = snapshot.model.get_mut("norm.gamma").unwrap();
        *gamma = HostTensor::new(gamma.shape.clone(), vec![f32::MAX; 64]);
    });
    refused(
        &workplace,
        &format!("eval {run}"),
        "loss of a target: found",
    );
    refused(
        &workplace,
        &format!("sample {run}"),
        "logits of token 1 of the continuation: found",
    );
}

#[test]
fn a_graph_that_is_whole_and_wrong_is_refused_with_the_tensor_named() {
    let (workplace, fit) = counted();
    let run = workplace.nerve(&fit).expect(0).answer().to_string();
    fs::remove_dir_all(workplace.checkpoints(&run).pop().unwrap()).unwrap();
    let whole = newest(&workplace, &run);
    let cases: [(Change, &str); 4] = [
        (
            |s| drop(s.optimizer.remove("rates")),
            "tensor rates: found nothing, expected shape [0]",
        ),
        (
            |s| {
                let touched = s.optimizer.get_mut("edges.touched").unwrap();
                let mut rows = touched.floats().into_owned();
                rows[5] = 1e9;
                *touched = HostTensor::new(touched.shape.clone(), rows);
            },
            "tensor edges.touched: found 1000000000 at row 5, expected a step from 0 to",
        ),
        (
            |s| {
                let edges = s.model["edges"].clone();
                let shape = vec![edges.shape[0] * edges.shape[1], edges.shape[2]];
                s.model
                    .insert("edges".into(), HostTensor::new(shape, edges.into_values()));
            },
            "tensor edges: found shape [",
        ),
        (
            |s| {
                drop(
                    s.model
                        .insert("mix".into(), HostTensor::new(vec![], vec![0.5])),
                )
            },
            "found {\"edges\":",
        ),
    ];
    for (wrong, expected) in cases {
        change(&workplace, &run, &whole, wrong);
        refused(
            &workplace,
            &format!("fit --resume {run} --render none"),
            expected,
        );
    }
}

#[test]
fn what_is_no_file_is_refused_at_once_by_whoever_would_read_it() {
    let (workplace, run) = ladder();
    let replaced = |file: &str, line: &str| {
        let path = workplace.path(file);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        make_pipe(&path);
        refused(&workplace, line, "found a pipe, expected");
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
    };
    replaced(&format!("{run}/run.json"), &format!("runs show {run}"));
    replaced(
        &format!("{run}/metrics.jsonl"),
        &format!("fit --resume {run}"),
    );
    for file in ["manifest.json", "train.bin", "train.documents.jsonl"] {
        replaced(&format!("data/stories/{file}"), "data stats data/stories");
    }
    refused(
        &workplace,
        "tokenizer inspect /dev/zero",
        "found a device, expected",
    );
    refused(
        &workplace,
        "tokenizer inspect data",
        "found a directory, expected",
    );
    let recipe = workplace.path("recipe.toml");
    make_pipe(&recipe);
    let empty = workplace.nerve("config check recipe.toml").expect(2);
    assert!(
        empty.stderr.contains("found an empty file"),
        "{}",
        empty.stderr
    );
    let poured = "cat ladder.toml | \"$0\" config check /dev/stdin";
    let poured = Command::new("bash")
        .args(["-c", poured, env!("CARGO_BIN_EXE_nerve-under-test")])
        .current_dir(workplace.path(""))
        .output()
        .unwrap();
    assert!(poured.status.success(), "{poured:?}");
}

#[test]
fn what_a_run_writes_follows_no_link() {
    let (workplace, run) = ladder();
    workplace.write("theirs", "theirs");
    fs::create_dir(workplace.path("elsewhere")).unwrap();
    let resume = format!("fit --resume {run} --render none");
    let log = workplace.path(&format!("{run}/metrics.jsonl"));
    let kept = fs::read(&log).unwrap();
    fs::remove_file(&log).unwrap();
    symlink(workplace.path("theirs"), &log).unwrap();
    refused(
        &workplace,
        &resume,
        "metrics.jsonl: found a symbolic link, expected a file of the run",
    );
    fs::remove_file(&log).unwrap();
    fs::write(&log, kept).unwrap();
    let checkpoints = workplace.path(&format!("{run}/ckpt"));
    let elsewhere = workplace.path("elsewhere/ckpt");
    fs::rename(&checkpoints, &elsewhere).unwrap();
    symlink(&elsewhere, &checkpoints).unwrap();
    fs::write(elsewhere.join("step-00000009.tmp-1"), "").unwrap();
    refused(
        &workplace,
        &resume,
        "ckpt: found a symbolic link, expected a directory of the run",
    );
    assert!(elsewhere.join("step-00000009.tmp-1").exists());
    assert_eq!(
        fs::read_to_string(workplace.path("theirs")).unwrap(),
        "theirs"
    );
    // Reading through the link is the user's own business, and so is a run that lies behind one.
    workplace.nerve(&format!("runs verify {run}")).expect(0);
    fs::remove_file(&checkpoints).unwrap();
    fs::rename(&elsewhere, &checkpoints).unwrap();
    symlink(workplace.path(&run), workplace.path("link")).unwrap();
    workplace
        .nerve("fit --resume ./link --render none")
        .expect(0);
}

#[test]
fn a_description_of_a_run_with_a_value_of_ten_megabytes_is_one_short_line() {
    let (workplace, run) = ladder();
    let file = workplace.path(&format!("{run}/run.json"));
    let text = fs::read_to_string(&file).unwrap();
    let with = |stage: &str| {
        let long = text.replace("\"stage\": \"fixed\"", &format!("\"stage\": \"{stage}\""));
        assert_ne!(long, text);
        fs::write(Path::new(&file), long).unwrap();
    };
    with(&"x".repeat(10 << 20));
    refused(
        &workplace,
        &format!("runs show {run}"),
        "expected the description of a run of at most 1048576 bytes",
    );
    with(&"x".repeat(5000));
    refused(
        &workplace,
        &format!("runs show {run}"),
        "stage: found a text of 5000 bytes, expected at most 1000",
    );
}

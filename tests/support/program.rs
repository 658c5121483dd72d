//! `Workplace`: a temporary directory, with data, recipes or runs if asked for, in which tests run `nerve`; `Finished` is what
//! the process left: exit code, stdout and stderr.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A temporary directory with a link to the project's assets.
pub struct Workplace {
    place: TempDir,
    program: &'static str,
}

/// What a finished process left.
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Workplace {
    pub fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets");
        std::os::unix::fs::symlink(assets.canonicalize().unwrap(), place.path().join("assets"))
            .unwrap();
        let program = env!("CARGO_BIN_EXE_nerve-under-test");
        Self { place, program }
    }

    /// A workplace in which the bundled stories are prepared for the tiny recipes. `ladder.toml` is the routed one
    /// without its gate, because a test is too short to pass it.
    pub fn with_stories() -> Self {
        let workplace = Self::new();
        workplace.prepare("assets/samples/stories.jsonl", "0.05");
        workplace
    }

    /// The same with so few stories that a short run sees several epochs.
    pub fn with_few_stories() -> Self {
        Self::with_so_many_stories(14)
    }

    /// The same with so many.
    pub fn with_so_many_stories(n: usize) -> Self {
        let workplace = Self::new();
        let made = format!("data synth story --samples {n} --seed 5 --output few.jsonl");
        workplace.nerve(&made).expect(0);
        workplace.prepare("few.jsonl", "0.3");
        workplace
    }

    /// A workplace with a few graded tasks. `routes.toml` is the ladder on them, with few steps and without its gate.
    pub fn with_routes() -> Self {
        let stages = ["baseline", "fixed", "imitation", "scheduled", "exit"];
        let workplace = Self::new();
        let graded = "data synth routing --samples 40 --seed 5 --output few.jsonl";
        workplace.nerve(graded).expect(0);
        let prepare = "data prepare few.jsonl --output data/routing --valid 0.3 --tokenizer assets/tokenizers/byte.json";
        workplace.nerve(prepare).expect(0);
        workplace.ladder("ladder", &stages)
    }

    /// The same with a memory and several paths at its end.
    pub fn with_parallel_routes() -> Self {
        let stages = [
            "baseline",
            "fixed",
            "imitation",
            "scheduled",
            "exit",
            "memory",
            "parallel",
        ];
        Self::with_few_stories().ladder("ladder_parallel", &stages)
    }

    /// A workplace with the runs and the data of `fixtures/runs`.
    pub fn with_older_runs() -> Self {
        let workplace = Self::new();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/runs");
        copy_directory(&fixtures, workplace.place.path());
        workplace
    }

    fn ladder(self, recipe: &str, stages: &[&str]) -> Self {
        let recipe = format!("assets/recipes/brian/{recipe}.toml");
        let ladder = fs::read_to_string(self.path(&recipe));
        let lines = ladder.as_ref().unwrap().lines();
        let without_gate = lines.filter(|line| !line.starts_with("gate = "));
        self.write("long.toml", without_gate.collect::<Vec<_>>().join("\n"));
        let mut line = "config show long.toml --set batch.sequences=3 --set watch.log_every_steps=1 \
                        --set watch.valid_every_steps=2 --set watch.valid_tokens=300 --set checkpoint.every_steps=2 \
                        --set checkpoint.keep_last=100"
            .to_string();
        for stage in stages {
            line += &format!(
                " --set stage.{stage}.steps=4 --set stage.{stage}.learning_rate.warmup_steps=1"
            );
        }
        let shown = self.nerve(&line).expect(0);
        self.write("routes.toml", shown.stdout);
        self
    }

    fn prepare(&self, stories: &str, valid: &str) {
        let recipe = fs::read_to_string(self.path("assets/recipes/brian/tiny.toml")).unwrap();
        let lines = recipe.lines().filter(|line| !line.starts_with("gate = "));
        self.write("ladder.toml", lines.collect::<Vec<_>>().join("\n"));
        let prepare = format!(
            "data prepare {stories} --output data/stories --valid {valid} \
             --tokenizer assets/tokenizers/story_bpe.json"
        );
        self.nerve(&prepare).expect(0);
    }

    /// The same for another program: from now on `nerve` is that.
    pub fn of_program(self, program: &'static str) -> Self {
        Self { program, ..self }
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.place.path().join(inside)
    }

    pub fn write(&self, inside: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(inside), content).unwrap();
    }

    /// Runs `nerve` with the words of a line, on two threads.
    pub fn nerve(&self, line: &str) -> Finished {
        self.nerve_with(line, &[("RAYON_NUM_THREADS", "2")])
    }

    pub fn nerve_with(&self, line: &str, environment: &[(&str, &str)]) -> Finished {
        let mut command = self.command(line);
        command.envs(environment.iter().copied());
        command.output().unwrap().into()
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(line.split_whitespace())
            .current_dir(self.place.path());
        command
    }

    /// The newest checkpoint's weights and optimizer, and every line of the log without what the clock decides.
    pub fn result_of(&self, run: &str) -> (Vec<Vec<u8>>, Vec<Value>) {
        let checkpoints = self.checkpoints(run);
        let newest = checkpoints.last().expect("a checkpoint");
        let files = [
            "model-00001-of-00001.safetensors",
            "optim-00001-of-00001.safetensors",
        ];
        let bytes = files.map(|file| fs::read(newest.join(file)).unwrap());
        (bytes.into(), lines(&self.path(run).join("metrics.jsonl")))
    }

    /// The checkpoints of a run, oldest first.
    pub fn checkpoints(&self, run: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(run).join("ckpt")).unwrap();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.is_dir() && path.extension().is_none());
        found.retain(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("step-")
        });
        found.sort();
        found
    }

    /// Copies a run under another name.
    pub fn copy_run(&self, from: &str, to: &str) {
        copy_directory(&self.path(from), &self.path(to));
    }
}

impl Finished {
    /// The same, after the exit code was found right.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// The last line of stdout: what a writing verb produced.
    pub fn answer(&self) -> &str {
        self.stdout.lines().last().unwrap_or("")
    }

    /// stdout as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The lines of a log without the numbers that the clock decides.
pub fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    let parse = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        for name in ["wall_s", "tokens_per_second", "peak_memory_mb"] {
            value.as_object_mut().unwrap().remove(name);
        }
        value
    };
    text.lines().map(parse).collect()
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

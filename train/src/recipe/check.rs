//! The rules between the values of a recipe. All that are broken are reported at once.
//!
//! A rule about a value that is missing or of a wrong type stays silent: that is reported already.

mod model;
mod stage;
mod walk;

use crate::device::{BACKENDS, Dtype, ON_THE_CPU};
use crate::recipe::nearest::{nearest, one_of};
use crate::recipe::path::KeyPath;
use crate::recipe::report::Report;
use crate::recipe::{ModelConfig, Recipe};
use brillm::row_adamw::Mode;
use brillm::table::Storage;
use std::collections::HashSet;
use std::path::Path;

/// The largest width, length or count. No machine can hold more, and products of a few of them still fit in 64 bits.
const MOST: u64 = 1 << 20;

/// The largest number of steps or tokens.
const MOST_STEPS: u64 = 1 << 50;

/// Reports every rule that the recipe of a new run breaks.
pub fn check(recipe: &Recipe, report: &Report<'_>) {
    check_run(recipe, report);
    let root = Section {
        report,
        path: KeyPath::default(),
    };
    stage::check_fit(recipe, &root);
}

/// What is allowed and yet worth a line each.
pub fn remarks(recipe: &Recipe) -> Vec<String> {
    stage::remarks(recipe)
}

/// Reports every rule that the recipe of a run breaks, which may be older than some rules.
pub fn check_run(recipe: &Recipe, report: &Report<'_>) {
    let root = Section {
        report,
        path: KeyPath::default(),
    };
    let expected = format!("{}, the format of this program", super::FORMAT);
    root.require("format", recipe.format == super::FORMAT, expected);
    run(recipe, &root.key("run"));
    device(recipe, &root.key("device"));
    root.key("tokenizer")
        .path_to_something("file", &recipe.tokenizer.file);
    data(recipe, &root.key("data"));
    model::check(&recipe.model, &root.key("model"));
    optimizer(recipe, &root.key("optimizer"));
    let batch = root.key("batch");
    batch.whole("sequences", recipe.batch.sequences as u64, 1, MOST);
    batch.whole("accumulate", recipe.batch.accumulate as u64, 1, MOST);
    stage::check(recipe, &root);
    watch(recipe, &root.key("watch"));
    let checkpoint = root.key("checkpoint");
    checkpoint.whole("every_steps", recipe.checkpoint.every_steps, 1, MOST_STEPS);
    checkpoint.whole("keep_last", recipe.checkpoint.keep_last as u64, 2, MOST);
}

fn run(recipe: &Recipe, section: &Section<'_>) {
    section.name("name", &recipe.run.name);
    // `last~1` is no name already, because of its `~`.
    section.require(
        "name",
        recipe.run.name != "last",
        "a name other than `last`, which means the newest run",
    );
    section.path_to_something("root", &recipe.run.root);
}

fn device(recipe: &Recipe, section: &Section<'_>) {
    let names = BACKENDS.map(|(name, _)| name);
    let backend = &recipe.device.backend;
    section.known("backend", backend, &names);
    section.relate(
        "index",
        &[section.path.key("backend")],
        recipe.device.index == 0 || !ON_THE_CPU.contains(&backend.as_str()),
        format!("0: {backend} knows one device, the CPU"),
    );
    let signals = matches!(recipe.model, ModelConfig::BriLlm(_));
    section.relate(
        "dtype",
        &[KeyPath::default().key("model").key("kind")],
        recipe.device.dtype == Dtype::F32 || !signals,
        "\"f32\": signals are; model.storage says how a graph is kept".to_string(),
    );
}

fn data(recipe: &Recipe, section: &Section<'_>) {
    let data = &recipe.data;
    section.whole("window", data.window as u64, 2, MOST);
    let context = KeyPath::default().key("model").key("context");
    section.relate(
        "window",
        &[context],
        data.window <= recipe.model.context(),
        format!("at most model.context, {}", recipe.model.context()),
    );
    section.require("train", !data.train.is_empty(), "at least one source");
    section.require("valid", !data.valid.is_empty(), "at least one source");
    for (index, source) in data.train.iter().enumerate() {
        let section = section.key("train").index(index);
        section.path_to_something("path", &source.path);
        section.require("weight", source.weight > 0.0, "more than 0");
    }
    let mut names = HashSet::new();
    for (index, source) in data.valid.iter().enumerate() {
        let section = section.key("valid").index(index);
        section.name("name", &source.name);
        section.require(
            "name",
            names.insert(&source.name),
            "a name that no other source has",
        );
        section.path_to_something("path", &source.path);
    }
}

fn optimizer(recipe: &Recipe, section: &Section<'_>) {
    let rows = matches!(recipe.optimizer, super::OptimizerConfig::RowAdamw { .. });
    let graph = matches!(recipe.model, super::ModelConfig::BriLlm(_));
    let model = KeyPath::default().key("model");
    let kind = if graph {
        "row_adamw: the model is a graph"
    } else {
        "adamw: the model is no graph"
    };
    section.relate("kind", &[model], rows == graph, kind);
    if let (super::OptimizerConfig::RowAdamw { mode, .. }, super::ModelConfig::BriLlm(config)) =
        (&recipe.optimizer, &recipe.model)
    {
        let storage = KeyPath::default().key("model").key("storage");
        section.relate(
            "mode",
            &[storage],
            *mode == Mode::Touched || config.storage == Storage::F32,
            "touched: the steps by which other modes catch up are too small for bf16",
        );
    }
    let (clip, clip_value) = match &recipe.optimizer {
        super::OptimizerConfig::Adamw { clip_norm, .. } => ("clip_norm", clip_norm),
        super::OptimizerConfig::RowAdamw { clip_row, .. } => ("clip_row", clip_row),
    };
    let adamw = recipe.optimizer.adamw();
    let (betas, epsilon, weight_decay) = (&adamw.betas, &adamw.epsilon, &adamw.weight_decay);
    let share = |value: &f64| (0.0..1.0).contains(value);
    section.require(
        "betas",
        betas.iter().all(share),
        "two numbers of at least 0 and less than 1",
    );
    section.require(
        "epsilon",
        (f64::from(f32::MIN_POSITIVE)..1.0).contains(epsilon),
        "at least 1.2e-38, which is not 0 in f32, and less than 1",
    );
    section.require("weight_decay", *weight_decay >= 0.0, "at least 0");
    section.require(clip, *clip_value > 0.0, "more than 0");
}

fn watch(recipe: &Recipe, section: &Section<'_>) {
    let watch = &recipe.watch;
    section.whole("log_every_steps", watch.log_every_steps, 1, MOST_STEPS);
    section.whole("valid_every_steps", watch.valid_every_steps, 0, MOST_STEPS);
    section.whole(
        "sample_every_steps",
        watch.sample_every_steps,
        0,
        MOST_STEPS,
    );
    // What never happens needs no size.
    let least = |every_steps: u64| u64::from(every_steps > 0);
    section.whole(
        "valid_tokens",
        watch.valid_tokens,
        least(watch.valid_every_steps),
        MOST_STEPS,
    );
    section.whole(
        "sample_tokens",
        watch.sample_tokens,
        least(watch.sample_every_steps),
        MOST,
    );
    section.relate(
        "sample_prompts",
        &[section.path.key("sample_every_steps")],
        watch.sample_every_steps == 0 || !watch.sample_prompts.is_empty(),
        "at least one prompt, or sample_every_steps = 0",
    );
}

/// A table of the recipe whose values are checked.
struct Section<'a> {
    report: &'a Report<'a>,
    path: KeyPath,
}

impl Section<'_> {
    fn key(&self, key: &str) -> Self {
        Self {
            report: self.report,
            path: self.path.key(key),
        }
    }

    fn index(&self, index: usize) -> Self {
        Self {
            report: self.report,
            path: self.path.index(index),
        }
    }

    /// The rule `holds` about the value of a key.
    fn require(&self, key: &str, holds: bool, expected: impl Into<String>) {
        self.relate(key, &[], holds, expected);
    }

    /// The rule `holds` about a value of this table or of one in it: `position.d_position`.
    fn field(&self, field: &str, holds: bool, expected: impl Into<String>) {
        match field.split_once('.') {
            Some((table, field)) => self.key(table).field(field, holds, expected),
            None => self.require(field, holds, expected),
        }
    }

    /// Exactly one of two keys is written.
    fn either<A, B>(&self, first: &str, a: Option<A>, second: &str, b: Option<B>) {
        let wrong = |path: &KeyPath| self.report.is_wrong(path);
        let found = match (a.is_some(), b.is_some()) {
            (true, true) => format!("both {first} and {second}"),
            (false, false) => format!("neither {first} nor {second}"),
            _ => return,
        };
        let keys = [self.path.key(first), self.path.key(second)];
        if !keys.iter().any(wrong) {
            self.report.add(&self.path, found, "exactly one of the two");
        }
    }

    /// The rule `holds` about the value of a key and the values of others.
    fn relate(&self, key: &str, others: &[KeyPath], holds: bool, expected: impl Into<String>) {
        self.relate_with_advice(key, others, holds, expected, "");
    }

    /// The same, with what to do.
    fn relate_with_advice(
        &self,
        key: &str,
        others: &[KeyPath],
        holds: bool,
        expected: impl Into<String>,
        advice: &str,
    ) {
        let path = self.path.key(key);
        let wrong = |path: &KeyPath| self.report.is_wrong(path);
        if holds || wrong(&path) || others.iter().any(wrong) {
            return;
        }
        let source = self.report.source;
        let found = source.describe(source.locate(&path).node);
        self.report.add_with_advice(&path, found, expected, advice);
    }

    fn whole(&self, key: &str, value: u64, least: u64, most: u64) {
        let expected = format!("a whole number from {least} to {most}");
        self.require(key, (least..=most).contains(&value), expected);
    }

    fn share(&self, key: &str, value: f64) {
        self.require(key, (0.0..=1.0).contains(&value), "from 0 to 1");
    }

    fn least(&self, key: &str, value: f64, least: f64) {
        self.require(key, value >= least, format!("at least {least}"));
    }

    fn name(&self, key: &str, name: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        // A dot in front hides a folder, and a dash makes it look like an option.
        let holds = (1..=100).contains(&name.len())
            && name.chars().all(allowed)
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        self.require(
            key,
            holds,
            "1 to 100 letters, digits, `.`, `_` or `-`, beginning with a letter or digit",
        );
    }

    fn path_to_something(&self, key: &str, path: &Path) {
        let bytes = path.as_os_str().as_encoded_bytes();
        self.require(key, !bytes.is_empty() && !bytes.contains(&0), "a path");
    }

    fn known(&self, key: &str, name: &str, names: &[&str]) {
        let path = self.path.key(key);
        if names.contains(&name) || self.report.is_wrong(&path) {
            return;
        }
        let meant = nearest(name, names.iter().copied());
        let advice = meant
            .map(|meant| format!("did you mean {meant:?}?"))
            .unwrap_or_default();
        let source = self.report.source;
        let found = source.describe(source.locate(&path).node);
        let expected = one_of(names);
        self.report.add_with_advice(&path, found, expected, advice);
    }
}

#[cfg(test)]
mod tests;

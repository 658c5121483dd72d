//! Checks the values of a recipe (run, device, data, losses, optimizer, batch, watch, checkpoint) and reports all broken rules;
//! stages are checked in `stage` and `walk`, the tables of model, hooks and losses by their own types.
//!
//! A rule about a value that is missing or of a wrong type stays silent: that is reported already.

mod stage;
mod walk;

use crate::data::{DifficultySource, DocumentsRule};
use crate::device::{BACKENDS, ON_THE_CPU, RECOMPUTES};
use crate::family::brillm::SignalConfig;
use crate::learner::{AverageConfig, DecayBy, OptimizerConfig, StepLength};
use crate::recipe::measure::metrics;
use crate::recipe::path::KeyPath;
use crate::recipe::report::Report;
use crate::recipe::root::Recipe;
use crate::recipe::section::{MOST, MOST_STEPS, Section};
use crate::recipe::stage::Stage;
use brian::{BaselineConfig, BrianConfig};
use brillm::row_adamw::Mode;
use brillm::table::Storage;
use std::collections::HashSet;

/// The most rows of an embedding; no vocabulary is as large.
const MOST_ROWS: u64 = 1 << 26;

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
    let expected = format!("{}, the format of this program", super::upgrade::FORMAT);
    root.require("format", recipe.format == super::upgrade::FORMAT, expected);
    run(recipe, &root.key("run"));
    device(recipe, &root.key("device"));
    tokenizer(recipe, &root.key("tokenizer"));
    data(recipe, &root.key("data"));
    recipe.model.check(&root.key("model"));
    if recipe.data.documents == DocumentsRule::Packed {
        recipe.model.check_packed(&root);
    }
    for (hook, config) in recipe.hook.iter() {
        (hook.check)(config, &root.key("hook").key(hook.name));
    }
    losses(recipe, &root.key("loss"));
    optimizer(recipe, &root.key("optimizer"));
    let batch = root.key("batch");
    batch.whole("sequences", recipe.batch.sequences as u64, 1, MOST);
    batch.whole("accumulate", recipe.batch.accumulate as u64, 1, MOST);
    recompute(recipe, &batch);
    stage::check(recipe, &root);
    watch(recipe, &root.key("watch"));
    if let Some(config) = &recipe.average {
        average(config, recipe, &root);
    }
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
    let kind = recipe.model.kind();
    section.relate(
        "dtype",
        &[KeyPath::default().key("model").key("kind")],
        recipe.model.family().dtypes.contains(&recipe.device.dtype),
        match kind {
            "brillm" => "\"f32\": signals are; model.storage says how a graph is kept".to_string(),
            kind => format!("\"f32\": products of a {kind} are"),
        },
    );
}

fn tokenizer(recipe: &Recipe, section: &Section<'_>) {
    section.path_to_something("file", &recipe.tokenizer.file);
    let Some(rows) = recipe.tokenizer.rows else {
        return;
    };
    section.whole("rows", rows as u64, 1, MOST_ROWS);
    let kind = KeyPath::default().key("model").key("kind");
    section.relate(
        "rows",
        &[kind],
        recipe.model.get::<SignalConfig>().is_none(),
        "none: a graph has a node per token".to_string(),
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
    if data.documents == DocumentsRule::Packed {
        section.relate(
            "difficulty",
            &[section.path.key("documents")],
            data.difficulty != DifficultySource::TokenRank,
            "none, label or a file where data.documents is \"packed\": it ranks the rows of a batch, which hold several documents",
        );
    }
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

fn recompute(recipe: &Recipe, section: &Section<'_>) {
    let runs_again = |holds: bool| holds || recipe.batch.recompute.is_none();
    let key = |table, key| KeyPath::default().key(table).key(key);
    section.relate(
        "recompute",
        &[key("model", "kind")],
        runs_again(recipe.model.family().recomputes),
        format!("none: a {} runs nothing again", recipe.model.kind()),
    );
    let backend = &recipe.device.backend;
    section.relate(
        "recompute",
        &[key("device", "backend"), key("model", "kind")],
        runs_again(backend == RECOMPUTES || !recipe.model.family().recomputes),
        format!("none: blocks run again on {RECOMPUTES} alone, and this is {backend}"),
    );
}

fn losses(recipe: &Recipe, section: &Section<'_>) {
    let model = [KeyPath::default().key("model").key("kind")];
    let kind = recipe.model.kind();
    let has_gradients = recipe.model.family().optimizers.contains(&"adamw");
    for (loss, config) in recipe.loss.iter() {
        let name = loss.name;
        let expected = format!("none: the loss of a {kind} is part of its optimizer");
        section.relate(name, &model, has_gradients, expected);
        let metric = format!("loss/{name}");
        let is_own = |stage: &Stage| {
            let all = metrics(recipe, stage).into_iter();
            all.filter(|one| one.name == metric).count() < 2
        };
        let own = recipe.stage.iter().all(is_own);
        section.relate(name, &model, own, "a name that no loss of the model has");
        (loss.check)(config, &section.key(name));
    }
}

fn optimizer(recipe: &Recipe, section: &Section<'_>) {
    let known = recipe.model.family().optimizers;
    let model = KeyPath::default().key("model");
    let fits = match recipe.optimizer {
        OptimizerConfig::Custom(_) => known.contains(&"adamw"),
        _ => known.contains(&recipe.optimizer.kind()),
    };
    let why = match recipe.model.kind() {
        "brillm" => "the model is a graph".to_string(),
        "baseline" | "brian" => "the model is no graph".to_string(),
        kind => format!("the model is a {kind}"),
    };
    let expected = format!("{}: {why}", known.join(" or "));
    section.relate("kind", &[model], fits, expected);
    if let (OptimizerConfig::RowAdamw { mode, .. }, Some(config)) =
        (&recipe.optimizer, recipe.model.get::<SignalConfig>())
    {
        let storage = KeyPath::default().key("model").key("storage");
        section.relate(
            "mode",
            &[storage],
            *mode == Mode::Touched || config.storage == Storage::F32,
            "touched: the steps by which other modes catch up are too small for bf16",
        );
    }
    width_transfer(recipe, section);
    let (clip, clip_value) = match &recipe.optimizer {
        OptimizerConfig::Custom(table) => return table.check(section),
        OptimizerConfig::Adamw { clip_norm, .. } => ("clip_norm", clip_norm),
        OptimizerConfig::Muon {
            momentum,
            adamw_rate,
            clip_norm,
            ..
        } => {
            let keeps = (0.0..1.0).contains(momentum);
            section.require("momentum", keeps, "at least 0 and less than 1");
            let moves = *adamw_rate > 0.0 && adamw_rate.is_finite();
            section.require("adamw_rate", moves, "more than 0");
            ("clip_norm", clip_norm)
        }
        OptimizerConfig::RowAdamw { clip_row, .. } => ("clip_row", clip_row),
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
    if recipe.optimizer.decay_by() == DecayBy::Schedule {
        section.relate(
            "weight_decay",
            &[section.path.key("decay_by")],
            *weight_decay <= 1.0,
            "at most 1, all of a weight: decay_by = \"schedule\" does not multiply it by the learning rate",
        );
    }
    section.require(clip, *clip_value > 0.0, "more than 0");
}

/// Whether the optimizer's settings hold at another width, where the model's width is transferred.
fn width_transfer(recipe: &Recipe, section: &Section<'_>) {
    let of_baseline = |config: &BaselineConfig| config.width_transfer;
    let of_brian = |config: &BrianConfig| config.width_transfer;
    let baseline = recipe.model.get().and_then(of_baseline);
    if baseline
        .or_else(|| recipe.model.get().and_then(of_brian))
        .is_none()
    {
        return;
    }
    let transfer = [KeyPath::default().key("model").key("width_transfer")];
    let known = !matches!(recipe.optimizer, OptimizerConfig::Custom(_));
    let expected = "adamw or muon: what else has to change with the width is not known";
    section.relate("kind", &transfer, known, expected);
    if let OptimizerConfig::Muon { step_length, .. } = recipe.optimizer {
        let expected = "original: steps as long as AdamW's grow with the width";
        let holds = step_length == StepLength::Original;
        section.relate("step_length", &transfer, holds, expected);
    }
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

fn average(config: &AverageConfig, recipe: &Recipe, root: &Section<'_>) {
    let kind = recipe.model.kind();
    let has_parameters = recipe.model.family().optimizers.contains(&"adamw");
    root.relate(
        "average",
        &[KeyPath::default().key("model").key("kind")],
        has_parameters,
        format!("none: a {kind} keeps its numbers itself"),
    );
    let section = root.key("average");
    let share = (0.0..1.0).contains(&config.decay);
    section.require("decay", share, "at least 0 and less than 1");
    section.whole("every_steps", config.every_steps, 1, MOST_STEPS);
    let steps = recipe.stage.iter().map(|stage| stage.steps);
    let shortest = steps.min().unwrap_or(MOST_STEPS);
    section.relate(
        "from_step",
        &[KeyPath::default().key("stage")],
        config
            .from_step
            .is_none_or(|step| (1..=shortest).contains(&step)),
        format!("from 1 to {shortest}, the steps of the shortest stage"),
    );
}

#[cfg(test)]
mod tests;

//! `nerve eval`: loss, perplexity and bits per byte on any prepared split.

use super::answer::{self, aligned};
use super::difficulty;
use super::trained::Trained;
use crate::cli;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::learner::{ValidationData, evaluate};
use crate::recipe::ModelConfig;
use crate::task::{Coverage, Decoder, Measured};
use brian::MemoryConfig;
use burn::tensor::backend::AutodiffBackend;
use indicatif::{ProgressBar, ProgressIterator, ProgressStyle};
use serde_json::{Value, json};
use std::path::Path;

/// Measures and prints one row per split.
///
/// # Errors
/// `Invalid` if a split is broken or was made with another tokenizer; else see [`Trained::open`].
pub fn run(arguments: &cli::Eval) -> Result<(), Error> {
    let trained = Trained::open(&arguments.source)?;
    if arguments.without_memory {
        check_memory(&trained)?;
    }
    if let Some(file) = &arguments.difficulty {
        difficulty::write(&trained, file)?;
    }
    let step = trained.loaded.snapshot.state.step;
    let data = open(&trained, arguments)?;
    let names = data.names().to_vec();
    let device = trained.device.clone();
    let measured = device::run(&device, Evaluate { trained, data })?;
    if arguments.source.json {
        let splits: Vec<Value> = names
            .iter()
            .zip(&measured)
            .map(|(name, m)| object(name, m))
            .collect();
        return answer::print_json(&json!({ "schema": 1, "step": step, "splits": splits }));
    }
    let mut table =
        vec![["split", "tokens", "loss/lm", "perplexity", "bits per byte"].map(str::to_string)];
    table.extend(
        names
            .iter()
            .zip(&measured)
            .map(|(name, measured)| row(name, measured)),
    );
    answer::print(&aligned(&table))?;
    let parts: Vec<[String; 4]> = names
        .iter()
        .zip(&measured)
        .flat_map(|(name, m)| coverage(name, m))
        .collect();
    if parts.is_empty() {
        return Ok(());
    }
    let mut table = vec![["split", "pairs", "tokens", "loss/lm"].map(str::to_string)];
    table.extend(parts);
    answer::print(&format!("\n{}", aligned(&table)))
}

/// Losses apart by how often the pair was seen, where that is known.
fn coverage(name: &str, measured: &Measured) -> Vec<[String; 4]> {
    let Coverage { nats, targets } = measured.coverage;
    let parts = Coverage::NAMES
        .iter()
        .zip(nats)
        .zip(targets)
        .filter(|(_, targets)| *targets > 0);
    parts
        .map(|((part, nats), targets)| {
            let loss = format!("{:.6}", nats / targets as f64);
            [
                name.to_string(),
                part.to_string(),
                targets.to_string(),
                loss,
            ]
        })
        .collect()
}

fn open(trained: &Trained, arguments: &cli::Eval) -> Result<ValidationData, Error> {
    let recipe = &trained.recipe;
    let named = arguments
        .data
        .iter()
        .map(|path| (path.display().to_string(), path.as_path()));
    let own = recipe
        .data
        .valid
        .iter()
        .map(|valid| (valid.name.clone(), valid.path.as_path()));
    let splits: Vec<(String, &Path)> = match arguments.data.is_empty() {
        true => own.collect(),
        false => named.collect(),
    };
    let sequences = recipe.batch.sequences;
    let data = ValidationData::open(
        &splits,
        &recipe.data,
        sequences,
        arguments.tokens,
        &trained.tokenizer,
    )?;
    let mut route = trained.route();
    route.rules.without_memory |= arguments.without_memory;
    Ok(data.on(route))
}

/// Refuses to leave out a memory that is not there.
fn check_memory(trained: &Trained) -> Result<(), Error> {
    match &trained.recipe.model {
        ModelConfig::Brian(config) if config.memory != MemoryConfig::None => Ok(()),
        _ => {
            let found = "a model without a memory";
            let expected = "a run whose model.memory is not \"none\"";
            let problem = Problem::new("command line", "--without-memory", found, expected);
            Err(Error::config(problem))
        }
    }
}

struct Evaluate {
    trained: Trained,
    data: ValidationData,
}

impl Task for Evaluate {
    type Output = Vec<Measured>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Vec<Measured>, Error> {
        let model = self.trained.model::<B::InnerBackend>(&device)?;
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} batches · {eta} left");
        let bar = ProgressBar::new(self.data.n_batches() as u64)
            .with_style(style.expect("the template is a constant"));
        let batches = self.data.batches().progress_with(bar);
        Ok(evaluate::<B, Decoder<B>>(
            &model,
            batches,
            self.data.names().len(),
        ))
    }
}

fn object(name: &str, measured: &Measured) -> Value {
    json!({
        "split": name,
        "tokens": measured.targets,
        "bytes": measured.bytes,
        "loss/lm": measured.loss(),
        "perplexity": measured.loss().exp(),
        "bits_per_byte": measured.bits_per_byte(),
        "coverage": coverage(name, measured).iter().map(|[_, part, tokens, loss]| {
            json!({ "pairs": part, "tokens": tokens.parse::<u64>().ok(), "loss/lm": loss.parse::<f64>().ok() })
        }).collect::<Vec<Value>>(),
    })
}

fn row(name: &str, measured: &Measured) -> [String; 5] {
    let bits = measured.bits_per_byte();
    [
        name.to_string(),
        measured.targets.to_string(),
        format!("{:.6}", measured.loss()),
        format!("{:.4}", measured.loss().exp()),
        bits.map_or("-".to_string(), |bits| format!("{bits:.4}")),
    ]
}

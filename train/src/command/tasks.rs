//! `nerve eval --tasks`: measures the tasks of a file and prints their figures under lm-eval's names.

use super::answer::{self, maybe, table};
use super::trained::Trained;
use crate::cli;
use crate::data::SpelledSpecials;
use crate::device::{self, Task};
use crate::error::Error;
use crate::run::replace_file;
use crate::say::note;
use crate::task::{Continuation, LONGEST};
use crate::tasks::definition::Tasks;
use crate::tasks::measure::{Results, measure};
use crate::tasks::scorer::Scorer;
use brian::generate::Sampling;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Measures and prints.
///
/// # Errors
/// As [`Trained::open`]; `Config` for the file of tasks; `Invalid` for a question, naming file and line.
pub fn run(file: &Path, arguments: &cli::Eval) -> Result<(), Error> {
    let tasks = Tasks::load(file)?;
    let mut trained = Trained::open(&arguments.source)?;
    let device = trained.device.clone();
    let limit = arguments.limit.map(|limit| limit as usize).or(tasks.limit);
    let results = device::run(
        &device,
        Measure {
            tasks: &tasks,
            trained: &mut trained,
            limit,
        },
    )?;
    for Results { name, n_cut, .. } in results.iter().filter(|of| of.n_cut > 0) {
        note(&format!(
            "{name}: {n_cut} texts are longer than the context and lost their beginning"
        ));
    }
    if let Some(directory) = &arguments.samples {
        write(directory, &results)?;
    }
    let step = trained.loaded.snapshot.state.step;
    let object = || {
        let figures = results.iter().map(|of| (of.name.clone(), of.json()));
        let n = results
            .iter()
            .map(|of| (of.name.clone(), json!(of.samples.len())));
        trained.say_weights(json!({
            "schema": 1, "step": step, "checkpoint": trained.loaded.path, "tasks": tasks.name,
            "results": figures.collect::<Map<_, _>>(), "n_samples": n.collect::<Map<_, _>>(),
        }))
    };
    let text = || {
        let title = format!("{}, step {step}, {}", tasks.name, trained.place());
        let rows = results.iter().flat_map(Results::rows);
        let head = "task | questions | figure | value | standard error";
        format!("{title}\n{}", table(head, rows))
    };
    answer::give(arguments.source.json, object, text)
}

/// One file of JSON lines per task.
fn write(directory: &Path, results: &[Results]) -> Result<(), Error> {
    let refused = |source| Error::resource(directory, "create the directory", source);
    fs::create_dir_all(directory).map_err(refused)?;
    for Results { name, samples, .. } in results {
        let path = directory.join(format!("samples_{name}.jsonl"));
        let lines = samples.iter().map(|sample| format!("{sample}\n"));
        let lines: String = lines.collect();
        replace_file(&path, lines.as_bytes())?;
    }
    Ok(())
}

impl Results {
    /// Under the names of lm-eval, whose figures are those of a filter, here `none`.
    fn json(&self) -> Value {
        let figures = self.figures.iter().flat_map(|(name, value, error)| {
            [
                (format!("{name},none"), json!(value)),
                (format!("{name}_stderr,none"), json!(error)),
            ]
        });
        Value::Object(figures.collect())
    }

    fn rows(&self) -> impl Iterator<Item = [String; 5]> {
        self.figures.iter().map(|(name, value, error)| {
            [
                self.name.clone(),
                self.samples.len().to_string(),
                name.to_string(),
                format!("{value:.6}"),
                maybe(*error, |error| format!("{error:.6}")),
            ]
        })
    }
}

struct Measure<'a> {
    tasks: &'a Tasks,
    trained: &'a mut Trained,
    limit: Option<usize>,
}

impl Task for Measure<'_> {
    type Output = Vec<Results>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Vec<Results>, Error> {
        let Self {
            tasks,
            trained,
            limit,
        } = self;
        let model = trained.only_model::<B>(&device)?.valid();
        let model = model.with_matmul_dtype(trained.device.dtype);
        let mut slots = model.slots(&trained.route().rules);
        let tokenizer = trained.tokenizer_with(SpelledSpecials::Parse)?;
        let context = trained.longest_text(LONGEST);
        let never = Continuation::new(&tokenizer, 0, context, Sampling::plain(0)).never;
        let mut scorer = Scorer {
            slots: &mut *slots,
            tokenizer: &tokenizer,
            context,
            never: &never,
            n_cut: 0,
        };
        let all = tasks.task.iter();
        all.map(|task| measure(task, limit, &mut scorer)).collect()
    }
}

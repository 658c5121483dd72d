//! `nerve route --memory`: passes a text or a validation split through a model with a memory, keeps what every token read from it, and
//! prints the reads, also as HTML and SVG files. A memory of which nothing can be shown is refused by its name.

mod page;
mod picture;
mod report;

use super::report::MOST_TOKENS;
use super::{WIDTH, shown, text, title};
use crate::cli;
use crate::command::answer;
use crate::command::markup;
use crate::command::trained::Trained;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::task::{Batch, begun};
use brian::memory::{MemoryConfig, SharedCodes};
use brian::route::parallel::Parallel;
use brian::route::policy::SequenceInfo;
use brian::{Brian, BrianConfig};
use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use report::{MemoryReport, ReadSequence};
use std::ops::Range;

/// Runs the model on the tokens, and prints or writes what they read.
///
/// # Errors
/// `Config` if the run has no memory of earlier steps, leaves it out, or walks several paths at once; `Invalid` for a broken file;
/// `Resource` if a report cannot be written.
pub fn run(trained: &Trained, arguments: &cli::Route) -> Result<(), Error> {
    let run = &arguments.source.run;
    let look = Look {
        kind: readable(trained).map_err(|problem| refused(run, problem))?,
        trained,
        run,
        text: text(arguments)?,
        sequences: arguments.sequences,
        tokens: arguments.tokens,
        top: arguments.top,
    };
    let report = device::run(&trained.device, look)?;
    markup::write(arguments.html.as_ref(), || report.html())?;
    markup::write(arguments.svg.as_ref(), || report.svg())?;
    let text = || report.terminal(WIDTH);
    answer::give(arguments.source.json, || report.json(), text)
}

/// Why nothing can be shown: a place in the recipe, what stands there, what would have to, and what to do.
type Refusal = [String; 4];

fn refused(run: &str, [place, found, expected, advice]: Refusal) -> Error {
    Error::config(Problem::new(run, place, found, expected).advise(advice))
}

fn no_pool() -> Refusal {
    [
        "model.kind",
        "a model without a memory",
        "a run of a brian",
        "only its tokens leave something behind on their walk",
    ]
    .map(str::to_string)
}

/// The kind of the memory, if its reads can be shown.
fn readable(trained: &Trained) -> Result<&'static str, Refusal> {
    let config = trained.recipe.model.get::<BrianConfig>();
    let config = config.ok_or_else(no_pool)?;
    let kind = of_earlier_steps(&config.memory)?;
    let (rules, stage) = (trained.route().rules, &trained.stage().name);
    if rules.without_memory {
        return Err([
            format!("stage {stage}: walk.memory"),
            "false, a stage that leaves the memory out".to_string(),
            "true".to_string(),
            "show a run that reached a stage with its memory".to_string(),
        ]);
    }
    if rules.paths(config.route.parallel) != Parallel::None {
        return Err([
            format!("stage {stage}: walk.parallel"),
            "true, several paths of a token at once".to_string(),
            "false: the reads of one path".to_string(),
            "show a run whose last stage walks one".to_string(),
        ]);
    }
    Ok(kind)
}

/// The kind of a memory in which there is something of earlier steps.
fn of_earlier_steps(memory: &MemoryConfig) -> Result<&'static str, Refusal> {
    let refusal = |place: &str, found: &str, expected: &str, advice: &str| {
        Err([place, found, expected, advice].map(str::to_string))
    };
    match memory {
        MemoryConfig::HiddenCode(_) => Ok("hidden_code"),
        MemoryConfig::Both(_) => Ok("both"),
        MemoryConfig::KeyValuePrefix(_) => Ok("key_value_prefix"),
        MemoryConfig::SharedCode(config) if config.codes != SharedCodes::Current => {
            Ok("shared_code")
        }
        MemoryConfig::Custom(memory) => Ok(memory.rule().kind()),
        MemoryConfig::SharedCode(_) => refusal(
            "model.memory.codes",
            "current, codes of the states at each step alone",
            "current_and_last, or another memory",
            "nothing of earlier steps is read, so there is nothing to show",
        ),
        MemoryConfig::None => refusal(
            "model.memory",
            "none",
            "a memory, as hidden_code, key_value_prefix or shared_code",
            "without --memory the command shows the walks",
        ),
    }
}

struct Look<'a> {
    trained: &'a Trained,
    kind: &'static str,
    run: &'a str,
    text: Option<String>,
    sequences: usize,
    tokens: u64,
    top: usize,
}

/// A sequence to be walked.
struct Given {
    ids: Vec<u32>,
    info: SequenceInfo,
}

impl Task for Look<'_> {
    type Output = MemoryReport;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<MemoryReport, Error> {
        let model = self.trained.model::<B>(&device)?.valid();
        let Some(model) = model.get::<Brian<B::InnerBackend>>() else {
            return Err(refused(self.run, no_pool()));
        };
        let mut report = MemoryReport {
            title: title(self.trained),
            kind: self.kind,
            top: self.top,
            ..MemoryReport::default()
        };
        self.each(|given| match report.sequences.len() < self.sequences {
            true => self.look(model, &given, &device, &mut report),
            false => {
                report.sequences_left_out += 1;
                Ok(())
            }
        })?;
        Ok(report)
    }
}

impl Look<'_> {
    /// Hands over a text, cut at the context, or the windows of the recipe's first validation split.
    fn each(&self, look: impl FnMut(Given) -> Result<(), Error>) -> Result<(), Error> {
        let Some(text) = &self.text else {
            let data = self.trained.first_split(self.tokens)?;
            let windows = data.batches().flat_map(|batch| windows(&batch));
            let mut some = windows.filter(|given| !given.ids.is_empty());
            return some.try_for_each(look);
        };
        let recipe = &self.trained.recipe;
        let ids = begun(&self.trained.tokenizer, recipe.data.start, text);
        let given = |(sequence, ids): (usize, &[u32])| Given {
            ids: ids.to_vec(),
            info: SequenceInfo {
                sequence: sequence as u64,
                difficulty: None,
            },
        };
        let chunks = ids.chunks(recipe.model.context()).enumerate();
        chunks.map(given).try_for_each(look)
    }

    /// Walks the first tokens of a sequence, and adds what they read; in a causal model they do not depend on those that are cut off.
    fn look<B: Backend>(
        &self,
        model: &Brian<B>,
        given: &Given,
        device: &B::Device,
        report: &mut MemoryReport,
    ) -> Result<(), Error> {
        let ids = &given.ids[..given.ids.len().min(MOST_TOKENS)];
        let values: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let input = Tensor::<B, 2, Int>::from_data(TensorData::new(values, [1, ids.len()]), device);
        let rules = self.trained.route().rules;
        let (logits, trace, reads) = model.forward_with_reads(input, &rules, &[given.info]);
        let sum = logits.sum().into_data().iter::<f64>().sum();
        self.trained.require_finite("sum of the logits", sum)?;
        let texts = ids.iter().map(|&id| shown(self.trained, id)).collect();
        let mut sequence = ReadSequence::new(&trace.walks, &reads, texts, self.top);
        sequence.tokens_left_out = given.ids.len() - ids.len();
        if let Some(usage) = &trace.walks.attended {
            report.attended.add(usage);
        }
        if let Some(usage) = &trace.walks.memory {
            report.usage.add(usage);
        }
        report.n_pool = trace.walks.n_pool;
        report.sequences.push(sequence);
        Ok(())
    }
}

/// The windows of a batch, or the documents that share them, without the padding behind them.
fn windows(batch: &Batch) -> Vec<Given> {
    let host = &batch.host;
    let given = |(text, info): (Range<usize>, SequenceInfo)| {
        let (inputs, valid) = (&host.inputs[text.clone()], &host.valid[text]);
        let counted = inputs.iter().zip(valid).filter(|(_, valid)| **valid);
        Given {
            ids: counted.map(|(&id, _)| id).collect(),
            info,
        }
    };
    let segments = batch.segments();
    segments.ranges().zip(batch.rows()).map(given).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::trained::tests::kept;
    use super::*;
    use brian::memory::{Compression, KeyValuePrefixConfig, Lifecycle, SharedCodeConfig};

    #[test]
    fn a_memory_without_anything_of_earlier_steps_is_refused_by_its_name() {
        let shared = |codes| MemoryConfig::SharedCode(SharedCodeConfig { d_code: 4, codes });
        let prefix = MemoryConfig::KeyValuePrefix(KeyValuePrefixConfig {
            sink: 1,
            window: 1,
            bias: 0.0,
            compression: Compression::None,
            lifecycle: Lifecycle::Frozen,
        });
        let last = shared(SharedCodes::CurrentAndLast { bias: 0.0 });
        assert_eq!(of_earlier_steps(&prefix).unwrap(), "key_value_prefix");
        assert_eq!(of_earlier_steps(&last).unwrap(), "shared_code");
        let [place, found, ..] = of_earlier_steps(&shared(SharedCodes::Current)).unwrap_err();
        assert_eq!(place, "model.memory.codes");
        assert!(found.starts_with("current"), "{found}");
    }

    #[test]
    fn a_run_without_a_memory_is_refused_in_one_line() {
        let refusal = readable(&kept("ladder")).unwrap_err();
        let line = refused("runs/ladder", refusal).to_string();
        assert_eq!(
            line,
            "runs/ladder: model.memory: found none, expected a memory, as hidden_code, key_value_prefix or shared_code; \
             without --memory the command shows the walks"
        );
        let [place, found, ..] = readable(&kept("brillm")).unwrap_err();
        assert_eq!(
            (place.as_str(), found.as_str()),
            ("model.kind", "a model without a memory")
        );
    }
}

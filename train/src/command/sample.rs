//! `nerve sample`: a trained model continues a text.

use super::answer;
use super::stream;
use super::trained::Trained;
use crate::cli;
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::hook::continue_text;
use brian::generate::Sampling;
use brian::random;
use burn::tensor::backend::AutodiffBackend;
use serde_json::json;

/// Prints the continuations.
///
/// # Errors
/// `Config` for a temperature or a top-p that is none; else see [`Trained::open`].
pub fn run(arguments: &cli::Sample) -> Result<(), Error> {
    check(arguments)?;
    let trained = Trained::open(&arguments.source)?;
    if arguments.prompt_file.is_none() {
        check_prompt(&trained, &arguments.prompt)?;
    }
    if arguments.stream {
        return stream::run(trained, arguments, sampling(arguments, 0));
    }
    let device = trained.device.clone();
    let texts = device::run(&device, Continue { trained, arguments })?;
    if arguments.source.json {
        let samples: Vec<_> = texts.iter().map(|text| json!({ "text": text })).collect();
        let prompt = &arguments.prompt;
        return answer::print_json(&json!({ "schema": 1, "prompt": prompt, "samples": samples }));
    }
    let whole = texts
        .iter()
        .map(|text| format!("{}{text}\n", arguments.prompt));
    answer::print(&whole.collect::<Vec<_>>().join("---\n"))
}

fn check(arguments: &cli::Sample) -> Result<(), Error> {
    let wrong = |flag: &str, value: f64, expected: &str| {
        Err(Error::config(Problem::new(
            "command line",
            flag,
            value.to_string(),
            expected,
        )))
    };
    if !(arguments.temperature >= 0.0 && arguments.temperature.is_finite()) {
        return wrong(
            "--temperature",
            arguments.temperature,
            "a number of at least 0",
        );
    }
    if !(arguments.top_p > 0.0 && arguments.top_p <= 1.0) {
        return wrong("--top-p", arguments.top_p, "a number above 0 and at most 1");
    }
    Ok(())
}

fn sampling(arguments: &cli::Sample, index: u64) -> Sampling {
    Sampling {
        temperature: arguments.temperature,
        top_p: arguments.top_p,
        seed: random::key(arguments.seed, "continuation", index),
    }
}

/// An empty text begins with the end of the one before, if there is a token for that.
fn check_prompt(trained: &Trained, prompt: &str) -> Result<(), Error> {
    let tokenizer = &trained.tokenizer;
    if tokenizer.specials().end.is_some() || !tokenizer.encode(prompt).is_empty() {
        return Ok(());
    }
    let expected = "a text: this run's tokenizer has no token that begins one";
    let problem = Problem::new("command line", "--prompt", "no token", expected);
    Err(Error::config(problem))
}

struct Continue<'a> {
    trained: Trained,
    arguments: &'a cli::Sample,
}

impl Task for Continue<'_> {
    type Output = Vec<String>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Vec<String>, Error> {
        let Self { trained, arguments } = self;
        let model = trained.model::<B::InnerBackend>(&device)?;
        let model = model.multiplying_in(trained.device.dtype);
        let rules = trained.route().rules;
        let context = trained.recipe.model.context();
        let sample = |index: u64| {
            let sampling = sampling(arguments, index);
            continue_text(&trained.tokenizer, &arguments.prompt, |tokens| {
                model.continue_tokens(tokens, arguments.tokens, context, &rules, sampling)
            })
        };
        Ok((0..arguments.n).map(sample).collect())
    }
}

//! `nerve sample`: prints continuations of a prompt by a trained model. Checks the sampling options and reads prompts, also for
//! `--stream`, which has a file of its own.

use super::answer;
use super::stream;
use super::trained::Trained;
use crate::cli;
use crate::data::{BadUtf8, DocumentReader, Format, ReadRules, Tokenizer};
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::say::note;
use crate::task::{Continuation, Drawn, StopReason, not_finite, prompt_tokens};
use brian::generate::Sampling;
use brian::random;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// Prints the continuations.
///
/// # Errors
/// `Config` for an invalid temperature or other bound, or a prompt without a token; `Invalid` for logits that are not
/// finite; else see [`Trained::open`].
pub fn run(arguments: &cli::Sample) -> Result<(), Error> {
    check(arguments)?;
    let mut trained = Trained::open(&arguments.source)?;
    if arguments.stream {
        return stream::run(trained, arguments);
    }
    let prompt = match &arguments.prompt_file {
        None => arguments.prompt.clone(),
        Some(file) => texts_of(file, &trained.tokenizer)?.collect::<Result<_, _>>()?,
    };
    let text = trained.tokenizer.encode(&prompt);
    let mut facts = PromptFacts::default();
    let unknown = trained.tokenizer.specials().unknown;
    let text = text.into_iter().inspect(|&id| facts.add(id, unknown));
    let tokens: Vec<u32> =
        prompt_tokens(&trained.tokenizer, trained.recipe.data.start, text).collect();
    check_prompt(&tokens)?;
    facts.say(tokens.len() as u64, trained.recipe.model.context());
    let device = trained.device.clone();
    let task = Continue {
        trained: &mut trained,
        arguments,
        tokens,
    };
    let sampled = device::run(&device, task)?;
    if arguments.source.json {
        return answer::print_json(&json!({
            "schema": 1, "prompt": prompt, "prompt_tokens": facts.tokens, "prompt_unknown": facts.unknown,
            "samples": sampled,
        }));
    }
    say_stops(sampled.iter().map(|it| (it.stop, it.tokens)), arguments);
    let whole = sampled.iter().map(|it| format!("{prompt}{}\n", it.text));
    answer::print_text(&whole.collect::<Vec<_>>().join("---\n"))
}

fn check(arguments: &cli::Sample) -> Result<(), Error> {
    let cli::Sample {
        temperature,
        top_p,
        min_p,
        ..
    } = *arguments;
    let (flag, value, expected) = if !(temperature >= 0.0 && temperature.is_finite()) {
        ("--temperature", temperature, "a number of at least 0")
    } else if !(top_p > 0.0 && top_p <= 1.0) {
        ("--top-p", top_p, "a number above 0 and at most 1")
    } else if !(0.0..=1.0).contains(&min_p) {
        ("--min-p", min_p, "a number from 0 to 1")
    } else {
        return Ok(());
    };
    let problem = Problem::typed(flag, value.to_string(), expected);
    Err(Error::config(problem))
}

/// The settings of the continuation with this index.
pub(super) fn how(trained: &Trained, arguments: &cli::Sample, index: u64) -> Continuation {
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        min_p: arguments.min_p,
        seed: random::key(arguments.seed, "continuation", index),
    };
    let context = trained.recipe.model.context();
    let how = Continuation::new(&trained.tokenizer, arguments.tokens, context, sampling);
    match arguments.ignore_end {
        false => how,
        true => how.beyond_ends(&trained.tokenizer, trained.recipe.data.start),
    }
}

/// A model needs a token to start from.
fn check_prompt(tokens: &[u32]) -> Result<(), Error> {
    match tokens.is_empty() {
        false => Ok(()),
        true => Err(no_prompt()),
    }
}

/// The error for a prompt without a token, if the tokenizer has no token to begin a text with.
pub(super) fn no_prompt() -> Error {
    let expected = "a text: this run's tokenizer has no token that begins one";
    Error::config(Problem::typed("--prompt", "no token", expected))
}

/// The text of a file or stream, in pieces that can be encoded separately.
///
/// # Errors
/// If it cannot be opened; each piece, if it cannot be read.
pub(super) fn texts_of(
    file: &Path,
    tokenizer: &Tokenizer,
) -> Result<impl Iterator<Item = Result<String, Error>> + Send + use<>, Error> {
    let rules = ReadRules {
        on_bad_utf8: BadUtf8::Replace,
        max_line_bytes: 64 << 20,
        // A prompt is a text, whatever it begins with.
        format: Format::Text,
        ..ReadRules::default()
    };
    let mut pieces = DocumentReader::open(file, &rules, None)?.in_pieces(tokenizer.cut());
    let path = file.display().to_string();
    let texts = std::iter::from_fn(move || {
        let next = pieces.next();
        let replaced = pieces.counts().characters_replaced;
        if next.is_none() && replaced > 0 {
            note(&format!(
                "{path}: {replaced} places are no UTF-8; U+FFFD stands for each"
            ));
        }
        Some(next?.map(|piece| piece.text))
    });
    Ok(texts.fuse())
}

/// Token counts of a prompt, without the start symbol.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PromptFacts {
    /// Tokens of its text.
    pub tokens: u64,
    /// Tokens among them that are `<unk>`.
    pub unknown: u64,
}

impl PromptFacts {
    pub(super) fn add(&mut self, id: u32, unknown: Option<u32>) {
        self.tokens += 1;
        self.unknown += u64::from(Some(id) == unknown);
    }

    /// Prints notes about tokens beyond the context and unknown tokens. `all` counts the start symbol too.
    pub(super) fn say(&self, all: u64, context: usize) {
        if all > context as u64 {
            note(&format!(
                "the prompt has {all} tokens; the model sees the last {context}, its context"
            ));
        }
        if self.unknown > 0 {
            let share = 100.0 * self.unknown as f64 / self.tokens as f64;
            let loud = if share > 1.0 { "warning: " } else { "" };
            let (unknown, tokens) = (self.unknown, self.tokens);
            note(&format!(
                "{loud}{unknown} of the prompt's {tokens} tokens ({share:.2} %) are <unk>: the tokenizer has no other token for \
                 them"
            ));
        }
    }
}

/// Prints a note for each continuation that is shorter than requested.
pub(super) fn say_stops(stops: impl Iterator<Item = (StopReason, usize)>, arguments: &cli::Sample) {
    let asked = arguments.tokens;
    for (stop, tokens) in stops {
        match stop {
            StopReason::End => note(&format!(
                "the document ends with token {tokens} of at most {asked}; --ignore-end goes on behind it"
            )),
            StopReason::NoCandidate => note(&format!(
                "no token can follow the {tokens} that were drawn, of at most {asked}"
            )),
            StopReason::Length | StopReason::Refused => {}
        }
    }
}

/// A continuation as text.
#[derive(Serialize)]
struct Sampled {
    text: String,
    /// How many were drawn, the end of the document included.
    tokens: usize,
    #[serde(rename = "stop_reason")]
    stop: StopReason,
}

struct Continue<'a> {
    trained: &'a mut Trained,
    arguments: &'a cli::Sample,
    tokens: Vec<u32>,
}

impl Task for Continue<'_> {
    type Output = Vec<Sampled>;

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<Vec<Sampled>, Error> {
        let Self {
            trained,
            arguments,
            tokens,
        } = self;
        let model = trained.only_model::<B>(&device)?.valid();
        let model = model.with_matmul_dtype(trained.device.dtype);
        let rules = trained.route().rules;
        let sample = |index: u64| {
            let how = how(trained, arguments, index);
            let drawn = model.continue_tokens(&tokens, &rules, &how);
            let Drawn { tokens, stop } =
                drawn.map_err(|it| Error::Invalid(not_finite(&trained.loaded.path, it)))?;
            Ok(Sampled {
                text: trained.tokenizer.continued(&tokens),
                tokens: tokens.len(),
                stop,
            })
        };
        (0..arguments.n).map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Verb};
    use clap::Parser;

    fn refusal(flags: &[&str]) -> Option<String> {
        let typed = ["nerve", "sample", "run"].iter().chain(flags);
        let Verb::Sample(arguments) = Cli::parse_from(typed).verb else {
            panic!("another verb")
        };
        check(&arguments).err().map(|error| error.to_string())
    }

    #[test]
    fn bounds_of_the_draw_are_those_that_can_be_drawn_with() {
        for flags in [
            ["--temperature", "0"],
            ["--temperature", "100"],
            ["--top-p", "1"],
            ["--top-p", "0.001"],
            ["--min-p", "0"],
            ["--min-p", "1"],
        ] {
            assert_eq!(refusal(&flags), None, "{flags:?}");
        }
        for flags in [
            ["--temperature", "-0.1"],
            ["--temperature", "inf"],
            ["--temperature", "nan"],
            ["--top-p", "0"],
            ["--top-p", "1.01"],
            ["--top-p", "nan"],
        ] {
            let refusal = refusal(&flags).unwrap();
            assert!(
                refusal.starts_with(&format!("command line: {}: found", flags[0])),
                "{refusal}"
            );
        }
        for min_p in ["--min-p=-0.1", "--min-p=1.01", "--min-p=nan"] {
            assert!(
                refusal(&[min_p])
                    .unwrap()
                    .contains("expected a number from 0 to 1")
            );
        }
    }

    #[test]
    fn unknown_tokens_of_a_prompt_are_counted_apart() {
        let mut facts = PromptFacts::default();
        [3, 7, 3, 9]
            .into_iter()
            .for_each(|id| facts.add(id, Some(3)));
        assert_eq!((facts.tokens, facts.unknown), (4, 2));
    }

    #[test]
    fn no_token_is_no_prompt() {
        assert!(check_prompt(&[0]).is_ok());
        assert_eq!(check_prompt(&[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn every_continuation_has_draws_of_its_own() {
        let trained = super::super::trained::tests::kept("ladder");
        let typed = [
            "nerve", "sample", "run", "--seed", "5", "--tokens", "7", "--top-k", "3", "--min-p",
            "0.25",
        ];
        let Verb::Sample(mut arguments) = Cli::parse_from(typed).verb else {
            panic!("another verb")
        };
        arguments.top_p = 0.5;
        for index in 0..3 {
            let of = how(&trained, &arguments, index);
            let sampling = Sampling {
                temperature: 1.0,
                top_k: 3,
                top_p: 0.5,
                min_p: 0.25,
                seed: random::key(5, "continuation", index),
            };
            assert_eq!((of.sampling, of.n_tokens, of.context), (sampling, 7, 48));
            assert_eq!(of.at_end, crate::task::AtEnd::Stop);
        }
        arguments.ignore_end = true;
        assert_ne!(
            how(&trained, &arguments, 0).at_end,
            crate::task::AtEnd::Stop
        );
    }
}

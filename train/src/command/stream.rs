//! `nerve sample --stream`: prints the continuation as it is drawn, and reads prompts of any length in constant memory.

use super::answer;
use super::sample::{PromptFacts, how, no_prompt, say_stops, texts_of};
use super::trained::Trained;
use crate::characters::Characters;
use crate::cli;
use crate::data::Tokenizer;
use crate::device::{self, Task};
use crate::error::Error;
use crate::task::{not_finite, prompt_tokens};
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

/// Prints the continuation as it is drawn.
///
/// # Errors
/// `Config` for a prompt without a token; `Invalid` for logits that are not finite; else errors of reading and writing.
pub fn run(trained: Trained, arguments: &cli::Sample) -> Result<(), Error> {
    let device = trained.device.clone();
    device::run(&device, Stream { trained, arguments })
}

struct Stream<'a> {
    trained: Trained,
    arguments: &'a cli::Sample,
}

impl Task for Stream<'_> {
    type Output = ();

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<(), Error> {
        let Self {
            mut trained,
            arguments,
        } = self;
        let model = trained.only_model::<B>(&device)?.valid();
        let model = model.with_matmul_dtype(trained.device.dtype);
        let tokenizer = &trained.tokenizer;
        let mut unread = Ok(());
        let mut facts = PromptFacts::default();
        let mut all = 0;
        let text = tokens_of(arguments, tokenizer, &mut unread)?;
        let unknown = tokenizer.specials().unknown;
        let text = text.inspect(|&id| facts.add(id, unknown));
        let mut prompt = prompt_tokens(tokenizer, trained.recipe.data.start, text)
            .inspect(|_| all += 1)
            .peekable();
        if prompt.peek().is_none() {
            drop(prompt);
            return unread.and(Err(no_prompt()));
        }
        let mut characters = Characters::default();
        let mut written = Ok(());
        let mut drawn = 0;
        let rules = trained.route().rules;
        let how = how(&trained, arguments, 0);
        let stop = model.stream(prompt, &rules, &how, |token| {
            drawn += 1;
            written = answer::print_text(&characters.add(tokenizer.bytes(token)));
            written.is_ok()
        });
        written?;
        answer::print_text(&format!("{}\n", characters.rest()))?;
        let stop = stop.map_err(|it| Error::Invalid(not_finite(&trained.loaded.path, it)))?;
        facts.say(all, trained.recipe.model.context());
        say_stops(std::iter::once((stop, drawn)), arguments);
        unread
    }
}

/// The tokens of the prompt's text; where a file cannot be read on, they end and the reason is left behind.
fn tokens_of<'a>(
    arguments: &'a cli::Sample,
    tokenizer: &'a Tokenizer,
    unread: &'a mut Result<(), Error>,
) -> Result<Box<dyn Iterator<Item = u32> + Send + 'a>, Error> {
    let Some(file) = &arguments.prompt_file else {
        return Ok(Box::new(tokenizer.encode(&arguments.prompt).into_iter()));
    };
    let mut texts = texts_of(file, tokenizer)?;
    let piece = move || match texts.next()? {
        Ok(text) => Some(tokenizer.encode(&text)),
        Err(error) => {
            *unread = Err(error);
            None
        }
    };
    Ok(Box::new(std::iter::from_fn(piece).flatten()))
}

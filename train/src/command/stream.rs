//! `nerve sample --stream`: a graph reads a text of any length and goes on token by token, in constant memory.

use super::answer;
use super::trained::Trained;
use crate::cli;
use crate::data::{BadUtf8, DocumentReader, DocumentRule, ReadRules, Tokenizer};
use crate::device::{self, Task};
use crate::error::{Error, Problem};
use crate::task::Decoder;
use brian::generate::Sampling;
use burn::tensor::backend::AutodiffBackend;
use std::path::Path;

/// Prints the continuation as it comes.
///
/// # Errors
/// `Config` for a model that has to remember all it read; else what reading and writing meet.
pub fn run(trained: Trained, arguments: &cli::Sample, sampling: Sampling) -> Result<(), Error> {
    let device = trained.device.clone();
    device::run(
        &device,
        Stream {
            trained,
            arguments,
            sampling,
        },
    )
}

struct Stream<'a> {
    trained: Trained,
    arguments: &'a cli::Sample,
    sampling: Sampling,
}

impl Task for Stream<'_> {
    type Output = ();

    fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<(), Error> {
        let Decoder::BriLlm(signal) = self.trained.model::<B::InnerBackend>(&device)? else {
            let problem = Problem::new(
                "command line",
                "--stream",
                "a model that has to remember all it read",
                "a BriLLM",
            );
            return Err(Error::config(problem.advise("leave --stream away")));
        };
        let tokenizer = &self.trained.tokenizer;
        let mut problem = None;
        let mut prompt: Box<dyn Iterator<Item = u32> + Send> = match &self.arguments.prompt_file {
            None => Box::new(tokenizer.encode(&self.arguments.prompt).into_iter()),
            Some(file) => Box::new(tokens_of(file, tokenizer, &mut problem)?),
        };
        let first = prompt.next().unwrap_or(tokenizer.start());
        let mut text = Text {
            tokenizer,
            pending: Vec::new(),
        };
        let mut written = Ok(());
        signal.stream(
            std::iter::once(first).chain(prompt),
            self.arguments.tokens,
            self.sampling,
            |token| {
                written = answer::print(&text.next(token));
                written.is_ok()
            },
        );
        written?;
        answer::print(&text.rest())?;
        answer::print("\n")?;
        problem.map_or(Ok(()), Err)
    }
}

/// The tokens of a file, piece by piece; where it cannot be read on, they end and the problem is left behind.
fn tokens_of<'a>(
    file: &Path,
    tokenizer: &'a Tokenizer,
    problem: &'a mut Option<Error>,
) -> Result<impl Iterator<Item = u32> + Send + 'a, Error> {
    let rules = ReadRules {
        document: DocumentRule::File,
        field: String::new(),
        on_bad_utf8: BadUtf8::Replace,
        max_line_bytes: 64 << 20,
    };
    let mut pieces = DocumentReader::open(file, &rules, None)?;
    let piece = move || match pieces.next()? {
        Ok(piece) => Some(tokenizer.encode(&piece.text)),
        Err(error) => {
            *problem = Some(error);
            None
        }
    };
    Ok(std::iter::from_fn(piece).flatten())
}

/// Tokens on their way to text: a character may need several.
struct Text<'a> {
    tokenizer: &'a Tokenizer,
    pending: Vec<u32>,
}

impl Text<'_> {
    /// What is complete with one more token.
    fn next(&mut self, token: u32) -> String {
        self.pending.push(token);
        let text = self.tokenizer.decode(&self.pending);
        // No character takes more than four tokens; what is still broken then is broken.
        match text.ends_with(char::REPLACEMENT_CHARACTER) && self.pending.len() < 4 {
            true => String::new(),
            false => {
                self.pending.clear();
                text
            }
        }
    }

    /// What is left at the end.
    fn rest(&mut self) -> String {
        self.tokenizer.decode(&std::mem::take(&mut self.pending))
    }
}

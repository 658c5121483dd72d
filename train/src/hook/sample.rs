//! `samples.jsonl`: how the model continues the recipe's prompts, with draws that depend on the run's seed and the step.

use super::metrics_log::{log_state, open_log};
use crate::data::Tokenizer;
use crate::error::Error;
use crate::learner::{Hook, StepInfo, Verdict};
use crate::recipe::Recipe;
use crate::run::{AppendLog, RunDirectory};
use crate::task::Decoder;
use brian::generate::Sampling;
use brian::random;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Samples from the model; wrap it in `Every`.
pub struct Sample {
    log: AppendLog,
    tokenizer: Arc<Tokenizer>,
    prompts: Vec<String>,
    n_tokens: usize,
    context: usize,
    seed: u64,
}

impl Sample {
    /// Under what its state is kept.
    pub const NAME: &'static str = "sample";

    /// Opens the log where the checkpoint left it; lines beyond are cut off and will be written again.
    ///
    /// # Errors
    /// `Resource` if it cannot be opened.
    pub fn open(
        run: &RunDirectory,
        tokenizer: Arc<Tokenizer>,
        recipe: &Recipe,
        state: Option<&Value>,
    ) -> Result<Self, Error> {
        Ok(Self {
            log: open_log(&run.samples(), state)?,
            tokenizer,
            prompts: recipe.watch.sample_prompts.clone(),
            n_tokens: recipe.watch.sample_tokens as usize,
            context: recipe.model.context(),
            seed: recipe.run.seed,
        })
    }
}

impl<B: AutodiffBackend> Hook<B, Decoder<B>> for Sample {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn after_step(&mut self, step: &mut StepInfo<Decoder<B>>) -> Result<Verdict, Error> {
        let model = step.model.valid();
        let model = model.multiplying_in(step.plan.route.products);
        let rules = step.plan.route.rules.evaluation();
        for (index, prompt) in self.prompts.iter().enumerate() {
            let sampling = Sampling {
                temperature: 1.0,
                top_p: 1.0,
                seed: random::bits(random::key(self.seed, "sample", step.step), index as u64),
            };
            let text = continue_text(&self.tokenizer, prompt, |tokens| {
                model.continue_tokens(tokens, self.n_tokens, self.context, &rules, sampling)
            });
            let mut line = Map::new();
            line.insert("schema".to_string(), json!(1));
            line.insert("step".to_string(), json!(step.step));
            line.insert("stage".to_string(), json!(step.stage));
            line.insert("prompt".to_string(), json!(prompt));
            line.insert("text".to_string(), json!(text));
            self.log.append(&line)?;
        }
        Ok(Verdict::Continue)
    }

    fn state(&mut self) -> Result<Option<Value>, Error> {
        log_state(&self.log)
    }
}

/// Text → tokens → continuation → text. An empty prompt starts at the beginning of a document.
pub fn continue_text(
    tokenizer: &Tokenizer,
    prompt: &str,
    continuation: impl FnOnce(&[u32]) -> Vec<u32>,
) -> String {
    let mut tokens = tokenizer.encode(prompt);
    if tokens.is_empty() {
        tokens.push(tokenizer.start());
    }
    tokenizer.decode(&continuation(&tokens))
}

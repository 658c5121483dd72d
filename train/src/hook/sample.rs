//! Hook that writes `samples.jsonl`: continuations of the recipe's prompts, drawn by the run's seed and the step.

use super::metrics_log::{log_state, open_log};
use crate::data::{StartRule, Tokenizer};
use crate::error::Error;
use crate::learner::{Hook, StepInfo, Verdict};
use crate::model::Model;
use crate::recipe::Recipe;
use crate::run::{AppendLog, RunDirectory};
use crate::task::{Continuation, begun, not_finite};
use brian::generate::Sampling;
use brian::random;
use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;

/// Samples from the model; wrap it in `Every`.
pub struct Sample {
    /// Only the first rank writes.
    log: Option<AppendLog>,
    tokenizer: Arc<Tokenizer>,
    prompts: Vec<String>,
    start: StartRule,
    n_tokens: usize,
    context: usize,
    seed: u64,
}

impl Sample {
    /// The name under which its state is saved.
    pub const NAME: &'static str = "sample";

    /// Opens the log of a run where the checkpoint left it; lines beyond are cut off and will be written again. Without a run the
    /// samples are drawn and not written.
    ///
    /// # Errors
    /// `Resource` if it cannot be opened.
    pub fn open(
        run: Option<&RunDirectory>,
        tokenizer: Arc<Tokenizer>,
        recipe: &Recipe,
        state: Option<&Value>,
    ) -> Result<Self, Error> {
        Ok(Self {
            log: run.map(|run| open_log(&run.samples(), state)).transpose()?,
            tokenizer,
            prompts: recipe.watch.sample_prompts.clone(),
            start: recipe.data.start,
            n_tokens: recipe.watch.sample_tokens as usize,
            context: recipe.model.context(),
            seed: recipe.run.seed,
        })
    }
}

impl<B: AutodiffBackend> Hook<B, Model<B>> for Sample {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn after_step(&mut self, step: &mut StepInfo<Model<B>>) -> Result<Verdict, Error> {
        let model = step.model.valid();
        let model = model.with_matmul_dtype(step.plan.route.products);
        let rules = step.plan.route.rules.evaluation();
        for (index, prompt) in self.prompts.iter().enumerate() {
            let key = random::key(self.seed, "sample", step.step);
            let sampling = Sampling::plain(random::bits(key, index as u64));
            let how = Continuation::new(&self.tokenizer, self.n_tokens, self.context, sampling);
            let tokens = begun(&self.tokenizer, self.start, prompt);
            let drawn = model.continue_tokens(&tokens, &rules, &how);
            let drawn = drawn.map_err(|found| {
                let model = Path::new("the model");
                Error::Numerical(format!("step {}: {}", step.step, not_finite(model, found)))
            })?;
            let Some(log) = &mut self.log else {
                continue;
            };
            let text = self.tokenizer.continued(&drawn.tokens);
            let mut line = Map::new();
            line.insert("schema".to_string(), json!(1));
            line.insert("step".to_string(), json!(step.step));
            line.insert("stage".to_string(), json!(step.stage));
            line.insert("prompt".to_string(), json!(prompt));
            line.insert("text".to_string(), json!(text));
            line.insert("tokens".to_string(), json!(drawn.tokens.len()));
            line.insert("stop_reason".to_string(), json!(drawn.stop));
            log.append(&line)?;
        }
        Ok(Verdict::Continue)
    }

    fn state(&mut self) -> Result<Option<Value>, Error> {
        self.log.as_ref().map_or(Ok(None), log_state)
    }
}

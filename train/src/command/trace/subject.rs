//! `Subject`: a run's model, a text and validation windows for `nerve trace`; traces steps and computes token losses.

use crate::command::trained::Trained;
use crate::error::Error;
use crate::family::brillm::BriLlmState;
use brillm::candidate::Paths;
use brillm::explain::{TracedStep, Tracer};
use brillm::generate::Decoding;
use std::collections::BTreeSet;

/// A trace decodes as training and evaluation do, even if a run generates in another way.
pub const DECODING: Decoding = Decoding::NATIVE;

/// A model, and the texts that it is traced on.
pub struct Subject<'a> {
    /// The run.
    pub trained: &'a Trained,
    /// Its model; edges may be replaced.
    pub core: &'a mut BriLlmState,
    /// The text, if there is one.
    pub tokens: Option<Vec<u32>>,
    /// How many of the best candidates a step keeps.
    pub top: usize,
    /// Tokens of the validation split that are looked at.
    pub valid_tokens: u64,
    windows: Option<Vec<Vec<u32>>>,
}

impl<'a> Subject<'a> {
    /// A subject of which only the model has been read.
    pub fn new(
        trained: &'a Trained,
        core: &'a mut BriLlmState,
        tokens: Option<Vec<u32>>,
        top: usize,
        valid_tokens: u64,
    ) -> Self {
        Self {
            trained,
            core,
            tokens,
            top,
            valid_tokens,
            windows: None,
        }
    }

    /// The steps of some tokens; `dropped` counts from 0.
    pub fn trace(&self, tokens: &[u32], dropped: &BTreeSet<usize>) -> Vec<TracedStep> {
        let tracer = Tracer {
            model: &self.core.model,
            competition: &self.core.evaluation,
            counts: self.core.counts.as_deref(),
            decoding: DECODING,
            top: self.top,
        };
        tracer.trace(tokens, dropped)
    }

    /// The windows of the recipe's first validation split, each from its first token to its last; read once.
    ///
    /// # Errors
    /// `Invalid` if it is broken or was made with another tokenizer.
    pub fn validation(&mut self) -> Result<Vec<Vec<u32>>, Error> {
        if let Some(windows) = &self.windows {
            return Ok(windows.clone());
        }
        let data = self.trained.first_split(self.valid_tokens)?;
        let mut windows = Vec::new();
        for batch in data.batches() {
            let host = &batch.host;
            let rows = host.inputs.chunks(host.seq);
            let targets = host.targets.chunks(host.seq);
            for ((inputs, targets), valid) in rows.zip(targets).zip(host.valid.chunks(host.seq)) {
                let last = valid.iter().rposition(|&valid| valid);
                let inputs = &inputs[..last.map_or(0, |last| last + 1)];
                let target = last.map(|last| targets[last]);
                windows.push(inputs.iter().copied().chain(target).collect());
            }
        }
        self.windows = Some(windows);
        Ok(self.windows.clone().unwrap_or_default())
    }

    /// `−ln p` of every token but the first, over the whole vocabulary.
    pub fn token_losses(&self, tokens: &[u32]) -> Vec<f64> {
        let Some(seq) = tokens.len().checked_sub(1).filter(|&seq| seq > 0) else {
            return Vec::new();
        };
        let paths = Paths {
            sources: &tokens[..seq],
            targets: &tokens[1..],
            valid: &vec![true; seq],
            seq,
        };
        let BriLlmState {
            model, evaluation, ..
        } = &*self.core;
        let groups = evaluation.groups(&model.graph, &paths, &|_| 0.0);
        model.token_losses(&paths, &groups)
    }
}

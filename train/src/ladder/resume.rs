//! Where a climb goes on, and whether what it needs is still what it was.

use super::Ladder;
use crate::device;
use crate::error::{Error, Problem};
use crate::run::checkpoint::{self, STATE_FORMAT, Snapshot, State};
use std::path::Path;

impl Ladder {
    /// The newest checkpoint that verifies; says what was passed over.
    pub(super) fn newest(&self) -> Result<Option<Snapshot>, Error> {
        let loaded = checkpoint::latest(&self.run)?;
        Ok(loaded.map(|loaded| {
            for problem in &loaded.skipped {
                (self.say)(&format!("{problem}; it is passed over"));
            }
            let state = &loaded.snapshot.state;
            let stage_step = state.stage_step;
            (self.say)(&format!(
                "resuming at step {} (stage {}, step {stage_step}) from {}",
                state.step,
                state.stage,
                loaded.path.display()
            ));
            loaded.snapshot
        }))
    }

    /// The state of a run that has done nothing yet.
    pub(super) fn first_state(&self) -> State {
        State {
            format: STATE_FORMAT,
            stage: self.recipe.stage[0].name.clone(),
            recipe_sha256: self.recipe.sha256(),
            tokenizer_sha256: self.inputs.tokenizer.sha256(),
            data_sha256: self.inputs.sha256.clone(),
            nerve_version: env!("CARGO_PKG_VERSION").to_string(),
            backend: self.recipe.device.backend.clone(),
            threads: device::threads(),
            ..State::default()
        }
    }

    /// A resume is exact only with the recipe, the data and the tokenizer it was saved with.
    pub(super) fn check_unchanged(&self, state: &State) -> Result<State, Error> {
        let now = self.first_state();
        let changed = |file: &Path, advice: &str| {
            let problem = Problem::new(
                file,
                "",
                "content that changed since the checkpoint was saved",
                "the same content",
            );
            problem.advise(advice.to_string())
        };
        if now.recipe_sha256 != state.recipe_sha256 {
            let advice = "put it back, or start a new run with the changed recipe";
            return Err(Error::config(changed(&self.run.recipe(), advice)));
        }
        if now.tokenizer_sha256 != state.tokenizer_sha256 {
            let advice = "put the old tokenizer back";
            return Err(Error::Invalid(changed(&self.recipe.tokenizer.file, advice)));
        }
        for (path, sha256) in &state.data_sha256 {
            if now.data_sha256.get(path) != Some(sha256) {
                return Err(Error::Invalid(changed(
                    Path::new(path),
                    "put the old data back",
                )));
            }
        }
        if now.threads != state.threads {
            (self.say)(&format!(
                "{} threads instead of the checkpoint's {}: the run goes on; equal bits are promised for the same \
                 number only",
                now.threads, state.threads
            ));
        }
        Ok(State {
            threads: now.threads,
            ..state.clone()
        })
    }
}

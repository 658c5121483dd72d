//! Where a climb goes on, and whether what it needs is still what it was.

use super::Ladder;
use crate::device;
use crate::error::{Error, Problem};
use crate::run::checkpoint::{self, STATE_FORMAT, Snapshot, State};
use crate::say::note;
use std::path::Path;

/// Where a climb begins: on the ground, or at a checkpoint.
pub struct Position {
    /// The counters there.
    pub(super) state: State,
    /// The checkpoint's content.
    pub(super) resumed: Option<Snapshot>,
}

impl Ladder {
    /// The newest checkpoint that verifies, or the ground; says what was passed over.
    ///
    /// # Errors
    /// `Invalid` if no checkpoint verifies, or data or tokenizer have changed since; `Config` if the recipe has.
    pub fn find_start(&self) -> Result<Position, Error> {
        let Some(loaded) = checkpoint::latest(&self.run)? else {
            return Ok(Position {
                state: self.first_state(),
                resumed: None,
            });
        };
        for problem in &loaded.skipped {
            note(&format!("{problem}; it is passed over"));
        }
        let state = self.check_unchanged(&loaded.snapshot.state)?;
        note(&format!(
            "resuming at step {} (stage {}, step {}) from {}",
            state.step,
            state.stage,
            state.stage_step,
            loaded.path.display()
        ));
        Ok(Position {
            state,
            resumed: Some(loaded.snapshot),
        })
    }

    /// The state of a run that has done nothing yet.
    fn first_state(&self) -> State {
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
    fn check_unchanged(&self, state: &State) -> Result<State, Error> {
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
            note(&format!(
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

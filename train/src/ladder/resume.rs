//! Finds the checkpoint from which a ladder goes on, checks its counters against the recipe, and applies `--extend`.

use super::climb::{Ladder, Position};
use super::extend::{self, RequestedLength};
use crate::device;
use crate::error::{Error, Problem};
use crate::recipe::{Recipe, Stage};
use crate::run::checkpoint::{self, CheckpointState, STATE_FORMAT};
use crate::run::{Extension, resume};
use crate::say::note;
use crate::text::shortened;
use std::path::Path;

/// Whether a checkpoint's counters are a place in the recipe, or in what its stages were given later, and say the same.
///
/// # Errors
/// `Invalid`, naming the first field that does not fit.
pub fn check_position(
    recipe: &Recipe,
    extensions: &[Extension],
    state: &CheckpointState,
    checkpoint: &Path,
) -> Result<(), Error> {
    let steps = |stage: &Stage| {
        let ends = extend::ends(stage, extensions);
        ends.last().copied().unwrap_or(stage.steps)
    };
    let wrong = |field: &str, found: String, expected: String| {
        let problem = Problem::new(checkpoint.join("state.json"), field, found, expected);
        let advice = "the recipe and the checkpoint do not belong together";
        Err(Error::Invalid(problem.advise(advice)))
    };
    let stages = &recipe.stage;
    let Some(stage) = stages.get(state.stage_index) else {
        let (found, last) = (state.stage_index.to_string(), stages.len() - 1);
        return wrong("stage_index", found, format!("0 to {last}"));
    };
    if stage.name != state.stage {
        let found = format!("{:?}", shortened(&state.stage));
        let expected = format!(
            "{:?}, stage {} of the recipe",
            stage.name, state.stage_index
        );
        return wrong("stage", found, expected);
    }
    if state.stage_step > steps(stage) {
        let expected = format!("at most {}, the steps of {}", steps(stage), stage.name);
        return wrong("stage_step", state.stage_step.to_string(), expected);
    }
    // An imported run stands at the end of its last stage without a step of its own.
    let before = stages[..state.stage_index].iter();
    let most = before.fold(state.stage_step, |sum, stage| {
        sum.saturating_add(steps(stage))
    });
    if state.step > most {
        let expected = format!("at most {most}, the steps of the stages so far");
        return wrong("step", state.step.to_string(), expected);
    }
    let keeps = stages[0].start.keeps_optimizer();
    if state.earlier.is_some() != keeps && state.step > 0 {
        let found = match state.earlier {
            Some(_) => "steps of a run before",
            None => "no steps of a run before",
        };
        let expected = match keeps {
            true => "some: stage.0.start.optimizer is kept",
            false => "none: stage.0.start keeps no optimizer",
        };
        return wrong("earlier", found.to_string(), expected.to_string());
    }
    let earlier = state.earlier.map_or(0, |earlier| earlier.micro_batches);
    // What an imported run has not done are the first steps.
    let drawn_before = |step: u64| drawn_before(recipe, &steps, step);
    let drawn = drawn_before(most) - drawn_before(most - state.step);
    if state.micro_batches != drawn.saturating_add(earlier) {
        let behind = match earlier {
            0 => String::new(),
            earlier => format!(" behind the {earlier} of the run before"),
        };
        let ramp = stages.iter().any(|stage| stage.batch_ramp.is_some());
        let of_steps = match ramp {
            true => format!("those of {} steps by their ramps", state.step),
            false => format!(
                "{} for each of {} steps",
                recipe.batch.accumulate, state.step
            ),
        };
        let all = drawn.saturating_add(earlier);
        let expected = format!("{all}, {of_steps}{behind}");
        return wrong("micro_batches", state.micro_batches.to_string(), expected);
    }
    let targets = (recipe.batch.sequences as u64).saturating_mul(recipe.data.window as u64);
    let most = drawn.saturating_mul(targets);
    if state.tokens > most {
        let expected = format!("at most {most}, all targets of {drawn} micro-batches");
        return wrong("tokens", state.tokens.to_string(), expected);
    }
    if let Some(best) = state.best.filter(|best| best.step > state.step) {
        let expected = format!("at most {}, the step", state.step);
        return wrong("best.step", best.step.to_string(), expected);
    }
    Ok(())
}

/// The micro-batches of all steps before a step of the whole run, whose stages have so many `steps`.
fn drawn_before(recipe: &Recipe, steps: &dyn Fn(&Stage) -> u64, step: u64) -> u64 {
    let mut left = step;
    let of_stage = |stage: &Stage| {
        let here = left.min(steps(stage));
        left -= here;
        stage.micro_batches(recipe.batch.accumulate).before(here)
    };
    let drawn = recipe.stage.iter().map(of_stage);
    drawn.fold(0, u64::saturating_add)
}

impl Ladder {
    /// The newest checkpoint that verifies, or the ground; says what was passed over. With `longer` its stage goes on
    /// after its end.
    ///
    /// # Errors
    /// `Invalid` if no checkpoint verifies, or data or tokenizer have changed since; `Config` if the recipe has, or if the
    /// run cannot go on so.
    pub fn find_start(&mut self, longer: Option<&RequestedLength>) -> Result<Position, Error> {
        let now = self.first_state();
        let newest = checkpoint::latest_without(&self.run, self.left_on_disk())?;
        let Some(loaded) = resume(&self.run, newest, &now, &self.recipe.tokenizer.file)? else {
            if longer.is_some() {
                let problem = Problem::new(self.run.path(), "", "no checkpoint", "at least one");
                let advice = "let `nerve fit --resume RUN` reach the end of a stage first";
                return Err(Error::Invalid(problem.advise(advice)));
            }
            return Ok(Position {
                state: now,
                resumed: None,
            });
        };
        let state = loaded.snapshot.state.clone();
        check_position(&self.recipe, &self.extensions, &state, &loaded.path)?;
        if let Some(asked) = longer {
            self.extend(&state, asked)?;
        }
        match self.is_over(&state) {
            true => note(&format!(
                "{}: the run is over, all {} steps are done; `nerve fit --resume {} --extend {}=STEPS` goes on",
                self.run.path().display(),
                state.step,
                self.run.path().display(),
                state.stage
            )),
            false => note(&format!(
                "resuming at step {} (stage {}, step {}) from {}",
                state.step,
                state.stage,
                state.stage_step,
                loaded.path.display()
            )),
        }
        Ok(Position {
            state,
            resumed: Some(loaded.snapshot),
        })
    }

    /// Optimizer steps left in the stage of a position and in those after it.
    pub fn steps_left(&self, start: &Position) -> Vec<u64> {
        let stages = self.recipe.stage.iter().enumerate();
        let left = stages.skip(start.state.stage_index).map(|(index, stage)| {
            let done = match index == start.state.stage_index {
                true => start.state.stage_step,
                false => 0,
            };
            self.steps(stage).saturating_sub(done)
        });
        left.collect()
    }

    /// Whether nothing is left to do but to ask the last stage's gate.
    fn is_over(&self, state: &CheckpointState) -> bool {
        let last = state.stage_index + 1 == self.recipe.stage.len();
        last && state.stage_step == self.steps(&self.recipe.stage[state.stage_index])
    }

    /// Lets the stage of the checkpoint go on after its end, and writes that down.
    fn extend(&mut self, state: &CheckpointState, asked: &RequestedLength) -> Result<(), Error> {
        let Some(extension) = extend::extension(&self.recipe, state, &self.extensions, asked)?
        else {
            note("this extension is recorded already; the run goes on with it");
            return Ok(());
        };
        if self.ranks.is_first() {
            extension.record(&self.run)?;
        }
        note(&format!(
            "stage {} goes on from step {} to {} at the learning rate {} with which it ended; this is not the run that \
             a recipe of {2} steps would have been: its schedule would have had another course",
            extension.stage, extension.from_step, extension.to_step, extension.learning_rate
        ));
        self.extensions.push(extension);
        Ok(())
    }

    /// The state of a run that has done nothing yet.
    fn first_state(&self) -> CheckpointState {
        CheckpointState {
            format: STATE_FORMAT,
            stage: self.recipe.stage[0].name.clone(),
            recipe_sha256: self.recipe.sha256(),
            tokenizer_sha256: self.inputs.tokenizer.sha256(),
            data_sha256: self.inputs.sha256.clone(),
            nerve_version: env!("CARGO_PKG_VERSION").to_string(),
            backend: self.recipe.device.backend.clone(),
            threads: device::threads(),
            ..CheckpointState::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use crate::run::checkpoint::{Best, Earlier};

    /// `brian/tiny` with two stages of 150 steps, two micro-batches a step of 8 windows of 64 tokens; at step 100 of the
    /// second stage, which goes on to step 200.
    fn complaint(change: impl Fn(&mut CheckpointState)) -> String {
        complaint_with(&[], change)
    }

    /// The same, with more of a recipe.
    fn complaint_with(sets: &[&str], change: impl Fn(&mut CheckpointState)) -> String {
        let found = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brian", "tiny"))
            .unwrap();
        let sets = sets.iter().chain(&["batch.accumulate=2"]);
        let sets: Vec<String> = sets.map(|set| set.to_string()).collect();
        let recipe = from_text("r.toml", found.text.to_string(), &sets).unwrap();
        let mut state = CheckpointState {
            stage_index: 1,
            stage: "fixed".to_string(),
            stage_step: 100,
            step: 250,
            micro_batches: 500,
            tokens: 256_000,
            best: Some(Best {
                step: 250,
                value: 1.0,
            }),
            ..CheckpointState::default()
        };
        change(&mut state);
        let longer = [Extension::new("fixed", 150, 200, 1e-4)];
        let checked = check_position(&recipe, &longer, &state, Path::new("c"));
        checked
            .err()
            .map_or(String::new(), |error| error.to_string())
    }

    #[test]
    fn where_steps_grow_the_place_in_the_data_is_what_all_steps_took() {
        let ramps = [
            "stage.baseline.batch_ramp=[{from_step=100,accumulate=3}]",
            "stage.fixed.batch_ramp=[{from_share=0.5,accumulate=5}]",
        ];
        // 100 · 2 + 50 · 3, and 75 · 2 + 25 · 5.
        let at =
            |micro_batches| complaint_with(&ramps, |state| state.micro_batches = micro_batches);
        assert_eq!(at(625), "");
        let expected = "micro_batches: found 624, expected 625, those of 250 steps by their ramps";
        assert!(at(624).contains(expected), "{}", at(624));
        // In an extension the last row goes on: 125 · 5.
        let extended = complaint_with(&ramps, |state| {
            (state.stage_step, state.step, state.micro_batches) = (200, 350, 350 + 150 + 625);
        });
        assert_eq!(extended, "");
        // An imported run stood at the end of its last stage, and has made fifty steps of its own since: from 150 to 200.
        let imported = complaint_with(&ramps, |state| {
            (state.stage_step, state.step, state.micro_batches) = (200, 50, 250);
            (state.tokens, state.best) = (0, None);
        });
        assert_eq!(imported, "");
    }

    #[test]
    fn a_run_that_keeps_the_optimizer_of_another_counts_on_from_its_micro_batches() {
        let kept = ["stage.baseline.start={kind='run',path='r',optimizer='kept'}"];
        let behind = |steps, micro_batches| {
            Some(Earlier {
                steps,
                micro_batches,
            })
        };
        let of = |micro_batches, earlier| {
            complaint_with(&kept, |state| {
                (state.micro_batches, state.earlier) = (micro_batches, earlier);
            })
        };
        assert_eq!(of(520, behind(10, 20)), "");
        let found = of(500, behind(10, 20));
        let expected =
            "found 500, expected 520, 2 for each of 250 steps behind the 20 of the run before";
        assert!(found.contains(expected), "{found}");
        let found = of(500, None);
        let expected = "earlier: found no steps of a run before, expected some";
        assert!(found.contains(expected), "{found}");
        let found = complaint(|state| state.earlier = behind(1, 0));
        let expected = "earlier: found steps of a run before, expected none";
        assert!(found.contains(expected), "{found}");
    }

    #[test]
    fn the_counters_of_a_checkpoint_are_a_place_in_its_recipe_or_the_first_that_is_not_is_named() {
        type Change = fn(&mut CheckpointState);
        let allowed: [Change; 6] = [
            |_| (),
            |state| state.stage_step = 200,
            |state| state.tokens = 0,
            |state| state.best = None,
            |state| state.stage_step = 150,
            // An imported run has no step of its own.
            |state| (state.step, state.micro_batches, state.tokens, state.best) = (0, 0, 0, None),
        ];
        for change in allowed {
            assert_eq!(complaint(change), "");
        }
        let refused: [(Change, &str); 8] = [
            (
                |state| state.stage_index = 2,
                "stage_index: found 2, expected 0 to 1",
            ),
            (
                |state| state.stage_index = 0,
                "stage: found \"fixed\", expected \"baseline\", stage 0",
            ),
            (
                |state| state.stage_step = 201,
                "stage_step: found 201, expected at most 200, the steps of fixed",
            ),
            (
                |state| state.step = 251,
                "step: found 251, expected at most 250",
            ),
            (
                |state| state.micro_batches = 499,
                "micro_batches: found 499, expected 500, 2 for each of 250 steps",
            ),
            (
                |state| state.micro_batches = 501,
                "micro_batches: found 501, expected 500",
            ),
            (
                |state| state.tokens = 256_001,
                "tokens: found 256001, expected at most 256000",
            ),
            (
                |state| state.best.as_mut().unwrap().step = 251,
                "best.step: found 251, expected at most 250",
            ),
        ];
        for (change, expected) in refused {
            let found = complaint(change);
            assert!(found.contains(expected), "{found:?} and {expected:?}");
        }
    }
}

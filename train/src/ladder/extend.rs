//! Parses `--extend STAGE=STEPS`, and checks that this finished stage can go on, at the last learning rate of its schedule.

use crate::error::{Error, Problem};
use crate::recipe::nearest::{nearest, one_of};
use crate::recipe::{Recipe, Stage};
use crate::run::checkpoint::CheckpointState;
use crate::run::{Extension, MOST_STEPS};

/// The argument of `--extend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedLength {
    /// The stage's name.
    pub stage: String,
    /// Its new number of steps, those done included.
    pub steps: u64,
}

impl RequestedLength {
    /// Reads `STAGE=STEPS`.
    ///
    /// # Errors
    /// `Config` if the text has another form.
    pub fn read(text: &str) -> Result<Self, Error> {
        let parts = text.split_once('=');
        let steps = parts.and_then(|(_, steps)| steps.trim().parse().ok());
        match (parts, steps) {
            (Some((stage, _)), Some(steps)) if (1..=MOST_STEPS).contains(&steps) => Ok(Self {
                stage: stage.trim().to_string(),
                steps,
            }),
            _ => Err(wrong(
                text.to_string(),
                "STAGE=STEPS, a stage's name and its new number of steps",
                "",
            )),
        }
    }
}

/// The ends of a stage in steps, rising: that of the recipe, and those of its extensions.
pub fn ends(stage: &Stage, extensions: &[Extension]) -> Vec<u64> {
    let own = extensions.iter().filter(|one| one.stage == stage.name);
    std::iter::once(stage.steps)
        .chain(own.map(|one| one.to_step))
        .collect()
}

/// The requested extension; `None` if it is recorded already and not yet over.
///
/// # Errors
/// `Config` with the reason why the run cannot go on so.
pub fn extension(
    recipe: &Recipe,
    state: &CheckpointState,
    known: &[Extension],
    asked: &RequestedLength,
) -> Result<Option<Extension>, Error> {
    let names: Vec<&str> = recipe
        .stage
        .iter()
        .map(|stage| stage.name.as_str())
        .collect();
    let Some(index) = names.iter().position(|name| *name == asked.stage) else {
        let meant = nearest(&asked.stage, names.iter().copied());
        let advice = meant.map(|meant| format!("did you mean {meant}?"));
        let found = format!("the stage {:?}", asked.stage);
        return Err(wrong(found, &one_of(&names), &advice.unwrap_or_default()));
    };
    let now = names[state.stage_index];
    let found = format!("the stage {}", asked.stage);
    let expected = format!("{now}, in which the run is");
    if index < state.stage_index {
        let advice = format!(
            "the stages after {0} were trained on its weights as they were; a longer {0} is a new run: --set \
             stage.{0}.steps={1}",
            asked.stage, asked.steps
        );
        return Err(wrong(found, &expected, &advice));
    }
    if index > state.stage_index {
        return Err(wrong(found, &expected, "the run has not come to it yet"));
    }
    let stage = &recipe.stage[index];
    let end = *ends(stage, known).last().unwrap_or(&stage.steps);
    if state.stage_step < end {
        if asked.steps == end {
            return Ok(None);
        }
        let found = format!("step {} of the {end} of stage {now}", state.stage_step);
        return Err(wrong(
            found,
            "a stage that is over",
            "let `nerve fit --resume RUN` reach its end first",
        ));
    }
    if asked.steps <= end {
        let found = format!("{} steps", asked.steps);
        let expected =
            format!("more than the {end} steps that stage {now} has done: STEPS counts them too");
        return Err(wrong(found, &expected, ""));
    }
    let rate = stage.learning_rate.rate(stage.steps - 1, stage.steps);
    if rate == 0.0 {
        let found = format!("a learning rate of 0 at the end of stage {now}");
        return Err(wrong(
            found,
            "a rate to go on with",
            "start a new run with more steps, or with a floor above 0",
        ));
    }
    Ok(Some(Extension::new(now, end, asked.steps, rate)))
}

fn wrong(found: String, expected: &str, advice: &str) -> Error {
    let problem = Problem::new("command line", "--extend", found, expected);
    Error::config(problem.advise(advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;

    /// `brian/tiny`: baseline with 150 steps, then fixed with 150 steps down to 1e-4.
    fn answer(
        stage_index: usize,
        stage_step: u64,
        asked: &str,
    ) -> Result<Option<Extension>, String> {
        let mut bundled = BUNDLED.iter();
        let tiny = bundled.find(|recipe| (recipe.kind, recipe.size) == ("brian", "tiny"));
        let recipe = from_text("r.toml", tiny.unwrap().text.to_string(), &[]).unwrap();
        let state = CheckpointState {
            stage_index,
            stage_step,
            ..CheckpointState::default()
        };
        let known = [Extension::new("fixed", 150, 200, 1e-4)];
        let known = if stage_step > 150 { &known[..] } else { &[] };
        let asked = RequestedLength::read(asked).map_err(|error| error.to_string())?;
        extension(&recipe, &state, known, &asked).map_err(|error| error.to_string())
    }

    #[test]
    fn a_stage_that_is_over_goes_on_at_the_rate_it_reached() {
        let longer = answer(1, 150, "fixed=300").unwrap().unwrap();
        assert_eq!((longer.from_step, longer.to_step), (150, 300));
        assert_eq!(longer.learning_rate, 1e-4);
        let again = answer(1, 200, "fixed=201").unwrap().unwrap();
        assert_eq!((again.from_step, again.to_step), (200, 201));
        // A gate that stayed shut behind an inner stage.
        assert_eq!(
            answer(0, 150, "baseline=160").unwrap().unwrap().to_step,
            160
        );
        // The same words again, after a kill.
        assert_eq!(answer(1, 170, "fixed=200").unwrap(), None);
    }

    #[test]
    fn what_cannot_go_on_says_why() {
        for (index, step, asked, expected) in [
            (
                1,
                150,
                "baseline=300",
                "the stages after baseline were trained on its weights",
            ),
            (0, 150, "fixed=300", "the run has not come to it yet"),
            (1, 150, "fixd=300", "did you mean fixed?"),
            (1, 150, "fixed=150", "expected more than the 150 steps"),
            (
                1,
                149,
                "fixed=300",
                "found step 149 of the 150 of stage fixed",
            ),
            (1, 150, "fixed", "expected STAGE=STEPS"),
            (1, 150, "fixed=many", "expected STAGE=STEPS"),
        ] {
            let message = answer(index, step, asked).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_stage_has_the_ends_that_its_own_extensions_give_it_and_none_at_a_rate_of_zero() {
        let found = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brian", "tiny"))
            .unwrap();
        let recipe = from_text("r.toml", found.text.to_string(), &[]).unwrap();
        let longer = [
            Extension::new("fixed", 150, 200, 1e-4),
            Extension::new("baseline", 150, 151, 1e-4),
            Extension::new("fixed", 200, 300, 1e-4),
        ];
        assert_eq!(ends(&recipe.stage[1], &longer), [150, 200, 300]);
        assert_eq!(ends(&recipe.stage[0], &longer), [150, 151]);
        assert_eq!(ends(&recipe.stage[0], &[]), [150]);
        let floor = |floor: &str| {
            let sets = [format!("stage.fixed.learning_rate.floor={floor}")];
            let recipe = from_text("r.toml", found.text.to_string(), &sets).unwrap();
            let state = CheckpointState {
                stage_index: 1,
                stage_step: 150,
                ..CheckpointState::default()
            };
            let asked = RequestedLength::read(" fixed = 160 ").unwrap();
            extension(&recipe, &state, &[], &asked)
        };
        // The last step of the schedule is at the floor.
        assert_eq!(floor("2e-4").unwrap().unwrap().learning_rate, 2e-4);
        assert!(
            floor("0")
                .unwrap_err()
                .to_string()
                .contains("a learning rate of 0")
        );
        assert!(
            RequestedLength::read("fixed=0").is_err() && RequestedLength::read("fixed=1").is_ok()
        );
        let most = format!("fixed={MOST_STEPS}");
        assert_eq!(RequestedLength::read(&most).unwrap().steps, MOST_STEPS);
        assert!(RequestedLength::read(&format!("fixed={}", MOST_STEPS + 1)).is_err());
    }
}

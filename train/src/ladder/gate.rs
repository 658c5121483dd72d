//! Checks the gate after a stage: a number of its last validation must meet a bound, or the next stage does not begin.

use crate::error::Error;
use crate::recipe::Stage;
use crate::run::RunDirectory;
use crate::run::checkpoint::CheckpointState;

/// Checks the gate of a stage; returns a message if there is one and it is passed.
///
/// # Errors
/// `Refused` with the number and how to go on if it is not passed, also if there is no such number.
pub fn check(
    stage: &Stage,
    state: &CheckpointState,
    run: &RunDirectory,
) -> Result<Option<String>, Error> {
    let Some(gate) = &stage.gate else {
        return Ok(None);
    };
    let valid = &state.stage_valid;
    let value = valid.get(&gate.metric).copied();
    let open = value.is_some_and(|value| {
        gate.at_most.is_none_or(|most| value <= most)
            && gate.at_least.is_none_or(|least| value >= least)
    });
    let bounds = [
        gate.at_most.map(|most| format!("at most {most}")),
        gate.at_least.map(|least| format!("at least {least}")),
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    if let (true, Some(value)) = (open, value) {
        return Ok(Some(format!(
            "gate passed: {} is {value:.6}, bound {}",
            gate.metric,
            bounds.join(" and ")
        )));
    }
    let measured: Vec<&str> = valid.keys().map(String::as_str).collect();
    let found = match value {
        Some(value) => value.to_string(),
        None => format!("no such number (measured: {})", measured.join(", ")),
    };
    let key = if gate.at_most.is_some() {
        "at_most"
    } else {
        "at_least"
    };
    Err(Error::Refused(format!(
        "gate of stage {stage}: {}: found {found}, expected {}; the ladder stops here; train the stage longer than its \
         {} steps with `nerve fit --resume {} --extend {stage}=STEPS`, which asks the gate again, or start a new run \
         with another bound, --set stage.{stage}.gate.{key}=…",
        gate.metric,
        bounds.join(" and "),
        state.stage_step,
        run.path().display(),
        stage = stage.name,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use crate::run::RunInfo;

    #[test]
    fn a_shut_gate_says_its_number_its_bound_and_how_to_go_on() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(root.path(), "a", "", RunInfo::new("x")).unwrap();
        let mut bundled = BUNDLED.iter();
        let tiny = bundled.find(|recipe| (recipe.kind, recipe.size) == ("brian", "tiny"));
        let recipe = from_text("r.toml", tiny.unwrap().text.to_string(), &[]).unwrap();
        let stage = Stage {
            gate: Some(crate::recipe::Gate {
                metric: "valid/loss/lm".to_string(),
                at_most: Some(4.5),
                at_least: None,
            }),
            ..recipe.stage[0].clone()
        };
        let state = |loss: f64| CheckpointState {
            stage_step: 150,
            stage_valid: [("valid/loss/lm".to_string(), loss)].into(),
            ..CheckpointState::default()
        };
        let passed = check(&stage, &state(4.5), &run).unwrap();
        let text = "gate passed: valid/loss/lm is 4.500000, bound at most 4.5";
        assert_eq!(passed.as_deref(), Some(text));
        let shut = check(&stage, &state(4.75), &run).unwrap_err();
        assert_eq!(shut.exit_code(), 1);
        let place = format!("{}/", root.path().display());
        assert_eq!(
            shut.to_string().replace(&place, ""),
            "gate of stage baseline: valid/loss/lm: found 4.75, expected at most 4.5; the ladder stops here; train the \
             stage longer than its 150 steps with `nerve fit --resume a --extend baseline=STEPS`, which asks the gate \
             again, or start a new run with another bound, --set stage.baseline.gate.at_most=…"
        );
    }

    #[test]
    fn a_gate_opens_at_its_bound_and_beyond_on_its_own_side_only() {
        let root = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(root.path(), "a", "", RunInfo::new("x")).unwrap();
        let tiny = BUNDLED
            .iter()
            .find(|recipe| recipe.kind == "brian")
            .unwrap();
        let recipe = from_text("r.toml", tiny.text.to_string(), &[]).unwrap();
        let opens = |at_most, at_least, value: Option<f64>| {
            let stage = Stage {
                gate: Some(crate::recipe::Gate {
                    metric: "valid/m".to_string(),
                    at_most,
                    at_least,
                }),
                ..recipe.stage[0].clone()
            };
            let mut valid: std::collections::BTreeMap<_, _> =
                [("valid/other".to_string(), 0.5)].into();
            valid.extend(value.map(|value| ("valid/m".to_string(), value)));
            let state = CheckpointState {
                stage_valid: valid,
                ..CheckpointState::default()
            };
            check(&stage, &state, &run)
        };
        let at_most = |value| opens(Some(0.5), None, Some(value)).is_ok();
        assert_eq!([0.4, 0.5, 0.500_001].map(at_most), [true, true, false]);
        let at_least = |value| opens(None, Some(0.5), Some(value)).is_ok();
        assert_eq!([0.499_999, 0.5, 0.6].map(at_least), [false, true, true]);
        let window = |value| opens(Some(0.6), Some(0.5), Some(value)).is_ok();
        assert_eq!(
            [0.49, 0.5, 0.6, 0.61].map(window),
            [false, true, true, false]
        );
        let none = opens(None, Some(0.5), None).unwrap_err().to_string();
        assert!(
            none.contains("found no such number (measured: valid/other), expected at least 0.5"),
            "{none}"
        );
        assert!(none.contains("gate.at_least="), "{none}");
        let text = opens(None, Some(0.5), Some(0.75)).unwrap().unwrap();
        assert_eq!(text, "gate passed: valid/m is 0.750000, bound at least 0.5");
        let stage = Stage {
            gate: None,
            ..recipe.stage[0].clone()
        };
        assert_eq!(
            check(&stage, &CheckpointState::default(), &run).unwrap(),
            None
        );
    }
}

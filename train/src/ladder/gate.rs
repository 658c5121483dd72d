//! The gate behind a stage: a bound on its last validation, without which the next stage does not begin.

use crate::error::Error;
use crate::recipe::Stage;
use std::collections::BTreeMap;

/// Opens or stays shut.
///
/// # Errors
/// `Refused` with the number if it stays shut, also if there is no such number.
pub fn check(stage: &Stage, valid: &BTreeMap<String, f64>) -> Result<(), Error> {
    let Some(gate) = &stage.gate else {
        return Ok(());
    };
    let value = valid.get(&gate.metric).copied();
    let open = value.is_some_and(|value| {
        gate.at_most.is_none_or(|most| value <= most)
            && gate.at_least.is_none_or(|least| value >= least)
    });
    if open {
        return Ok(());
    }
    let bounds = [
        gate.at_most.map(|most| format!("at most {most}")),
        gate.at_least.map(|least| format!("at least {least}")),
    ];
    let bounds: Vec<String> = bounds.into_iter().flatten().collect();
    let measured: Vec<&str> = valid.keys().map(String::as_str).collect();
    let found = match value {
        Some(value) => value.to_string(),
        None => format!("no such number (measured: {})", measured.join(", ")),
    };
    Err(Error::Refused(format!(
        "gate of stage {}: {}: found {found}, expected {}; the ladder stops here",
        stage.name,
        gate.metric,
        bounds.join(" and ")
    )))
}

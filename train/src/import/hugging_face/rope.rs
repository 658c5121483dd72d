//! Reads rotary angles: `rope_theta` with `rope_scaling`, or both in `rope_parameters`, as newer files have them.

use super::family::ROPE_THETA;
use super::fields::Fields;
use crate::error::Error;
use brian::block::causal::{Rope, RopeScaling};
use serde_json::{Value, json};

/// The kinds of angles that are understood.
const KINDS: &str = "\"default\", \"linear\" or \"llama3\": other rotary angles are not supported";

/// The most places that a context of training may have; only a bound against nonsense.
const MOST_CONTEXT: u64 = 1 << 32;

/// Takes the fields of rotary angles.
pub fn rope(fields: &mut Fields) -> Result<Rope, Error> {
    let outside = match fields.has("rope_theta") {
        true => Some(fields.number("rope_theta", Some(ROPE_THETA))?),
        false => None,
    };
    let new = fields.inside("rope_parameters")?;
    let old = fields.inside("rope_scaling")?;
    let described = match (new, old) {
        (Some(_), Some(_)) => {
            let expected = "one description, rope_parameters or rope_scaling";
            return Err(fields.other("rope_scaling", "a second description", expected));
        }
        (new, old) => new.or(old),
    };
    let Some(mut described) = described else {
        let base = match outside {
            Some(base) => base,
            None => fields.number("rope_theta", Some(ROPE_THETA))?,
        };
        let scaling = None;
        return Ok(Rope { base, scaling });
    };
    let inside = match described.has("rope_theta") {
        true => Some(described.number("rope_theta", Some(ROPE_THETA))?),
        false => None,
    };
    let base = match (inside, outside) {
        (Some(inside), Some(outside)) if inside != outside => {
            let expected = format!("{outside:?}, as rope_theta says outside");
            return Err(described.wrong("rope_theta", &json!(inside), &expected));
        }
        (Some(base), _) | (None, Some(base)) => base,
        (None, None) => fields.number("rope_theta", Some(ROPE_THETA))?,
    };
    let scaling = scaling(&mut described)?;
    described.neutral(
        "partial_rotary_factor",
        &json!(1.0),
        "whole heads are turned",
    )?;
    let left = described.left().next();
    if let Some((name, value)) = left {
        let expected = "a field of these rotary angles";
        return Err(described.wrong(name, value, expected));
    }
    Ok(Rope { base, scaling })
}

fn scaling(described: &mut Fields) -> Result<Option<RopeScaling>, Error> {
    let kinds = ["rope_type", "type"].map(|name| (name, described.take(name)));
    let mut said = kinds
        .iter()
        .filter_map(|(name, kind)| Some((*name, kind.as_ref()?)));
    let (name, kind) = said.next().unwrap_or(("rope_type", &Value::Null));
    if let Some((again, other)) = said.next()
        && other != kind
    {
        let expected = format!("{kind}, as {name} says");
        return Err(described.wrong(again, other, &expected));
    }
    match kind.as_str() {
        Some("default") => Ok(None),
        // A file that says only the base; other fields are then left over and refused.
        None if kind.is_null() => Ok(None),
        Some("linear") => {
            let factor = described.number("factor", None)?;
            described.take("original_max_position_embeddings");
            Ok(Some(RopeScaling::Linear { factor }))
        }
        Some("llama3") => Ok(Some(RopeScaling::Llama3 {
            factor: described.number("factor", None)?,
            low_freq_factor: described.number("low_freq_factor", None)?,
            high_freq_factor: described.number("high_freq_factor", None)?,
            original_context: described.whole(
                "original_max_position_embeddings",
                None,
                MOST_CONTEXT,
            )?,
        })),
        _ => Err(described.wrong(name, kind, KINDS)),
    }
}

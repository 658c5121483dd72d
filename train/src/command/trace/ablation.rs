//! `Ablation`: loss on the text and the validation split with an edge as it is, replaced by its shared row, and by zeros; split
//! by the tokens it can affect. As a table and JSON.

use super::names::{Names, Pair};
use super::subject::Subject;
use super::table::{Table, change, columns, number};
use crate::command::answer::maybe;
use crate::error::Error;
use brillm::explain::{Replacement, replace, write_row};
use serde_json::{Value, json};

/// The ablation of an edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Ablation {
    pub pair: Pair,
    /// What was measured: text and validation split, each with the shared row and with zeros.
    pub measured: Vec<Measured>,
}

/// Losses on some tokens before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What was measured on: `text` or `valid`.
    pub on: &'static str,
    /// What replaced the edge: `shared` or `zero`.
    pub by: &'static str,
    /// In the order of [`PARTS`].
    pub parts: [Sum; 4],
}

/// Summed nats of some tokens, before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    pub tokens: u64,
    pub before: f64,
    pub after: f64,
}

/// Groups of tokens: all, those that came over the edge, those that might have, and those after it in the same path.
pub const PARTS: [&str; 4] = ["all", "edge is true", "edge competes", "edge passed before"];

impl Ablation {
    /// Measures the losses, then restores the model. `None` if the pair has no edge of its own.
    ///
    /// # Errors
    /// `Invalid` if the validation split is broken.
    pub fn new(subject: &mut Subject<'_>, pair: Pair) -> Result<Option<Self>, Error> {
        let text: Vec<Vec<u32>> = subject.tokens.clone().into_iter().collect();
        let valid = subject.validation()?;
        let mut measured = Vec::new();
        for (on, sequences) in [("text", text), ("valid", valid)] {
            // Where its source is never read an edge changes nothing.
            let read = |tokens: &[u32]| tokens.contains(&pair.0);
            let before = sequences.iter().map(|tokens| subject.token_losses(tokens));
            let before: Vec<Vec<f64>> = before.collect();
            for (by, replacement) in [
                ("shared", Replacement::BackOff),
                ("zero", Replacement::Zero),
            ] {
                let Some((row, old)) = replace(&mut subject.core.model, pair, replacement) else {
                    return Ok(None);
                };
                let mut parts = [Sum::default(); 4];
                for (tokens, before) in sequences.iter().zip(&before) {
                    let after = match read(tokens) {
                        true => &subject.token_losses(tokens),
                        false => before,
                    };
                    add(&mut parts, tokens, pair, before, after);
                }
                write_row(&mut subject.core.model, row, &old);
                if !sequences.is_empty() {
                    measured.push(Measured { on, by, parts });
                }
            }
        }
        Ok(Some(Self { pair, measured }))
    }

    /// The ablation as a table.
    pub fn table(&self, names: &Names<'_>) -> Table {
        let title = format!("without the edge {}", names.pair(self.pair));
        let heads = "on | instead | tokens where | n> | loss> | then> | change>";
        let mut table = Table::new(title, &columns(heads));
        for Measured { on, by, parts } in &self.measured {
            for (part, sum) in PARTS.iter().zip(parts) {
                table.row([
                    on.to_string(),
                    by.to_string(),
                    part.to_string(),
                    sum.tokens.to_string(),
                    maybe(sum.mean(sum.before), number),
                    maybe(sum.mean(sum.after), number),
                    maybe(sum.mean(sum.after - sum.before), change),
                ]);
            }
        }
        table
    }

    /// The ablation as JSON.
    pub fn json(&self, names: &Names<'_>) -> Value {
        let part = |(name, sum): (&&str, &Sum)| {
            json!({
                "where": name,
                "tokens": sum.tokens,
                "loss_before": sum.mean(sum.before),
                "loss_after": sum.mean(sum.after),
                "loss_change": sum.mean(sum.after - sum.before),
                "nats_change": sum.after - sum.before,
            })
        };
        let measured = |measured: &Measured| {
            let parts = PARTS.iter().zip(&measured.parts);
            let parts: Value = parts.map(part).collect();
            json!({ "on": measured.on, "replaced_by": measured.by, "parts": parts })
        };
        json!({
            "source": names.json(self.pair.0),
            "target": names.json(self.pair.1),
            "measured": self.measured.iter().map(measured).collect::<Value>(),
        })
    }
}

impl Sum {
    fn mean(&self, nats: f64) -> Option<f64> {
        (self.tokens > 0).then(|| nats / self.tokens as f64)
    }
}

fn add(
    parts: &mut [Sum; 4],
    tokens: &[u32],
    (source, target): Pair,
    before: &[f64],
    after: &[f64],
) {
    let mut passed = false;
    for (place, (before, after)) in before.iter().zip(after).enumerate() {
        let competes = tokens[place] == source;
        let is_true = competes && tokens[place + 1] == target;
        for (part, belongs) in parts.iter_mut().zip([true, is_true, competes, passed]) {
            if belongs {
                part.tokens += 1;
                part.before += before;
                part.after += after;
            }
        }
        passed |= is_true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_where_the_edge_matters() {
        let mut parts = [Sum::default(); 4];
        let after = [1.0, 1.5, 1.0, 2.0, 1.25];
        add(&mut parts, &[7, 3, 3, 4, 3, 5], (3, 4), &[1.0; 5], &after);
        assert_eq!(parts.map(|part| part.tokens), [5, 1, 3, 2]);
        assert_eq!(
            parts.map(|part| part.after - part.before),
            [1.75, 0.0, 0.75, 1.25]
        );
    }

    #[test]
    fn a_target_behind_another_source_is_not_the_edge() {
        let mut parts = [Sum::default(); 4];
        add(
            &mut parts,
            &[7, 4, 3, 4, 4, 3],
            (3, 4),
            &[1.0; 5],
            &[2.0; 5],
        );
        // All five; 3 to 4 once; behind a 3 once; two places after it.
        assert_eq!(parts.map(|part| part.tokens), [5, 1, 1, 2]);
        assert_eq!(parts[3].mean(parts[3].after), Some(2.0));
        assert_eq!(Sum::default().mean(0.0), None);
    }
}

//! Compares two traces of one text step by step, before and after a change.

use super::names::Names;
use super::table::{Table, change, columns, number};
use crate::command::answer::maybe;
use brillm::explain::TracedStep;
use serde_json::{Value, json};

/// The effect of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What changes.
    pub name: String,
    /// The steps that both traces have, from the first one that the change can reach.
    pub steps: Vec<Pairing>,
}

/// A step before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairing {
    /// The position of the token in the text as given, from 1.
    pub position: usize,
    /// That token.
    pub token: u32,
    /// The token that came next, if there is one.
    pub next: Option<u32>,
    /// The nats of that next token, before and after.
    pub nats: Option<[f64; 2]>,
    /// The best candidate, before and after.
    pub best: [Option<u32>; 2],
}

impl Comparison {
    /// Pairs up steps: `partner` maps a position of the first trace, from 0, to one of the second.
    pub fn new(
        name: String,
        before: &[TracedStep],
        after: &[TracedStep],
        partner: impl Fn(usize) -> Option<usize>,
    ) -> Self {
        let pair = |step: &TracedStep| {
            let other = after.get(partner(step.position)?)?;
            Some(Pairing {
                position: step.position + 1,
                token: step.token,
                next: step.truth.map(|truth| truth.target),
                nats: step.truth.zip(other.truth).map(|(a, b)| [a.nats, b.nats]),
                best: [step, other].map(|step| step.best().map(|best| best.target)),
            })
        };
        Self {
            name,
            steps: before.iter().filter_map(pair).collect(),
        }
    }

    /// The summed nats of the steps, before and after.
    pub fn token_losses(&self) -> [f64; 2] {
        let nats = || self.steps.iter().filter_map(|step| step.nats);
        [0, 1].map(|which| nats().map(|nats| nats[which]).sum())
    }

    /// The comparison as a table.
    pub fn table(&self, names: &Names<'_>) -> Table {
        let heads = "at> | token~ | next~ | nats> | then> | change> | best~ | then~";
        let mut table = Table::new(self.name.clone(), &columns(heads));
        for step in &self.steps {
            let best = |which: usize| maybe(step.best[which], |id| names.of(id).to_string());
            let then = match step.best[0] == step.best[1] {
                true => "same".to_string(),
                false => best(1),
            };
            table.row([
                step.position.to_string(),
                names.of(step.token).to_string(),
                maybe(step.next, |id| names.of(id).to_string()),
                maybe(step.nats, |[before, _]| number(before)),
                maybe(step.nats, |[_, after]| number(after)),
                maybe(step.nats, |[before, after]| change(after - before)),
                best(0),
                then,
            ]);
        }
        let [before, after] = self.token_losses();
        let n = self.steps.iter().filter(|step| step.nats.is_some()).count();
        let (changed, [before, after]) = (change(after - before), [before, after].map(number));
        table.notes = vec![match n {
            0 => "no later token is predicted, so nothing changes".to_string(),
            n => format!("{before} nats become {after}: {changed} over {n} tokens"),
        }];
        table
    }

    /// The comparison as JSON.
    pub fn json(&self, names: &Names<'_>) -> Value {
        let token = |id: Option<u32>| id.map(|id| names.json(id));
        let step = |step: &Pairing| {
            let nats = |which: usize| step.nats.map(|nats| nats[which]);
            json!({
                "position": step.position,
                "last": names.json(step.token),
                "next": token(step.next),
                "nats_before": nats(0),
                "nats_after": nats(1),
                "best_before": token(step.best[0]),
                "best_after": token(step.best[1]),
            })
        };
        let [before, after] = self.token_losses();
        json!({
            "change": self.name,
            "nats_before": before,
            "nats_after": after,
            "nats_change": after - before,
            "steps": self.steps.iter().map(step).collect::<Value>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::steps::tests::step;
    use super::*;

    #[test]
    fn steps_are_compared_with_their_partners_and_nats_with_nats() {
        let before = [
            step(0, Some((1, 1.0)), 7),
            step(1, Some((2, 2.0)), 7),
            step(2, Some((3, 4.0)), 7),
            step(3, None, 7),
        ];
        let after = [
            step(0, Some((2, 1.5)), 8),
            step(1, Some((3, 3.0)), 7),
            step(2, None, 9),
        ];
        // The first token was never said.
        let compared = Comparison::new("x".to_string(), &before, &after, |place| {
            place.checked_sub(1)
        });
        let found: Vec<_> = compared
            .steps
            .iter()
            .map(|step| (step.position, step.token, step.next, step.nats, step.best))
            .collect();
        let expected = [
            (2, 1, Some(2), Some([2.0, 1.5]), [Some(7), Some(8)]),
            (3, 2, Some(3), Some([4.0, 3.0]), [Some(7), Some(7)]),
            (4, 3, None, None, [Some(7), Some(9)]),
        ];
        assert_eq!(found, expected);
        assert_eq!(compared.token_losses(), [6.0, 4.5]);
        // Where the second trace has no such step, there is nothing to compare.
        let beyond = Comparison::new("x".to_string(), &before, &after[..1], Some);
        assert_eq!(beyond.steps.len(), 1);
    }
}

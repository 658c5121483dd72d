//! Lists edges that training only ever raised, although all edges compete in decoding.

use super::names::Names;
use super::subject::Subject;
use super::table::{Table, columns, number};
use brillm::candidate::Candidates;
use brillm::explain::{RaisedOnly, raised_only};
use serde_json::{Value, json};

/// The edges that were only raised, and how certain that is.
#[derive(Clone, Debug, PartialEq)]
pub struct Raised {
    /// The candidates that compete in training.
    pub candidates: Candidates,
    /// Steps of the run, which matter where candidates are drawn by chance.
    pub steps: u64,
    /// The edges; `None` if there are no counts of pairs.
    pub found: Option<RaisedOnly>,
    /// For each listed edge, how often it is drawn per step, where candidates are drawn by chance.
    pub draws: Vec<Option<f64>>,
    top: usize,
}

impl Raised {
    /// Finds the edges.
    pub fn new(subject: &Subject<'_>) -> Self {
        let core = &*subject.core;
        let steps = subject.trained.loaded.snapshot.state.step;
        let of_counts = |counts| raised_only(&core.training, &core.model.graph, counts, steps);
        let found = core.counts.as_deref().map(of_counts);
        let edges = found.iter().flat_map(|found| &found.edges);
        let draws = edges.map(|edge| core.training.expected_draws(edge.1));
        Self {
            candidates: core.training.candidates,
            steps,
            draws: draws.take(subject.top).collect(),
            found,
            top: subject.top,
        }
    }

    /// The edges as a table.
    pub fn table(&self, names: &Names<'_>) -> Table {
        let heads = match self.candidates {
            Candidates::Sampled { .. } => "from~ | to~ | count> | draws per step>",
            _ => "from~ | to~ | count>",
        };
        let mut table = Table::new("edges that training only ever raised", &columns(heads));
        let edges = self.found.iter().flat_map(|found| &found.edges);
        for (&(source, target, count), draws) in edges.zip(&self.draws) {
            let (source, target) = (names.of(source).to_string(), names.of(target).to_string());
            let mut row = vec![source, target, count.to_string()];
            row.extend(draws.map(number));
            table.rows.push(row);
        }
        table.notes = vec![self.explanation()];
        if let Some(found) = &self.found {
            let n = found.edges.len();
            let share = |n: usize, of: u64| 100.0 * n as f64 / of.max(1) as f64;
            table.notes.push(format!(
                "{n} of {} edges of their own ({:.2} %), and {:.4} % of the {} pairs that compete in decoding",
                found.n_edges,
                share(n, found.n_edges),
                share(n, found.n_candidates),
                found.n_candidates
            ));
            let (top, untouched) = (self.top, found.untouched);
            let more = [
                (n > top).then(|| format!("the {top} seen most often are listed; --top lists more")),
                (untouched > 0).then(|| {
                    format!("{untouched} more edges of their own were never seen either, so nothing trained them")
                }),
            ];
            table.notes.extend(more.into_iter().flatten());
        }
        table
    }

    fn explanation(&self) -> String {
        match self.candidates {
            Candidates::All => {
                "none: with candidates = all every edge competes wherever its source stands"
                    .to_string()
            }
            Candidates::Frequent { n } => format!(
                "an edge competes only if its target is among the {} most frequent successors of its source",
                n + 1
            ),
            Candidates::Sampled { n } => format!(
                "a matter of chance: {n} targets are drawn per source and step; counted are edges drawn less than once, on \
                 average, even if their source were in all {} steps",
                self.steps
            ),
        }
    }

    /// The edges as JSON.
    pub fn json(&self, names: &Names<'_>) -> Value {
        let (kind, n) = match self.candidates {
            Candidates::All => ("all", None),
            Candidates::Frequent { n } => ("frequent", Some(n)),
            Candidates::Sampled { n } => ("sampled", Some(n)),
        };
        let edges = self.found.iter().flat_map(|found| &found.edges);
        let edge = |(&(source, target, count), draws): (&(u32, u32, u32), &Option<f64>)| {
            let [source, target] = [source, target].map(|token| names.json(token));
            json!({ "source": source, "target": target, "count": count, "draws_per_step": draws })
        };
        let found = self.found.as_ref();
        let share = |of: fn(&RaisedOnly) -> u64| {
            found.map(|found| found.edges.len() as f64 / of(found).max(1) as f64)
        };
        json!({
            "candidates": { "kind": kind, "n": n },
            "by_chance": kind == "sampled",
            "steps": self.steps,
            "n_raised_only": found.map(|found| found.edges.len()),
            "n_edges": found.map(|found| found.n_edges),
            "n_decode_candidates": found.map(|found| found.n_candidates),
            "share_of_edges": share(|found| found.n_edges),
            "share_of_decode_candidates": share(|found| found.n_candidates),
            "n_never_trained": found.map(|found| found.untouched),
            "edges": edges.zip(&self.draws).map(edge).collect::<Value>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Kind, Tokenizer};

    #[test]
    fn shares_of_raised_edges_are_of_their_own_kind() {
        let text = std::iter::once(Ok("ab".to_string()));
        let tokenizer = Tokenizer::train(Kind::Character, text, None).unwrap();
        let names = Names::new(&tokenizer);
        let raised = Raised {
            candidates: Candidates::Frequent { n: 1 },
            steps: 9,
            found: Some(RaisedOnly {
                edges: vec![(0, 1, 7), (1, 0, 5)],
                n_edges: 8,
                n_candidates: 16,
                untouched: 3,
            }),
            draws: vec![None],
            top: 1,
        };
        let table = raised.table(&names);
        assert_eq!(table.rows, [["a", "b", "7"]]);
        let said = table.notes.join("\n");
        for words in [
            "among the 2 most frequent successors",
            "2 of 8 edges of their own (25.00 %), and 12.5000 % of the 16 pairs",
            "the 1 seen most often are listed",
            "3 more edges of their own were never seen either",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let json = raised.json(&names);
        assert_eq!(
            (&json["share_of_edges"], &json["share_of_decode_candidates"]),
            (&json!(0.25), &json!(0.125))
        );
        assert_eq!(
            (&json["candidates"]["kind"], &json["edges"][0]["count"]),
            (&json!("frequent"), &json!(7))
        );
    }
}

//! Which edges training can lower, and which it only raises.
//!
//! An edge is raised where it is the truth and lowered where it competes with the truth. With few candidates some edges
//! never compete: training only ever raises them, while in decoding all targets compete.

use crate::candidate::{Candidates, Competition};
use crate::counts::PairCounts;
use crate::graph::Graph;
use std::cmp::Reverse;

/// When a pair competes with the truth in training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Opposition {
    /// Wherever its source stands and another target is true.
    Always,
    /// The same: it is one of the most frequent successors of its source. The last of those competes only where the truth
    /// is another one of them.
    Listed {
        /// Its place among them, from 1.
        place: usize,
    },
    /// Nowhere: it is not among the most frequent successors of its source.
    Never,
    /// By chance.
    Drawn {
        /// How often it is drawn, on average, in a step that its source is part of.
        per_step: f64,
    },
}

/// When a pair competes with the truth in training.
pub fn opposition(competition: &Competition, source: u32, target: u32) -> Opposition {
    match competition.candidates {
        Candidates::All => Opposition::Always,
        Candidates::Frequent { .. } => {
            let list = competition.frequent(source).unwrap_or_default();
            let place = list.iter().position(|&listed| listed == target);
            place.map_or(Opposition::Never, |place| Opposition::Listed {
                place: place + 1,
            })
        }
        Candidates::Sampled { .. } => Opposition::Drawn {
            per_step: competition.expected_draws(target).unwrap_or(0.0),
        },
    }
}

/// Own edges that training raised and never lowered.
#[derive(Clone, Debug, PartialEq)]
pub struct RaisedOnly {
    /// Source, target and how often the pair was seen, most often first.
    pub edges: Vec<(u32, u32, u32)>,
    /// All edges of their own.
    pub n_edges: u64,
    /// Edges of their own that training neither raised nor lowered.
    pub untouched: u64,
    /// All pairs that compete in decoding.
    pub n_candidates: u64,
}

/// The own edges that never compete in training. With drawn candidates that is a matter of chance: then edges count that are
/// expected to be drawn less than once in `steps` steps.
pub fn raised_only(
    competition: &Competition,
    graph: &Graph,
    counts: &PairCounts,
    steps: u64,
) -> RaisedOnly {
    let mut found = RaisedOnly {
        edges: Vec::new(),
        n_edges: graph.edges() as u64,
        untouched: 0,
        n_candidates: (graph.nodes() as u64).pow(2),
    };
    if competition.candidates == Candidates::All {
        return found;
    }
    for source in 0..graph.nodes() as u32 {
        let mut listed = competition.frequent(source).unwrap_or_default().to_vec();
        listed.sort_unstable();
        for &target in graph.targets(source) {
            let lowered = match competition.expected_draws(target) {
                Some(per_step) => per_step * steps as f64 >= 1.0,
                None => listed.binary_search(&target).is_ok(),
            };
            match (lowered, counts.count(source, target)) {
                (true, _) => {}
                (false, 0) => found.untouched += 1,
                (false, count) => found.edges.push((source, target, count)),
            }
        }
    }
    found
        .edges
        .sort_unstable_by_key(|&(source, target, count)| (Reverse(count), source, target));
    found
}

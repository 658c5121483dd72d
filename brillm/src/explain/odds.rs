//! Ranks all candidates of a competition by score; gives probabilities `p = exp(score − ln Σ exp(score))`, entropy and margin.

use crate::counts::PairCounts;
use crate::generate::Candidate;
use crate::graph::Graph;

/// Summary of a whole competition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Odds {
    /// `ln Σ exp(score)` over all candidates.
    pub ln_sum_exp: f64,
    /// Entropy of the probabilities, in nats.
    pub entropy: f64,
    /// By how much the best score exceeds the second; `None` with fewer than two candidates.
    pub margin: Option<f64>,
}

/// A target and its place in the competition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// The token.
    pub target: u32,
    /// The row of the edge table that leads there.
    pub row: usize,
    /// Whether the row belongs to this pair alone.
    pub own: bool,
    /// How often the pair was seen in training, where that is known.
    pub count: Option<u32>,
    /// `‖signal‖`.
    pub energy: f32,
    /// Energy and `ln` of the pair's weight.
    pub score: f32,
    /// `−ln p`; infinite if it does not compete.
    pub nats: f64,
    /// Its rank, from 1; `None` if it does not compete.
    pub rank: Option<usize>,
}

impl Placed {
    /// Its probability.
    pub fn probability(&self) -> f64 {
        (-self.nats).exp()
    }
}

/// A competition in order: the highest score first, ties by the lower id.
pub struct Ranking<'a> {
    graph: &'a Graph,
    counts: Option<&'a PairCounts>,
    source: u32,
    candidates: Vec<Candidate>,
    /// See [`Odds`].
    pub odds: Odds,
}

impl<'a> Ranking<'a> {
    /// Orders all candidates that follow a source.
    pub fn new(
        graph: &'a Graph,
        counts: Option<&'a PairCounts>,
        source: u32,
        mut candidates: Vec<Candidate>,
    ) -> Self {
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.target.cmp(&b.target)));
        Self {
            graph,
            counts,
            source,
            odds: odds(&candidates),
            candidates,
        }
    }

    /// The best `n` candidates.
    pub fn top(&self, n: usize) -> Vec<Placed> {
        let places = 0..n.min(self.candidates.len());
        places.map(|place| self.placed(place)).collect()
    }

    /// A target with its rank; `None` if it does not compete.
    pub fn of(&self, target: u32) -> Option<Placed> {
        let mut candidates = self.candidates.iter();
        let place = candidates.position(|candidate| candidate.target == target)?;
        Some(self.placed(place))
    }

    fn placed(&self, place: usize) -> Placed {
        let candidate = self.candidates[place];
        Placed {
            nats: self.odds.ln_sum_exp - f64::from(candidate.score),
            rank: Some(place + 1),
            ..self.outside(candidate)
        }
    }

    /// The entry of a target that does not compete.
    pub fn outside(&self, candidate: Candidate) -> Placed {
        let count = |counts: &PairCounts| counts.count(self.source, candidate.target);
        Placed {
            target: candidate.target,
            row: candidate.row,
            own: self.graph.is_own(candidate.row),
            count: self.counts.map(count),
            energy: candidate.energy,
            score: candidate.score,
            nats: f64::INFINITY,
            rank: None,
        }
    }
}

/// Of candidates in order.
fn odds(candidates: &[Candidate]) -> Odds {
    let best = candidates.first();
    let peak = best.map_or(f64::NEG_INFINITY, |best| f64::from(best.score));
    let share = |candidate: &Candidate| (f64::from(candidate.score) - peak).exp();
    let total: f64 = candidates.iter().map(share).sum();
    let ln_sum_exp = peak + total.ln();
    let surprise = |candidate: &Candidate| match share(candidate) / total {
        // 0 · ∞ is nothing here.
        0.0 => 0.0,
        p => p * (ln_sum_exp - f64::from(candidate.score)),
    };
    let margin = match candidates {
        [best, second, ..] => Some(f64::from(best.score) - f64::from(second.score)),
        _ => None,
    };
    Odds {
        ln_sum_exp,
        entropy: candidates.iter().map(surprise).sum(),
        margin,
    }
}

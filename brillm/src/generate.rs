//! What comes next: the state of a signal that waits at a node, and the choice of the next one.
//!
//! The state is `S`, `Z` and the node: its size does not depend on how much was read.

use crate::candidate::Competition;
use crate::flow::{Hop, Mixer, arrive};
use crate::kernel::numeric::{norm, vectorised};
use crate::model::BriLlm;
use crate::position;
use rayon::prelude::*;

/// What the reference decides otherwise in decoding than in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoding {
    /// Positions are counted one lower than in training (D7).
    pub one_position_back: bool,
    /// A token may follow itself (D18).
    pub allow_self: bool,
}

impl Decoding {
    /// As in training.
    pub const NATIVE: Self = Self {
        one_position_back: false,
        allow_self: true,
    };
    /// The reference's.
    pub const REFERENCE: Self = Self {
        one_position_back: true,
        allow_self: false,
    };
}

/// Rows that one thread scores: waking another one takes as long as a thousand rows.
const ROWS_AT_ONCE: usize = 2048;

/// A signal at a node.
#[derive(Clone, Debug)]
pub struct State {
    /// The token that was reached.
    pub token: u32,
    /// The mix of all signals so far.
    pub mixer: Mixer,
    /// What the next prediction is made from, `[d]`.
    pub mixed: Vec<f32>,
    /// The signal that arrived last, `[d]`.
    pub arrived: Vec<f32>,
}

/// A target and how strongly the signal reaches it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub target: u32,
    /// The row of the edge.
    pub row: usize,
    /// `‖signal‖`.
    pub energy: f32,
    /// Energy and `ln` of the pair's weight: what the softmax is over.
    pub score: f32,
}

impl State {
    /// The signal at the first token.
    pub fn start(model: &BriLlm, token: u32) -> Self {
        let d = model.config.d_node;
        let (mixed, _) = model
            .config
            .flow
            .first_signal(model.parameters.node_bias_of(token, d));
        let mixer = Mixer::new(model.config.flow.mix, d);
        Self {
            token,
            mixer,
            arrived: mixed.clone(),
            mixed,
        }
    }

    /// Follows the edge to a token.
    pub fn advance(&mut self, model: &BriLlm, decoding: Decoding, token: u32) {
        let row = model.graph.row(self.token, token);
        let signal = match model.config.flow.hop {
            Hop::Mixed => &self.mixed,
            Hop::Previous => &self.arrived,
        };
        self.arrived = self.signal_behind(model, decoding, signal, row);
        self.mixer.add(&model.parameters.mix, &self.arrived);
        self.mixer.read(&mut self.mixed);
        self.token = token;
    }

    /// What a signal becomes on the edge of a row.
    pub fn signal_behind(
        &self,
        model: &BriLlm,
        decoding: Decoding,
        signal: &[f32],
        row: usize,
    ) -> Vec<f32> {
        let mut z = self.code(model, decoding);
        let mut slope = vec![0.0; z.len()];
        vectorised(|| {
            arrive(
                signal,
                model.parameters.edge(row, z.len()),
                &mut z,
                &mut slope,
            )
        });
        z
    }

    /// The code of the position that the next edge leads to.
    pub fn code(&self, model: &BriLlm, decoding: Decoding) -> Vec<f32> {
        let flow = &model.config.flow;
        let first = flow.first_hop - usize::from(decoding.one_position_back && flow.first_hop > 0);
        let mut code = vec![0.0; model.config.d_node];
        position::add(flow.encoding, self.mixer.count + first, &mut code);
        code
    }

    /// All targets by rising id. Targets that share a row have one energy; it is computed once.
    pub fn candidates(
        &self,
        model: &BriLlm,
        competition: &Competition,
        decoding: Decoding,
    ) -> Vec<Candidate> {
        let d = model.config.d_node;
        let graph = &model.graph;
        let shared: Vec<usize> = graph
            .shared(self.token)
            .into_iter()
            .map(|(row, _)| row)
            .collect();
        let own = graph.own_rows(self.token);
        let rows: Vec<usize> = shared.iter().copied().chain(own).collect();
        let code = self.code(model, decoding);
        let energies: Vec<f32> = rows
            .par_chunks(ROWS_AT_ONCE)
            .flat_map_iter(|rows| {
                // A plain loop: what is not inlined here would not be vectorised.
                vectorised(|| {
                    let mut z = vec![0.0; d];
                    let mut slope = vec![0.0; d];
                    let mut energies = Vec::with_capacity(rows.len());
                    for &row in rows {
                        z.copy_from_slice(&code);
                        let row = model.parameters.edge(row, d);
                        arrive(&self.mixed, row, &mut z, &mut slope);
                        energies.push(norm(&z));
                    }
                    energies
                })
            })
            .collect();
        let (of_shared, of_own) = energies.split_at(shared.len());
        let weights = competition.weights.own(graph, self.token);
        let mut own = graph
            .targets(self.token)
            .iter()
            .zip(of_own)
            .zip(weights)
            .peekable();
        let first_own = graph.own_rows(self.token).start;
        let mut next_row = first_own;
        let mut candidates = Vec::with_capacity(graph.nodes());
        for target in 0..graph.nodes() as u32 {
            let is_own = own.peek().is_some_and(|((own, _), _)| **own == target);
            let (row, energy, weight) = match own.next_if(|_| is_own) {
                Some(((_, &energy), weight)) => {
                    next_row += 1;
                    (next_row - 1, energy, f64::from(weight))
                }
                None => {
                    let row = graph.back_off_row(self.token, target);
                    (
                        row,
                        of_shared[row - shared[0]],
                        competition.weights.of(self.token, target),
                    )
                }
            };
            let allowed = decoding.allow_self || target != self.token;
            if allowed && !competition.excluded.contains(&target) {
                let score = match weight {
                    1.0 => energy,
                    weight => energy + weight.ln() as f32,
                };
                candidates.push(Candidate {
                    target,
                    row,
                    energy,
                    score,
                });
            }
        }
        candidates
    }
}

/// The candidate of the highest score; ties go to the lowest id.
pub fn strongest(candidates: &[Candidate]) -> Option<Candidate> {
    candidates
        .iter()
        .copied()
        .reduce(|best, next| if next.score > best.score { next } else { best })
}

/// How the next token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Scores are divided by it; 0 takes the strongest.
    pub temperature: f64,
    /// The smallest set of the most probable tokens that has at least this mass competes.
    pub top_p: f64,
}

/// Draws a token; `at` in `[0, 1)` decides. Nothing if nobody competes.
pub fn draw(candidates: &[Candidate], sampling: Sampling, at: f64) -> Option<Candidate> {
    let best = strongest(candidates)?;
    if sampling.temperature == 0.0 {
        return Some(best);
    }
    let share = |c: &Candidate| (f64::from(c.score - best.score) / sampling.temperature).exp();
    let mut shares: Vec<(f64, Candidate)> = candidates.iter().map(|c| (share(c), *c)).collect();
    shares.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.target.cmp(&b.1.target)));
    let total: f64 = shares.iter().map(|(share, _)| share).sum();
    let mut kept = 0.0;
    let reaches = |(share, _): &(f64, Candidate)| {
        kept += share;
        kept >= sampling.top_p * total
    };
    let n = shares
        .iter()
        .position(reaches)
        .map_or(shares.len(), |last| last + 1);
    shares.truncate(n);
    let total: f64 = shares.iter().map(|(share, _)| share).sum();
    let mut sum = 0.0;
    let hit = shares.iter().find(|(share, _)| {
        sum += share;
        sum > at * total
    });
    Some(hit.unwrap_or(&shares[n - 1]).1)
}

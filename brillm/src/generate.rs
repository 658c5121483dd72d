//! Generation: the state of a signal at a node, the candidates of the next token, and sampling among them.
//!
//! The state is `S`, `Z` and the node: its size does not depend on how much was read.

use crate::candidate::Competition;
pub use crate::decoding::{Decoding, Positions, SelfTransition, Temperature};
use crate::flow::{self, Hop, Mixer, arrive};
use crate::model::{BriLlm, BriLlmConfig};
use crate::ops::host::numeric::{add, gelu, norm, vectorised};
use crate::position;
use rayon::prelude::*;

/// Rows that one thread scores alone, where waking another one takes as long as a thousand rows.
const ROWS_AT_ONCE: usize = 2048;

/// A signal at a node.
#[derive(Clone, Debug)]
pub struct SignalState {
    /// The token that was reached.
    pub token: u32,
    /// The mix of all signals so far.
    pub mixer: Mixer,
    /// The mix that the next prediction is made from, `[d]`.
    pub mixed: Vec<f32>,
    /// The signal that arrived last, `[d]`.
    pub arrived: Vec<f32>,
    /// Hops since the start, or since the prompt where positions restart.
    hops: usize,
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

impl SignalState {
    /// The signal at the first token.
    pub fn start(model: &BriLlm, token: u32) -> Self {
        let BriLlmConfig { d_node, flow, .. } = model.config;
        let parameters = &model.parameters;
        let bias = parameters.node_bias_of(token, d_node);
        let (mixed, _) = flow.first_signal(bias, &parameters.codes);
        Self {
            token,
            mixer: Mixer::new(flow.mix, d_node),
            arrived: mixed.clone(),
            mixed,
            hops: 0,
        }
    }

    /// Marks the end of the prompt.
    pub fn end_prompt(&mut self, decoding: Decoding) {
        if decoding.positions == Positions::Restart {
            self.hops = 0;
        }
    }

    /// Follows the edge to a token.
    pub fn advance(&mut self, model: &BriLlm, decoding: Decoding, token: u32) {
        let row = model.graph.row(self.token, token);
        let signal = match model.config.flow.hop {
            Hop::Mixed => &self.mixed,
            Hop::Previous => &self.arrived,
        };
        self.arrived = self.signal_behind(model, decoding, signal, row, token);
        self.mixer.add(&model.parameters.mix, &self.arrived);
        self.mixer.read(&mut self.mixed);
        self.token = token;
        self.hops += 1;
    }

    /// The signal that arrives at a token over the edge of a row.
    pub fn signal_behind(
        &self,
        model: &BriLlm,
        decoding: Decoding,
        signal: &[f32],
        row: usize,
        token: u32,
    ) -> Vec<f32> {
        let mut z = self.code(model, decoding, token);
        let mut slope = vec![0.0; z.len()];
        let row = model.edge(self.token, row);
        vectorised!(arrive(signal, &row, &mut z, &mut slope));
        z
    }

    /// What is added behind the next edge besides the edge's own bias: the code of the position, and the bias of the node
    /// where those add one.
    pub fn code(&self, model: &BriLlm, decoding: Decoding, token: u32) -> Vec<f32> {
        let d = model.config.d_node;
        let mut code = self.code_of_position(model, decoding);
        if model.config.flow.bias.of_node() {
            add(&mut code, model.parameters.node_bias_of(token, d));
        }
        code
    }

    fn code_of_position(&self, model: &BriLlm, decoding: Decoding) -> Vec<f32> {
        let flow = &model.config.flow;
        let first = match decoding.positions {
            Positions::OneBack => flow.first_hop.saturating_sub(1),
            Positions::AsTrained | Positions::Restart => flow.first_hop,
        };
        let mut code = vec![0.0; model.config.d_node];
        let position = self.hops + first;
        position::add(flow.encoding, &model.parameters.codes, position, &mut code);
        code
    }

    /// All targets by rising id. Targets that share a row have one energy, unless nodes add biases; it is computed once.
    pub fn candidates(
        &self,
        model: &BriLlm,
        competition: &Competition,
        decoding: Decoding,
    ) -> Vec<Candidate> {
        let graph = &model.graph;
        let energies = self.energies(model, decoding);
        let own_rows = graph.own_rows(self.token);
        let of_own = competition.weights.own(graph, self.token);
        let mut own = graph.targets(self.token).iter().zip(of_own);
        let mut next_own = own.next();
        let mut next_row = own_rows.start;
        let mut candidates = Vec::with_capacity(graph.nodes());
        for target in 0..graph.nodes() as u32 {
            let (row, weight) = match next_own {
                Some((&of, weight)) if of == target => {
                    next_own = own.next();
                    next_row += 1;
                    (next_row - 1, f64::from(weight))
                }
                _ => (
                    graph.back_off_row(self.token, target),
                    competition.weights.of(self.token, target),
                ),
            };
            let allowed =
                decoding.self_transition == SelfTransition::Allowed || target != self.token;
            if allowed && !competition.excluded.contains(&target) {
                let energy = energies.of(target, row, own_rows.start);
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

    /// The energies of all rows that lead away from here.
    fn energies(&self, model: &BriLlm, decoding: Decoding) -> Energies {
        let graph = &model.graph;
        let code = self.code_of_position(model, decoding);
        if model.config.flow.bias.of_node() {
            let nodes: Vec<u32> = (0..graph.nodes() as u32).collect();
            let rows = nodes.iter().map(|&target| graph.row(self.token, target));
            let rows: Vec<usize> = rows.collect();
            return Energies::OfTargets(self.score(model, &code, &rows, &nodes));
        }
        let used = graph.shared(self.token).into_iter().filter(|&(_, n)| n > 0);
        let mut rows: Vec<usize> = used.map(|(row, _)| row).collect();
        rows.sort_unstable();
        rows.dedup();
        let shared = rows.len();
        rows.extend(graph.own_rows(self.token));
        let mut energies = self.score(model, &code, &rows, &[]);
        let own = energies.split_off(shared);
        Energies::OfRows {
            shared: rows.into_iter().zip(energies).collect(),
            own,
        }
    }

    /// The energies behind rows; `nodes` are those they lead to, where they add biases, and otherwise none. Where a table lies in shards,
    /// the process of this node's rows computes them for all.
    fn score(&self, model: &BriLlm, code: &[f32], rows: &[usize], nodes: &[u32]) -> Vec<f32> {
        let score = || self.score_here(model, code, rows, nodes);
        match model.graph.shard() {
            None => score(),
            Some(shard) => shard.of_owner(self.token, score),
        }
    }

    fn score_here(&self, model: &BriLlm, code: &[f32], rows: &[usize], nodes: &[u32]) -> Vec<f32> {
        let d = code.len();
        let parameters = &model.parameters;
        let mut energies = vec![0.0; rows.len()];
        let score = |from: usize, energies: &mut [f32]| {
            // Plain loops: what is not inlined here would not be vectorised. All products first: the loads of a row need not
            // wait for the signal of the one before.
            vectorised!({
                let mut signals = vec![0.0; energies.len() * d];
                let mut scratch = Vec::new();
                let places = signals.chunks_exact_mut(d).zip(&rows[from..]);
                for (index, (z, &row)) in (from..).zip(places) {
                    let bias = match nodes.get(index) {
                        Some(&node) => parameters.node_bias_of(node, d),
                        None => &[],
                    };
                    let row = model.graph.place(self.token, row);
                    let row = parameters.load_edge(row, d, &mut scratch);
                    flow::lead(&self.mixed, row, code, bias, z);
                }
                signals.iter_mut().for_each(|z| *z = gelu(*z).0);
                for (energy, signal) in energies.iter_mut().zip(signals.chunks_exact(d)) {
                    *energy = norm(signal);
                }
            });
        };
        // A thread of the pool has awake colleagues; from outside, a single one is asked for short lists.
        let at_once = match rayon::current_thread_index() {
            Some(_) => rows.len().div_ceil(rayon::current_num_threads()).max(32),
            None => ROWS_AT_ONCE,
        };
        match rows.len() <= at_once {
            true => score(0, &mut energies),
            false => energies
                .par_chunks_mut(at_once)
                .enumerate()
                .for_each(|(piece, energies)| score(piece * at_once, energies)),
        }
        energies
    }
}

/// Energies at a node.
enum Energies {
    /// One per target.
    OfTargets(Vec<f32>),
    /// Of the back-off rows that are used, rising, and of the node's own rows.
    OfRows {
        shared: Vec<(usize, f32)>,
        own: Vec<f32>,
    },
}

impl Energies {
    fn of(&self, target: u32, row: usize, first_own: usize) -> f32 {
        match self {
            Self::OfTargets(energies) => energies[target as usize],
            Self::OfRows { own, .. } if row >= first_own => own[row - first_own],
            Self::OfRows { shared, .. } => {
                let place = shared.binary_search_by_key(&row, |&(row, _)| row);
                shared[place.expect("every row that is used was scored")].1
            }
        }
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
///
/// The order is that of Hugging Face's `generate`: temperature, `top_k`, `top_p`, `min_p`, each applied to the tokens that the
/// one before kept; then one of the remaining tokens is drawn. Among equals the lowest id comes first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Scores are divided by it; 0 takes the strongest.
    pub temperature: f64,
    /// Number of most probable tokens to keep; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens that has at least this share of the probability.
    pub top_p: f64,
    /// Keeps tokens that have at least this share of the most probable token's probability; 0 keeps all.
    pub min_p: f64,
}

impl Sampling {
    /// The same with temperature 1 where a temperature above 0 has no effect.
    pub fn under(self, decoding: Decoding) -> Self {
        match decoding.temperature {
            Temperature::Probabilities if self.temperature > 0.0 => Self {
                temperature: 1.0,
                ..self
            },
            _ => self,
        }
    }
}

/// Draws a token; `at` in `[0, 1)` decides. `None` without candidates.
pub fn draw(candidates: &[Candidate], sampling: Sampling, at: f64) -> Option<Candidate> {
    let best = strongest(candidates)?;
    if sampling.temperature == 0.0 {
        return Some(best);
    }
    let share = |c: &Candidate| (f64::from(c.score - best.score) / sampling.temperature).exp();
    let mut shares: Vec<(f64, Candidate)> = candidates.iter().map(|c| (share(c), *c)).collect();
    shares.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.target.cmp(&b.1.target)));
    if sampling.top_k > 0 {
        shares.truncate(sampling.top_k);
    }
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
    // The most probable has share 1, so it stays.
    shares.retain(|(share, _)| *share >= sampling.min_p);
    let total: f64 = shares.iter().map(|(share, _)| share).sum();
    let mut sum = 0.0;
    let hit = shares.iter().find(|(share, _)| {
        sum += share;
        sum > at * total
    });
    Some(hit.unwrap_or(shares.last()?).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets that some draw reaches, rising; ids 0 to 3 have the probabilities 0.125, 0.25, 0.125, 0.5.
    fn reached(change: impl Fn(&mut Sampling)) -> Vec<u32> {
        let scores = [0.125f32, 0.25, 0.125, 0.5].map(f32::ln);
        let candidate = |(target, score): (u32, f32)| Candidate {
            target,
            row: 0,
            energy: score,
            score,
        };
        let candidates: Vec<Candidate> = (0..).zip(scores).map(candidate).collect();
        let mut sampling = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
        };
        change(&mut sampling);
        let places = (0..1000).map(|place| f64::from(place) / 1000.0);
        let drawn = places.map(|at| draw(&candidates, sampling, at).unwrap().target);
        drawn
            .collect::<std::collections::BTreeSet<u32>>()
            .into_iter()
            .collect()
    }

    #[test]
    fn what_competes_is_what_others_would_let_compete() {
        assert_eq!(reached(|_| ()), [0, 1, 2, 3]);
        // Two have the third score: the lower id stays.
        assert_eq!(reached(|s| s.top_k = 3), [0, 1, 3]);
        // The token that crosses the mass stays.
        assert_eq!(reached(|s| s.top_p = 0.51), [1, 3]);
        // Shares of the most probable: 1, 0.5, 0.25, 0.25.
        assert_eq!(reached(|s| s.min_p = 0.4), [1, 3]);
        assert_eq!(reached(|s| s.min_p = 1.0), [3]);
        // Of the two that top-k leaves, 3 has two thirds of the mass.
        assert_eq!(reached(|s| (s.top_k, s.top_p) = (2, 0.66)), [3]);
        assert_eq!(reached(|s| (s.top_k, s.top_p) = (2, 0.67)), [1, 3]);
    }

    /// How often each of four targets is drawn in `n` draws that are spread evenly.
    fn shares(probabilities: [f32; 4], sampling: Sampling, n: u32) -> [u32; 4] {
        let candidate = |(target, p): (u32, f32)| Candidate {
            target,
            row: 0,
            energy: 0.0,
            score: p.ln() + 7.0,
        };
        let candidates: Vec<Candidate> = (0..).zip(probabilities).map(candidate).collect();
        let mut counts = [0; 4];
        for place in 0..n {
            let at = (f64::from(place) + 0.5) / f64::from(n);
            counts[draw(&candidates, sampling, at).unwrap().target as usize] += 1;
        }
        counts
    }

    #[test]
    fn a_temperature_is_a_power_of_the_probabilities() {
        let at = |temperature: f64| Sampling {
            temperature,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
        };
        let p = [0.125, 0.25, 0.125, 0.5];
        assert_eq!(shares(p, at(1.0), 800), [100, 200, 100, 400]);
        // Squares: 1, 4, 1 and 16 of 22.
        assert_eq!(shares(p, at(0.5), 2200), [100, 400, 100, 1600]);
        // Roots of 1/16, 1/4, 1/16 and 1: 1, 2, 1 and 4 of 8.
        let p = [0.0625, 0.25, 0.0625, 1.0];
        assert_eq!(shares(p, at(2.0), 800), [100, 200, 100, 400]);
        // The temperature comes first: of squares 1, 16 and 256 the largest has 0.938 of all.
        let p = [0.0625, 0.25, 0.0, 1.0];
        let both = |top_p| Sampling { top_p, ..at(0.5) };
        assert_eq!(shares(p, both(0.93), 100), [0, 0, 0, 100]);
        assert_eq!(shares(p, both(0.95), 272), [0, 16, 0, 256]);
        let two = Sampling {
            top_k: 2,
            ..at(2.0)
        };
        assert_eq!(shares(p, two, 300), [0, 100, 0, 200]);
        assert_eq!(shares(p, at(0.0), 10), [0, 0, 0, 10]);
    }

    #[test]
    fn among_equals_the_lowest_id_is_the_strongest_and_nobody_is_nothing() {
        let candidate = |target: u32, score: f32| Candidate {
            target,
            row: 0,
            energy: 0.0,
            score,
        };
        let all = [candidate(1, 2.0), candidate(4, 3.0), candidate(6, 3.0)];
        assert_eq!(strongest(&all).unwrap().target, 4);
        assert_eq!(strongest(&[]), None);
        let greedy = Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
        };
        assert_eq!(draw(&all, greedy, 0.999).unwrap().target, 4);
        assert_eq!(draw(&[], greedy, 0.5), None);
        // Under the reference a temperature above 0 is 1, and 0 still takes the strongest.
        assert_eq!(greedy.under(Decoding::REFERENCE), greedy);
        let warm = Sampling {
            temperature: 3.0,
            ..greedy
        };
        assert_eq!(warm.under(Decoding::REFERENCE).temperature, 1.0);
        assert_eq!(warm.under(Decoding::NATIVE), warm);
    }
}

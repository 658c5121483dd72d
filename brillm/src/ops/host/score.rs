//! Scores all candidates of a group: energies, softmax, gradients, and the update of rows.
//!
//! It goes row by row, and token by token within a row, so that a row is read from memory once. Sums run in the order of rows
//! and tokens on any thread: the bits do not depend on the number of threads.

use super::numeric::{LANES, add, add_lanes, exp, gelu, norm, outer, vector_matrix, vectorised};
use super::signals::Signals;
use crate::candidate::Group;
use crate::flow::{self, Bias};
use crate::model::BriLlm;
use crate::row_adamw::{Clock, Replay, Rows};
use crate::shard::{Message, Said};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Rows that one task works on: with their moments they fit into a core's cache.
const ROWS_AT_ONCE: usize = 64;
/// From so many signals on, the rows of a group are shared between threads.
const LARGE: usize = 1 << 13;

/// Tokens of a group as two matrices `[tokens, d]`: their mixes, and the code of the position they lead to.
struct Tokens<'a> {
    d: usize,
    bias: Bias,
    /// Biases of all nodes, `[nodes, d]`.
    node_bias: &'a [f32],
    mixed: Arc<[f32]>,
    codes: Vec<f32>,
}

impl<'a> Tokens<'a> {
    fn of(group: &Group, signals: &Signals, node_bias: &'a [f32]) -> Self {
        let bias = signals.config.flow.bias;
        assert_eq!(
            group.nodes.len(),
            if bias.of_node() { group.rows.len() } else { 0 },
            "nodes for the rows of a group, where they add a bias"
        );
        let places = || group.places.iter();
        Self {
            d: signals.config.d_node,
            bias,
            node_bias,
            mixed: places()
                .flat_map(|&place| signals.mixed(place))
                .copied()
                .collect(),
            codes: places()
                .flat_map(|&place| signals.code(place))
                .copied()
                .collect(),
        }
    }

    fn mixed(&self, token: usize) -> &[f32] {
        &self.mixed[token * self.d..][..self.d]
    }

    /// The bias that the node behind a row of a group adds; nothing where nodes add none.
    #[inline(always)]
    fn node_bias(&self, nodes: &[u32], index: usize) -> &[f32] {
        match nodes.get(index) {
            Some(&node) => &self.node_bias[node as usize * self.d..][..self.d],
            None => &[],
        }
    }

    /// The input of GELU behind an edge for a token, into `z`.
    #[inline(always)]
    fn lead(&self, token: usize, row: &[f32], node_bias: &[f32], z: &mut [f32]) {
        let code = &self.codes[token * self.d..][..self.d];
        flow::lead(self.mixed(token), row, code, node_bias, z);
    }
}

/// `−ln p(truth)` of every token of a group.
pub fn evaluate(group: &Group, signals: &Signals, model: &BriLlm) -> Vec<f64> {
    let (d, parameters) = (model.config.d_node, &model.parameters);
    let tokens = Tokens::of(group, signals, &parameters.node_bias);
    let n = group.places.len();
    let mut energies = vec![0.0; group.rows.len() * n];
    let pieces = energies
        .par_chunks_mut(ROWS_AT_ONCE * n)
        .zip(group.rows.par_chunks(ROWS_AT_ONCE));
    pieces.enumerate().for_each(|(piece, (energies, rows))| {
        vectorised!({
            let mut z = vec![0.0; d];
            let mut scratch = Vec::new();
            for (index, energies) in energies.chunks_exact_mut(n).enumerate() {
                let row = model.graph.place(group.source, rows[index]);
                let row = parameters.load_edge(row, d, &mut scratch);
                let bias = tokens.node_bias(&group.nodes, piece * ROWS_AT_ONCE + index);
                for (token, energy) in energies.iter_mut().enumerate() {
                    tokens.lead(token, row, bias, &mut z);
                    z.iter_mut().for_each(|z| *z = gelu(*z).0);
                    *energy = norm(&z);
                }
            }
        });
    });
    vectorised!(softmax(group, &mut energies))
}

/// Turns energies `[rows, tokens]` into probabilities of the rows; returns `−ln p(truth)` per token.
#[inline(always)]
fn softmax(group: &Group, energies: &mut [f32]) -> Vec<f64> {
    let n = group.places.len();
    let mut weights = Vec::with_capacity(energies.len());
    for &weight in &group.weights {
        weights.extend(std::iter::repeat_n(weight, n));
    }
    for &(token, row, weight) in &group.corrections {
        weights[row as usize * n + token as usize] += weight;
    }
    let truth = |token: usize| group.truth[token] as usize * n + token;
    let of_truth: Vec<f32> = (0..n).map(|token| energies[truth(token)]).collect();
    let mut peaks = vec![f32::NEG_INFINITY; n];
    let mut sums = vec![0.0f64; n];
    for (energies, weights) in energies.chunks_exact(n).zip(weights.chunks_exact(n)) {
        for token in 0..n {
            let competes = if weights[token] > 0.0 {
                energies[token]
            } else {
                f32::NEG_INFINITY
            };
            peaks[token] = peaks[token].max(competes);
        }
    }
    for (energies, weights) in energies.chunks_exact_mut(n).zip(weights.chunks_exact(n)) {
        for token in 0..n {
            let share = weights[token].max(0.0) * exp((energies[token] - peaks[token]).min(0.0));
            energies[token] = share;
            sums[token] += f64::from(share);
        }
    }
    for energies in energies.chunks_exact_mut(n) {
        for token in 0..n {
            energies[token] /= sums[token] as f32;
        }
    }
    let nats = |token: usize| {
        let own = f64::from(of_truth[token]) + f64::from(group.truth_ln_weight[token]);
        f64::from(peaks[token]) + sums[token].ln() - own
    };
    (0..n).map(nats).collect()
}

/// Up to so many tokens, their vectors are smaller than the gradient they make.
const FEW: usize = 8;

/// What a group adds to the gradient of a row.
pub enum Part {
    /// The tokens' mixes and the gradients of what arrived, `[tokens, d]` each: the sum of their products.
    Vectors(Arc<[f32]>, Vec<f32>),
    /// The gradient, `[d + 1, d]`.
    Whole(Vec<f32>),
}

impl Part {
    /// Adds this part to a gradient.
    #[inline(always)]
    pub fn add_to(&self, d: usize, gradient: &mut [f32]) {
        match self {
            Self::Whole(part) => add(gradient, part),
            Self::Vectors(mixed, deltas) => {
                for (mixed, delta) in mixed.chunks_exact(d).zip(deltas.chunks_exact(d)) {
                    outer(mixed, delta, gradient);
                }
            }
        }
    }
}

/// The result of a group's step, or the part of some of its rows.
pub struct Scored {
    /// `−ln p(truth)` per token, of a whole group.
    pub nats: Vec<f64>,
    /// Gradient of every token's mix, `[tokens, d]`.
    pub of_mixes: Vec<f32>,
    /// Gradient of the code of every token's next position, `[tokens, d]`; empty if no codes are learnt.
    pub of_codes: Vec<f32>,
    /// Gradients of the biases of nodes that were reached.
    pub nodes: Vec<(u32, Vec<f32>)>,
    /// Gradients of rows that are not updated yet: back-off rows, and rows that lie on a path.
    pub rows: Vec<(usize, Part)>,
    /// Sum of the squares of the gradients of the updated ones.
    pub square: f64,
}

impl Scored {
    fn new(nats: Vec<f64>, [n, d]: [usize; 2], learn_codes: bool) -> Self {
        Self {
            nats,
            of_mixes: vec![0.0; n * d],
            of_codes: vec![0.0; if learn_codes { n * d } else { 0 }],
            nodes: Vec::new(),
            rows: Vec::new(),
            square: 0.0,
        }
    }

    /// Tells other processes of a group's step: of rows only the gradients of `shared` ones, for the others are the group's own.
    pub fn tell(&self, shared: &Range<usize>, to: &mut Message) {
        to.put(&self.nats);
        to.put(&self.of_mixes);
        to.put(&self.of_codes);
        to.put(&[self.square]);
        let nodes: Vec<u32> = self.nodes.iter().map(|(node, _)| *node).collect();
        to.put(&nodes);
        self.nodes.iter().for_each(|(_, part)| to.put(part));
        let rows = self.rows.iter().filter(|(row, _)| shared.contains(row));
        let rows: Vec<_> = rows.map(|(row, part)| (*row as u64, part)).collect();
        to.put(&rows.iter().map(|(row, _)| *row).collect::<Vec<u64>>());
        for (_, part) in rows {
            let lists = match part {
                Part::Whole(gradient) => [&gradient[..], &[]],
                Part::Vectors(mixed, deltas) => [mixed, &deltas[..]],
            };
            lists.into_iter().for_each(|list| to.put(list));
        }
    }

    /// The inverse of [`Self::tell`].
    pub fn told(said: &mut Said) -> Self {
        let (nats, of_mixes, of_codes) = (said.take(), said.take(), said.take());
        let square = said.take()[0];
        let nodes: Vec<u32> = said.take();
        let nodes = nodes.into_iter().map(|node| (node, said.take())).collect();
        let rows: Vec<u64> = said.take();
        let part = |row| {
            let (first, deltas): (Vec<f32>, Vec<f32>) = (said.take(), said.take());
            let part = match deltas.is_empty() {
                true => Part::Whole(first),
                false => Part::Vectors(first.into(), deltas),
            };
            (row as usize, part)
        };
        Self {
            rows: rows.into_iter().map(part).collect(),
            nats,
            of_mixes,
            of_codes,
            nodes,
            square,
        }
    }
}

/// The rows of a group's source.
pub struct Own<'a> {
    /// All its rows.
    pub rows: Rows<'a>,
    /// Those that lie on a path, whether something is predicted there or not.
    pub crossed: Vec<usize>,
}

/// A group's part of a training step, and the update of its rows that lie on no path.
///
/// `shared` are the back-off rows from row 0; the gradient is that of the sum of nats divided by `targets`.
pub fn learn(
    group: &Group,
    signals: &Signals,
    node_bias: &[f32],
    shared: &Rows<'_>,
    own: Own<'_>,
    clock: &Clock<'_>,
    targets: f64,
) -> Scored {
    let n = group.places.len();
    let tokens = Tokens::of(group, signals, node_bias);
    let mut chunks = chunks(group, own.rows);
    let score = |chunk: &mut Chunk<'_, '_>| vectorised!(chunk.score(&tokens, n, shared, clock));
    // Other groups keep the threads busy: waking them for a small one costs more than it gains.
    let is_large = group.rows.len() * n >= LARGE;
    match is_large {
        true => chunks.par_iter_mut().for_each(score),
        false => chunks.iter_mut().for_each(score),
    }
    let mut shares: Vec<f32> = chunks
        .iter_mut()
        .flat_map(|chunk| std::mem::take(&mut chunk.energies))
        .collect();
    let nats = vectorised!(softmax(group, &mut shares));
    for (token, &row) in group.truth.iter().enumerate() {
        shares[row as usize * n + token] -= 1.0;
    }
    let scale = (1.0 / targets) as f32;
    shares.iter_mut().for_each(|share| *share *= scale);
    let mut on_path = vec![false; group.rows.len()];
    for row in own.crossed {
        if let Ok(place) = group.rows.binary_search(&row) {
            on_path[place] = true;
        }
    }
    let learn_codes = signals.learn_codes();
    let learn = |chunk: Chunk<'_, '_>| {
        let (from, rows) = (chunk.from, chunk.rows.len());
        let shares = &shares[from * n..][..rows * n];
        let on_path = &on_path[from..][..rows];
        vectorised!(chunk.learn(&tokens, shares, on_path, learn_codes, shared, clock))
    };
    let parts: Vec<Scored> = match is_large {
        true => chunks.into_par_iter().map(learn).collect(),
        false => chunks.into_iter().map(learn).collect(),
    };
    let mut scored = Scored::new(nats, [n, tokens.d], learn_codes);
    for part in parts {
        add(&mut scored.of_mixes, &part.of_mixes);
        add(&mut scored.of_codes, &part.of_codes);
        scored.nodes.extend(part.nodes);
        scored.rows.extend(part.rows);
        scored.square += part.square;
    }
    scored
}

/// Some rows of a group and what all tokens made of them.
struct Chunk<'r, 'g> {
    /// The first one's place in the group.
    from: usize,
    rows: &'g [usize],
    /// The nodes they lead to, where those add biases.
    nodes: &'g [u32],
    /// Those rows of the table; nothing for back-off rows, which no group owns.
    own: Option<Rows<'r>>,
    /// `[rows, tokens]`.
    energies: Vec<f32>,
    /// `O / ‖O‖ ⊙ GELU'(z)`, `[rows, tokens, d]`.
    directions: Vec<f32>,
}

fn chunks<'r, 'g>(group: &'g Group, own: Rows<'r>) -> Vec<Chunk<'r, 'g>> {
    let (shared, owned) = group.rows.split_at(group.shared);
    let pieces = owned.chunks(ROWS_AT_ONCE);
    let parts = own.parts(pieces.clone().map(|rows| rows[0]..rows[rows.len() - 1] + 1));
    let shared = shared.chunks(ROWS_AT_ONCE).map(|rows| (rows, None));
    let owned = pieces.zip(parts).map(|(rows, part)| (rows, Some(part)));
    let mut from = 0;
    let chunk = |(rows, own): (&'g [usize], Option<Rows<'r>>)| {
        let chunk = Chunk {
            from,
            rows,
            nodes: group.nodes.get(from..from + rows.len()).unwrap_or(&[]),
            own,
            energies: Vec::new(),
            directions: Vec::new(),
        };
        from += rows.len();
        chunk
    };
    shared.chain(owned).map(chunk).collect()
}

impl Chunk<'_, '_> {
    #[inline(always)]
    fn score(&mut self, tokens: &Tokens<'_>, n: usize, shared: &Rows<'_>, clock: &Clock<'_>) {
        let d = tokens.d;
        let before = clock.rates.len() as u32 - 1;
        let mut energies = vec![0.0; self.rows.len() * n];
        let mut directions = vec![0.0; self.rows.len() * n * d];
        let mut replay = Replay::default();
        let mut scratch = Vec::new();
        // All products first: the loads of a row need not wait for the signals of the one before.
        for (index, &row) in self.rows.iter().enumerate() {
            let row = match &mut self.own {
                Some(own) => {
                    own.catch_up(row, before, clock, &mut replay);
                    own.row(row, &mut scratch)
                }
                None => shared.row(row, &mut scratch),
            };
            let bias = tokens.node_bias(self.nodes, index);
            let sums = directions[index * n * d..][..n * d].chunks_exact_mut(d);
            for (token, z) in sums.enumerate() {
                tokens.lead(token, row, bias, z);
            }
        }
        let mut slope = vec![0.0; d];
        let mut signal = vec![0.0; d];
        for (energy, z) in energies.iter_mut().zip(directions.chunks_exact_mut(d)) {
            for ((z, signal), slope) in z.iter().zip(&mut signal).zip(&mut slope) {
                (*signal, *slope) = gelu(*z);
            }
            *energy = norm(&signal);
            // The gradient of a length of zero is zero.
            let inverse = if *energy > 0.0 { 1.0 / *energy } else { 0.0 };
            for ((z, signal), slope) in z.iter_mut().zip(&signal).zip(&slope) {
                *z = slope * (signal * inverse);
            }
        }
        self.energies = energies;
        self.directions = directions;
    }

    /// `shares` are the gradients of the energies, `[rows, tokens]`.
    #[inline(always)]
    fn learn(
        mut self,
        tokens: &Tokens<'_>,
        shares: &[f32],
        on_path: &[bool],
        learn_codes: bool,
        shared: &Rows<'_>,
        clock: &Clock<'_>,
    ) -> Scored {
        let d = tokens.d;
        let n = shares.len() / self.rows.len();
        let mut lanes = vec![0.0; n * d * LANES];
        let mut gradient = vec![0.0; d * (d + 1)];
        let mut scratch = Vec::new();
        let mut learnt = Scored::new(Vec::new(), [n, d], learn_codes);
        let mut directions = std::mem::take(&mut self.directions);
        for (index, &row) in self.rows.iter().enumerate() {
            let deltas = &mut directions[index * n * d..][..n * d];
            for (delta, share) in deltas.chunks_exact_mut(d).zip(&shares[index * n..]) {
                delta.iter_mut().for_each(|value| *value *= share);
            }
            add(&mut learnt.of_codes, deltas);
            let weights = match &self.own {
                Some(own) => own.row(row, &mut scratch),
                None => shared.row(row, &mut scratch),
            };
            for (delta, lanes) in deltas
                .chunks_exact(d)
                .zip(lanes.chunks_exact_mut(d * LANES))
            {
                vector_matrix(delta, weights, lanes);
            }
            let own = match &mut self.own {
                Some(own) if !on_path[index] => Some(own),
                _ if n <= FEW && self.nodes.is_empty() => {
                    let part = Part::Vectors(tokens.mixed.clone(), deltas.to_vec());
                    learnt.rows.push((row, part));
                    continue;
                }
                _ => None,
            };
            gradient.fill(0.0);
            for (token, delta) in deltas.chunks_exact(d).enumerate() {
                outer(tokens.mixed(token), delta, &mut gradient);
            }
            let of_bias = &mut gradient[d * d..];
            if let Some(&node) = self.nodes.get(index) {
                learnt.nodes.push((node, of_bias.to_vec()));
            }
            if !tokens.bias.of_edge() {
                of_bias.fill(0.0);
            }
            match own {
                Some(own) => learnt.square += own.update(row, &mut gradient, clock),
                None => learnt.rows.push((row, Part::Whole(gradient.clone()))),
            }
        }
        let lanes = lanes.chunks_exact(d * LANES);
        lanes
            .zip(learnt.of_mixes.chunks_exact_mut(d))
            .for_each(|(lanes, to)| add_lanes(lanes, to));
        learnt
    }
}

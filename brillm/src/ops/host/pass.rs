//! Evaluation (`token_losses`) and the training step (`learn`) on the host: runs the phases of a pass in order, updates the
//! used rows of the edge table by AdamW, and returns losses and all other gradients.

use super::numeric::{outer, vectorised};
use super::score::{self, Own, Part, Scored};
use super::signals::Signals;
use super::trail::{Trail, TrailGradients};
use crate::candidate::{Group, Paths, at_places};
use crate::graph::Graph;
use crate::model::{BriLlm, Gradients, Learnt};
use crate::row_adamw::{Clock, Moments, Replay, Rows};
use rayon::prelude::*;
use std::collections::BTreeMap;

impl BriLlm {
    /// `−ln p(truth)` per place of the paths, among the candidates of the groups; 0 where there is no edge.
    pub fn token_losses(&self, paths: &Paths<'_>, groups: &[Group]) -> Vec<f64> {
        let signals = Signals::of(self, paths);
        let of_group = |group: &Group| score::evaluate(group, &signals, &self.parameters);
        let nats: Vec<Vec<f64>> = groups.par_iter().map(of_group).collect();
        at_places(groups, nats.into_iter().flatten(), paths)
    }
}

/// One step: forward, backward, and the update of every row that was used. Gradients of all other parameters are returned, for
/// the caller's own AdamW.
pub fn learn(
    model: &mut BriLlm,
    moments: &mut Moments,
    paths: &Paths<'_>,
    groups: &[Group],
    clock: &Clock<'_>,
) -> (Learnt, Gradients) {
    let config = model.config;
    let d = config.d_node;
    let mut pending = Pending::new(&model.graph, paths, groups);
    pending.catch_up(model, moments, clock);
    let signals = Signals::of(model, paths);
    let scored = score_all(model, moments, groups, &pending, &signals, clock);
    let mut of_mixes = vec![0.0; paths.valid.len() * d];
    let mut square = 0.0;
    let mut gradients = Gradients::zeros(&model.parameters);
    for (group, scored) in groups.iter().zip(&scored) {
        square += scored.square;
        for (node, part) in &scored.nodes {
            gradients.add_to_node(*node, part);
        }
        for (&place, part) in group.places.iter().zip(scored.of_codes.chunks_exact(d)) {
            gradients.add_to_code(signals.position(place), part);
        }
        for (&place, gradient) in group.places.iter().zip(scored.of_mixes.chunks_exact(d)) {
            of_mixes[place * d..][..d].copy_from_slice(gradient);
        }
    }
    let nats = scored.iter().flat_map(|scored| &scored.nats).copied();
    let nats = at_places(groups, nats, paths);
    let backward: Vec<TrailGradients> = signals
        .trails
        .par_iter()
        .enumerate()
        .map(|(row, trail)| {
            let of_mixes = &of_mixes[row * paths.seq * d..][..trail.rows.len() * d];
            vectorised!(trail.backward(model, of_mixes))
        })
        .collect();
    pending.add(scored);
    square += pending.update(model, moments, &signals.trails, &backward, clock);
    for (row, backward) in backward.iter().enumerate() {
        let sums = gradients.mix.iter_mut().zip(&backward.mix);
        sums.for_each(|(sum, part)| *sum += part);
        let begin = row * paths.seq;
        if backward.hops.is_empty() {
            continue;
        }
        gradients.add_to_node(paths.sources[begin], &backward.first);
        gradients.add_to_code(0, &backward.first);
        for (edge, delta) in backward.hops.chunks_exact(d).enumerate() {
            gradients.add_to_code(edge + config.flow.first_hop, delta);
            if config.flow.bias.of_node() {
                gradients.add_to_node(paths.targets[begin + edge], delta);
            }
        }
    }
    square += gradients.square();
    let gradient_norm = square.sqrt();
    let learnt = Learnt {
        nats,
        gradient_norm,
    };
    (learnt, gradients)
}

/// The groups' parts of the step; every group gets the rows that it owns.
fn score_all(
    model: &mut BriLlm,
    moments: &mut Moments,
    groups: &[Group],
    pending: &Pending,
    signals: &Signals,
    clock: &Clock<'_>,
) -> Vec<Scored> {
    let (graph, node_bias) = (&model.graph, &model.parameters.node_bias);
    let rows = Rows::all(&mut model.parameters.edges, moments, model.config.row_len());
    let (shared, own) = rows.split(graph.back_off_rows());
    let parts = own.parts(groups.iter().map(|group| graph.own_rows(group.source)));
    let targets: usize = groups.iter().map(|group| group.places.len()).sum();
    let crossed = |group: &Group| {
        let rows = pending.edges.range(graph.own_rows(group.source));
        rows.map(|(&row, _)| row).collect()
    };
    let work: Vec<(&Group, Rows<'_>)> = groups.iter().zip(parts).collect();
    let score = |(group, rows)| {
        let crossed = crossed(group);
        let own = Own { rows, crossed };
        let targets = targets as f64;
        score::learn(group, signals, node_bias, &shared, own, clock, targets)
    };
    work.into_par_iter().map(score).collect()
}

/// Rows whose gradient is whole only when the paths have been walked back: those of the paths, and back-off rows.
struct Pending {
    /// Per row, the edges that use it: the row of the batch, and the place in its path.
    edges: BTreeMap<usize, Vec<(usize, usize)>>,
    gradients: BTreeMap<usize, Vec<Part>>,
}

impl Pending {
    fn new(graph: &Graph, paths: &Paths<'_>, groups: &[Group]) -> Self {
        let mut edges: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        let shared = groups.iter().flat_map(|group| &group.rows[..group.shared]);
        for &row in shared {
            edges.entry(row).or_default();
        }
        for row in 0..paths.batch() {
            for edge in 0..paths.length(row) {
                let place = row * paths.seq + edge;
                let table_row = graph.row(paths.sources[place], paths.targets[place]);
                edges.entry(table_row).or_default().push((row, edge));
            }
        }
        Self {
            edges,
            gradients: BTreeMap::new(),
        }
    }

    fn catch_up(&self, model: &mut BriLlm, moments: &mut Moments, clock: &Clock<'_>) {
        let before = clock.rates.len() as u32 - 1;
        let parts = self.parts(model, moments);
        parts.into_par_iter().for_each(|mut part| {
            let row = part.start;
            vectorised!(part.catch_up(row, before, clock, &mut Replay::default()));
        });
    }

    /// Every row of these by itself.
    fn parts<'a>(&self, model: &'a mut BriLlm, moments: &'a mut Moments) -> Vec<Rows<'a>> {
        let rows = self.edges.keys().map(|&row| row..row + 1);
        Rows::all(&mut model.parameters.edges, moments, model.config.row_len()).parts(rows)
    }

    fn add(&mut self, scored: Vec<Scored>) {
        for (row, part) in scored.into_iter().flat_map(|scored| scored.rows) {
            self.gradients.entry(row).or_default().push(part);
        }
    }

    /// Returns the sum of the squares of the gradients.
    fn update(
        mut self,
        model: &mut BriLlm,
        moments: &mut Moments,
        trails: &[Trail],
        backward: &[TrailGradients],
        clock: &Clock<'_>,
    ) -> f64 {
        let config = model.config;
        let d = config.d_node;
        let gradients = std::mem::take(&mut self.gradients);
        let parts = self.parts(model, moments);
        let work: Vec<_> = parts.into_iter().zip(&self.edges).collect();
        let squares: Vec<f64> = work
            .into_par_iter()
            .map(|(mut part, (row, edges))| {
                vectorised!({
                    let mut gradient = vec![0.0; d * (d + 1)];
                    for of_group in gradients.get(row).into_iter().flatten() {
                        of_group.add_to(d, &mut gradient);
                    }
                    for &(path, edge) in edges {
                        let (trail, backward) = (&trails[path], &backward[path]);
                        let delta = &backward.hops[edge * d..][..d];
                        outer(trail.hop(config.flow.hop, edge, d), delta, &mut gradient);
                    }
                    if !config.flow.bias.of_edge() {
                        gradient[d * d..].fill(0.0);
                    }
                    part.update(*row, &mut gradient, clock)
                })
            })
            .collect();
        squares.iter().sum()
    }
}

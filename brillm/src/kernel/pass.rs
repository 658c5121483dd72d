//! Evaluation and the training step on the host: the phases of a pass in their order.

use super::numeric::vectorised;
use super::score::{self, Own, Part, Scored};
use super::signals::Signals;
use super::trail::{Trail, TrailGradients};
use crate::candidate::{Group, Paths};
use crate::graph::Graph;
use crate::model::{BriLlm, BriLlmConfig, Gradients, Parameters};
use crate::position;
use crate::row_adamw::{Clock, Moments, Replay, Rows};
use rayon::prelude::*;
use std::collections::BTreeMap;

impl BriLlm {
    /// `−ln p(truth)` per place of the paths, among the candidates of the groups; 0 where there is no edge.
    pub fn token_losses(&self, paths: &Paths<'_>, groups: &[Group]) -> Vec<f64> {
        evaluate(&self.config, &self.graph, &self.parameters, paths, groups)
    }
}

/// The result of a training step.
#[derive(Clone, Debug)]
pub struct Learnt {
    /// `−ln p(truth)` per place of the paths; 0 where there is no edge.
    pub nats: Vec<f64>,
    /// Length of the gradient of everything, before rows are clipped.
    pub gradient_norm: f64,
}

/// `−ln p(truth)` per place of the paths; 0 where there is no edge.
pub fn evaluate(
    config: &BriLlmConfig,
    graph: &Graph,
    parameters: &Parameters,
    paths: &Paths<'_>,
    groups: &[Group],
) -> Vec<f64> {
    let codes = positional_encoding(config, parameters, paths);
    let trails = trails(config, graph, parameters, &codes, paths);
    let signals = Signals::new(config, paths, &trails, &codes);
    let of_group = |group: &Group| score::evaluate(group, &signals, parameters);
    let nats: Vec<Vec<f64>> = groups.par_iter().map(of_group).collect();
    scatter(groups, nats.iter().map(Vec::as_slice), paths.valid.len())
}

/// One step: forward, backward, and the update of every row that was used. Gradients of all other parameters are returned, for
/// the caller's own AdamW.
pub fn learn(
    config: &BriLlmConfig,
    graph: &Graph,
    parameters: &mut Parameters,
    moments: &mut Moments,
    paths: &Paths<'_>,
    groups: &[Group],
    clock: &Clock<'_>,
) -> (Learnt, Gradients) {
    let d = config.d_node;
    let codes = positional_encoding(config, parameters, paths);
    let mut pending = Pending::new(graph, paths, groups);
    pending.catch_up(parameters, moments, config, clock);
    let trails = trails(config, graph, parameters, &codes, paths);
    let signals = Signals::new(config, paths, &trails, &codes);
    let scored = score_all(
        graph, parameters, moments, groups, &pending, &signals, clock,
    );
    let mut of_mixes = vec![0.0; paths.valid.len() * d];
    let mut square = 0.0;
    let mut gradients = Gradients {
        mix: vec![0.0; parameters.mix.len()],
        node_bias: BTreeMap::new(),
        codes: vec![0.0; parameters.codes.len()],
    };
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
    let nats = scatter(
        groups,
        scored.iter().map(|scored| scored.nats.as_slice()),
        paths.valid.len(),
    );
    let backward: Vec<TrailGradients> = trails
        .par_iter()
        .enumerate()
        .map(|(row, trail)| {
            let of_mixes = &of_mixes[row * paths.seq * d..][..trail.rows.len() * d];
            vectorised!(trail.backward(config, parameters, of_mixes))
        })
        .collect();
    pending.add(scored);
    square += pending.update(parameters, moments, config, &trails, &backward, clock);
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
    (
        Learnt {
            nats,
            gradient_norm: square.sqrt(),
        },
        gradients,
    )
}

fn positional_encoding(
    config: &BriLlmConfig,
    parameters: &Parameters,
    paths: &Paths<'_>,
) -> Vec<f32> {
    position::table(
        config.flow.encoding,
        &parameters.codes,
        paths.seq + config.flow.first_hop,
        config.d_node,
    )
}

fn trails(
    config: &BriLlmConfig,
    graph: &Graph,
    parameters: &Parameters,
    codes: &[f32],
    paths: &Paths<'_>,
) -> Vec<Trail> {
    let walk = |row| vectorised!(Trail::walk(config, graph, parameters, codes, paths, row));
    (0..paths.batch()).into_par_iter().map(walk).collect()
}

/// The groups' parts of the step; every group gets the rows that it owns.
fn score_all(
    graph: &Graph,
    parameters: &mut Parameters,
    moments: &mut Moments,
    groups: &[Group],
    pending: &Pending,
    signals: &Signals<'_>,
    clock: &Clock<'_>,
) -> Vec<Scored> {
    let row_len = signals.d * (signals.d + 1);
    let (shared, own) =
        Rows::all(&mut parameters.edges, moments, row_len).split(graph.back_off_rows());
    let shared = &shared;
    let node_bias = &parameters.node_bias;
    let parts = own.parts(groups.iter().map(|group| graph.own_rows(group.source)));
    let targets: usize = groups.iter().map(|group| group.places.len()).sum();
    let crossed = |group: &Group| {
        let rows = pending.edges.range(graph.own_rows(group.source));
        rows.map(|(&row, _)| row).collect()
    };
    let own = groups.iter().zip(parts).map(|(group, rows)| {
        let crossed = crossed(group);
        (group, Own { rows, crossed })
    });
    let work: Vec<(&Group, Own<'_>)> = own.collect();
    work.into_par_iter()
        .map(|(group, own)| {
            score::learn(
                group,
                signals,
                node_bias,
                shared,
                own,
                clock,
                targets as f64,
            )
        })
        .collect()
}

fn scatter<'a>(
    groups: &[Group],
    of_groups: impl Iterator<Item = &'a [f64]>,
    places: usize,
) -> Vec<f64> {
    let mut all = vec![0.0; places];
    for (group, of_group) in groups.iter().zip(of_groups) {
        for (&place, &value) in group.places.iter().zip(of_group) {
            all[place] = value;
        }
    }
    all
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

    fn catch_up(
        &self,
        parameters: &mut Parameters,
        moments: &mut Moments,
        config: &BriLlmConfig,
        clock: &Clock<'_>,
    ) {
        let before = clock.rates.len() as u32 - 1;
        let parts = self.parts(parameters, moments, config);
        parts.into_par_iter().for_each(|mut part| {
            let row = part.start;
            vectorised!(part.catch_up(row, before, clock, &mut Replay::default()));
        });
    }

    /// Every row of these by itself.
    fn parts<'a>(
        &self,
        parameters: &'a mut Parameters,
        moments: &'a mut Moments,
        config: &BriLlmConfig,
    ) -> Vec<Rows<'a>> {
        let row_len = config.d_node * (config.d_node + 1);
        let rows = self.edges.keys().map(|&row| row..row + 1);
        Rows::all(&mut parameters.edges, moments, row_len).parts(rows)
    }

    fn add(&mut self, scored: Vec<Scored>) {
        for (row, part) in scored.into_iter().flat_map(|scored| scored.rows) {
            self.gradients.entry(row).or_default().push(part);
        }
    }

    /// Returns the sum of the squares of the gradients.
    fn update(
        mut self,
        parameters: &mut Parameters,
        moments: &mut Moments,
        config: &BriLlmConfig,
        trails: &[Trail],
        backward: &[TrailGradients],
        clock: &Clock<'_>,
    ) -> f64 {
        let d = config.d_node;
        let gradients = std::mem::take(&mut self.gradients);
        let parts = self.parts(parameters, moments, config);
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
                        trail.add_to_row(config.flow.hop, backward, edge, d, &mut gradient);
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

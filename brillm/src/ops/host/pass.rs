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
use crate::shard::{Message, Shard};
use rayon::prelude::*;
use std::collections::BTreeMap;

impl BriLlm {
    /// `−ln p(truth)` per place of the paths, among the candidates of the groups; 0 where there is no edge.
    pub fn token_losses(&self, paths: &Paths<'_>, groups: &[Group]) -> Vec<f64> {
        let signals = Signals::of(self, paths);
        let of_group = |group: &Group| match self.graph.is_here(group.source) {
            true => score::evaluate(group, &signals, self),
            false => Vec::new(),
        };
        let mut nats: Vec<Vec<f64>> = groups.par_iter().map(of_group).collect();
        if let Some(shard) = self.graph.shard() {
            let mut own = Message::default();
            own.put(&nats.concat());
            let all = shard.gather(own).into_iter();
            let mut all: Vec<_> = all.map(|mut said| said.take().into_iter()).collect();
            for (nats, group) in nats.iter_mut().zip(groups) {
                let said = &mut all[shard.owner(group.source)];
                *nats = said.by_ref().take(group.places.len()).collect();
            }
        }
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
    let backward = backward(model, &signals, &of_mixes, paths);
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

/// What goes back along every sequence. Where a table lies in shards, each process tells the others of the sequences it walked.
fn backward(
    model: &BriLlm,
    signals: &Signals,
    of_mixes: &[f32],
    paths: &Paths<'_>,
) -> Vec<TrailGradients> {
    let d = model.config.d_node;
    let shard = model.graph.shard();
    let of_trail = |(row, trail): (usize, &Trail)| {
        shard.is_none_or(|shard| shard.walks(row)).then(|| {
            let of_mixes = &of_mixes[row * paths.seq * d..][..trail.rows.len() * d];
            vectorised!(trail.backward(model, &signals.walked, of_mixes))
        })
    };
    let trails = signals.trails.par_iter().enumerate();
    let own: Vec<Option<TrailGradients>> = trails.map(of_trail).collect();
    let Some(shard) = shard else {
        return own.into_iter().flatten().collect();
    };
    let mut message = Message::default();
    own.iter()
        .flatten()
        .for_each(|of_trail| of_trail.tell(&mut message));
    let mut said = shard.gather(message);
    let told = |(row, of_trail): (usize, Option<TrailGradients>)| {
        of_trail.unwrap_or_else(|| TrailGradients::told(&mut said[shard.walker(row)]))
    };
    own.into_iter().enumerate().map(told).collect()
}

/// The groups' parts of the step; every group gets the rows that it owns. Where a table lies in shards, each process scores the groups
/// of its sources, and tells the others of them.
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
    let here: Vec<&Group> = groups
        .iter()
        .filter(|group| graph.is_here(group.source))
        .collect();
    let parts = own.parts(here.iter().map(|group| graph.places(group.source)));
    let targets: usize = groups.iter().map(|group| group.places.len()).sum();
    let crossed = |group: &Group| {
        let rows = pending.edges.range(graph.own_rows(group.source));
        rows.map(|(&row, _)| row).collect()
    };
    let work: Vec<(&Group, Rows<'_>)> = here.into_iter().zip(parts).collect();
    let score = |(group, rows): (&Group, Rows<'_>)| {
        let crossed = crossed(group);
        let rows = rows.numbered(graph.own_rows(group.source).start);
        let own = Own { rows, crossed };
        let targets = targets as f64;
        score::learn(group, signals, node_bias, &shared, own, clock, targets)
    };
    let scored: Vec<Scored> = work.into_par_iter().map(score).collect();
    let Some(shard) = graph.shard() else {
        return scored;
    };
    let mut message = Message::default();
    let trained = clock.frozen..graph.back_off_rows();
    scored
        .iter()
        .for_each(|scored| scored.tell(&trained, &mut message));
    let mut said = shard.gather(message);
    let mut scored = scored.into_iter();
    let of_group = |group: &Group| match shard.is_here(group.source) {
        true => scored.next().expect("one per group"),
        false => Scored::told(&mut said[shard.owner(group.source)]),
    };
    groups.iter().map(of_group).collect()
}

/// Rows whose gradient is whole only when the paths have been walked back: those of the paths, and back-off rows.
struct Pending {
    edges: BTreeMap<usize, Crossed>,
    gradients: BTreeMap<usize, Vec<Part>>,
}

/// How paths use a row.
#[derive(Default)]
struct Crossed {
    /// Where the edge begins; of a back-off row, one of them.
    source: u32,
    /// The edges that use it: the row of the batch, and the place in its path.
    edges: Vec<(usize, usize)>,
}

impl Pending {
    fn new(graph: &Graph, paths: &Paths<'_>, groups: &[Group]) -> Self {
        let mut edges: BTreeMap<usize, Crossed> = BTreeMap::new();
        let shared = groups.iter().flat_map(|group| &group.rows[..group.shared]);
        for &row in shared {
            edges.entry(row).or_default();
        }
        for row in 0..paths.batch() {
            for edge in 0..paths.length(row) {
                let place = row * paths.seq + edge;
                let source = paths.sources[place];
                let crossed = edges.entry(graph.row(source, paths.targets[place]));
                let crossed = crossed.or_default();
                crossed.source = source;
                crossed.edges.push((row, edge));
            }
        }
        Self {
            edges,
            gradients: BTreeMap::new(),
        }
    }

    fn catch_up(&self, model: &mut BriLlm, moments: &mut Moments, clock: &Clock<'_>) {
        let before = clock.rates.len() as u32 - 1;
        let here = self.here(&model.graph);
        let parts = parts(&here, model, moments);
        parts.into_par_iter().for_each(|mut part| {
            let row = part.start;
            vectorised!(part.catch_up(row, before, clock, &mut Replay::default()));
        });
    }

    /// Those of these rows that lie in this process.
    fn here(&self, graph: &Graph) -> Vec<(usize, &Crossed)> {
        let all = self.edges.iter().map(|(&row, crossed)| (row, crossed));
        all.filter(|(row, crossed)| !graph.is_own(*row) || graph.is_here(crossed.source))
            .collect()
    }

    fn add(&mut self, scored: Vec<Scored>) {
        for (row, part) in scored.into_iter().flat_map(|scored| scored.rows) {
            self.gradients.entry(row).or_default().push(part);
        }
    }

    /// Returns the sum of the squares of the gradients.
    fn update(
        self,
        model: &mut BriLlm,
        moments: &mut Moments,
        trails: &[Trail],
        backward: &[TrailGradients],
        clock: &Clock<'_>,
    ) -> f64 {
        let config = model.config;
        let d = config.d_node;
        let here = self.here(&model.graph);
        let parts = parts(&here, model, moments);
        let work: Vec<_> = parts.into_iter().zip(&here).collect();
        let squares: Vec<f64> = work
            .into_par_iter()
            .map(|(mut part, (row, crossed))| {
                vectorised!({
                    let mut gradient = vec![0.0; d * (d + 1)];
                    for of_group in self.gradients.get(row).into_iter().flatten() {
                        of_group.add_to(d, &mut gradient);
                    }
                    for &(path, edge) in &crossed.edges {
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
        match model.graph.shard() {
            None => squares.iter().sum(),
            Some(shard) => self.of_all_rows(&squares, model.graph.back_off_rows(), shard),
        }
    }

    /// The sum over all rows of what each process has of its own, in the order of the rows.
    fn of_all_rows(&self, here: &[f64], back_off_rows: usize, shard: &Shard) -> f64 {
        let shared = self.edges.range(..back_off_rows).count();
        let (shared, own) = here.split_at(shared);
        let mut message = Message::default();
        message.put(own);
        let said = shard.gather(message).into_iter();
        let mut said: Vec<_> = said.map(|mut said| said.take().into_iter()).collect();
        let own = self.edges.range(back_off_rows..);
        let own = own.map(|(_, crossed)| said[shard.owner(crossed.source)].next());
        let own = own.map(|square| square.expect("one per row"));
        shared.iter().copied().chain(own).sum()
    }
}

/// Rows of this process, every one by itself.
fn parts<'a>(
    here: &[(usize, &Crossed)],
    model: &'a mut BriLlm,
    moments: &'a mut Moments,
) -> Vec<Rows<'a>> {
    let graph = &model.graph;
    let places = here
        .iter()
        .map(|(row, crossed)| graph.place(crossed.source, *row))
        .map(|place| place..place + 1);
    let all = Rows::all(&mut model.parameters.edges, moments, model.config.row_len());
    let parts = all.parts(places).into_iter().zip(here);
    parts.map(|(part, (row, _))| part.numbered(*row)).collect()
}

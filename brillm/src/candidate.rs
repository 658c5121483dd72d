//! Candidates of the softmax: `Competition` groups the edges of a batch (`Paths`) by source node; each `Group` lists the rows
//! of the edge table that compete there, their weights, and which row is the truth.
//!
//! All candidates of a position leave the same node, so positions are grouped by their source: a group reads every row
//! once, and no two groups own a row together. A row competes with the sum of its targets' prior weights, without a prior
//! their number (exact full softmax); the weight of a drawn target is divided by its expected number of draws.

use crate::counts::{PairCounts, sum_up};
use crate::flow::Bias;
use crate::graph::Graph;
use crate::prior::Weights;
use rayon::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Which targets compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Candidates {
    /// All: the exact softmax over the vocabulary.
    All,
    /// The true target and the `n` most frequent successors of the source besides it (the reference).
    Frequent {
        /// How many besides the true one.
        n: usize,
    },
    /// The true target and `n` draws by token frequency, corrected for their chance (Jean et al. 2015).
    Sampled {
        /// How many draws.
        n: usize,
    },
}

/// Whether the last edge of a path is trained (`docs/brillm.md`, D14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastEdge {
    /// Like all others.
    Trained,
    /// Left out (the reference).
    Left,
}

/// Sequences of edges, `[batch, seq]` each, row by row. Within a row a source is the target of the edge before.
#[derive(Clone, Copy, Debug)]
pub struct Paths<'a> {
    /// Where each edge begins.
    pub sources: &'a [u32],
    /// Where it leads.
    pub targets: &'a [u32],
    /// Whether there is an edge; what follows the last edge of a row is padding.
    pub valid: &'a [bool],
    /// Edges per row.
    pub seq: usize,
}

impl Paths<'_> {
    /// How many rows.
    pub fn batch(&self) -> usize {
        self.sources.len() / self.seq.max(1)
    }

    /// How many edges are there.
    pub fn edges(&self) -> usize {
        self.valid.iter().filter(|&&valid| valid).count()
    }

    /// The length of a row: one more than the place of its last edge.
    pub fn length(&self, row: usize) -> usize {
        let valid = &self.valid[row * self.seq..][..self.seq];
        valid
            .iter()
            .rposition(|&valid| valid)
            .map_or(0, |last| last + 1)
    }
}

/// One number per place of the paths from one per token of the groups, in their order; 0 where nothing is predicted.
pub fn at_places(
    groups: &[Group],
    values: impl IntoIterator<Item = f64>,
    paths: &Paths<'_>,
) -> Vec<f64> {
    let mut all = vec![0.0; paths.valid.len()];
    let places = groups.iter().flat_map(|group| &group.places);
    for (&place, value) in places.zip(values) {
        all[place] = value;
    }
    all
}

/// The positions with one source, and the rows that compete there.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The node.
    pub source: u32,
    /// Places in the lists of [`Paths`].
    pub places: Vec<usize>,
    /// Back-off rows first, then own rows, rising; each row once, or once per target where nodes add biases.
    pub rows: Vec<usize>,
    /// Per row the target that adds its bias; empty where nodes add none.
    pub nodes: Vec<u32>,
    /// How many of the rows are back-off rows.
    pub shared: usize,
    /// Per row, the weight with which it competes at every position.
    pub weights: Vec<f32>,
    /// What is added to a weight: position in `places`, position in `rows`, weight.
    pub corrections: Vec<(u32, u32, f32)>,
    /// Per position, where in `rows` the truth is.
    pub truth: Vec<u32>,
    /// Per position, `ln` of the weight of the truth alone.
    pub truth_ln_weight: Vec<f32>,
}

impl Group {
    /// How many pairs of a position and a row there are.
    pub fn pairs(&self) -> usize {
        self.places.len() * self.rows.len()
    }
}

/// Which candidates compete, and with which weights; prepared once.
#[derive(Clone, Debug)]
pub struct Competition {
    /// Which targets compete.
    pub candidates: Candidates,
    /// The weights of the pairs.
    pub weights: Weights,
    /// Nodes that are never predicted.
    pub excluded: Vec<u32>,
    /// Which biases are added to a signal.
    pub bias: Bias,
    /// For `Frequent`, `n + 1` targets per source.
    frequent: Vec<Vec<u32>>,
    /// For `Frequent`, the entries of the first `n` of them, made when a source is first met; they hold rows of the one
    /// graph that a competition is used with.
    common: Vec<OnceLock<Vec<Entry>>>,
    /// For `Sampled`, the chance of each target, and the sums of it.
    chances: Vec<f64>,
    sums: Vec<f64>,
}

/// A draw in `[0, 1)` for every number.
pub type Draw<'a> = &'a (dyn Fn(u64) -> f64 + Sync);

impl Competition {
    /// Prepares a competition.
    ///
    /// # Panics
    /// If the candidates need counts and there are none; the caller has checked that.
    pub fn new(
        candidates: Candidates,
        weights: Weights,
        bias: Bias,
        counts: Option<&PairCounts>,
    ) -> Self {
        let counted = || counts.expect("these candidates need the pair counts");
        let (mut frequent, mut chances) = (Vec::new(), Vec::new());
        match candidates {
            Candidates::All => {}
            Candidates::Frequent { n } => {
                let sources = 0..counted().nodes() as u32;
                let list = |source| counted().most_frequent(source, n + 1);
                frequent = sources.map(list).collect();
            }
            Candidates::Sampled { .. } => {
                let tokens = &counted().tokens;
                let total: f64 = tokens.iter().map(|&n| n as f64 + 1.0).sum();
                chances = tokens.iter().map(|&n| (n as f64 + 1.0) / total).collect();
            }
        }
        let add = |sum: &mut f64, chance: &f64| {
            *sum += chance;
            Some(*sum)
        };
        let sums = chances.iter().scan(0.0, add).collect();
        Self {
            candidates,
            weights,
            excluded: Vec::new(),
            bias,
            common: vec![OnceLock::new(); frequent.len()],
            frequent,
            chances,
            sums,
        }
    }

    /// The same competition, in which some nodes are never predicted.
    pub fn without(self, excluded: Vec<u32>) -> Self {
        Self {
            excluded,
            common: vec![OnceLock::new(); self.frequent.len()],
            ..self
        }
    }

    /// For `Frequent`, the targets that compete besides the truth at positions of a source; the last one is used only where the
    /// truth is among the others.
    pub fn frequent(&self, source: u32) -> Option<&[u32]> {
        self.frequent.get(source as usize).map(Vec::as_slice)
    }

    /// For `Sampled`, how often a target is drawn, on average, in a step, per source that the step holds.
    pub fn expected_draws(&self, target: u32) -> Option<f64> {
        let chance = self.chances.get(target as usize)?;
        match self.candidates {
            Candidates::Sampled { n } => Some(n as f64 * chance),
            _ => None,
        }
    }

    /// The competition of evaluation: all targets with their weights, whatever training uses.
    pub fn evaluation(&self) -> Self {
        Self::new(Candidates::All, self.weights.clone(), self.bias, None)
            .without(self.excluded.clone())
    }

    /// Groups the edges of a batch; `draw` is used by `Sampled` alone.
    pub fn groups(&self, graph: &Graph, paths: &Paths<'_>, draw: Draw<'_>) -> Vec<Group> {
        let groups = by_source(paths, |place| paths.valid[place]);
        let group = |(source, (places, targets)): (u32, (Vec<usize>, Vec<u32>))| {
            self.group(graph, source, places, &targets, draw)
        };
        groups.into_par_iter().map(group).collect()
    }

    /// The competition at positions that leave one node.
    fn group(
        &self,
        graph: &Graph,
        source: u32,
        places: Vec<usize>,
        targets: &[u32],
        draw: Draw<'_>,
    ) -> Group {
        let mut entries = Entries::new(graph, source, self.bias);
        let weight = |target: u32| match self.excluded.contains(&target) {
            true => 0.0,
            false => self.weights.of(source, target) as f32,
        };
        match self.candidates {
            // With biases of nodes, targets that share a row have energies of their own.
            Candidates::All if self.bias.of_node() => {
                let all = 0..graph.nodes() as u32;
                let all = all.filter(|target| !self.excluded.contains(target));
                all.for_each(|target| entries.add(target, weight(target)));
            }
            Candidates::All => return self.everything(graph, source, places, targets),
            Candidates::Frequent { n } => {
                let list = &self.frequent[source as usize];
                let common = &list[..n.min(list.len())];
                let base = self.common[source as usize].get_or_init(|| {
                    let mut entries = Entries::new(graph, source, self.bias);
                    common
                        .iter()
                        .for_each(|&target| entries.add(target, weight(target)));
                    sum_up(&mut entries.base);
                    entries.base
                });
                entries.base.extend_from_slice(base);
                for (place, &truth) in targets.iter().enumerate() {
                    // With the truth among them, the next most frequent one takes its place.
                    let other = match common.contains(&truth) {
                        true => list.get(n).copied(),
                        false => Some(truth),
                    };
                    if let Some(other) = other {
                        entries.correct(place, other, weight(other));
                    }
                }
            }
            Candidates::Sampled { n } => {
                let mut drawn: BTreeMap<u32, f32> = BTreeMap::new();
                for index in 0..n as u64 {
                    let at = draw(u64::from(source) * n as u64 + index);
                    let target = self
                        .sums
                        .partition_point(|&sum| sum <= at)
                        .min(self.sums.len() - 1);
                    let inverse = 1.0 / (n as f64 * self.chances[target]);
                    *drawn.entry(target as u32).or_default() +=
                        inverse as f32 * weight(target as u32);
                }
                drawn
                    .iter()
                    .for_each(|(&target, &weight)| entries.add(target, weight));
                for (place, truth) in targets.iter().enumerate() {
                    // A draw that hits the truth does not compete with it.
                    let hit = drawn.get(truth).copied().unwrap_or(0.0);
                    entries.correct(place, *truth, weight(*truth) - hit);
                }
            }
        }
        let ln_weights = targets.iter().map(|&target| self.ln_weight(source, target));
        entries.group(places, targets, ln_weights.collect())
    }

    fn ln_weight(&self, source: u32, target: u32) -> f32 {
        self.weights.of(source, target).ln() as f32
    }

    /// Every target, those that share a row together.
    fn everything(&self, graph: &Graph, source: u32, places: Vec<usize>, targets: &[u32]) -> Group {
        let mut shared = self.weights.shared(graph, source);
        let mut own = self.weights.own(graph, source);
        for &target in &self.excluded {
            match graph.targets(source).binary_search(&target) {
                Ok(place) => own[place] = 0.0,
                Err(_) => {
                    let row = graph.back_off_row(source, target);
                    let weight = self.weights.of(source, target) as f32;
                    if let Some((_, all)) = shared.iter_mut().find(|(shared, _)| *shared == row) {
                        *all = (*all - weight).max(0.0);
                    }
                }
            }
        }
        shared.retain(|&(_, weight)| weight > 0.0);
        shared.sort_by_key(|&(row, _)| row);
        let n_shared = shared.len();
        let own = graph.own_rows(source).zip(own);
        let (rows, weights): (Vec<usize>, Vec<f32>) = shared.into_iter().chain(own).unzip();
        let place_of = |&target: &u32| {
            let row = graph.row(source, target);
            rows.binary_search(&row)
                .expect("every target that counts competes") as u32
        };
        Group {
            source,
            shared: n_shared,
            weights,
            corrections: Vec::new(),
            truth: targets.iter().map(place_of).collect(),
            truth_ln_weight: targets
                .iter()
                .map(|&target| self.ln_weight(source, target))
                .collect(),
            rows,
            nodes: Vec::new(),
            places,
        }
    }
}

/// Places of paths by their source, and the targets there.
fn by_source(
    paths: &Paths<'_>,
    counts: impl Fn(usize) -> bool,
) -> BTreeMap<u32, (Vec<usize>, Vec<u32>)> {
    let mut groups: BTreeMap<u32, (Vec<usize>, Vec<u32>)> = BTreeMap::new();
    for place in (0..paths.sources.len()).filter(|&place| counts(place)) {
        let (places, targets) = groups.entry(paths.sources[place]).or_default();
        places.push(place);
        targets.push(paths.targets[place]);
    }
    groups
}

/// Groups from candidates that are given, `[edges][1 + k]` targets each, the truth first (golden cases).
pub fn given(graph: &Graph, paths: &Paths<'_>, candidates: &[Vec<u32>]) -> Vec<Group> {
    let group = |(source, (places, targets)): (u32, (Vec<usize>, Vec<u32>))| {
        let mut entries = Entries::new(graph, source, Bias::Edge);
        for (index, &place) in places.iter().enumerate() {
            candidates[place]
                .iter()
                .for_each(|&target| entries.correct(index, target, 1.0));
        }
        let none = vec![0.0; targets.len()];
        entries.group(places, &targets, none)
    };
    by_source(paths, |_| true).into_iter().map(group).collect()
}

/// A group in the making.
struct Entries<'a> {
    graph: &'a Graph,
    source: u32,
    bias: Bias,
    /// Rows with weights, in any order and more than once.
    base: Vec<Entry>,
    corrections: Vec<(u32, Place, f32)>,
}

/// A row, and the node whose bias is added; 0 where nodes add none.
type Place = (usize, u32);

/// With its weight.
type Entry = (Place, f32);

impl<'a> Entries<'a> {
    fn new(graph: &'a Graph, source: u32, bias: Bias) -> Self {
        Self {
            graph,
            source,
            bias,
            base: Vec::new(),
            corrections: Vec::new(),
        }
    }

    fn place(&self, target: u32) -> Place {
        let node = if self.bias.of_node() { target } else { 0 };
        (self.graph.row(self.source, target), node)
    }

    fn add(&mut self, target: u32, weight: f32) {
        self.base.push((self.place(target), weight));
    }

    fn correct(&mut self, place: usize, target: u32, weight: f32) {
        let at = self.place(target);
        self.base.push((at, 0.0));
        self.corrections.push((place as u32, at, weight));
    }

    fn group(mut self, places: Vec<usize>, targets: &[u32], truth_ln_weight: Vec<f32>) -> Group {
        sum_up(&mut self.base);
        let (all, weights): (Vec<Place>, Vec<f32>) = self.base.iter().copied().unzip();
        let local = |at: Place| all.binary_search(&at).expect("every row was entered") as u32;
        let corrections = self.corrections.iter();
        let rows: Vec<usize> = all.iter().map(|&(row, _)| row).collect();
        let nodes = all.iter().map(|&(_, node)| node);
        Group {
            source: self.source,
            shared: rows.iter().filter(|&&row| !self.graph.is_own(row)).count(),
            weights,
            corrections: corrections
                .map(|&(place, at, weight)| (place, local(at), weight))
                .collect(),
            truth: targets
                .iter()
                .map(|&target| local(self.place(target)))
                .collect(),
            truth_ln_weight,
            nodes: nodes.filter(|_| self.bias.of_node()).collect(),
            rows,
            places,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: Paths<'static> = Paths {
        sources: &[0, 1, 0, 2, 0, 1],
        targets: &[1, 0, 2, 0, 1, 1],
        valid: &[true, false, true, true, false, false],
        seq: 3,
    };

    fn counts() -> PairCounts {
        // After 0: 3 twice, 1 and 2 once, 0 never.
        PairCounts::of(4, [[0, 3, 0, 1, 0, 3, 0, 2]])
    }

    #[test]
    fn a_path_ends_with_its_last_edge_and_may_have_holes() {
        assert_eq!((PATHS.batch(), PATHS.edges()), (2, 3));
        assert_eq!((PATHS.length(0), PATHS.length(1)), (3, 1));
        let empty = Paths {
            valid: &[false; 6],
            ..PATHS
        };
        assert_eq!((empty.edges(), empty.length(1)), (0, 0));
    }

    /// Rows with the weights that compete at every place: of a full graph of 4 nodes, as targets of the source.
    fn competing(competition: &Competition, graph: &Graph, draw: Draw<'_>) -> Vec<Vec<(u32, f32)>> {
        let groups = competition.groups(graph, &PATHS, draw);
        assert_eq!(groups.iter().map(|g| g.source).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(groups[0].places, [0, 2]);
        let mut all = Vec::new();
        for group in groups {
            assert_eq!(group.pairs(), group.places.len() * group.rows.len());
            assert_eq!((group.shared, group.nodes.len()), (0, 0));
            for (token, &place) in group.places.iter().enumerate() {
                let truth = group.rows[group.truth[token] as usize];
                assert_eq!(
                    graph.pair(truth),
                    Some((group.source, PATHS.targets[place]))
                );
                assert_eq!(group.truth_ln_weight[token], 0.0);
                let mut weights = group.weights.clone();
                let corrections = group.corrections.iter();
                corrections
                    .filter(|correction| correction.0 as usize == token)
                    .for_each(|&(_, row, weight)| weights[row as usize] += weight);
                let target = |&row: &usize| graph.pair(row).unwrap().1;
                let pairs = group.rows.iter().map(target).zip(weights);
                all.push(pairs.filter(|&(_, weight)| weight != 0.0).collect());
            }
        }
        all
    }

    #[test]
    fn the_truth_competes_with_the_most_frequent_others() {
        let graph = Graph::full(4);
        let of = |n: usize| {
            let candidates = Candidates::Frequent { n };
            Competition::new(candidates, Weights::One, Bias::Edge, Some(&counts()))
        };
        let targets = |n: usize| {
            let all = competing(&of(n), &graph, &|_| 0.0).into_iter();
            let targets = |list: Vec<(u32, f32)>| {
                assert!(list.iter().all(|&(_, weight)| weight == 1.0));
                list.into_iter().map(|(target, _)| target).collect()
            };
            all.map(targets).collect::<Vec<Vec<u32>>>()
        };
        // 0 to 1, 0 to 2, 2 to 0. The order after 0 is 3, 1, 2, 0; that after 2 is by id.
        assert_eq!(targets(0), [vec![1], vec![2], vec![0]]);
        assert_eq!(targets(1), [vec![1, 3], vec![2, 3], vec![0, 1]]);
        assert_eq!(targets(2), [vec![1, 2, 3], vec![1, 2, 3], vec![0, 1, 2]]);
        assert_eq!(targets(9), [0; 3].map(|_| vec![0, 1, 2, 3]));
        assert_eq!(of(1).frequent(0), Some(&[3, 1][..]));
        assert_eq!(of(1).expected_draws(0), None);
        let without = of(1).without(vec![3]);
        let all = competing(&without, &graph, &|_| 0.0);
        assert_eq!(
            all,
            [vec![(1, 1.0)], vec![(2, 1.0)], vec![(0, 1.0), (1, 1.0)]]
        );
        assert_eq!(without.evaluation().candidates, Candidates::All);
        let everybody = competing(&without.evaluation(), &graph, &|_| 0.0);
        assert_eq!(
            everybody,
            [0; 3].map(|_| vec![(0, 1.0), (1, 1.0), (2, 1.0)])
        );
    }

    #[test]
    fn a_draw_competes_by_the_inverse_of_its_chance_and_never_with_itself() {
        let graph = Graph::full(4);
        let candidates = Candidates::Sampled { n: 4 };
        let competition = Competition::new(candidates, Weights::One, Bias::Edge, Some(&counts()));
        // Tokens 4, 1, 1 and 2 times, and one more each: chances 5, 2, 2 and 3 of 12.
        assert_eq!(competition.expected_draws(3), Some(1.0));
        // Draws 0 to 3 of node 0: 11.9 and 11.9 of 12 are token 3, 5.5 is 1, 0 is 0. Those of node 2 are 3, from 8 to 11.
        let draw = |place: u64| match place {
            0 | 1 => 11.9 / 12.0,
            2 => 5.5 / 12.0,
            3 => 0.0,
            8..12 => 1.0,
            other => panic!("{other}"),
        };
        let all = competing(&competition, &graph, &draw);
        let inverse = [12.0 / 20.0, 12.0 / 8.0, 12.0 / 8.0, 1.0];
        let expected = [
            // The draw of 1 hits the truth.
            vec![(0, inverse[0]), (1, 1.0), (3, 2.0)],
            vec![(0, inverse[0]), (1, inverse[1]), (2, 1.0), (3, 2.0)],
            vec![(0, 1.0), (3, 4.0)],
        ];
        for (found, expected) in all.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-6);
            }
        }
    }
}

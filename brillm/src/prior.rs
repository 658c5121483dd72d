//! The prior: the weight with which a pair competes before any signal flows, 1 or its probability in a Kneser-Ney bigram model;
//! also summed over the targets that share a back-off row.
//!
//! A pair of weight `w` and energy `E` has the score `E + ln w`. Without a prior every weight is 1 (the reference); with
//! the bigram prior a graph whose energies are all equal predicts exactly the smoothed bigram model, so that training
//! begins there and learns what the signal adds.

use crate::counts::PairCounts;
use crate::graph::Graph;
use serde::Deserialize;

/// Which weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prior {
    /// All 1.
    None,
    /// `p(target | source)` of an interpolated Kneser-Ney bigram model of the counts.
    Bigram,
}

/// The weights of all pairs.
#[derive(Clone, Debug)]
pub enum Weights {
    /// All 1.
    One,
    /// Those of the bigram model.
    Bigram(Bigram),
}

/// An interpolated Kneser-Ney bigram model (Kneser and Ney 1995).
#[derive(Clone, Debug)]
pub struct Bigram {
    counts: PairCounts,
    discount: f64,
    /// Per source, what its seen pairs add up to.
    totals: Vec<f64>,
    /// Per source, how many those are; what is listed with a count of 0 was not seen.
    kinds: Vec<f64>,
    /// Per target, its share of all distinct pairs, mixed with the uniform distribution.
    base: Vec<f64>,
    /// The same, summed over the classes of a graph.
    class_mass: Vec<f64>,
}

impl Weights {
    /// The weights a prior gives; with counts unknown all are 1.
    pub fn new(prior: Prior, counts: Option<&PairCounts>, graph: &Graph) -> Self {
        match (prior, counts) {
            (Prior::Bigram, Some(counts)) => Self::Bigram(Bigram::new(counts.clone(), graph)),
            _ => Self::One,
        }
    }

    /// The weight of one pair.
    pub fn of(&self, source: u32, target: u32) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Bigram(bigram) => bigram.probability(source, target),
        }
    }

    /// The weights of the edges out of a node, in the order of [`Graph::targets`].
    pub fn own(&self, graph: &Graph, source: u32) -> Vec<f32> {
        let weight = |&target: &u32| self.of(source, target) as f32;
        graph.targets(source).iter().map(weight).collect()
    }

    /// The back-off rows of a source, each with the weight of all targets that use it together.
    pub fn shared(&self, graph: &Graph, source: u32) -> Vec<(usize, f32)> {
        let shared = graph.shared(source).into_iter().enumerate();
        let weight = |(class, (row, n)): (usize, (usize, u32))| match self {
            _ if n == 0 => (row, 0.0),
            Self::One => (row, n as f32),
            Self::Bigram(bigram) => (row, bigram.unseen(graph, source, class as u32) as f32),
        };
        shared.map(weight).collect()
    }
}

impl Bigram {
    fn new(counts: PairCounts, graph: &Graph) -> Self {
        let nodes = counts.nodes();
        let (mut once, mut twice) = (0.0, 0.0);
        let mut continuations = vec![0.0; nodes];
        for (&target, &count) in counts.targets.iter().zip(&counts.counts) {
            continuations[target as usize] += f64::from(u8::from(count > 0));
            once += f64::from(u8::from(count == 1));
            twice += f64::from(u8::from(count == 2));
        }
        let discount: f64 = once / (once + 2.0 * twice);
        let discount = if discount > 0.0 && discount < 1.0 {
            discount
        } else {
            0.75
        };
        // The same discount frees mass for tokens that follow nothing.
        let kinds: f64 = continuations.iter().sum();
        let followed = continuations.iter().filter(|&&n| n > 0.0).count() as f64;
        let base: Vec<f64> = match kinds > 0.0 {
            true => {
                let uniform = discount * followed / kinds / nodes as f64;
                let share = |n: &f64| (n - discount).max(0.0) / kinds + uniform;
                continuations.iter().map(share).collect()
            }
            false => vec![1.0 / nodes as f64; nodes],
        };
        let mut class_mass = vec![0.0; graph.n_classes()];
        for (&class, share) in graph.classes().iter().zip(&base) {
            class_mass[class as usize] += share;
        }
        let seen = |source| {
            let seen = counts.successors(source).filter(|&(_, count)| count > 0);
            let total: f64 = seen.clone().map(|(_, count)| f64::from(count)).sum();
            (total, seen.count() as f64)
        };
        let (totals, kinds) = (0..nodes as u32).map(seen).unzip();
        Self {
            counts,
            discount,
            totals,
            kinds,
            base,
            class_mass,
        }
    }

    fn probability(&self, source: u32, target: u32) -> f64 {
        let total = self.totals[source as usize];
        let base = self.base[target as usize];
        if total == 0.0 {
            return base;
        }
        let count = f64::from(self.counts.count(source, target));
        (count - self.discount).max(0.0) / total + self.left(source) * base
    }

    /// The share that the seen pairs of a source leave to all targets.
    fn left(&self, source: u32) -> f64 {
        let total = self.totals[source as usize];
        match total > 0.0 {
            true => self.discount * self.kinds[source as usize] / total,
            false => 1.0,
        }
    }

    /// What the targets of a class without an edge of their own get together.
    fn unseen(&self, graph: &Graph, source: u32, class: u32) -> f64 {
        let of_class = |target: u32| graph.classes()[target as usize] == class;
        let own = graph
            .targets(source)
            .iter()
            .filter(|&&target| of_class(target));
        let own: f64 = own.map(|&target| self.base[target as usize]).sum();
        let left = self.class_mass[class as usize] - own;
        let total = self.totals[source as usize];
        let pruned = self
            .counts
            .successors(source)
            .filter(|&(_, count)| count > 0)
            .filter(|&(target, _)| of_class(target) && graph.own_row(source, target).is_none());
        let pruned: f64 = pruned
            .map(|(_, count)| (f64::from(count) - self.discount) / total)
            .sum();
        (self.left(source) * left).max(0.0) + pruned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::BackOff;

    #[test]
    fn own_and_shared_weights_are_one_distribution() {
        let text: Vec<u32> = (0..400u32).map(|i| (i * i / 3 + i) % 11).collect();
        let mut counts = PairCounts::of(13, [text]);
        // Listed, but never seen.
        counts.counts[3] = 0;
        for (min_count, back_off) in [
            (0, BackOff::SharedRow),
            (1, BackOff::SharedRow),
            (1, BackOff::Classes { n_classes: 4 }),
            (3, BackOff::Classes { n_classes: 3 }),
        ] {
            let graph = counts.graph(min_count, back_off);
            let weights = Weights::new(Prior::Bigram, Some(&counts), &graph);
            for source in 0..13 {
                let single: f64 = (0..13).map(|target| weights.of(source, target)).sum();
                assert!((single - 1.0).abs() < 1e-12, "{source}: {single}");
                let own: f32 = weights.own(&graph, source).iter().sum();
                let shared: f32 = weights
                    .shared(&graph, source)
                    .iter()
                    .map(|(_, weight)| weight)
                    .sum();
                assert!(
                    (own + shared - 1.0).abs() < 1e-5,
                    "{source}: {own} + {shared}"
                );
            }
        }
    }

    fn close(found: impl IntoIterator<Item = f64>, expected: &[f64]) {
        let found: Vec<f64> = found.into_iter().collect();
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn the_bigram_model_is_the_one_on_paper() {
        // 0 1 twice, 1 0 twice, 0 2 once: D = 1 / (1 + 2 · 2) = 0.2; 0, 1 and 2 each follow one kind of token, of 3 pairs.
        let counts = PairCounts::of(4, [[0, 1, 0, 1, 0, 2]]);
        let graph = counts.graph(2, BackOff::SharedRow);
        let weights = Weights::new(Prior::Bigram, Some(&counts), &graph);
        let of = |source| (0..4).map(move |target| (source, target));
        let of = |source| of(source).map(|(source, target)| weights.of(source, target));
        // (1 − D) / 3 + D · 3 / 3 / 4; 3 follows nothing. After 2 nothing was seen.
        let base = [19.0 / 60.0, 19.0 / 60.0, 19.0 / 60.0, 0.05];
        close(of(2), &base);
        // (2 − D) / 3 and (1 − D) / 3, and of the base what is left: D · 2 / 3.
        let left = 0.4 / 3.0;
        let seen = [0.0, 0.6, 0.8 / 3.0, 0.0];
        let after_0: Vec<f64> = seen
            .iter()
            .zip(base)
            .map(|(p, base)| p + left * base)
            .collect();
        close(of(0), &after_0);
        // The edge to 2 was seen too seldom to have a row of its own.
        let shared = weights.shared(&graph, 0);
        close(
            shared.iter().map(|&(_, p)| f64::from(p)),
            &[1.0 - after_0[1]],
        );
        assert_eq!(shared[0].0, 0);
        close(
            weights.own(&graph, 0).into_iter().map(f64::from),
            &after_0[1..2],
        );
    }

    #[test]
    fn counts_that_give_no_discount_get_three_quarters_and_no_counts_are_even() {
        // Everything was seen once: D would be 1.
        let once = PairCounts::of(4, [[0, 1], [2, 3]]);
        let graph = once.graph(1, BackOff::SharedRow);
        let weights = Weights::new(Prior::Bigram, Some(&once), &graph);
        // 0.25 + 0.75 · (0.25 / 2 + 0.75 · 2 / 2 / 4).
        close([weights.of(0, 1)], &[0.484_375]);
        let never = PairCounts::of(4, [[0u32]]);
        let graph = never.graph(1, BackOff::SharedRow);
        let weights = Weights::new(Prior::Bigram, Some(&never), &graph);
        close([weights.of(0, 1), weights.of(3, 3)], &[0.25, 0.25]);
        close(
            weights
                .shared(&graph, 1)
                .into_iter()
                .map(|(_, p)| f64::from(p)),
            &[1.0],
        );
    }

    #[test]
    fn without_a_prior_a_shared_row_weighs_as_many_as_use_it() {
        let counts = PairCounts::of(4, [[0, 1, 0, 1, 0, 2]]);
        let graph = counts.graph(2, BackOff::SharedRow);
        for weights in [
            Weights::new(Prior::None, Some(&counts), &graph),
            Weights::new(Prior::Bigram, None, &graph),
        ] {
            assert_eq!((weights.of(0, 1), weights.of(2, 3)), (1.0, 1.0));
            assert_eq!(weights.own(&graph, 0), [1.0]);
            assert_eq!(weights.shared(&graph, 0), [(0, 3.0)]);
            assert_eq!(weights.shared(&graph, 3), [(0, 4.0)]);
        }
        let full = Graph::full(3);
        assert_eq!(Weights::One.shared(&full, 0), [(0, 0.0)]);
    }
}

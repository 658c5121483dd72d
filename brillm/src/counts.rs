//! Counts of ordered pairs of tokens, and what follows from them: graphs of edges, most frequent successors.

use crate::graph::{BackOff, Graph, frequency_classes};
use std::ops::{AddAssign, Range};

/// Counts of ordered pairs as compressed sparse rows.
#[derive(Clone, Debug, PartialEq)]
pub struct PairCounts {
    /// `first[s]..first[s + 1]` is the range of source `s` in the two lists below; one entry more than nodes.
    pub first: Vec<u64>,
    /// Targets, rising within a source.
    pub targets: Vec<u32>,
    /// How often the pair was seen. A pair of an imported graph may own an edge without having been seen: then 0.
    pub counts: Vec<u32>,
    /// How often each token was seen.
    pub tokens: Vec<u64>,
}

impl PairCounts {
    /// Counts adjacent pairs within each sequence; nothing is counted across two of them. Counts saturate.
    ///
    /// # Panics
    /// If a token is no node.
    pub fn of<S: AsRef<[u32]>>(nodes: usize, sequences: impl IntoIterator<Item = S>) -> Self {
        Self::behind(None, nodes, sequences)
    }

    /// The same with a token before each sequence: it is the source of the first pair, and itself not counted as seen.
    ///
    /// # Panics
    /// If a token is no node.
    pub fn behind<S: AsRef<[u32]>>(
        start: Option<u32>,
        nodes: usize,
        sequences: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut tokens = vec![0u64; nodes];
        let mut pairs = SortedPairs::default();
        let pair = |from: u32, to: u32| u64::from(from) << 32 | u64::from(to);
        for sequence in sequences {
            let sequence = sequence.as_ref();
            let first = start.zip(sequence.first());
            pairs.extend(first.into_iter().map(|(from, &to)| pair(from, to)));
            for &token in sequence {
                tokens[token as usize] += 1;
            }
            pairs.extend(sequence.windows(2).map(|two| pair(two[0], two[1])));
        }
        let mut first = vec![0u64; nodes + 1];
        let mut targets = Vec::new();
        let mut counts = Vec::new();
        for (pair, count) in pairs.finish() {
            first[(pair >> 32) as usize + 1] += 1;
            targets.push(pair as u32);
            counts.push(u32::try_from(count).unwrap_or(u32::MAX));
        }
        for node in 0..nodes {
            first[node + 1] += first[node];
        }
        Self {
            first,
            targets,
            counts,
            tokens,
        }
    }

    /// Checks that the lists belong together.
    ///
    /// # Errors
    /// A description of the first thing that does not fit.
    pub fn check(&self) -> Result<(), String> {
        let nodes = self.tokens.len();
        let pairs = self.targets.len();
        if self.first.len() != nodes + 1 || self.first[0] != 0 || self.first[nodes] != pairs as u64
        {
            return Err(format!(
                "{} row ends for {nodes} tokens and {pairs} pairs",
                self.first.len()
            ));
        }
        if self.counts.len() != pairs {
            return Err(format!("{} counts for {pairs} pairs", self.counts.len()));
        }
        for source in 0..nodes {
            if self.first[source] > self.first[source + 1] || self.first[source + 1] > pairs as u64
            {
                return Err(format!("the row of token {source} ends before it begins"));
            }
            let row = &self.targets[self.places(source as u32)];
            let rises = row.is_sorted_by(|a, b| a < b);
            if !rises || row.last().is_some_and(|&last| last as usize >= nodes) {
                return Err(format!(
                    "targets of token {source} that do not rise or are no tokens"
                ));
            }
        }
        Ok(())
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        self.tokens.len()
    }

    /// The number of distinct pairs.
    pub fn pairs(&self) -> usize {
        self.targets.len()
    }

    /// Where the pairs of a source are in the lists.
    fn places(&self, source: u32) -> Range<usize> {
        self.first[source as usize] as usize..self.first[source as usize + 1] as usize
    }

    /// The targets that followed a token, and how often.
    pub fn successors(&self, source: u32) -> impl Iterator<Item = (u32, u32)> + Clone + '_ {
        let range = self.places(source);
        let counts = self.counts[range.clone()].iter().copied();
        self.targets[range].iter().copied().zip(counts)
    }

    /// How many different tokens followed a token.
    pub fn degree(&self, source: u32) -> usize {
        self.places(source).len()
    }

    /// How often a pair was seen.
    pub fn count(&self, source: u32, target: u32) -> u32 {
        let range = self.places(source);
        let place = self.targets[range.clone()].binary_search(&target);
        place.map_or(0, |place| self.counts[range.start + place])
    }

    /// The graph whose edges are the pairs seen at least `min_count` times.
    pub fn graph(&self, min_count: u32, back_off: BackOff) -> Graph {
        let kept = |source: u32| {
            let successors = self.successors(source);
            let kept = successors.filter(|&(_, count)| count >= min_count);
            kept.map(|(target, _)| target).collect()
        };
        let nodes = self.nodes();
        let kept = (0..nodes as u32).map(kept);
        match back_off {
            BackOff::SharedRow => Graph::new(nodes, kept),
            BackOff::Hash { n_rows } => Graph::with_hash(nodes, n_rows.max(1), kept),
            BackOff::Classes { n_classes } => {
                let n_classes = n_classes.clamp(1, nodes.max(1));
                let classes = frequency_classes(&self.tokens, n_classes);
                Graph::with_classes(classes, n_classes, kept)
            }
        }
    }

    /// The number of rows in the edge table of [`Self::graph`], without making the graph.
    pub fn rows(&self, min_count: u32, back_off: BackOff) -> usize {
        let kept = self.counts.iter().filter(|&&count| count >= min_count);
        let shared = match back_off {
            BackOff::SharedRow => 1,
            BackOff::Hash { n_rows } => n_rows.max(1),
            BackOff::Classes { n_classes } => n_classes.clamp(1, self.nodes().max(1)).pow(2),
        };
        kept.count().saturating_add(shared)
    }

    /// The `n` most frequent successors of a token; ties and what was never seen come by rising id.
    pub fn most_frequent(&self, source: u32, n: usize) -> Vec<u32> {
        let seen = self.successors(source).filter(|&(_, count)| count > 0);
        let mut seen: Vec<(u32, u32)> = seen.collect();
        seen.sort_by_key(|&(target, count)| (std::cmp::Reverse(count), target));
        let mut list: Vec<u32> = seen.iter().take(n).map(|&(target, _)| target).collect();
        let n = n.min(self.nodes());
        if list.len() < n {
            let unseen = (0..self.nodes() as u32).filter(|&target| self.count(source, target) == 0);
            list.extend(unseen.take(n - list.len()));
        }
        list
    }
}

/// Sorts a list by its keys, each of which stands there once, with the sum of its values in the order in which they came. Two
/// lists that rise, one behind the other, are merged in one go.
pub(crate) fn sum_up<K: Ord + Copy, V: AddAssign + Copy>(list: &mut Vec<(K, V)>) {
    list.sort_by_key(|&(key, _)| key);
    list.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
}

/// Sorted and merged as they come, so that memory follows the distinct pairs and not the text.
#[derive(Default)]
struct SortedPairs {
    merged: Vec<(u64, u64)>,
    fresh: Vec<u64>,
}

impl SortedPairs {
    const AT_ONCE: usize = 1 << 22;

    fn extend(&mut self, keys: impl Iterator<Item = u64>) {
        self.fresh.extend(keys);
        if self.fresh.len() >= Self::AT_ONCE.max(self.merged.len() / 4) {
            self.merge();
        }
    }

    fn merge(&mut self) {
        self.fresh.sort_unstable();
        let runs = self.fresh.chunk_by(|a, b| a == b);
        self.merged
            .extend(runs.map(|run| (run[0], run.len() as u64)));
        self.fresh.clear();
        sum_up(&mut self.merged);
    }

    fn finish(mut self) -> Vec<(u64, u64)> {
        self.merge();
        self.merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_within_sequences_only() {
        let behind = PairCounts::behind(Some(2), 4, [vec![0, 1], vec![0], vec![]]);
        assert_eq!([behind.count(2, 0), behind.count(0, 1)], [2, 1]);
        assert_eq!(behind.tokens, [2, 1, 0, 0]);
        let counts = PairCounts::of(4, [vec![0, 1, 0, 1, 1], vec![3], vec![1, 0]]);
        assert_eq!(counts.tokens, [3, 4, 0, 1]);
        assert_eq!(counts.successors(0).collect::<Vec<_>>(), [(1, 2)]);
        assert_eq!(counts.successors(1).collect::<Vec<_>>(), [(0, 2), (1, 1)]);
        assert_eq!((counts.count(3, 1), counts.count(2, 2)), (0, 0));
        assert_eq!(counts.graph(2, BackOff::SharedRow).edges(), 2);
        let classes = BackOff::Classes { n_classes: 3 };
        for back_off in [BackOff::SharedRow, classes, BackOff::Hash { n_rows: 5 }] {
            let rows = counts.rows(2, back_off);
            assert_eq!(rows, counts.graph(2, back_off).rows());
        }
    }

    #[test]
    fn merging_in_pieces_changes_nothing() {
        let keys: Vec<u64> = (0..1000).map(|i| i * i % 37).collect();
        let mut whole = SortedPairs::default();
        whole.extend(keys.iter().copied());
        let mut pieces = SortedPairs::default();
        for key in &keys {
            pieces.extend([*key].into_iter());
            pieces.merge();
        }
        assert_eq!(whole.finish(), pieces.finish());
    }

    #[test]
    fn the_most_frequent_come_first_and_the_unseen_last() {
        let counts = PairCounts::of(5, [vec![0, 3, 0, 3, 0, 1, 0, 4, 0]]);
        assert_eq!(counts.most_frequent(0, 2), [3, 1]);
        assert_eq!(counts.most_frequent(0, 9), [3, 1, 4, 0, 2]);
        // A pair that is listed and was never seen.
        let listed = PairCounts {
            first: vec![0, 2, 2, 2],
            targets: vec![1, 2],
            counts: vec![0, 3],
            tokens: vec![3, 0, 0],
        };
        assert_eq!(listed.most_frequent(0, 9), [2, 0, 1]);
    }

    #[test]
    fn an_edge_is_a_pair_seen_often_enough() {
        // 0 1 three times, 1 0 twice, 1 2 once.
        let counts = PairCounts::of(3, [[0, 1, 0, 1, 0, 1, 2]]);
        for (min_count, edges) in [(0, 3), (1, 3), (2, 2), (3, 1), (4, 0)] {
            assert_eq!(counts.graph(min_count, BackOff::SharedRow).edges(), edges);
            assert_eq!(counts.rows(min_count, BackOff::SharedRow), edges + 1);
        }
        let graph = counts.graph(2, BackOff::SharedRow);
        assert_eq!((graph.targets(0), graph.targets(1)), (&[1][..], &[0][..]));
        assert_eq!(
            (counts.degree(0), counts.degree(1), counts.degree(2)),
            (1, 2, 0)
        );
        assert_eq!((counts.pairs(), counts.nodes()), (3, 3));
        assert!(counts.most_frequent(0, 0).is_empty());
    }

    #[test]
    fn lists_that_do_not_belong_together_are_found() {
        let good = PairCounts::of(3, [[0, 1, 0, 2, 1]]);
        assert_eq!(good.check(), Ok(()));
        type Change = fn(&mut PairCounts);
        let changes: [(Change, &str); 8] = [
            (|c| c.first.truncate(3), "row ends"),
            (|c| c.first[0] = 1, "row ends"),
            (|c| c.first[3] += 1, "row ends"),
            (|c| c.counts.truncate(1), "counts for"),
            (|c| c.first[2] = 1, "ends before it begins"),
            (|c| c.first[1] = 9, "ends before it begins"),
            (|c| c.targets[0] = 2, "do not rise"),
            (|c| c.targets[1] = 3, "no tokens"),
        ];
        for (index, (change, expected)) in changes.into_iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            let message = bad.check().unwrap_err();
            assert!(message.contains(expected), "{index}: {message}");
        }
    }
}

//! The graph: which pairs of tokens have an edge of their own, and which row of the edge table every pair uses.
//!
//! Compressed sparse rows: first the back-off rows, then the own rows in the order of (source, target), so that all
//! edges out of one node lie side by side. With one class there is one back-off row, row 0.

use crate::shard::{Peers, Shard};
use serde::Deserialize;
use std::ops::Range;
use std::sync::Arc;

/// What a pair without an edge of its own uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackOff {
    /// One row for all of them (the reference).
    SharedRow,
    /// A row for every pair of classes; nodes are put into classes of equal size by their frequency.
    Classes {
        /// How many classes of nodes.
        n_classes: usize,
    },
    /// A fixed number of rows, of which a hash of the pair picks one.
    Hash {
        /// How many rows.
        n_rows: usize,
    },
}

/// Which back-off row a pair of classes uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// Every pair of classes has one.
    Pairs,
    /// There are as many rows as classes; the sum of the classes picks one.
    Sums,
}

impl Sharing {
    fn rows(self, n_classes: usize) -> usize {
        match self {
            Self::Pairs => n_classes * n_classes,
            Self::Sums => n_classes,
        }
    }
}

/// The rows of the edge table.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    classes: Vec<u32>,
    n_classes: usize,
    sharing: Sharing,
    class_sizes: Vec<u32>,
    /// `first[s]..first[s + 1]` are the own rows of source `s`.
    first: Vec<u64>,
    targets: Vec<u32>,
    /// The rows that lie in this process, if not all do.
    shard: Option<Shard>,
}

impl Graph {
    /// Every ordered pair has an edge; row 0 exists and no pair uses it (the reference without a count file).
    pub fn full(nodes: usize) -> Self {
        let all: Vec<u32> = (0..nodes as u32).collect();
        Self::new(nodes, (0..nodes).map(|_| all.clone()))
    }

    /// A graph with one back-off row.
    ///
    /// `successors` gives for every source in turn its targets in rising order.
    ///
    /// # Panics
    /// If there are more or fewer sources than nodes, or targets do not rise or are no nodes.
    pub fn new(nodes: usize, successors: impl IntoIterator<Item = Vec<u32>>) -> Self {
        Self::with_classes(vec![0; nodes], 1, successors)
    }

    /// A graph with a back-off row for every pair of classes.
    ///
    /// # Panics
    /// Like [`Self::new`], and if a class is not below `n_classes`.
    pub fn with_classes(
        classes: Vec<u32>,
        n_classes: usize,
        successors: impl IntoIterator<Item = Vec<u32>>,
    ) -> Self {
        Self::shared_by(Sharing::Pairs, classes, n_classes, successors)
    }

    /// A graph with `n_rows` back-off rows, which a hash spreads the pairs over.
    ///
    /// # Panics
    /// Like [`Self::new`], and without a row.
    pub fn with_hash(
        nodes: usize,
        n_rows: usize,
        successors: impl IntoIterator<Item = Vec<u32>>,
    ) -> Self {
        // The finaliser of splitmix64 (Steele et al. 2014).
        let hash = |node: u64| {
            let mixed = (node ^ node >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ mixed >> 31) % n_rows as u64) as u32
        };
        let classes = (1..=nodes as u64).map(hash).collect();
        Self::shared_by(Sharing::Sums, classes, n_rows, successors)
    }

    fn shared_by(
        sharing: Sharing,
        classes: Vec<u32>,
        n_classes: usize,
        successors: impl IntoIterator<Item = Vec<u32>>,
    ) -> Self {
        let nodes = classes.len();
        let mut class_sizes = vec![0; n_classes];
        for &class in &classes {
            class_sizes[class as usize] += 1;
        }
        let mut first = vec![sharing.rows(n_classes) as u64];
        let mut targets = Vec::new();
        for list in successors {
            assert!(list.is_sorted_by(|a, b| a < b), "targets rise");
            assert!(
                list.last().is_none_or(|&last| (last as usize) < nodes),
                "targets are nodes"
            );
            first.push(first[first.len() - 1] + list.len() as u64);
            targets.extend(list);
        }
        assert_eq!(first.len(), nodes + 1, "one list of targets per node");
        Self {
            classes,
            n_classes,
            sharing,
            class_sizes,
            first,
            targets,
            shard: None,
        }
    }

    /// The same graph, of whose rows each of several processes holds a part.
    pub fn shared_among(mut self, peers: Arc<dyn Peers>) -> Self {
        let own_rows: Vec<usize> = (0..self.nodes() as u32)
            .map(|source| self.own_rows(source).len())
            .collect();
        self.shard = Some(Shard::new(self.back_off_rows(), &own_rows, peers));
        self
    }

    /// The rows that lie in this process, if not all do.
    pub fn shard(&self) -> Option<&Shard> {
        self.shard.as_ref()
    }

    /// Whether the own rows of a source lie in this process.
    pub fn is_here(&self, source: u32) -> bool {
        self.shard().is_none_or(|shard| shard.is_here(source))
    }

    /// The number of rows of the edge table that lie in this process.
    pub fn rows_here(&self) -> usize {
        self.shard().map_or(self.rows(), Shard::rows)
    }

    /// The numbers of the rows of this process, in the order in which they lie there.
    pub fn numbers_here(&self) -> Vec<usize> {
        let own = (0..self.nodes() as u32).filter(|&source| self.is_here(source));
        let own = own.flat_map(|source| self.own_rows(source));
        (0..self.back_off_rows()).chain(own).collect()
    }

    /// Where a row lies among those of this process: a back-off row, or one of a source whose rows are here.
    #[inline(always)]
    pub fn place(&self, source: u32, row: usize) -> usize {
        match &self.shard {
            Some(shard) if self.is_own(row) => {
                shard.first(source) + row - self.own_rows(source).start
            }
            _ => row,
        }
    }

    /// The same for the own rows of a source; nothing if they lie elsewhere.
    pub fn places(&self, source: u32) -> Range<usize> {
        match &self.shard {
            Some(shard) if !shard.is_here(source) => 0..0,
            Some(shard) => shard.first(source)..shard.first(source) + self.own_rows(source).len(),
            None => self.own_rows(source),
        }
    }

    /// The rows of a range that a process of those that share the table holds, as pieces of the range, rising. Back-off rows are
    /// counted as the first one's.
    pub fn pieces_of(&self, rank: usize, rows: Range<usize>) -> Vec<(Option<u32>, Range<usize>)> {
        let back_off = (rank == 0).then_some((None, 0..self.back_off_rows()));
        // The sources whose rows end behind the beginning of the range.
        let ends = &self.first[1..];
        let first = ends.partition_point(|&end| end as usize <= rows.start);
        let own = (first as u32..self.nodes() as u32)
            .map(|source| (Some(source), self.own_rows(source)))
            .take_while(|(_, own)| own.start < rows.end)
            .filter(|(source, _)| match (&self.shard, source) {
                (Some(shard), Some(source)) => shard.owner(*source) == rank,
                _ => rank == 0,
            });
        let cut = |(source, all): (Option<u32>, Range<usize>)| {
            (source, all.start.max(rows.start)..all.end.min(rows.end))
        };
        back_off
            .into_iter()
            .chain(own)
            .map(cut)
            .filter(|(_, piece)| !piece.is_empty())
            .collect()
    }

    /// Where the rows of a piece lie among those of this process; the inverse of [`Self::pieces_of`].
    pub fn place_of_piece(&self, source: Option<u32>, piece: &Range<usize>) -> Range<usize> {
        let first = source.map_or(piece.start, |source| self.place(source, piece.start));
        first..first + piece.len()
    }

    /// The number of nodes.
    pub fn nodes(&self) -> usize {
        self.classes.len()
    }

    /// The number of rows of the edge table.
    pub fn rows(&self) -> usize {
        self.first[self.nodes()] as usize
    }

    /// The number of rows that pairs without an edge share; they come first.
    pub fn back_off_rows(&self) -> usize {
        self.sharing.rows(self.n_classes)
    }

    /// The number of pairs with an edge of their own.
    pub fn edges(&self) -> usize {
        self.targets.len()
    }

    /// The rows of the edges out of a node.
    pub fn own_rows(&self, source: u32) -> Range<usize> {
        self.first[source as usize] as usize..self.first[source as usize + 1] as usize
    }

    /// The targets of the edges out of a node, rising.
    pub fn targets(&self, source: u32) -> &[u32] {
        let base = self.back_off_rows();
        let rows = self.own_rows(source);
        &self.targets[rows.start - base..rows.end - base]
    }

    /// The row of a pair's own edge.
    pub fn own_row(&self, source: u32, target: u32) -> Option<usize> {
        let place = self.targets(source).binary_search(&target).ok()?;
        Some(self.own_rows(source).start + place)
    }

    /// The row a pair uses if it has no edge of its own.
    pub fn back_off_row(&self, source: u32, target: u32) -> usize {
        self.row_of_class(source, self.classes[target as usize] as usize)
    }

    fn row_of_class(&self, source: u32, class: usize) -> usize {
        let of_source = self.classes[source as usize] as usize;
        match self.sharing {
            Sharing::Pairs => of_source * self.n_classes + class,
            Sharing::Sums => (of_source + class) % self.n_classes,
        }
    }

    /// The row a pair uses.
    pub fn row(&self, source: u32, target: u32) -> usize {
        self.own_row(source, target)
            .unwrap_or_else(|| self.back_off_row(source, target))
    }

    /// Whether a row is an edge's own.
    pub fn is_own(&self, row: usize) -> bool {
        row >= self.back_off_rows()
    }

    /// The pair that owns a row.
    pub fn pair(&self, row: usize) -> Option<(u32, u32)> {
        let place = row.checked_sub(self.back_off_rows())?;
        let target = *self.targets.get(place)?;
        let source = self.first.partition_point(|&first| first as usize <= row) - 1;
        Some((source as u32, target))
    }

    /// The class of every node.
    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// How many classes there are.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// The back-off rows of a source, one per class of targets in their order, with the number of targets that use it.
    pub fn shared(&self, source: u32) -> Vec<(usize, u32)> {
        let mut left = self.class_sizes.clone();
        for &target in self.targets(source) {
            left[self.classes[target as usize] as usize] -= 1;
        }
        let with_row = |(class, n)| (self.row_of_class(source, class), n);
        left.into_iter().enumerate().map(with_row).collect()
    }
}

/// Classes of equal size by falling frequency; ties go to the lower id.
///
/// # Panics
/// If there are no classes.
pub fn frequency_classes(frequency: &[u64], n_classes: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..frequency.len() as u32).collect();
    order.sort_by_key(|&node| (std::cmp::Reverse(frequency[node as usize]), node));
    let mut classes = vec![0; frequency.len()];
    for (rank, node) in order.into_iter().enumerate() {
        classes[node as usize] = (rank * n_classes / frequency.len()) as u32;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Graph {
        // Node 1 has no successor, node 2 has itself.
        Graph::new(4, [vec![1, 3], vec![], vec![2], vec![0, 1, 2, 3]])
    }

    #[test]
    fn rows_count_the_pairs_before_in_lexicographic_order() {
        let graph = small();
        let mut next = 1;
        for source in 0..4 {
            for target in 0..4 {
                let own = graph.targets(source).contains(&target);
                assert_eq!(graph.row(source, target), if own { next } else { 0 });
                assert_eq!(graph.is_own(graph.row(source, target)), own);
                if own {
                    assert_eq!(graph.pair(next), Some((source, target)));
                    next += 1;
                }
            }
        }
        assert_eq!(graph.rows(), next);
        assert_eq!(graph.pair(0), None);
        assert_eq!(graph.pair(next), None);
    }

    #[test]
    fn a_full_graph_never_uses_row_0() {
        let graph = Graph::full(5);
        assert_eq!(graph.rows(), 26);
        for source in 0..5 {
            for target in 0..5 {
                let row = 1 + 5 * source as usize + target as usize;
                assert_eq!(graph.row(source, target), row);
            }
            assert_eq!(graph.shared(source), [(0, 0)]);
        }
    }

    #[test]
    fn every_target_is_counted_once_in_own_and_shared_rows() {
        let classes = frequency_classes(&[5, 9, 1, 7], 2);
        assert_eq!(classes, [1, 0, 1, 0]);
        let successors = [vec![1, 3], vec![], vec![2], vec![0, 1, 2, 3]];
        let by_class = Graph::with_classes(classes, 2, successors.clone());
        assert_eq!(by_class.back_off_rows(), 4);
        let by_hash = Graph::with_hash(4, 3, successors);
        assert_eq!(by_hash.back_off_rows(), 3);
        for graph in [by_class, by_hash] {
            for source in 0..4 {
                let shared = graph.shared(source);
                let own = graph.targets(source);
                assert_eq!(
                    shared.iter().map(|(_, n)| n).sum::<u32>() as usize + own.len(),
                    4
                );
                for (row, n) in shared {
                    let uses =
                        |target: &u32| graph.row(source, *target) == row && !own.contains(target);
                    assert_eq!((0..4).filter(uses).count(), n as usize);
                }
            }
        }
    }

    #[test]
    fn classes_are_of_equal_size_and_ties_go_to_the_lower_id() {
        assert_eq!(frequency_classes(&[3, 3, 3, 3], 2), [0, 0, 1, 1]);
        // Ranks 0 to 4, times two, by five.
        assert_eq!(frequency_classes(&[1, 8, 5, 8, 9], 2), [1, 0, 1, 0, 0]);
        assert_eq!(frequency_classes(&[1, 2, 3], 1), [0, 0, 0]);
    }

    #[test]
    fn a_back_off_row_is_that_of_the_classes_in_their_order() {
        let graph = Graph::with_classes(vec![0, 2, 1], 3, [vec![], vec![0], vec![]]);
        // Three times the class of the source, and the class of the target.
        let row = |source, target| graph.row(source, target);
        assert_eq!([row(0, 1), row(1, 2), row(2, 0)], [2, 7, 3]);
        assert_eq!((row(1, 0), graph.back_off_row(1, 0)), (9, 6));
        assert_eq!(graph.shared(1), [(6, 0), (7, 1), (8, 1)]);
        assert_eq!((graph.own_rows(1), graph.own_rows(2)), (9..10, 10..10));
    }

    #[test]
    fn the_hash_of_a_node_never_changes() {
        // What a table was trained with lies in files: splitmix64's finaliser of 1 to 8, by 5.
        let graph = Graph::with_hash(8, 5, vec![vec![]; 8]);
        let classes = [4, 0, 1, 2, 2, 2, 4, 0];
        assert_eq!(graph.classes(), classes);
        for (source, target) in [(0, 1), (3, 7), (6, 6)] {
            let sum = classes[source as usize] + classes[target as usize];
            assert_eq!(graph.row(source, target), sum as usize % 5);
        }
    }
}

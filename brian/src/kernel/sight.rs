//! Who sees whom, where attention runs on rows: sequence by sequence the first keys, so many of them for each query.

/// The queries and keys of some sequences, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Per sequence.
    pub n_queries: Vec<usize>,
    /// Per sequence.
    pub n_keys: Vec<usize>,
    /// Per query, how many of its sequence's keys it sees, at least one.
    pub visible: Vec<usize>,
}

impl Sight {
    /// Every token sees those before it and itself.
    pub fn whole(batch: usize, seq: usize) -> Self {
        Self {
            n_queries: vec![seq; batch],
            n_keys: vec![seq; batch],
            visible: (0..batch).flat_map(|_| 1..=seq).collect(),
        }
    }
}

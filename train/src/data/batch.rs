//! Gathers windows of splits into a `HostBatch`: flat arrays of inputs, targets and mask on the host, one row per window.

use super::window::Windows;

/// A batch of windows, one per row. `inputs`, `targets` and `valid` are `[batch, seq]` in row-major order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostBatch {
    /// Input tokens.
    pub inputs: Vec<u32>,
    /// Target tokens: the next token at each position.
    pub targets: Vec<u32>,
    /// `true` where the target counts.
    pub valid: Vec<bool>,
    /// Bytes of the source that the counted targets stand for.
    pub bytes: u64,
    /// Number of rows.
    pub batch: usize,
    /// Number of columns.
    pub seq: usize,
    /// For each row, the index of its source and of the window in that source.
    pub ids: Vec<(usize, u64)>,
    /// The lengths of documents that share rows, row by row, padding with the last of a row; empty where every row is one text.
    pub parts: Vec<usize>,
    /// For each of these, or for each row, its difficulty, if known.
    pub difficulty: Vec<Option<u8>>,
    /// For each row, its sequence number, which decides its random draws.
    pub sequences: Vec<u64>,
}

/// Gathers the windows `ids`, each a source and a window index, into a batch; `sequences` are their sequence numbers.
///
/// # Panics
/// If a source or window does not exist, or the sources' windows differ in length.
pub fn collect(sources: &[Windows], ids: &[(usize, u64)], sequences: Vec<u64>) -> HostBatch {
    let first = ids.first();
    let seq = first.map_or(0, |(source, _)| sources[*source].window());
    let mut host = HostBatch {
        batch: ids.len(),
        seq,
        ids: ids.to_vec(),
        sequences,
        ..HostBatch::default()
    };
    for (source, index) in ids {
        let window = sources[*source].get(*index);
        let length = window.inputs.len();
        assert_eq!(length, seq, "windows of one batch have one length");
        host.inputs.extend(window.inputs);
        host.targets.extend(window.targets);
        host.valid.extend(window.valid);
        host.bytes += window.bytes;
        host.parts.extend(window.parts);
        host.difficulty.extend(window.difficulty);
    }
    if host.parts.len() == ids.len() {
        host.parts.clear();
    }
    host
}

#[cfg(test)]
mod tests {
    use super::super::shard::Split;
    use super::super::shard::tests::split_of_lines;
    use super::super::{Beginning, Cut, DocumentsRule};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn rows_are_the_windows_in_the_order_asked_for() {
        let split = Arc::new(Split::open(split_of_lines(&["abcdefghijkl", "mnop"])).unwrap());
        let sources: Vec<Windows> = [DocumentsRule::RunOn, DocumentsRule::Separate]
            .map(|documents| {
                let cut = Cut {
                    window: 5,
                    documents,
                    beginning: Beginning::Symbol(256),
                    stride: None,
                    full_only: false,
                };
                let windows = Windows::new(split.clone(), cut, Arc::new(vec![1; 260]));
                windows.unwrap().graded(Some(vec![Some(2), None]))
            })
            .into();
        let ids = [(1, 3), (0, 0)];
        let host = collect(&sources, &ids, vec![3, 4]);
        assert_eq!((host.batch, host.seq), (2, 5));
        assert_eq!(host.ids, ids);
        assert_eq!(host.sequences, [3, 4]);
        // The third window apart is the rest of the first document's, the fourth is the other document.
        assert_eq!(host.difficulty, [None, Some(2)]);
        for (row, (source, index)) in ids.into_iter().enumerate() {
            let window = sources[source].get(index);
            assert_eq!(host.inputs[row * 5..][..5], window.inputs);
            assert_eq!(host.targets[row * 5..][..5], window.targets);
            assert_eq!(host.valid[row * 5..][..5], window.valid);
        }
        let bytes = ids.map(|(source, index)| sources[source].get(index).bytes);
        assert_eq!(host.bytes, bytes.iter().sum::<u64>());
    }

    #[test]
    fn documents_that_share_rows_are_told_by_their_lengths() {
        let split = Arc::new(Split::open(split_of_lines(&["abcdefg", "mnop", "q"])).unwrap());
        let cut = Cut {
            window: 8,
            documents: DocumentsRule::Packed,
            beginning: Beginning::Symbol(256),
            stride: None,
            full_only: false,
        };
        let windows = Windows::new(split, cut, Arc::new(vec![1; 260])).unwrap();
        let windows = [windows.graded(Some(vec![Some(0), Some(1), Some(2)]))];
        let host = collect(&windows, &[(0, 1), (0, 0)], vec![5, 6]);
        assert_eq!(host.parts, [5, 3, 8]);
        assert_eq!(host.difficulty, [Some(1), Some(2), Some(0)]);
        assert_eq!(host.valid.iter().filter(|valid| !**valid).count(), 1);
        // A row that is one document is a row as ever.
        let host = collect(&windows, &[(0, 0)], vec![6]);
        assert_eq!((host.parts, host.difficulty), (Vec::new(), vec![Some(0)]));
    }

    #[test]
    fn no_window_is_an_empty_batch() {
        assert_eq!(collect(&[], &[], Vec::new()), HostBatch::default());
    }
}

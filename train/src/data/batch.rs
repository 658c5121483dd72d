//! The windows of one step, laid out as the device wants them.

use super::window::Windows;

/// Windows below each other; every list but `ids` is `[batch, seq]` in row order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostBatch {
    /// What the model reads.
    pub inputs: Vec<u32>,
    /// What comes next.
    pub targets: Vec<u32>,
    /// `true` where there is something to predict.
    pub valid: Vec<bool>,
    /// Bytes of the source that the counted targets stand for.
    pub bytes: u64,
    /// Rows.
    pub batch: usize,
    /// Columns.
    pub seq: usize,
    /// Per row the source and the window within it.
    pub ids: Vec<(usize, u64)>,
    /// Per row how hard it is, if that is known.
    pub difficulty: Vec<Option<u8>>,
    /// Per row a number of its own, which decides its draws.
    pub sequences: Vec<u64>,
}

/// Gathers windows, each named by its source and its index; what is numbered by the caller comes with them.
///
/// # Panics
/// If a source or window does not exist, or the sources' windows differ in length.
pub fn collect(sources: &[Windows], ids: &[(usize, u64)], sequences: Vec<u64>) -> HostBatch {
    let seq = ids
        .first()
        .map_or(0, |(source, _)| sources[*source].window());
    let mut host = HostBatch {
        batch: ids.len(),
        seq,
        ids: ids.to_vec(),
        sequences,
        ..HostBatch::default()
    };
    for (source, index) in ids {
        let window = sources[*source].get(*index);
        assert_eq!(
            window.inputs.len(),
            seq,
            "windows of one batch have one length"
        );
        host.inputs.extend(window.inputs);
        host.targets.extend(window.targets);
        host.valid.extend(window.valid);
        host.bytes += window.bytes;
        host.difficulty.push(window.difficulty);
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
    fn no_window_is_an_empty_batch() {
        assert_eq!(collect(&[], &[], Vec::new()), HostBatch::default());
    }
}

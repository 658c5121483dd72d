//! `Packing`: which pieces of documents share a window. Best fit, the longest first: a piece goes where the least room is left that
//! holds it, and opens a window where there is none (Johnson et al. 1974; of texts, Ding et al. 2024).
//!
//! Pieces are packed stretch by stretch, so that little is in memory at once and windows stay near the order of the split. What is
//! kept are 8 bytes for every piece and 8 for every window.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Pieces that are packed together.
const STRETCH: usize = 1 << 16;

/// The pieces of every window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Window by window, and rising in each; windows follow their first pieces.
    pieces: Vec<u64>,
    /// How many pieces lie before each window, and how many there are in all.
    first: Vec<usize>,
}

impl Packing {
    /// Packs pieces of these lengths into windows of `window` tokens.
    ///
    /// # Panics
    /// If a piece is longer than a window.
    pub fn best_fit(mut lengths: impl Iterator<Item = usize>, window: usize) -> Self {
        let mut packing = Self {
            pieces: Vec::new(),
            first: vec![0],
        };
        loop {
            let stretch: Vec<usize> = lengths.by_ref().take(STRETCH).collect();
            if stretch.is_empty() {
                return packing;
            }
            let before = packing.pieces.len();
            for pieces in windows(&stretch, window) {
                let pieces = pieces.into_iter().map(|piece| (before + piece) as u64);
                packing.pieces.extend(pieces);
                packing.first.push(packing.pieces.len());
            }
        }
    }

    /// How many windows there are.
    pub fn n_windows(&self) -> u64 {
        self.first.len() as u64 - 1
    }

    /// The pieces of a window, rising.
    pub fn pieces(&self, window: u64) -> &[u64] {
        let window = window as usize;
        &self.pieces[self.first[window]..self.first[window + 1]]
    }
}

/// The windows of a stretch, in the order of their first pieces.
fn windows(lengths: &[usize], window: usize) -> Vec<Vec<usize>> {
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|&piece| Reverse(lengths[piece]));
    let mut windows: Vec<Vec<usize>> = Vec::new();
    let mut with_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for piece in longest_first {
        let length = lengths[piece];
        assert!(length <= window, "{length} tokens in a window of {window}");
        let best = with_room.range(length..).next().map(|(&room, _)| room);
        let (index, room) = match best.and_then(|room| Some((with_room.remove(&room)?, room))) {
            Some((mut same, room)) => {
                let index = same.pop().expect("no list is empty");
                if !same.is_empty() {
                    with_room.insert(room, same);
                }
                (index, room)
            }
            None => {
                windows.push(Vec::new());
                (windows.len() - 1, window)
            }
        };
        windows[index].push(piece);
        if room > length {
            with_room.entry(room - length).or_default().push(index);
        }
    }
    windows.iter_mut().for_each(|pieces| pieces.sort_unstable());
    windows.sort_unstable_by_key(|pieces| pieces[0]);
    windows
}

#[cfg(test)]
mod tests {
    use super::*;
    use brian::random;

    fn packed(lengths: &[usize], window: usize) -> Vec<Vec<u64>> {
        let packing = Packing::best_fit(lengths.iter().copied(), window);
        let windows = 0..packing.n_windows();
        windows.map(|w| packing.pieces(w).to_vec()).collect()
    }

    #[test]
    fn a_piece_goes_where_the_least_room_is_left() {
        // 6 and 5 open windows; 4 fills the one of 6, for room 4 is less than room 5; 3 and 2 fill that of 5; 1 opens one.
        assert_eq!(
            packed(&[2, 6, 3, 5, 4, 1], 10),
            [vec![0, 2, 3], vec![1, 4], vec![5]]
        );
        assert_eq!(packed(&[4, 4, 4], 4), [[0], [1], [2]]);
        assert_eq!(packed(&[], 4), [[0u64; 0]; 0]);
    }

    #[test]
    fn all_pieces_lie_in_one_window_each_and_no_two_windows_fit_into_one() {
        for seed in 0..60 {
            let draw = |name, place| random::bits(random::key(seed, name, 0), place) as usize;
            let window = 1 + draw("window", 0) % 40;
            let n_pieces = draw("pieces", 0) % 300;
            let lengths: Vec<usize> = (0..n_pieces as u64)
                .map(|piece| 1 + draw("length", piece) % window)
                .collect();
            let windows = packed(&lengths, window);
            let mut all = windows.concat();
            all.sort_unstable();
            assert_eq!(all, (0..n_pieces as u64).collect::<Vec<_>>());
            let filled: Vec<usize> = windows
                .iter()
                .map(|pieces| pieces.iter().map(|&piece| lengths[piece as usize]).sum())
                .collect();
            assert!(filled.iter().all(|&tokens| tokens <= window));
            let mut least = filled.clone();
            least.sort_unstable();
            let fits = least.len() > 1 && least[0] + least[1] <= window;
            assert!(!fits, "two windows of {least:?} fit into one of {window}");
            assert!(windows.is_sorted_by_key(|pieces| pieces[0]));
            assert!(windows.iter().all(|pieces| pieces.is_sorted()));
            assert_eq!(packed(&lengths, window), windows);
        }
    }

    #[test]
    fn stretches_are_packed_apart() {
        let lengths = [vec![1; STRETCH - 1], vec![3, 2, 2]].concat();
        let windows = packed(&lengths, 4);
        let (last, before) = windows.split_last().unwrap();
        assert_eq!(*last, [STRETCH as u64, STRETCH as u64 + 1]);
        assert!(before.concat().contains(&(STRETCH as u64 - 1)));
    }
}

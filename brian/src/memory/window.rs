//! Which slots of a memory are kept: the first `sink`, and of the others the last `window`.
//!
//! A slot is a step of the walk, the same for all tokens, so the choice depends on no token's path.

use crate::error::Problems;

/// How many slots are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First slots, which stay.
    pub sink: usize,
    /// Last slots of the others.
    pub window: usize,
}

impl Window {
    /// Whether a slot, counted from 0, is still kept after `n_written` were written.
    pub fn keeps(self, slot: usize, n_written: usize) -> bool {
        slot < self.sink || slot + self.window >= n_written
    }

    /// That something is kept.
    pub(crate) fn check(self, table: &str, problems: &mut Problems) {
        let keeps = self.sink > 0 || self.window > 0;
        let expected =
            format!("at least 1 where {table}.sink is 0: a memory that keeps nothing is none");
        problems.require(keeps, &format!("{table}.window"), 0, expected);
    }

    /// The slots that are kept after `n_written` were written, oldest first.
    pub fn kept(self, n_written: usize) -> impl Iterator<Item = usize> {
        (0..n_written).filter(move |&slot| self.keeps(slot, n_written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sink: usize, window: usize, n_written: usize) -> Vec<usize> {
        Window { sink, window }.kept(n_written).collect()
    }

    #[test]
    fn the_first_and_the_last_slots_stay() {
        assert_eq!(kept(1, 2, 5), [0, 3, 4]);
        assert_eq!(kept(0, 2, 5), [3, 4]);
        assert_eq!(kept(2, 0, 5), [0, 1]);
    }

    #[test]
    fn nothing_is_evicted_before_the_window_is_full() {
        assert_eq!(kept(1, 2, 3), [0, 1, 2]);
        assert_eq!(kept(4, 32, 5), [0, 1, 2, 3, 4]);
        assert_eq!(kept(1, 2, 0), [0; 0]);
    }
}

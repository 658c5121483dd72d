//! Counting what stands in texts, in bounded memory: `Sorter` sorts keys, on the disk if it has to; `ngrams` are those of every length
//! up to one, from one sort.

mod grams;
mod sorter;

pub use grams::{Counted, Ngram, Take, ngrams};
pub use sorter::{Room, Sorted, Sorter};

/// Whether a rank counts what belongs to a token, where each of several counts a part: tokens next to each other, which are often alike,
/// belong to different ranks.
pub fn is_of_rank(token: u32, rank: usize, size: usize) -> bool {
    // Fibonacci hashing (Knuth, volume 3, section 6.4).
    let mixed = u64::from(token).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    mixed as usize % size == rank
}

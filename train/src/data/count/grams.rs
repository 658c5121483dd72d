//! `ngrams`: how often every n-gram of every length up to an order occurs, how many different tokens stand left of it, and how often it
//! begins a sequence.
//!
//! Every position is one key: its token and those before it, backwards. Sorted so, the positions of an n-gram lie side by side for every
//! length, and those of the n-grams that it ends lie inside them: one pass counts all of them (Heafield and others, ACL 2013, section
//! 3.2, sort in the same order).

use super::sorter::{Room, Sorted, Sorter};
use crate::error::Error;

/// Stands for what is left of the first token of a sequence. No token has this id.
const NOTHING: u32 = u32::MAX;

/// An n-gram and what was counted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ngram<'a> {
    /// Its tokens, the last one first.
    pub reversed: &'a [u32],
    /// How often it occurs.
    pub occurrences: u64,
    /// How many different tokens stand left of it; unknown, and 0, for those of the highest order.
    pub neighbours: u64,
    /// How often it begins a sequence; unknown, and 0, for those of the highest order.
    pub begins: u64,
}

/// N-grams that were counted.
pub trait Counted {
    /// Shows each n-gram of every length once.
    ///
    /// # Errors
    /// `Resource` if what was sorted on the disk cannot be read.
    fn each(&self, each: &mut dyn FnMut(Ngram<'_>)) -> Result<(), Error>;

    /// In how many files keys lie that did not fit into memory.
    fn runs(&self) -> usize;
}

/// Receives sequences in pieces: whether the piece begins one, and its tokens.
pub type Take<'a> = &'a mut dyn FnMut(bool, &[u32]) -> Result<(), Error>;

/// Counts the n-grams of up to `order` tokens, at most 16, that end with a token that `ends` knows. `read` hands over the sequences.
///
/// # Errors
/// That of `read`; `Resource` if keys that do not fit into the room cannot be written.
pub fn ngrams(
    order: usize,
    room: &Room,
    ends: &dyn Fn(u32) -> bool,
    read: &mut dyn FnMut(Take<'_>) -> Result<(), Error>,
) -> Result<Box<dyn Counted>, Error> {
    // What begins a sequence is seen by what is not before it.
    let width = order.max(2);
    match width {
        2 => sorted::<2>(width, room, ends, read),
        3 => sorted::<3>(width, room, ends, read),
        4 => sorted::<4>(width, room, ends, read),
        5 => sorted::<5>(width, room, ends, read),
        6 => sorted::<6>(width, room, ends, read),
        7 | 8 => sorted::<8>(width, room, ends, read),
        9..=12 => sorted::<12>(width, room, ends, read),
        13..=16 => sorted::<16>(width, room, ends, read),
        _ => panic!("an order of {order}, expected at most 16"),
    }
}

fn sorted<const N: usize>(
    width: usize,
    room: &Room,
    ends: &dyn Fn(u32) -> bool,
    read: &mut dyn FnMut(Take<'_>) -> Result<(), Error>,
) -> Result<Box<dyn Counted>, Error> {
    let mut sorter = Sorter::<N>::new(room);
    let mut held: Vec<u32> = Vec::new();
    read(&mut |begins, piece| {
        match begins {
            true => held.clear(),
            // A position needs the tokens before it.
            false => drop(held.drain(..held.len().saturating_sub(width - 1))),
        }
        let first = held.len();
        held.extend_from_slice(piece);
        for place in (first..held.len()).filter(|&place| ends(held[place])) {
            let mut key = [NOTHING; N];
            let before = held[..=place].iter().rev().take(width);
            key.iter_mut()
                .zip(before)
                .for_each(|(to, token)| *to = *token);
            sorter.push(key)?;
        }
        Ok(())
    })?;
    let keys = sorter.finish()?;
    Ok(Box::new(Positions { width, keys }))
}

/// The positions of all sequences, sorted.
struct Positions<const N: usize> {
    width: usize,
    keys: Sorted<N>,
}

/// What is counted of the n-gram of one length that is being read.
#[derive(Clone, Copy, Default)]
struct Open {
    occurrences: u64,
    neighbours: u64,
    begins: u64,
}

impl<const N: usize> Counted for Positions<N> {
    fn each(&self, each: &mut dyn FnMut(Ngram<'_>)) -> Result<(), Error> {
        // By length; the first stands for the empty n-gram.
        let mut open = vec![Open::default(); self.width + 1];
        let (mut last, mut last_length) = ([NOTHING; N], 0);
        let mut close = |key: &[u32; N], length: usize, open: Open| {
            each(Ngram {
                reversed: &key[..length],
                occurrences: open.occurrences,
                neighbours: open.neighbours,
                begins: open.begins,
            });
        };
        self.keys.each(&mut |key, count| {
            let tokens = &key[..self.width];
            let length = tokens.iter().position(|&token| token == NOTHING);
            let length = length.unwrap_or(self.width);
            let both = last[..last_length].iter().zip(&key[..length]);
            let common = both.take_while(|(a, b)| a == b).count();
            for longer in (common + 1..=last_length).rev() {
                close(&last, longer, open[longer]);
            }
            open[common + 1..=length].fill(Open::default());
            for longer in common + 1..=length {
                open[longer - 1].neighbours += 1;
            }
            open[1..=length]
                .iter_mut()
                .for_each(|open| open.occurrences += count);
            if length < self.width {
                open[length].begins += count;
            }
            (last, last_length) = (*key, length);
            Ok(())
        })?;
        (1..=last_length)
            .rev()
            .for_each(|length| close(&last, length, open[length]));
        Ok(())
    }

    fn runs(&self) -> usize {
        self.keys.runs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Everything counted of everything, by the tokens in their order.
    type All = BTreeMap<Vec<u32>, [u64; 3]>;

    fn found(order: usize, sequences: &[Vec<u32>], bytes: usize, piece: usize) -> All {
        let folder = std::env::temp_dir();
        let mut read = |take: Take<'_>| {
            for sequence in sequences {
                for (number, piece) in sequence.chunks(piece).enumerate() {
                    take(number == 0, piece)?;
                }
            }
            Ok(())
        };
        let counted = ngrams(order, &Room { bytes, folder }, &|_| true, &mut read).unwrap();
        let mut all = All::new();
        let each = &mut |ngram: Ngram<'_>| {
            let tokens = ngram.reversed.iter().rev().copied().collect();
            let counts = [ngram.occurrences, ngram.neighbours, ngram.begins];
            assert_eq!(all.insert(tokens, counts), None, "each once");
        };
        counted.each(each).unwrap();
        all
    }

    fn defined(order: usize, sequences: &[Vec<u32>]) -> All {
        let mut all = All::new();
        let mut left: BTreeMap<Vec<u32>, BTreeSet<u32>> = BTreeMap::new();
        for length in 1..=order {
            for sequence in sequences {
                for (start, ngram) in sequence.windows(length).enumerate() {
                    let counts = all.entry(ngram.to_vec()).or_default();
                    counts[0] += 1;
                    if length < order {
                        match start {
                            0 => counts[2] += 1,
                            _ => {
                                let left = left.entry(ngram.to_vec()).or_default();
                                counts[1] += u64::from(left.insert(sequence[start - 1]));
                            }
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_length_is_counted_as_it_is_defined_however_texts_are_cut_and_whatever_memory_there_is()
    {
        let token = |at: u32| at.wrapping_mul(2_654_435_761) >> 16 & 3;
        let mut sequences: Vec<Vec<u32>> = (0..40)
            .map(|row| (0..row % 9).map(|at| token(row * 31 + at)).collect())
            .collect();
        sequences.push(vec![1; 300]);
        for order in [2, 3, 4, 5, 6, 7, 9, 13, 16] {
            let expected = defined(order, &sequences);
            for (bytes, piece) in [(1 << 20, 1000), (1 << 20, 1), (900, 7), (100, 3)] {
                let found = found(order, &sequences, bytes, piece);
                assert_eq!(
                    found, expected,
                    "order {order}, {bytes} bytes, pieces of {piece}"
                );
            }
        }
        // Of one token alone it is known which begin a sequence, too.
        let single = found(1, &sequences, 1 << 20, 5);
        assert_eq!(single, defined(2, &sequences));
    }

    #[test]
    fn what_ends_with_different_tokens_can_be_counted_apart() {
        let sequences = vec![vec![0, 1, 2, 0, 1, 0], vec![2, 2, 1]];
        let folder = std::env::temp_dir();
        let mut together = All::new();
        for part in 0..2 {
            let room = Room {
                bytes: 1 << 12,
                folder: folder.clone(),
            };
            let mut read = |take: Take<'_>| sequences.iter().try_for_each(|one| take(true, one));
            let counted = ngrams(3, &room, &|token| token % 2 == part, &mut read).unwrap();
            let each = &mut |ngram: Ngram<'_>| {
                let tokens = ngram.reversed.iter().rev().copied().collect();
                let counts = [ngram.occurrences, ngram.neighbours, ngram.begins];
                assert_eq!(together.insert(tokens, counts), None);
            };
            counted.each(each).unwrap();
        }
        assert_eq!(together, defined(3, &sequences));
    }
}

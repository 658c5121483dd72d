//! A shuffled order that is computed, not stored: the keyed permutation of `0..n`.
//!
//! A balanced Feistel network permutes the next larger range of 4^k numbers; a result outside `0..n` is permuted
//! again until it falls inside (cycle walking: Black, Rogaway 2002), which takes less than four turns on average.

use brian::random;

/// Enough for an order without visible structure; this is shuffling, not secrecy.
const ROUNDS: u64 = 6;

/// A permutation of `0..n`, selected by a key.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    n: u64,
    key: u64,
    half_bits: u32,
}

impl Permutation {
    /// The permutation of `0..n` for a key.
    ///
    /// # Panics
    /// If `n` is zero or above 2^62.
    pub fn new(n: u64, key: u64) -> Self {
        let expected = "a permutation needs between 1 and 2^62 elements";
        assert!(n > 0 && n <= 1 << 62, "{expected}, got {n}");
        let bits = u64::BITS - (n - 1).leading_zeros();
        Self {
            n,
            key,
            half_bits: bits.div_ceil(2).max(1),
        }
    }

    /// The number that `index` is mapped to.
    ///
    /// # Panics
    /// If `index` is not below `n`.
    pub fn get(&self, index: u64) -> u64 {
        assert!(index < self.n, "index {index} is not below {}", self.n);
        let mut value = self.feistel(index);
        while value >= self.n {
            value = self.feistel(value);
        }
        value
    }

    fn feistel(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let halves = (value >> self.half_bits, value & mask);
        let (left, right) = (0..ROUNDS).fold(halves, |(left, right), round| {
            let noise = random::bits(self.key, round << 32 | right) & mask;
            (right, left ^ noise)
        });
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_hit_exactly_once() {
        for n in (1..70).chain([255, 256, 257, 1000, 4097]) {
            for key in 0..5 {
                let permutation = Permutation::new(n, key);
                let mut seen: Vec<u64> = (0..n).map(|i| permutation.get(i)).collect();
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..n), "n {n}, key {key}");
            }
        }
    }

    #[test]
    fn keys_give_different_orders() {
        let order = |key| {
            (0..100)
                .map(|i| Permutation::new(100, key).get(i))
                .collect::<Vec<_>>()
        };
        assert_ne!(order(1), order(2));
        assert_ne!(order(1), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn places_are_uniform_over_keys() {
        let n = 10u64;
        let mut counts = [0u32; 10];
        for key in 0..10_000 {
            counts[Permutation::new(n, random::key(key, "uniform", 0)).get(3) as usize] += 1;
        }
        // Five standard deviations of a binomial with p = 1/10.
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn the_largest_range_works() {
        let permutation = Permutation::new(1 << 62, 3);
        assert!(permutation.get(u64::MAX >> 2) < 1 << 62);
    }

    /// Runs resume in the order they began with, so a key means the same numbers for ever.
    #[test]
    fn a_key_means_the_order_that_it_always_meant() {
        let order = |n, key| -> Vec<u64> {
            let permutation = Permutation::new(n, key);
            (0..6).map(|index| permutation.get(index)).collect()
        };
        assert_eq!(order(1000, 7), [501, 447, 495, 881, 940, 822]);
        let large = [
            569_903_714_455,
            391_193_254_552,
            514_084_140_675,
            305_173_824_019,
            669_729_810_702,
            417_892_858_099,
        ];
        assert_eq!(order(1 << 40, 7), large);
    }
}

//! `Mixture`: sequence number → source, epoch and window of training, without state; mixed by weight, shuffled every epoch.
//!
//! Sequence numbers run through a fixed pattern of slots that interleaves the sources. The k-th visit of a source
//! reads window `permutation(k mod length)` of epoch `k / length`, so a run resumes from one integer.

use std::cmp::Reverse;

use brian::random;

use super::permutation::Permutation;
use crate::error::{Error, Problem};

/// The longest pattern: shares are exact to one part in a thousand.
const SLOTS_MAX: usize = 1000;

/// The source, epoch and window of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequencePlace {
    /// The index of the source.
    pub source: usize,
    /// How often the source has been read in full before.
    pub epoch: u64,
    /// The window of the source.
    pub window: u64,
}

/// The order of a mixture of sources.
#[derive(Clone, Debug)]
pub struct Mixture {
    lengths: Vec<u64>,
    seed: u64,
    /// Per slot the source and how many slots of that source come before.
    pattern: Vec<(usize, u64)>,
    /// Slots per source.
    counts: Vec<u64>,
}

impl Mixture {
    /// Mixes sources of `lengths` windows in the proportion of `weights`.
    ///
    /// # Errors
    /// `Config` if there is no source, a source is empty, or a weight is not a finite number above zero.
    ///
    /// # Panics
    /// If there are not as many weights as lengths.
    pub fn new(lengths: &[u64], weights: &[f64], seed: u64) -> Result<Self, Error> {
        assert_eq!(lengths.len(), weights.len(), "one weight per source");
        let problem = |place: String, found: String, expected: &str| {
            Error::config(Problem::new("recipe", place, found, expected))
        };
        if lengths.is_empty() || lengths.len() > SLOTS_MAX {
            let found = format!("{} sources", lengths.len());
            return Err(problem("data.train".into(), found, "between 1 and 1000"));
        }
        for (i, (length, weight)) in lengths.iter().zip(weights).enumerate() {
            if *length == 0 {
                let place = format!("data.train[{i}].path");
                return Err(problem(place, "no window".into(), "at least one"));
            }
            if !(weight.is_finite() && *weight > 0.0) {
                let place = format!("data.train[{i}].weight");
                let expected = "a finite number above zero";
                return Err(problem(place, weight.to_string(), expected));
            }
        }
        let counts = slot_counts(weights);
        Ok(Self {
            lengths: lengths.to_vec(),
            seed,
            pattern: interleaved(&counts),
            counts,
        })
    }

    /// The source, epoch and window of sequence number `sequence` of the run.
    pub fn place(&self, sequence: u64) -> SequencePlace {
        let n_slots = self.pattern.len() as u64;
        let (source, before) = self.pattern[(sequence % n_slots) as usize];
        let visit = sequence / n_slots * self.counts[source] + before;
        let length = self.lengths[source];
        let epoch = visit / length;
        let key = random::key(self.seed, &format!("order/{source}"), epoch);
        SequencePlace {
            source,
            epoch,
            window: Permutation::new(length, key).get(visit % length),
        }
    }

    /// The actual share of each source.
    pub fn shares(&self) -> Vec<f64> {
        let n_slots = self.pattern.len() as f64;
        let counts = self.counts.iter();
        counts.map(|count| *count as f64 / n_slots).collect()
    }
}

/// Slots per source: the shortest pattern that meets the weights exactly, or the longest one, rounded by largest
/// remainder. Every source gets at least one slot.
fn slot_counts(weights: &[f64]) -> Vec<u64> {
    // Dividing by the largest first keeps the sum finite.
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let total: f64 = weights.iter().map(|weight| weight / largest).sum();
    let shares = weights.iter().map(|weight| weight / largest / total);
    let shares: Vec<f64> = shares.collect();
    let is_exact = |n: &usize| {
        shares.iter().all(|share| {
            let slots = share * *n as f64;
            slots.round() >= 1.0 && (slots - slots.round()).abs() < 1e-9 * *n as f64
        })
    };
    let n_slots = (weights.len()..=SLOTS_MAX).find(is_exact);
    let n_slots = n_slots.unwrap_or(SLOTS_MAX);
    let slots = |i: usize| shares[i] * n_slots as f64;
    let whole = |i: usize| (slots(i) + 1e-6).floor().max(1.0) as u64;
    let mut counts: Vec<u64> = (0..weights.len()).map(whole).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|i| Reverse(((slots(*i) - counts[*i] as f64) * 1e6).round() as i64));
    let given = counts.iter().sum::<u64>() as usize;
    let missing = n_slots.saturating_sub(given);
    for i in by_remainder.into_iter().cycle().take(missing) {
        counts[i] += 1;
    }
    // The guarantee of one slot can overfill the pattern; the largest sources give way.
    for _ in n_slots..given {
        let largest = (0..counts.len()).max_by_key(|i| (counts[*i], Reverse(*i)));
        counts[largest.expect("there is a source")] -= 1;
    }
    counts
}

/// Spreads the slots of each source evenly: always the source that is furthest behind its share.
fn interleaved(counts: &[u64]) -> Vec<(usize, u64)> {
    let n_slots: u64 = counts.iter().sum();
    let mut given = vec![0u64; counts.len()];
    let mut pattern = Vec::with_capacity(n_slots as usize);
    for slot in 1..=n_slots {
        let lag = |i: usize| (slot * counts[i]) as i64 - (given[i] * n_slots) as i64;
        let open = (0..counts.len()).filter(|i| given[*i] < counts[*i]);
        let source = open
            .max_by_key(|i| (lag(*i), Reverse(*i)))
            .expect("slots are left");
        pattern.push((source, given[source]));
        given[source] += 1;
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_epoch_reads_every_window_once_in_a_new_order() {
        let mixture = Mixture::new(&[13, 5], &[3.0, 1.0], 7).unwrap();
        let mut orders: Vec<Vec<u64>> = vec![Vec::new(); 2];
        for place in (0..4 * 39)
            .map(|i| mixture.place(i))
            .filter(|place| place.source == 0)
        {
            if place.epoch < 2 {
                orders[place.epoch as usize].push(place.window);
            }
        }
        for order in &orders {
            assert_eq!(order.len(), 13);
            assert_eq!(order.iter().collect::<HashSet<_>>().len(), 13);
        }
        assert_ne!(orders[0], orders[1]);
    }

    #[test]
    fn shares_follow_the_weights() {
        let cases: [(&[f64], &[u64]); 4] = [
            (&[1.0], &[1]),
            (&[0.7, 0.1, 0.1, 0.1], &[7, 1, 1, 1]),
            (&[2.0, 1.0], &[2, 1]),
            (&[1e300, 1e300], &[1, 1]),
        ];
        for (weights, counts) in cases {
            assert_eq!(slot_counts(weights), counts);
        }
        let odd = slot_counts(&[std::f64::consts::PI, 1.0, 1e-9]);
        assert_eq!(odd.iter().sum::<u64>(), 1000);
        assert_eq!(odd[2], 1);
    }

    #[test]
    fn sources_are_spread_evenly() {
        let mixture = Mixture::new(&[9; 2], &[0.9, 0.1], 1).unwrap();
        for start in 0..40 {
            let rare = (start..start + 20)
                .filter(|i| mixture.place(*i).source == 1)
                .count();
            assert_eq!(rare, 2);
        }
    }

    #[test]
    fn a_bad_weight_is_named() {
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = Mixture::new(&[1, 1], &[1.0, weight], 1).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("recipe: data.train[1].weight: found"),
                "{error}"
            );
        }
    }

    #[test]
    fn each_source_is_read_epoch_by_epoch_in_an_order_of_its_own() {
        let (lengths, weights) = ([7, 7, 3], [3.0, 2.0, 1.0]);
        let mixture = Mixture::new(&lengths, &weights, 5).unwrap();
        let mut visits = [0; 3];
        for sequence in 0..6 * 40 {
            let SequencePlace {
                source,
                epoch,
                window,
            } = mixture.place(sequence);
            let (length, visit) = (lengths[source], visits[source]);
            // Runs that were made resume in this order, so it is a promise to the bit.
            let key = random::key(5, &format!("order/{source}"), visit / length);
            let expected = Permutation::new(length, key).get(visit % length);
            assert_eq!((epoch, window), (visit / length, expected), "{sequence}");
            visits[source] += 1;
        }
        assert_eq!(visits, [120, 80, 40]);
        assert_eq!(mixture.shares(), [0.5, 2.0 / 6.0, 1.0 / 6.0]);
    }

    #[test]
    fn another_seed_is_another_order() {
        let order = |seed| -> Vec<u64> {
            let mixture = Mixture::new(&[50], &[1.0], seed).unwrap();
            (0..50)
                .map(|sequence| mixture.place(sequence).window)
                .collect()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn no_source_is_ever_a_slot_behind_its_share() {
        for weights in [
            &[1.0, 1.0][..],
            &[5.0, 3.0, 1.0],
            &[0.61, 0.29, 0.07, 0.03],
            &[10.0, 1.0, 1.0, 1.0, 1.0],
        ] {
            let mixture = Mixture::new(&vec![4; weights.len()], weights, 1).unwrap();
            let total: f64 = weights.iter().sum();
            let mut given = vec![0.0; weights.len()];
            for sequence in 0..300 {
                given[mixture.place(sequence).source] += 1.0;
                for (given, weight) in given.iter().zip(weights) {
                    let share = (sequence + 1) as f64 * weight / total;
                    assert!(given > &(share - 1.0), "{weights:?} at {sequence}");
                }
            }
            let shares = mixture.shares();
            let sum: f64 = shares.iter().sum();
            assert!((sum - 1.0).abs() < 1e-12);
            for (share, weight) in shares.iter().zip(weights) {
                assert!((share - weight / total).abs() < 1e-3, "{shares:?}");
            }
        }
    }

    #[test]
    fn slots_that_cannot_be_exact_go_by_the_largest_remainder() {
        // 333.4, 333.4 and 333.2 of 1000: one is missing from the whole parts, and the first of the largest rests gets it.
        let counts = slot_counts(&[1000.2, 1000.2, 999.6]);
        assert_eq!(counts, [334, 333, 333]);
        // As many sources as slots: each has one, whatever it weighs.
        let mut weights = vec![1e-9; SLOTS_MAX];
        weights[0] = 1.0;
        assert_eq!(slot_counts(&weights), vec![1; SLOTS_MAX]);
        assert!(Mixture::new(&[1; 1001], &[1.0; 1001], 1).is_err());
        assert!(Mixture::new(&[], &[], 1).is_err());
        let error = Mixture::new(&[1, 0], &[1.0, 1.0], 1).unwrap_err();
        assert!(error.to_string().contains("data.train[1].path"), "{error}");
    }
}

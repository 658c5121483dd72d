//! N-gram baselines: interpolated modified Kneser-Ney models of several orders at once, estimated from counts that may be larger
//! than memory, and what they lose at the places of other texts.
//!
//! Source of every formula: Stanley F. Chen and Joshua Goodman, "An empirical study of smoothing
//! techniques for language modeling", Computer Speech and Language 13 (1999), 359-394, the
//! sections on Kneser-Ney smoothing and on modified Kneser-Ney smoothing. What they leave open is
//! decided as in KenLM (Kenneth Heafield and others, "Scalable modified Kneser-Ney language model
//! estimation", ACL 2013): what begins a sequence, the uniform distribution, unusable discounts.
//!
//! With `c` the count of an n-gram, `h` its context and `h'` the context without its first token,
//!
//! ```text
//! p(w | h) = (c(h w) - D(c(h w))) / sum_v c(h v)  +  weight(h) p(w | h')
//! weight(h) = (D1 N1(h) + D2 N2(h) + D3 N3(h)) / sum_v c(h v)
//! ```
//!
//! where the first term is 0 for an unseen `h w`, and `N1(h)`, `N2(h)`, `N3(h)` are the numbers of
//! distinct tokens seen once, twice, and three or more times after `h`. The highest order uses raw
//! counts. Every lower order uses continuation counts: the number of distinct left neighbours, and
//! one more for each time the n-gram begins a sequence, where nothing can stand left of it.
//! The first token of a sequence is context only: it is no event of order 1.
//! Below order 1 stands the uniform distribution over the tokens that can be predicted. A context
//! that nothing ever followed has weight 1. With order 1 this is the unigram model, with order 2
//! the bigram model.
//!
//! The three discounts are estimated for each order from the numbers `n1` to `n4` of n-grams with
//! count 1 to 4:
//!
//! ```text
//! Y = n1 / (n1 + 2 n2)    D1 = 1 - 2 Y n2 / n1    D2 = 2 - 3 Y n3 / n2    D3 = 3 - 4 Y n4 / n3
//! ```
//!
//! If `n1`, `n2` or `n3` is 0 or a `Dk` lies outside of 0 to `k`, the order uses all three
//! [`FALLBACK_DISCOUNTS`]; [`Totals::fallbacks`] lists these orders.
//!
//! No model is ever held in memory: [`Totals`] are a few numbers of all n-grams, and [`Wanted`] are the counts of those n-grams that stand in
//! the text that is measured, both taken from one pass over sorted counts.

use super::count::Ngram;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The discounts for counts of 1, of 2, and of 3 or more, if they cannot be estimated (KenLM's values).
pub const FALLBACK_DISCOUNTS: [f64; 3] = [0.5, 1.0, 1.5];

/// An order whose discounts could not be estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The length of its n-grams.
    pub order: usize,
    /// How many of them have count 1, 2, 3 and 4.
    pub counts_of_counts: [u64; 4],
}

/// The two counts of an n-gram: as one of the highest order of a model, and as one of a lower order.
fn counts(ngram: &Ngram<'_>) -> [u64; 2] {
    match ngram.reversed.len() {
        1 => [ngram.occurrences - ngram.begins, ngram.neighbours],
        _ => [ngram.occurrences, ngram.neighbours + ngram.begins],
    }
}

/// Which of the two counts a model of this order uses for n-grams of a length.
fn which(order: usize, length: usize) -> usize {
    usize::from(length < order)
}

/// What models need to know of all n-grams together. What parts of them have, adds up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// By length, from 1.
    lengths: Vec<OfLength>,
    /// The tokens that are events: all but those that only begin sequences, rising.
    events: Vec<u32>,
}

/// All n-grams of a length; what comes twice is for the two kinds of counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct OfLength {
    /// How many different ones there are.
    distinct: u64,
    /// How many have count 1, 2, 3 and 4.
    counts_of_counts: [[u64; 4]; 2],
    /// How many have a count.
    counted: [u64; 2],
}

impl Totals {
    /// Adds an n-gram, each of which comes once.
    pub fn add(&mut self, ngram: &Ngram<'_>) {
        let length = ngram.reversed.len();
        if self.lengths.len() < length {
            self.lengths.resize(length, OfLength::default());
        }
        let of_length = &mut self.lengths[length - 1];
        of_length.distinct += 1;
        for (kind, count) in counts(ngram).into_iter().enumerate() {
            of_length.counted[kind] += u64::from(count > 0);
            if let 1..=4 = count {
                of_length.counts_of_counts[kind][count as usize - 1] += 1;
            }
        }
        if length == 1 && counts(ngram)[0] > 0 {
            self.events.push(ngram.reversed[0]);
        }
    }

    /// Those of parts that have no n-gram in common.
    pub fn sum(parts: Vec<Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            let n = all.lengths.len().max(part.lengths.len());
            all.lengths.resize(n, OfLength::default());
            for (all, part) in all.lengths.iter_mut().zip(&part.lengths) {
                all.distinct += part.distinct;
                for kind in 0..2 {
                    all.counted[kind] += part.counted[kind];
                    let sums = &mut all.counts_of_counts[kind];
                    let sums = sums.iter_mut().zip(part.counts_of_counts[kind]);
                    sums.for_each(|(sum, part)| *sum += part);
                }
            }
            all.events.extend(part.events);
        }
        all.events.sort_unstable();
        all
    }

    /// The tokens that are events.
    pub fn events(&self) -> &[u32] {
        &self.events
    }

    /// The number of distinct n-grams of all lengths from 1 to an order together.
    pub fn stored(&self, order: usize) -> u64 {
        let lengths = self.lengths.iter().take(order);
        lengths.map(|of_length| of_length.distinct).sum()
    }

    /// The length of the longest n-gram that was seen.
    pub fn longest(&self) -> usize {
        self.lengths.len()
    }

    /// The orders whose discounts could not be estimated, rising, in the model of an order.
    pub fn fallbacks(&self, order: usize) -> Vec<Fallback> {
        let lengths = (1..).zip(&self.lengths).take(order);
        let without = lengths.filter(|(length, of_length)| {
            let kind = which(order, *length);
            let none = Discounts::estimate(of_length.counts_of_counts[kind]).is_none();
            none && of_length.counted[kind] > 0
        });
        let fallback = |(length, of_length): (usize, &OfLength)| Fallback {
            order: length,
            counts_of_counts: of_length.counts_of_counts[which(order, length)],
        };
        without.map(fallback).collect()
    }

    fn discounts(&self, order: usize, length: usize) -> Discounts {
        let of_length = self.lengths.get(length - 1);
        let counts = of_length.map(|of| of.counts_of_counts[which(order, length)]);
        let estimated = counts.and_then(Discounts::estimate);
        estimated.unwrap_or(Discounts(FALLBACK_DISCOUNTS))
    }
}

/// What followed a context: the sum of its counts, and how many different tokens have a count of 1, of 2, and of 3 or more.
type Followed = [u64; 4];

/// The counts of the n-grams that stand in a text that is measured, and of their contexts.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Where the counts of an n-gram are, by its tokens, the last one first.
    ngrams: HashMap<Box<[u32]>, usize>,
    counts: Vec<[u64; 2]>,
    /// The same for contexts.
    contexts: HashMap<Box<[u32]>, usize>,
    followed: Vec<[Followed; 2]>,
}

impl Wanted {
    /// Asks for what models of up to an order need to predict the token at a place of a sequence.
    pub fn want(&mut self, sequence: &[u32], place: usize, order: usize) {
        let mut key: Vec<u32> = Vec::with_capacity(order);
        for &token in sequence[..=place].iter().rev().take(order) {
            key.push(token);
            let n = self.counts.len();
            if *self.ngrams.entry(key.clone().into()).or_insert(n) == n {
                self.counts.push([0; 2]);
            }
            let n = self.followed.len();
            if *self.contexts.entry(key[1..].into()).or_insert(n) == n {
                self.followed.push([[0; 4]; 2]);
            }
        }
    }

    /// Takes what is wanted from an n-gram, each of which comes once.
    pub fn add(&mut self, ngram: &Ngram<'_>) {
        let Some(&context) = self.contexts.get(&ngram.reversed[1..]) else {
            return;
        };
        let counts = counts(ngram);
        for (followed, count) in self.followed[context].iter_mut().zip(counts) {
            followed[0] += count;
            if count > 0 {
                followed[count.min(3) as usize] += 1;
            }
        }
        if let Some(&place) = self.ngrams.get(ngram.reversed) {
            self.counts[place] = counts;
        }
    }

    /// All numbers that were found, in the order in which they were wanted.
    pub fn found(&self) -> Vec<u64> {
        let of_contexts = self.followed.as_flattened().as_flattened();
        [of_contexts, self.counts.as_flattened()].concat()
    }

    /// Sets the numbers to the sums of what several have [found](Self::found), who wanted the same of different n-grams.
    pub fn set(&mut self, found: &[Vec<u64>]) {
        let of_contexts = self.followed.as_flattened_mut().as_flattened_mut();
        let numbers = of_contexts.iter_mut().chain(self.counts.as_flattened_mut());
        for (place, number) in numbers.enumerate() {
            *number = found.iter().map(|found| found[place]).sum();
        }
    }

    /// About the memory that all of it takes.
    pub fn bytes(&self) -> usize {
        // An entry of a map with its key, which has a few numbers, and the counts.
        (self.counts.len() + self.followed.len()) * 128
    }

    /// The model of an order, of so many tokens that can be predicted.
    pub fn model<'a>(
        &'a self,
        totals: &Totals,
        order: usize,
        n_predictable: usize,
    ) -> KneserNey<'a> {
        let discounts = (1..=order).map(|length| totals.discounts(order, length));
        KneserNey {
            wanted: self,
            discounts: discounts.collect(),
            n_predictable,
        }
    }
}

/// A model of an order, which knows what was wanted.
pub struct KneserNey<'a> {
    wanted: &'a Wanted,
    /// By length.
    discounts: Vec<Discounts>,
    n_predictable: usize,
}

impl KneserNey<'_> {
    /// The negative natural logarithm of the probability of the token at a place of a sequence; not negative.
    ///
    /// # Panics
    /// If the place was not wanted.
    pub fn loss(&self, sequence: &[u32], place: usize) -> f64 {
        let order = self.discounts.len();
        let mut probability = 1.0 / self.n_predictable as f64;
        let mut key: Vec<u32> = Vec::with_capacity(order);
        for (discounts, &token) in self.discounts.iter().zip(sequence[..=place].iter().rev()) {
            key.push(token);
            let kind = which(order, key.len());
            let context = self.wanted.contexts[&key[1..]];
            let [total, numbers @ ..] = self.wanted.followed[context][kind];
            // A context that was never seen is one that nothing followed, and so are all longer ones.
            if total == 0 {
                continue;
            }
            let total = total as f64;
            let count = self.wanted.counts[self.wanted.ngrams[&key[..]]][kind];
            let kept = (count as f64 - discounts.of(count)) / total;
            let freed = discounts.0.iter().zip(numbers);
            let freed: f64 = freed.map(|(discount, n)| discount * n as f64).sum();
            probability = kept + freed / total * probability;
        }
        // Rounding may carry a certain outcome just above 1, and 0 minus 0 avoids a negative zero.
        0.0 - probability.min(1.0).ln()
    }
}

/// What is taken off a count of one, of two, and of three or more.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Discounts([f64; 3]);

impl Discounts {
    /// From the numbers of n-grams with count 1 to 4; nothing where they do not say it.
    fn estimate(counts_of_counts: [u64; 4]) -> Option<Self> {
        let [one, two, three, four] = counts_of_counts.map(|number| number as f64);
        if one == 0.0 || two == 0.0 || three == 0.0 {
            return None;
        }
        let absolute = one / (one + 2.0 * two);
        let discounts = [
            1.0 - 2.0 * absolute * two / one,
            2.0 - 3.0 * absolute * three / two,
            3.0 - 4.0 * absolute * four / three,
        ];
        let mut limits = discounts.iter().zip([1.0, 2.0, 3.0]);
        let are_within = limits.all(|(&discount, limit)| (0.0..=limit).contains(&discount));
        are_within.then_some(Self(discounts))
    }

    fn of(self, count: u64) -> f64 {
        match count {
            0 => 0.0,
            count => self.0[count.min(3) as usize - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::count::{Counted, Room, ngrams};
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// A small linear congruential generator (Knuth's multiplier), so that data are reproducible.
    struct Generator(u64);

    impl Generator {
        fn next_unit(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }

        fn below(&mut self, limit: usize) -> usize {
            (self.next_unit() * limit as f64) as usize
        }

        fn tokens(&mut self, vocabulary: usize, length: usize) -> Vec<u32> {
            (0..length).map(|_| self.below(vocabulary) as u32).collect()
        }

        fn sequences(&mut self, vocabulary: usize, number: usize) -> Vec<Vec<u32>> {
            let mut one = || {
                let length = self.below(12);
                self.tokens(vocabulary, length)
            };
            (0..number).map(|_| one()).collect()
        }
    }

    /// Each sequence behind a start symbol, which is the first id behind the vocabulary.
    fn started(vocabulary: usize, sequences: &[Vec<u32>]) -> Vec<Vec<u32>> {
        let some = sequences.iter().filter(|sequence| !sequence.is_empty());
        some.map(|sequence| [&[vocabulary as u32], sequence.as_slice()].concat())
            .collect()
    }

    /// A model of an order, in memory, that is asked for single tokens.
    struct Model {
        order: usize,
        predictable: Vec<bool>,
        counted: Box<dyn Counted>,
        totals: Totals,
    }

    impl Model {
        fn of(predictable: Vec<bool>, order: usize, sequences: &[&[u32]]) -> Self {
            let room = Room {
                bytes: 1 << 20,
                folder: std::env::temp_dir(),
            };
            let read = &mut |take: crate::data::count::Take<'_>| {
                sequences
                    .iter()
                    .try_for_each(|sequence| take(true, sequence))
            };
            let counted = ngrams(order, &room, &|_| true, read).unwrap();
            let mut totals = Totals::default();
            let each = &mut |ngram: Ngram<'_>| {
                if ngram.reversed.len() <= order {
                    totals.add(&ngram);
                }
            };
            counted.each(each).unwrap();
            Self {
                order,
                predictable,
                counted,
                totals,
            }
        }

        /// The losses at places of sequences.
        fn losses(&self, places: &[(Vec<u32>, usize)]) -> Vec<f64> {
            let mut wanted = Wanted::default();
            places
                .iter()
                .for_each(|(of, place)| wanted.want(of, *place, self.order));
            self.counted.each(&mut |ngram| wanted.add(&ngram)).unwrap();
            let n_predictable = self.predictable.iter().filter(|&&it| it).count();
            let model = wanted.model(&self.totals, self.order, n_predictable);
            places
                .iter()
                .map(|(of, place)| model.loss(of, *place))
                .collect()
        }

        fn token_loss(&self, context: &[u32], target: u32) -> f64 {
            self.losses(&[([context, &[target]].concat(), context.len())])[0]
        }

        fn stored_ngrams(&self) -> u64 {
            self.totals.stored(self.order)
        }

        fn fallbacks(&self) -> Vec<Fallback> {
            self.totals.fallbacks(self.order)
        }
    }

    fn count(vocabulary: usize, order: usize, sequences: &[Vec<u32>]) -> Model {
        let predictable = (0..=vocabulary).map(|id| id < vocabulary).collect();
        let sequences = started(vocabulary, sequences);
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        Model::of(predictable, order, &sequences)
    }

    fn assert_sums_to_one(model: &Model, context: &[u32]) {
        let targets = (0..model.predictable.len()).filter(|&id| model.predictable[id]);
        let place = |target: usize| ([context, &[target as u32]].concat(), context.len());
        let losses = model.losses(&targets.map(place).collect::<Vec<_>>());
        assert!(losses.iter().all(|nats| nats.is_finite() && *nats >= 0.0));
        let sum: f64 = losses.iter().map(|nats| (-nats).exp()).sum();
        assert!(
            (sum - 1.0).abs() < 1e-9,
            "the sum is {sum} after {context:?}"
        );
    }

    fn assert_probability(model: &Model, context: &[u32], target: u32, expected: f64) {
        let probability = (-model.token_loss(context, target)).exp();
        let close = (probability - expected).abs() < 1e-12;
        assert!(
            close,
            "{probability} instead of {expected} for {target} after {context:?}"
        );
    }

    fn average_nats(model: &Model, tokens: &[u32]) -> f64 {
        let mut wanted = Wanted::default();
        let places = 0..tokens.len();
        places
            .clone()
            .for_each(|place| wanted.want(tokens, place, model.order));
        model.counted.each(&mut |ngram| wanted.add(&ngram)).unwrap();
        let model = wanted.model(&model.totals, model.order, 10);
        let total: f64 = places.map(|place| model.loss(tokens, place)).sum();
        total / tokens.len() as f64
    }

    /// Each pair of tokens has one favourite successor, drawn in eight of ten cases.
    fn second_order_source(generator: &mut Generator, length: usize) -> Vec<u32> {
        let mut tokens = vec![0, 1];
        while tokens.len() < length {
            let before = tokens[tokens.len() - 2];
            let last = tokens[tokens.len() - 1];
            let favourite = (7 * before + 3 * last + before * last + 1) % 10;
            let other = generator.below(10) as u32;
            tokens.push(if generator.next_unit() < 0.8 {
                favourite
            } else {
                other
            });
        }
        tokens
    }

    fn zipf_tokens(generator: &mut Generator, vocabulary: usize, length: usize) -> Vec<u32> {
        let weights = (1..=vocabulary).map(|rank| 1.0 / rank as f64);
        let cumulative: Vec<f64> = weights
            .scan(0.0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .collect();
        let total = cumulative[vocabulary - 1];
        let mut draw = || {
            let point = generator.next_unit() * total;
            cumulative
                .partition_point(|&sum| sum <= point)
                .min(vocabulary - 1) as u32
        };
        (0..length).map(|_| draw()).collect()
    }

    /// The bigrams and their starts are chosen so that both orders have discounts of few digits.
    fn small_sequences() -> Vec<Vec<u32>> {
        let repeated: [(&[u32], usize); 7] = [
            (&[0, 3, 0], 2),
            (&[1, 0], 4),
            (&[2, 0], 1),
            (&[0, 1], 3),
            (&[2, 1], 1),
            (&[0, 2], 1),
            (&[1, 4], 1),
        ];
        let copies = |(sequence, times): (&[u32], usize)| vec![sequence.to_vec(); times];
        repeated.into_iter().flat_map(copies).collect()
    }

    fn counts_of_counts(counts: &[u32]) -> [u64; 4] {
        [1, 2, 3, 4].map(|wanted| counts.iter().filter(|&&count| count == wanted).count() as u64)
    }

    /// The counts of all n-grams of one length, straight from their definition.
    fn defined_counts(sequences: &[Vec<u32>], length: usize, raw: bool) -> BTreeMap<&[u32], u32> {
        let mut counts: BTreeMap<&[u32], u32> = BTreeMap::new();
        let mut neighbours: BTreeSet<(&[u32], u32)> = BTreeSet::new();
        for sequence in sequences {
            for (start, ngram) in sequence.windows(length).enumerate() {
                let counted = match start {
                    0 => length > 1,
                    _ => raw || neighbours.insert((ngram, sequence[start - 1])),
                };
                *counts.entry(ngram).or_default() += u32::from(counted);
            }
        }
        counts
    }

    /// The probability straight from its definition, with no trie and no shared prefixes.
    fn defined_probability(
        sequences: &[Vec<u32>],
        (vocabulary, order): (usize, usize),
        context: &[u32],
        target: u32,
    ) -> f64 {
        let mut probability = 1.0 / vocabulary as f64;
        for length in 0..order.min(context.len() + 1) {
            let suffix = &context[context.len() - length..];
            let counts = defined_counts(sequences, length + 1, length + 1 == order);
            let all: Vec<u32> = counts.values().copied().collect();
            let discounts = Discounts::estimate(counts_of_counts(&all));
            let discounts = discounts.unwrap_or(Discounts(FALLBACK_DISCOUNTS));
            let follows = |&(ngram, _): &(&&[u32], &u32)| ngram.starts_with(suffix);
            let total: u32 = counts.iter().filter(follows).map(|(_, &count)| count).sum();
            if total == 0 {
                continue;
            }
            let after = counts.iter().filter(follows);
            let freed: f64 = after.map(|(_, &count)| discounts.of(count.into())).sum();
            let ngram = [suffix, &[target]].concat();
            let seen = counts.get(ngram.as_slice());
            let kept = seen.map_or(0.0, |&count| f64::from(count) - discounts.of(count.into()));
            probability = (kept + freed * probability) / f64::from(total);
        }
        probability
    }

    #[test]
    fn distributions_sum_to_one_for_seen_unseen_short_and_empty_contexts() {
        let mut generator = Generator(1);
        let mut sequences = generator.sequences(9, 40);
        sequences.push(zipf_tokens(&mut generator, 9, 400));
        for order in 1..=5 {
            // Tokens 9 to 11 are never seen.
            let model = count(12, order, &sequences);
            assert_sums_to_one(&model, &[]);
            for window in sequences[40].windows(7) {
                (0..7).for_each(|start| assert_sums_to_one(&model, &window[start..]));
            }
            for length in 1..=6 {
                assert_sums_to_one(&model, &vec![11; length]);
                (0..100).for_each(|_| assert_sums_to_one(&model, &generator.tokens(12, length)));
            }
            assert_sums_to_one(&model, &[0, 11, 0, 1]);
            assert_sums_to_one(&model, &[0, 1, 0, 11]);
        }
    }

    #[test]
    fn a_small_bigram_model_agrees_with_hand_computation() {
        let model = count(7, 2, &small_sequences());
        // Order 1 has continuation counts 4, 3, 2, 1, 1 and discounts 0.5, 0.5, 1.
        let unigrams = [3.5, 2.5, 2.0, 1.0, 1.0, 0.5, 0.5].map(|share| share / 11.0);
        // Order 2 has n1 to n4 of 4, 3, 1, 1 and so discounts 0.4, 1.6, 1.4. After token 0 come tokens 1, 2, 3
        // three times, once and twice; the start symbol is followed by 0, 1, 2 six, five and two times.
        let after_zero = [0.0, 1.6, 0.6, 0.4, 0.0, 0.0, 0.0];
        let after_start = [4.6, 3.6, 0.4, 0.0, 0.0, 0.0, 0.0];
        for target in 0..7 {
            let [unigram, zero, start] =
                [unigrams, after_zero, after_start].map(|shares| shares[target as usize]);
            let after_zero = (zero + 3.4 * unigram) / 6.0;
            assert_probability(&model, &[], target, unigram);
            assert_probability(&model, &[0], target, after_zero);
            assert_probability(&model, &[6, 1, 0], target, after_zero);
            assert_probability(&model, &[7], target, (start + 4.4 * unigram) / 13.0);
            // Token 4 only ends a sequence, and token 6 is never seen.
            assert_probability(&model, &[4], target, unigram);
            assert_probability(&model, &[6], target, unigram);
        }
        assert_eq!(model.stored_ngrams(), 6 + 11);
        assert_eq!(model.fallbacks(), []);
    }

    #[test]
    fn one_text_many_times_over_is_nearly_certain_and_said_to_have_no_discounts() {
        let model = count(258, 3, &vec![vec![97, 98, 257]; 200]);
        // Each continuation count is 1, each raw count 200; discounts are 0.5 and 1.5 throughout.
        let unigram = 0.5 / 3.0 + 0.5 / 258.0;
        let bigram = 0.5 + 0.5 * unigram;
        let certain = |shorter: f64| (198.5 + 1.5 * shorter) / 200.0;
        assert_probability(&model, &[258], 97, certain(unigram));
        assert_probability(&model, &[258, 97], 98, certain(bigram));
        assert_probability(&model, &[97, 98], 257, certain(bigram));
        let fallback = |order, counts_of_counts| Fallback {
            order,
            counts_of_counts,
        };
        let expected = [
            fallback(1, [3, 0, 0, 0]),
            fallback(2, [2, 0, 0, 0]),
            fallback(3, [0; 4]),
        ];
        assert_eq!(model.fallbacks(), expected);
        assert_eq!(model.totals.longest(), 3);
    }

    #[test]
    fn without_a_start_symbol_the_first_token_is_context_only() {
        let sequences: [&[u32]; 3] = [&[0, 1], &[0, 1], &[2, 1]];
        let model = Model::of(vec![true; 3], 2, &sequences);
        // Token 1 has two left neighbours, the others are no events; the discount of a count of two is 1.
        let unigrams = [1.0 / 6.0, 4.0 / 6.0, 1.0 / 6.0];
        for target in 0..3 {
            let unigram = unigrams[target as usize];
            let (zero, two) = match target {
                1 => (1.0, 0.5),
                _ => (0.0, 0.0),
            };
            assert_probability(&model, &[], target, unigram);
            assert_probability(&model, &[0], target, (zero + unigram) / 2.0);
            assert_probability(&model, &[2], target, two + 0.5 * unigram);
        }
        let alone: [&[u32]; 2] = [&[0], &[2]];
        let nothing = Model::of(vec![true; 3], 2, &alone);
        assert_probability(&nothing, &[0], 1, 1.0 / 3.0);
        assert_eq!(nothing.totals.longest(), 1);
    }

    #[test]
    fn the_same_texts_twice_cost_about_the_same_or_are_said_to_have_no_discounts() {
        let tokens = zipf_tokens(&mut Generator(7), 60, 800);
        let sequences: Vec<Vec<u32>> = tokens.chunks(8).map(<[u32]>::to_vec).collect();
        let twice = [sequences.clone(), sequences.clone()].concat();
        let [once, twice] = [sequences, twice].map(|sequences| count(60, 2, &sequences));
        let of_pairs = |model: &Model| -> Option<[u64; 4]> {
            let mut said = model.fallbacks().into_iter();
            Some(said.find(|fallback| fallback.order == 2)?.counts_of_counts)
        };
        assert_eq!(of_pairs(&once), None);
        assert_eq!(of_pairs(&twice).unwrap()[0], 0);
    }

    #[test]
    fn a_small_unigram_model_uses_raw_counts() {
        // Counts 1, 1, 2, 3, 4 give discounts 0.5, 0.5, 1 and free 3.5 of 11.
        let model = count(7, 1, &[vec![0, 1, 2, 2, 3, 3, 3, 4], vec![4, 4, 4]]);
        let expected = [1.0, 1.0, 2.0, 2.5, 3.5, 0.5, 0.5].map(|share| share / 11.0);
        for target in 0..7 {
            assert_probability(&model, &[], target, expected[target as usize]);
            assert_probability(&model, &[3, 3], target, expected[target as usize]);
        }
    }

    #[test]
    fn every_order_agrees_with_the_definition() {
        let mut generator = Generator(2);
        let sequences = generator.sequences(4, 30);
        for order in 1..=5 {
            let model = count(5, order, &sequences);
            let sequences = started(5, &sequences);
            for length in (0..=5).flat_map(|length| [length; 8]) {
                // The start symbol is a context too.
                let context = generator.tokens(6, length);
                for target in 0..5 {
                    let expected = defined_probability(&sequences, (5, order), &context, target);
                    assert_probability(&model, &context, target, expected);
                }
            }
        }
    }

    #[test]
    fn discounts_follow_the_counts_of_counts() {
        assert_eq!(
            Discounts::estimate(counts_of_counts(&[1, 1, 1, 1, 2, 2, 3, 4, 9, 0])),
            Some(Discounts([0.5, 1.25, 1.0]))
        );
        // No count of four takes three off a count of three: that is within bounds.
        assert_eq!(
            Discounts::estimate([2, 1, 1, 0]),
            Some(Discounts([0.5, 0.5, 3.0]))
        );
    }

    #[test]
    fn discounts_that_the_counts_do_not_say_are_none() {
        for counts in [[0; 4], [2, 0, 0, 0], [0, 1, 1, 1], [2, 1, 0, 0]] {
            assert_eq!(Discounts::estimate(counts), None);
        }
        // Four counts of three would make the second discount negative.
        assert_eq!(Discounts::estimate([2, 1, 4, 1]), None);
        // Three counts of four make the third 0, which is within bounds; four of them would make it negative.
        assert_eq!(
            Discounts::estimate([4, 2, 2, 3]),
            Some(Discounts([0.5, 0.5, 0.0]))
        );
        assert_eq!(Discounts::estimate([4, 2, 2, 4]), None);
    }

    #[test]
    fn order_five_beats_order_one_on_a_second_order_markov_source() {
        let mut generator = Generator(3);
        let training = second_order_source(&mut generator, 20_000);
        let held_out = second_order_source(&mut generator, 5_000);
        let of_order = |order| {
            let model = count(10, order, std::slice::from_ref(&training));
            average_nats(&model, &held_out)
        };
        // The favourite has probability 0.82, each of the nine others 0.02.
        let entropy = -(0.82 * 0.82_f64.ln() + 9.0 * 0.02 * 0.02_f64.ln());
        let longest = of_order(5);
        assert!(longest < of_order(2) && of_order(2) < of_order(1));
        assert!(longest < of_order(1) - 1.0);
        assert!((of_order(3) - entropy).abs() < 0.05);
    }

    #[test]
    fn equal_data_give_equal_models() {
        let sequences = Generator(4).sequences(20, 200);
        let first = count(20, 5, &sequences);
        let second = count(20, 5, &sequences);
        assert_eq!(first.totals, second.totals);
        let bits = |model: &Model| model.token_loss(&[3, 1, 4, 1], 5).to_bits();
        assert_eq!(bits(&first), bits(&second));
    }

    #[test]
    fn a_sequence_border_is_never_crossed() {
        let divided = count(4, 2, &[vec![0, 1], vec![2, 3]]);
        assert_eq!(divided.stored_ngrams(), 5 + 4);
        assert_eq!(divided.token_loss(&[1], 2), divided.token_loss(&[], 2));
        let joined = count(4, 2, &[vec![0, 1, 2, 3]]);
        assert_eq!(joined.stored_ngrams(), 5 + 4);
        assert!(joined.token_loss(&[1], 2) < joined.token_loss(&[], 2));
        assert!(joined.token_loss(&[1], 2) < divided.token_loss(&[1], 2));
    }

    #[test]
    fn the_arrangement_of_sequences_does_not_matter() {
        let mut sequences = Generator(5).sequences(6, 80);
        let forward = count(6, 5, &sequences);
        sequences.reverse();
        let backward = count(6, 5, &sequences);
        assert_eq!(forward.totals, backward.totals);
        let bits = |model: &Model| model.token_loss(&[3, 1, 4, 1], 5).to_bits();
        assert_eq!(bits(&forward), bits(&backward));
    }

    #[test]
    fn panics_are_impossible_for_identifiers_below_the_vocabulary() {
        let mut generator = Generator(6);
        let shapes = (1..=6).flat_map(|size| (1..=7).map(move |order| (size, order)));
        for (vocabulary, order) in shapes {
            for number in [0, 1, 2, 3, 10, 50] {
                let model = count(vocabulary, order, &generator.sequences(vocabulary, number));
                for length in 0..=9 {
                    let context = generator.tokens(vocabulary, length);
                    let nats = model.token_loss(&context, generator.below(vocabulary) as u32);
                    assert!(nats.is_finite() && nats >= 0.0);
                    assert_sums_to_one(&model, &context);
                }
            }
        }
    }

    #[test]
    fn no_tokens_give_the_uniform_distribution() {
        for model in [count(8, 5, &[]), count(8, 1, &[vec![], vec![]])] {
            assert_eq!(model.stored_ngrams(), 0);
            assert_probability(&model, &[1, 2], 3, 0.125);
        }
    }

    #[test]
    fn an_order_beyond_every_sequence_costs_nothing() {
        let model = count(4, 16, &[vec![0, 1, 2], vec![3, 1]]);
        assert_eq!(model.stored_ngrams(), 5 + 5 + 3 + 1);
        assert_sums_to_one(&model, &[0, 1, 2, 3, 0, 1, 2]);
    }
}

//! N-gram baselines: `KneserNey` counts token sequences up to an order and gives the loss of a token after a context.
//! All orders, unigram included, are interpolated modified Kneser-Ney models.
//!
//! Source of every formula: Stanley F. Chen and Joshua Goodman, "An empirical study of smoothing
//! techniques for language modeling", Computer Speech and Language 13 (1999), 359-394, the
//! sections on Kneser-Ney smoothing and on modified Kneser-Ney smoothing. What they leave open is
//! decided as in KenLM (Kenneth Heafield and others, "Scalable modified Kneser-Ney language model
//! estimation", ACL 2013): what begins a sequence, the uniform distribution, unusable discounts.

use std::mem::replace;
use std::ops::Range;

/// The discounts for counts of 1, of 2, and of 3 or more, if they cannot be estimated (KenLM's values).
pub const FALLBACK_DISCOUNTS: [f64; 3] = [0.5, 1.0, 1.5];

/// An interpolated modified Kneser-Ney model of a fixed order.
///
/// With `c` the count of an n-gram, `h` its context and `h'` the context without its first token,
///
/// ```text
/// p(w | h) = (c(h w) - D(c(h w))) / sum_v c(h v)  +  weight(h) p(w | h')
/// weight(h) = (D1 N1(h) + D2 N2(h) + D3 N3(h)) / sum_v c(h v)
/// ```
///
/// where the first term is 0 for an unseen `h w`, and `N1(h)`, `N2(h)`, `N3(h)` are the numbers of
/// distinct tokens seen once, twice, and three or more times after `h`. The highest order uses raw
/// counts. Every lower order uses continuation counts: the number of distinct left neighbours, and
/// one more for each time the n-gram begins a sequence, where nothing can stand left of it.
/// The first token of a sequence is context only: it is no event of order 1.
/// Below order 1 stands the uniform distribution over the tokens that can be predicted. A context
/// that nothing ever followed has weight 1. With order 1 this is the unigram model, with order 2
/// the bigram model.
///
/// The three discounts are estimated for each order from the numbers `n1` to `n4` of n-grams with
/// count 1 to 4:
///
/// ```text
/// Y = n1 / (n1 + 2 n2)    D1 = 1 - 2 Y n2 / n1    D2 = 2 - 3 Y n3 / n2    D3 = 3 - 4 Y n4 / n3
/// ```
///
/// If `n1`, `n2` or `n3` is 0 or a `Dk` lies outside of 0 to `k`, the order uses all three
/// [`FALLBACK_DISCOUNTS`]; [`KneserNey::fallbacks`] lists these orders.
///
/// The model is a trie kept as sorted arrays, one level for each order; it contains no hashing, and
/// equal inputs give bitwise equal models.
#[derive(Clone, Debug, PartialEq)]
pub struct KneserNey {
    /// For each token whether it can be predicted.
    predictable: Vec<bool>,
    n_predictable: usize,
    order: usize,
    levels: Vec<Level>,
    fallbacks: Vec<Fallback>,
}

/// An order whose discounts could not be estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The length of its n-grams.
    pub order: usize,
    /// How many of them have count 1, 2, 3 and 4.
    pub counts_of_counts: [u64; 4],
}

impl KneserNey {
    /// Counts every n-gram of length 1 to `order` inside each of the `sequences` and estimates the
    /// discounts (Chen and Goodman 1999; see the formulas at [`KneserNey`]).
    ///
    /// `predictable` says for each token whether it can be predicted. Each sequence is a slice of
    /// any length, also 0, and its first token, a start symbol or the first of a text, is context
    /// only. Nothing crosses the border of a sequence. Without any event the model is the uniform
    /// distribution.
    ///
    /// Takes time of `order * tokens * log(tokens)` and memory of `order * tokens`.
    ///
    /// # Panics
    ///
    /// If `order` is 0 or no token can be predicted, if a token is not below the length of
    /// `predictable`, or one after the first of a sequence cannot be predicted, or if the
    /// sequences together have `u32::MAX` tokens or more.
    pub fn count<'a>(
        predictable: Vec<bool>,
        order: usize,
        sequences: impl IntoIterator<Item = &'a [u32]>,
    ) -> Self {
        let n_predictable = predictable.iter().filter(|&&it| it).count();
        assert!(n_predictable > 0, "some token must be predictable");
        assert!(order > 0, "the order must be at least 1");
        let corpus = Corpus::gather(&predictable, sequences);
        let (levels, fallbacks) = count_levels(&corpus, order);
        Self {
            predictable,
            n_predictable,
            order,
            levels,
            fallbacks,
        }
    }

    /// The negative natural logarithm of `p(target | context)`: not negative, and infinite only for
    /// a target that cannot be predicted.
    ///
    /// Only the last `order - 1` tokens of `context` matter; a shorter context, also an empty one,
    /// uses the lower orders alone. For any context, the probabilities of all targets sum to 1. The
    /// formula stands at the type (Chen and Goodman 1999).
    ///
    /// # Panics
    ///
    /// If `target` or one of the last `order - 1` tokens of `context` is no token of the model.
    pub fn token_loss(&self, context: &[u32], target: u32) -> f64 {
        let used = &context[context.len().saturating_sub(self.order - 1)..];
        require_tokens_below(self.predictable.len(), used);
        require_tokens_below(self.predictable.len(), &[target]);
        if !self.predictable[target as usize] {
            return f64::INFINITY;
        }
        // Rounding may carry a certain outcome just above 1, and 0 minus 0 avoids a negative zero.
        0.0 - self.probability(used, target).min(1.0).ln()
    }

    /// The number of distinct n-grams stored, all lengths from 1 to the order together.
    pub fn stored_ngrams(&self) -> usize {
        self.levels.iter().map(|level| level.tokens.len()).sum()
    }

    /// The length of the longest n-gram that was seen: below the order if every sequence is shorter.
    pub fn longest_ngram(&self) -> usize {
        let seen = |level: &&Level| !level.tokens.is_empty();
        self.levels.iter().take_while(seen).count()
    }

    /// The orders whose discounts could not be estimated, rising.
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    fn probability(&self, context: &[u32], target: u32) -> f64 {
        let mut probability = 1.0 / self.n_predictable as f64;
        for (length, level) in self.levels.iter().enumerate().take(context.len() + 1) {
            // A context contains all of its suffixes, so none longer than an unseen one was seen.
            let Some(parent) = self.find(&context[context.len() - length..]) else {
                break;
            };
            probability = level.interpolate(parent, target, probability);
        }
        probability
    }

    /// The index of an n-gram among those of its length; the empty one is the only one of length 0.
    fn find(&self, ngram: &[u32]) -> Option<usize> {
        let mut levels = self.levels.iter();
        ngram
            .iter()
            .try_fold(0, |parent, &token| levels.next()?.child(parent, token))
    }
}

/// All n-grams of one length, sorted by prefix and then by last token.
#[derive(Clone, Debug, PartialEq)]
struct Level {
    /// For each prefix, the index of its first n-gram; one further entry ends the last prefix.
    first_child: Vec<u32>,
    /// For each prefix, the weight of the next shorter context.
    weight: Vec<f64>,
    /// For each n-gram, its last token.
    tokens: Vec<u32>,
    /// For each n-gram, its discounted count divided by the sum of the counts under its prefix.
    discounted: Vec<f64>,
}

impl Level {
    fn new(parents: usize, keys: &[u64], counts: &[u32], discounts: Discounts) -> Self {
        let mut level = Self {
            first_child: child_borders(parents, keys),
            weight: Vec::with_capacity(parents),
            tokens: keys.iter().map(|&key| token_of(key)).collect(),
            discounted: Vec::with_capacity(keys.len()),
        };
        for parent in 0..parents {
            let children = level.children(parent);
            level.add_parent(&counts[children], discounts);
        }
        level
    }

    fn add_parent(&mut self, counts: &[u32], discounts: Discounts) {
        let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
        if total == 0.0 {
            // Nothing ever followed, or only what is context and no event.
            self.weight.push(1.0);
            self.discounted.extend(vec![0.0; counts.len()]);
            return;
        }
        let freed: f64 = counts.iter().map(|&count| discounts.of(count)).sum();
        self.weight.push(freed / total);
        let share = |&count: &u32| (f64::from(count) - discounts.of(count)) / total;
        self.discounted.extend(counts.iter().map(share));
    }

    fn children(&self, parent: usize) -> Range<usize> {
        self.first_child[parent] as usize..self.first_child[parent + 1] as usize
    }

    fn child(&self, parent: usize, token: u32) -> Option<usize> {
        let children = self.children(parent);
        let offset = self.tokens[children.clone()].binary_search(&token).ok()?;
        Some(children.start + offset)
    }

    fn interpolate(&self, parent: usize, target: u32, shorter: f64) -> f64 {
        let seen = self.child(parent, target);
        let seen = seen.map_or(0.0, |child| self.discounted[child]);
        seen + self.weight[parent] * shorter
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

    fn of(self, count: u32) -> f64 {
        match count {
            0 => 0.0,
            count => self.0[count.min(3) as usize - 1],
        }
    }
}

/// How many counts are 1, 2, 3 and 4.
fn counts_of_counts(counts: &[u32]) -> [u64; 4] {
    [1, 2, 3, 4].map(|wanted| counts.iter().filter(|&&count| count == wanted).count() as u64)
}

/// All sequences end to end, with the range of positions of each one that is not empty.
struct Corpus {
    tokens: Vec<u32>,
    sequences: Vec<Range<usize>>,
}

impl Corpus {
    fn gather<'a>(predictable: &[bool], sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut tokens = Vec::new();
        let mut ranges = Vec::new();
        let sequences = sequences.into_iter();
        for sequence in sequences.filter(|sequence| !sequence.is_empty()) {
            require_tokens_below(predictable.len(), sequence);
            let mut events = sequence[1..].iter();
            let can_be_predicted = events.all(|&event| predictable[event as usize]);
            assert!(can_be_predicted, "an event that cannot be predicted");
            let start = tokens.len();
            tokens.extend_from_slice(sequence);
            ranges.push(start..tokens.len());
        }
        let fits = tokens.len() < u32::MAX as usize;
        assert!(fits, "more tokens than 32-bit counts can hold");
        Self {
            tokens,
            sequences: ranges,
        }
    }

    fn longest_sequence(&self) -> usize {
        self.sequences.iter().map(Range::len).max().unwrap_or(0)
    }

    /// The positions at which an n-gram of this length starts and stays inside its sequence.
    fn starts(&self, length: usize) -> impl Iterator<Item = usize> {
        let of = move |sequence: &Range<usize>| {
            sequence.start..(sequence.end + 1).saturating_sub(length)
        };
        self.sequences.iter().flat_map(of)
    }

    /// The first position of each sequence that is long enough for an n-gram of this length.
    fn first_starts(&self, length: usize) -> impl Iterator<Item = usize> {
        let sequences = self.sequences.iter();
        let long = sequences.filter(move |sequence| sequence.len() >= length);
        long.map(|sequence| sequence.start)
    }
}

fn require_tokens_below(vocabulary: usize, tokens: &[u32]) {
    for &token in tokens {
        assert!(
            (token as usize) < vocabulary,
            "token {token} is outside of {vocabulary}"
        );
    }
}

/// The distinct n-grams of one length, numbered in the order of their keys.
struct Numbered {
    /// The index of the prefix in the upper half, the last token in the lower half.
    keys: Vec<u64>,
    /// For each n-gram, how often it occurs.
    occurrences: Vec<u32>,
    /// For each position of the corpus, the index of the n-gram that starts there. A position at
    /// which none starts holds 0 and must not be read.
    indices: Vec<u32>,
}

impl Numbered {
    /// The single empty n-gram, which starts at every position.
    fn empty_ngram(corpus: &Corpus) -> Self {
        let positions = corpus.tokens.len();
        Self {
            keys: vec![0],
            occurrences: vec![positions as u32],
            indices: vec![0; positions],
        }
    }

    /// Numbers the n-grams of `length` from those that are one token shorter.
    fn extend(corpus: &Corpus, length: usize, prefixes: &Self) -> Self {
        let key_at = |position: usize| {
            let token = corpus.tokens[position + length - 1];
            let key = u64::from(prefixes.indices[position]) << 32 | u64::from(token);
            (key, position as u32)
        };
        let mut all: Vec<(u64, u32)> = corpus.starts(length).map(key_at).collect();
        all.sort_unstable();
        let mut numbered = Self {
            keys: Vec::new(),
            occurrences: Vec::new(),
            indices: vec![0; corpus.tokens.len()],
        };
        for (index, same) in all.chunk_by(|one, next| one.0 == next.0).enumerate() {
            numbered.keys.push(same[0].0);
            numbered.occurrences.push(same.len() as u32);
            for (_, position) in same {
                numbered.indices[*position as usize] = index as u32;
            }
        }
        numbered
    }

    fn at(&self, position: usize) -> usize {
        self.indices[position] as usize
    }
}

fn token_of(key: u64) -> u32 {
    (key & u64::from(u32::MAX)) as u32
}

fn parent_of(key: u64) -> usize {
    (key >> 32) as usize
}

/// For each parent, how many keys belong to smaller parents, and at the end the number of keys.
fn child_borders(parents: usize, keys: &[u64]) -> Vec<u32> {
    let mut borders = vec![0; parents + 1];
    for &key in keys {
        borders[parent_of(key) + 1] += 1;
    }
    for parent in 0..parents {
        borders[parent + 1] += borders[parent];
    }
    borders
}

fn count_levels(corpus: &Corpus, order: usize) -> (Vec<Level>, Vec<Fallback>) {
    // One level beyond the longest sequence is empty, and so are all that would follow it.
    let depth = order.min(corpus.longest_sequence() + 1);
    let mut levels = Vec::with_capacity(depth);
    let mut fallbacks = Vec::new();
    let mut add = |prefixes: &Numbered, current: &Numbered, counts: &[u32]| {
        let order = levels.len() + 1;
        let counts_of_counts = counts_of_counts(counts);
        let discounts = Discounts::estimate(counts_of_counts).unwrap_or_else(|| {
            if counts.iter().any(|&count| count > 0) {
                fallbacks.push(Fallback {
                    order,
                    counts_of_counts,
                });
            }
            Discounts(FALLBACK_DISCOUNTS)
        });
        let parents = prefixes.keys.len();
        levels.push(Level::new(parents, &current.keys, counts, discounts));
    };
    let mut prefixes = Numbered::empty_ngram(corpus);
    let mut current = Numbered::extend(corpus, 1, &prefixes);
    for length in 1..depth {
        let longer = Numbered::extend(corpus, length + 1, &current);
        let counts = continuation_counts(corpus, length, &current, &longer);
        add(&prefixes, &current, &counts);
        prefixes = replace(&mut current, longer);
    }
    if depth == 1 {
        // The first token of a sequence is no event.
        for position in corpus.first_starts(1) {
            let ngram = current.at(position);
            current.occurrences[ngram] -= 1;
        }
    }
    add(&prefixes, &current, &current.occurrences);
    (levels, fallbacks)
}

/// For each n-gram of `length`, the number of its distinct left neighbours, and one more for each
/// time that it begins a sequence; a single token that begins one is no event.
fn continuation_counts(
    corpus: &Corpus,
    length: usize,
    current: &Numbered,
    longer: &Numbered,
) -> Vec<u32> {
    let mut counts = vec![0; current.keys.len()];
    if length > 1 {
        for position in corpus.first_starts(length) {
            counts[current.at(position)] += 1;
        }
    }
    let mut counted = vec![false; longer.keys.len()];
    for position in corpus.starts(length + 1) {
        let unseen = !replace(&mut counted[longer.at(position)], true);
        counts[current.at(position + 1)] += u32::from(unseen);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::panic::catch_unwind;

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

    fn count(vocabulary: usize, order: usize, sequences: &[Vec<u32>]) -> KneserNey {
        let predictable = (0..=vocabulary).map(|id| id < vocabulary).collect();
        let sequences = started(vocabulary, sequences);
        KneserNey::count(predictable, order, sequences.iter().map(Vec::as_slice))
    }

    fn assert_sums_to_one(model: &KneserNey, context: &[u32]) {
        let targets = 0..model.predictable.len() as u32;
        let sum: f64 = targets
            .map(|target| (-model.token_loss(context, target)).exp())
            .sum();
        assert!(
            (sum - 1.0).abs() < 1e-9,
            "the sum is {sum} after {context:?}"
        );
    }

    fn assert_probability(model: &KneserNey, context: &[u32], target: u32, expected: f64) {
        let probability = (-model.token_loss(context, target)).exp();
        let close = (probability - expected).abs() < 1e-12;
        assert!(
            close,
            "{probability} instead of {expected} for {target} after {context:?}"
        );
    }

    fn average_nats(model: &KneserNey, tokens: &[u32]) -> f64 {
        let total: f64 = (0..tokens.len())
            .map(|position| model.token_loss(&tokens[..position], tokens[position]))
            .sum();
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
            let freed: f64 = after.map(|(_, &count)| discounts.of(count)).sum();
            let ngram = [suffix, &[target]].concat();
            let seen = counts.get(ngram.as_slice());
            let kept = seen.map_or(0.0, |&count| f64::from(count) - discounts.of(count));
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
        assert_eq!(model.token_loss(&[0], 7), f64::INFINITY);
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
        assert_eq!(model.longest_ngram(), 3);
    }

    #[test]
    fn without_a_start_symbol_the_first_token_is_context_only() {
        let sequences: [&[u32]; 3] = [&[0, 1], &[0, 1], &[2, 1]];
        let model = KneserNey::count(vec![true; 3], 2, sequences);
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
        let nothing = KneserNey::count(vec![true; 3], 2, alone);
        assert_probability(&nothing, &[0], 1, 1.0 / 3.0);
        assert_eq!(nothing.longest_ngram(), 1);
    }

    #[test]
    fn the_same_texts_twice_cost_about_the_same_or_are_said_to_have_no_discounts() {
        let tokens = zipf_tokens(&mut Generator(7), 60, 800);
        let sequences: Vec<Vec<u32>> = tokens.chunks(8).map(<[u32]>::to_vec).collect();
        let twice = [sequences.clone(), sequences.clone()].concat();
        let [once, twice] = [sequences, twice].map(|sequences| count(60, 2, &sequences));
        let of_pairs = |model: &KneserNey| -> Option<[u64; 4]> {
            let mut said = model.fallbacks().iter();
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
        let counts = counts_of_counts(&[1, 1, 1, 1, 2, 2, 3, 4, 9, 0]);
        assert_eq!(counts, [4, 2, 1, 1]);
        assert_eq!(
            Discounts::estimate(counts),
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
        assert_eq!(first, second);
        let bits = |model: &KneserNey| model.token_loss(&[3, 1, 4, 1], 5).to_bits();
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
        assert_eq!(forward, count(6, 5, &sequences));
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
        let model = count(4, usize::MAX, &[vec![0, 1, 2], vec![3, 1]]);
        assert_eq!(model.stored_ngrams(), 5 + 5 + 3 + 1);
        assert_sums_to_one(&model, &[0, 1, 2, 3, 0, 1, 2]);
    }

    #[test]
    fn identifiers_outside_the_vocabulary_are_refused() {
        assert!(catch_unwind(|| count(4, 2, &[vec![0, 4]])).is_err());
        assert!(catch_unwind(|| count(4, 2, &[vec![0, 3]]).token_loss(&[0], 5)).is_err());
        assert!(catch_unwind(|| count(4, 2, &[vec![0, 3]]).token_loss(&[5], 0)).is_err());
        assert!(catch_unwind(|| count(0, 2, &[])).is_err());
        assert!(catch_unwind(|| count(4, 0, &[])).is_err());
    }
}

//! Routing statistics: counts of walks that add up over batches, and the rates made of them. Host only.
//!
//! Only decisions of valid tokens count, and, where OUT ends a walk, only those up to it. A rate without a denominator is
//! left out.

use crate::memory::MemoryUse;
use crate::random;
use crate::route::trace::{Origin, Walks};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// The most different paths that are told apart.
const MOST_PATHS: usize = 4096;
/// The most sequences that an interval is made of.
const MOST_SAMPLES: usize = 20_000;
/// Resamples of a bootstrap.
const RESAMPLES: u64 = 1000;
/// Keeps the logarithm of a probability finite.
const VANISHED: f64 = 1e-9;

/// Counts over tokens and their decisions.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RouteCounts {
    /// Blocks to choose from.
    pub n_pool: usize,
    /// The most steps a walk could have had.
    pub max_steps: usize,
    /// Tokens.
    pub tokens: u64,
    /// Decisions.
    pub decisions: u64,
    /// How often each block was executed.
    pub load: Vec<u64>,
    /// Tokens whose first OUT came at each step, from the first.
    pub exits: Vec<u64>,
    /// Tokens by the number of blocks they executed.
    pub lengths: Vec<u64>,
    /// How often block `j` came right after block `i`, at `[i * n_pool + j]`.
    pub moves: Vec<u64>,
    /// Tokens by their path, as indices of actions; those of paths beyond a bound together, under a path that nobody has.
    pub paths: BTreeMap<Vec<usize>, u64>,
    /// Per sequence of known difficulty: the difficulty and the mean number of blocks executed.
    pub samples: Vec<(u8, f64)>,
    /// What was read from the memory, if there is one.
    pub memory: MemoryUse,
    /// The same of what blocks attend to, where the model has codes of hidden states beside it.
    #[serde(default)]
    pub attended: MemoryUse,
    forced: u64,
    asked: u64,
    entropy: f64,
    out_probability: f64,
    taught: u64,
    imitated: u64,
    fused: u64,
    random: u64,
    capped: u64,
    by_router: u64,
    longest_runs: u64,
}

impl RouteCounts {
    /// Counts the walks of a batch.
    ///
    /// `valid`: which tokens count, `[batch * seq]`; `difficulty`: per sequence, or per text where windows hold several.
    pub fn add(&mut self, walks: &Walks, valid: &[bool], difficulty: &[Option<u8>]) {
        self.grow(walks);
        for (tokens, difficulty) in walks.texts().ranges().zip(difficulty) {
            let tokens = tokens.filter(|&token| valid[token]);
            let (mut n, mut executed) = (0, 0);
            for token in tokens {
                n += 1;
                executed += walks.n_executed(token);
                self.add_token(walks, token);
            }
            if let (Some(difficulty), true) = (difficulty, n > 0) {
                self.samples
                    .push((*difficulty, executed as f64 / f64::from(n)));
            }
        }
        self.samples.truncate(MOST_SAMPLES);
        if let Some(memory) = &walks.memory {
            self.memory.add(memory);
        }
        if let Some(attended) = &walks.attended {
            self.attended.add(attended);
        }
    }

    fn grow(&mut self, walks: &Walks) {
        let longer = |counts: &mut Vec<u64>, n: usize| counts.resize(n.max(counts.len()), 0);
        self.n_pool = self.n_pool.max(walks.n_pool);
        self.max_steps = self.max_steps.max(walks.max_steps);
        longer(&mut self.load, walks.n_pool);
        longer(&mut self.moves, walks.n_pool * walks.n_pool);
        longer(&mut self.exits, walks.max_steps);
        longer(&mut self.lengths, walks.max_steps + 1);
    }

    fn add_token(&mut self, walks: &Walks, token: usize) {
        self.tokens += 1;
        let n_pool = walks.n_pool;
        let mut before: Option<usize> = None;
        let (mut run, mut longest) = (0, 0);
        let mut left = false;
        for (index, step) in walks.steps.iter().enumerate() {
            if step.origins[token] == Origin::Left {
                break;
            }
            let action = step.actions[token];
            self.decisions += 1;
            self.fused += u64::from(step.fused[token]);
            self.capped += u64::from(step.capped[token]);
            self.random += u64::from(step.origins[token] == Origin::Random);
            self.by_router += u64::from(step.origins[token] == Origin::Router);
            if let Some(&best) = step.best.get(token) {
                let probabilities = &step.probabilities[token * (n_pool + 1)..][..=n_pool];
                self.add_distribution(probabilities);
                if let Some(targets) = &step.targets {
                    self.taught += 1;
                    self.imitated += u64::from(targets[token] == best);
                }
            }
            if action == n_pool {
                if !left {
                    self.exits[index] += 1;
                    self.forced += u64::from(step.origins[token] == Origin::Last);
                }
                left = true;
                (before, run) = (None, 0);
                continue;
            }
            self.load[action] += 1;
            if let Some(before) = before {
                self.moves[before * n_pool + action] += 1;
            }
            run = match before == Some(action) {
                true => run + 1,
                false => 1,
            };
            longest = longest.max(run);
            before = Some(action);
        }
        self.longest_runs += longest;
        self.lengths[walks.n_executed(token)] += 1;
        let path = walks.path(token).into_iter();
        self.add_path(path.map(|action| action.index(n_pool)).collect(), 1);
    }

    fn add_distribution(&mut self, probabilities: &[f32]) {
        self.asked += 1;
        let term = |&p: &f32| {
            let p = f64::from(p).max(VANISHED);
            -p * p.ln()
        };
        self.entropy += probabilities.iter().map(term).sum::<f64>();
        self.out_probability += f64::from(*probabilities.last().expect("OUT is an action"));
    }

    fn add_path(&mut self, path: Vec<usize>, n: u64) {
        let known = self.paths.len() < MOST_PATHS || self.paths.contains_key(&path);
        let path = match known {
            true => path,
            // No path has an action beyond OUT.
            false => vec![usize::MAX],
        };
        *self.paths.entry(path).or_default() += n;
    }

    /// All rates, under their names in metrics; `intervals` adds bootstrap intervals of those that depend on difficulty.
    pub fn named(&self, intervals: bool) -> BTreeMap<String, f64> {
        let mut named = BTreeMap::new();
        if self.tokens == 0 {
            return named;
        }
        let mut rate = |name: &str, count: f64, of: u64| {
            if of > 0 {
                named.insert(format!("route/{name}"), count / of as f64);
            }
        };
        let executed: u64 = self.load.iter().sum();
        rate("steps_mean", executed as f64, self.tokens);
        rate("imitation_accuracy", self.imitated as f64, self.taught);
        rate("entropy", self.entropy, self.asked);
        rate("out_probability", self.out_probability, self.asked);
        rate("fused", self.fused as f64, self.decisions);
        rate("random", self.random as f64, self.decisions);
        rate("capped", self.capped as f64, self.decisions);
        rate("router", self.by_router as f64, self.decisions);
        rate("self_run_mean", self.longest_runs as f64, self.tokens);
        for (block, &count) in self.load.iter().enumerate() {
            rate(&format!("load/{block}"), count as f64, executed);
        }
        let most = |counts: &[u64]| counts.iter().copied().max().unwrap_or(0) as f64;
        rate("load_max", most(&self.load), executed);
        let evenness = entropy(&self.load) / (self.n_pool as f64).ln();
        let has_choice = self.n_pool > 1 && executed > 0;
        rate("load_entropy", evenness, u64::from(has_choice));
        let moves: u64 = self.moves.iter().sum();
        for (name, by) in [
            ("back", &(|step: isize| step < 0) as &dyn Fn(isize) -> bool),
            ("recur", &|step| step == 0),
            ("advance", &|step| step == 1),
            ("skip", &|step| step > 1),
        ] {
            rate(name, self.moves_by(by) as f64, moves);
        }
        for (index, &count) in self.exits.iter().enumerate() {
            rate(&format!("exit/{}", index + 1), count as f64, self.tokens);
        }
        let ever: u64 = self.exits.iter().sum();
        let first = self.exits.first().copied().unwrap_or(0);
        rate("exit_first", first as f64, self.tokens);
        rate("exit_never", (self.tokens - ever) as f64, self.tokens);
        rate("exit_forced", self.forced as f64, self.tokens);
        let paths: Vec<u64> = self.paths.values().copied().collect();
        rate("path_top_share", most(&paths), self.tokens);
        rate("path_diversity", entropy(&paths).exp(), 1);
        for (difficulty, name) in ["easy", "medium", "hard"].into_iter().enumerate() {
            let of = |&(of, steps): &(u8, f64)| (usize::from(of) == difficulty).then_some(steps);
            let steps: Vec<f64> = self.samples.iter().filter_map(of).collect();
            let n = steps.len() as u64;
            rate(&format!("steps_{name}"), steps.iter().sum(), n);
        }
        named.extend(self.by_difficulty(intervals));
        named.extend(self.memory.named("memory"));
        named.extend(self.attended.named("attended"));
        named
    }

    fn moves_by(&self, holds: &dyn Fn(isize) -> bool) -> u64 {
        let n_pool = self.n_pool.max(1);
        let moves = self.moves.iter().enumerate();
        let of =
            moves.filter(|(index, _)| holds((index % n_pool) as isize - (index / n_pool) as isize));
        of.map(|(_, count)| count).sum()
    }

    /// Slope and correlation of the steps over the difficulty, over sequences.
    fn by_difficulty(&self, intervals: bool) -> BTreeMap<String, f64> {
        let mut named = BTreeMap::new();
        let point = |&(difficulty, steps): &(u8, f64)| (f64::from(difficulty), steps);
        let samples: Vec<(f64, f64)> = self.samples.iter().map(point).collect();
        if samples.len() < 3 {
            return named;
        }
        let line = Line::through(samples.iter().copied());
        let resamples = 0..if intervals { RESAMPLES } else { 0 };
        let resampled = resamples.map(|index| resample(&samples, index));
        let resampled: Vec<Line> = resampled.collect();
        type Measure = fn(&Line) -> Option<f64>;
        let measures: [(&str, Measure); 2] = [
            ("difficulty_slope", |line| line.slope),
            ("difficulty_correlation", |line| line.correlation),
        ];
        for (name, of) in measures {
            let Some(value) = of(&line) else { continue };
            named.insert(format!("route/{name}"), value);
            let mut values: Vec<f64> = resampled.iter().filter_map(of).collect();
            values.sort_by(f64::total_cmp);
            if let (Some(low), Some(high)) = (quantile(&values, 0.025), quantile(&values, 0.975)) {
                named.insert(format!("route/{name}_low"), low);
                named.insert(format!("route/{name}_high"), high);
            }
        }
        named
    }
}

impl AddAssign<&Self> for RouteCounts {
    fn add_assign(&mut self, other: &Self) {
        let add = |sums: &mut Vec<u64>, counts: &[u64]| {
            sums.resize(sums.len().max(counts.len()), 0);
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        };
        self.n_pool = self.n_pool.max(other.n_pool);
        self.max_steps = self.max_steps.max(other.max_steps);
        add(&mut self.load, &other.load);
        add(&mut self.exits, &other.exits);
        add(&mut self.lengths, &other.lengths);
        add(&mut self.moves, &other.moves);
        for (path, &n) in &other.paths {
            self.add_path(path.clone(), n);
        }
        self.samples.extend(&other.samples);
        self.samples.truncate(MOST_SAMPLES);
        self.memory.add(&other.memory);
        self.attended.add(&other.attended);
        self.tokens += other.tokens;
        self.decisions += other.decisions;
        self.forced += other.forced;
        self.asked += other.asked;
        self.entropy += other.entropy;
        self.out_probability += other.out_probability;
        self.taught += other.taught;
        self.imitated += other.imitated;
        self.fused += other.fused;
        self.random += other.random;
        self.capped += other.capped;
        self.by_router += other.by_router;
        self.longest_runs += other.longest_runs;
    }
}

/// Entropy of the shares of counts, in nats.
fn entropy(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let shares = counts.iter().filter(|&&count| count > 0);
    let negative: f64 = shares
        .map(|&count| count as f64 / total as f64)
        .map(|share| share * share.ln())
        .sum();
    // Taken from 0, so that an entropy of nothing is 0 and not -0.
    0.0 - negative
}

/// A least-squares line; nothing where its points do not vary.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    slope: Option<f64>,
    correlation: Option<f64>,
}

impl Line {
    fn through(points: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let n = points.clone().count() as f64;
        let mean = |of: fn((f64, f64)) -> f64| points.clone().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            points
                .clone()
                .map(|point| of(point.0 - x, point.1 - y))
                .sum()
        };
        let (xx, yy, xy) = (sum(&|x, _| x * x), sum(&|_, y| y * y), sum(&|x, y| x * y));
        let varies = |square: f64| square > 1e-12 * n;
        Self {
            slope: varies(xx).then(|| xy / xx),
            correlation: (varies(xx) && varies(yy)).then(|| xy / (xx * yy).sqrt()),
        }
    }
}

fn resample(samples: &[(f64, f64)], index: u64) -> Line {
    let key = random::key(0, "bootstrap", index);
    let draw = |index| samples[(random::bits(key, index) % samples.len() as u64) as usize];
    Line::through((0..samples.len() as u64).map(draw))
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((share * last as f64).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::trace::Decisions;

    const OUT: usize = 3;

    /// One sequence per path, a token each, walked by a router that is certain.
    fn walks(paths: &[&[usize]], max_steps: usize) -> Walks {
        let step = |index: usize| {
            let at = |path: &&[usize]| path.get(index).copied().unwrap_or(OUT);
            let origin = |path: &&[usize]| match path[..index.min(path.len())].contains(&OUT) {
                true => Origin::Left,
                false => Origin::Router,
            };
            let certain = |path: &&[usize]| {
                let action = at(path);
                (0..=OUT)
                    .map(move |other| f32::from(action == other))
                    .collect::<Vec<_>>()
            };
            Decisions {
                actions: paths.iter().map(at).collect(),
                origins: paths.iter().map(origin).collect(),
                fused: vec![false; paths.len()],
                best: paths.iter().map(at).collect(),
                targets: Some(vec![0; paths.len()]),
                probabilities: paths.iter().flat_map(certain).collect(),
                likeliest: paths.iter().map(at).collect(),
                capped: vec![false; paths.len()],
            }
        };
        Walks {
            batch: paths.len(),
            seq: 1,
            n_pool: OUT,
            max_steps,
            hard_exit: true,
            steps: (0..max_steps).map(step).collect(),
            ..Walks::default()
        }
    }

    fn counted(paths: &[&[usize]], max_steps: usize, difficulty: &[Option<u8>]) -> RouteCounts {
        let mut counts = RouteCounts::default();
        counts.add(
            &walks(paths, max_steps),
            &vec![true; paths.len()],
            difficulty,
        );
        counts
    }

    #[test]
    fn rates_are_those_of_the_decisions_before_a_token_left() {
        let paths: [&[usize]; 4] = [&[0, 1, OUT], &[1, 1, 0, 2], &[OUT], &[0, 2, OUT]];
        let named = counted(&paths, 4, &[None; 4]).named(false);
        let expected = [
            ("steps_mean", 8.0 / 4.0),
            // Four of the eleven decisions that were made.
            ("imitation_accuracy", 3.0 / 11.0),
            ("advance", 1.0 / 5.0),
            ("skip", 2.0 / 5.0),
            ("recur", 1.0 / 5.0),
            ("back", 1.0 / 5.0),
            ("exit_first", 0.25),
            ("exit_never", 0.25),
            ("exit/3", 0.5),
            ("load/0", 3.0 / 8.0),
            ("load_max", 3.0 / 8.0),
            ("path_top_share", 0.25),
            ("out_probability", 3.0 / 11.0),
            ("self_run_mean", 4.0 / 4.0),
        ];
        for (name, value) in expected {
            let found = named[&format!("route/{name}")];
            assert!((found - value).abs() < 1e-6, "{name}: {found}");
        }
        assert!((named["route/path_diversity"] - 4.0).abs() < 1e-9);
        assert!(named["route/entropy"].abs() < 1e-6);
    }

    #[test]
    fn padding_is_not_counted() {
        let paths: [&[usize]; 2] = [&[0, 1, OUT], &[2, 2, 2]];
        let mut counts = RouteCounts::default();
        counts.add(&walks(&paths, 3), &[true, false], &[None; 2]);
        assert_eq!(counts, counted(&paths[..1], 3, &[None]));
    }

    #[test]
    fn batches_add_up() {
        let paths: [&[usize]; 3] = [&[0, 1, OUT], &[2, 2, 2, 2, OUT], &[1]];
        let difficulty = [Some(0), Some(2), Some(1)];
        let mut sum = counted(&paths[..1], 3, &difficulty[..1]);
        sum += &counted(&paths[1..], 5, &difficulty[1..]);
        let whole = counted(&paths, 5, &difficulty);
        assert_eq!(sum.named(true), whole.named(true));
    }

    #[test]
    fn a_slope_has_an_interval_around_it_and_a_constant_has_no_correlation() {
        let easy: &[usize] = &[0, OUT];
        let hard: &[usize] = &[0, 1, 2, OUT];
        let middle: &[usize] = &[0, 1, OUT];
        let paths = [easy, middle, hard].repeat(20);
        let difficulty = [Some(0), Some(1), Some(2)].repeat(20);
        let named = counted(&paths, 4, &difficulty).named(true);
        assert!((named["route/difficulty_slope"] - 1.0).abs() < 1e-9);
        assert!((named["route/difficulty_correlation"] - 1.0).abs() < 1e-9);
        assert!((named["route/steps_hard"] - 3.0).abs() < 1e-9);
        let noisy: Vec<&[usize]> = paths
            .iter()
            .rev()
            .skip(7)
            .chain(&paths[..7])
            .copied()
            .collect();
        let named = counted(&noisy, 4, &difficulty).named(true);
        let [low, slope, high] =
            ["_low", "", "_high"].map(|end| named[&format!("route/difficulty_slope{end}")]);
        assert!(low < slope && slope < high, "{low} {slope} {high}");
        let named = counted(&[easy; 60], 4, &difficulty).named(true);
        assert_eq!(named["route/difficulty_slope"], 0.0);
        assert!(!named.contains_key("route/difficulty_correlation"));
    }

    /// What one token did at one step: action, origin, the router's best, the teacher's target, its probabilities.
    type Decided = (usize, Origin, usize, usize, [f32; OUT + 1]);

    /// Tokens of one sequence after another, each of `n_steps` steps; `marked` are fused and capped at its second step.
    fn recorded(tokens: &[Vec<Decided>], seq: usize, hard_exit: bool, marked: &[usize]) -> Walks {
        let n_steps = tokens[0].len();
        let step = |step: usize| {
            let at = |token: &Vec<Decided>| token[step];
            let marks = || (0..tokens.len()).map(|token| step == 1 && marked.contains(&token));
            let probabilities = tokens.iter().flat_map(|token| at(token).4);
            Decisions {
                actions: tokens.iter().map(|token| at(token).0).collect(),
                origins: tokens.iter().map(|token| at(token).1).collect(),
                fused: marks().collect(),
                best: tokens.iter().map(|token| at(token).2).collect(),
                targets: Some(tokens.iter().map(|token| at(token).3).collect()),
                probabilities: probabilities.collect(),
                likeliest: Vec::new(),
                capped: marks().collect(),
            }
        };
        Walks {
            batch: tokens.len() / seq,
            seq,
            n_pool: OUT,
            max_steps: n_steps,
            hard_exit,
            steps: (0..n_steps).map(step).collect(),
            ..Walks::default()
        }
    }

    fn of_walks(walks: &Walks, valid: &[bool]) -> RouteCounts {
        let mut counts = RouteCounts::default();
        counts.add(walks, valid, &vec![None; walks.batch]);
        counts
    }

    fn holds(named: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
        for (name, value) in expected {
            let found = named[&format!("route/{name}")];
            // A probability of zero counts as 1e-9.
            assert!(
                (found - value).abs() < 1e-6,
                "{name}: {found} and not {value}"
            );
        }
    }

    const EVEN: [f32; 4] = [0.25; 4];
    const HALVES: [f32; 4] = [0.5, 0.5, 0.0, 0.0];

    #[test]
    fn every_rate_divides_by_its_own_count() {
        use Origin::{Last, Left, Random, Router};
        let walker = vec![
            (0, Router, 0, 0, EVEN),
            (2, Random, 1, 1, HALVES),
            (2, Router, 2, 0, [0.5, 0.25, 0.25, 0.0]),
            (OUT, Last, OUT, OUT, [0.0, 0.0, 0.0, 1.0]),
        ];
        let leaver = vec![
            (OUT, Router, OUT, 0, [0.0, 0.0, 0.5, 0.5]),
            (OUT, Left, 0, 0, EVEN),
            (OUT, Left, 0, 0, EVEN),
            (OUT, Left, 0, 0, EVEN),
        ];
        let padding = vec![(1, Random, 1, 1, EVEN); 4];
        let walks = recorded(&[walker, padding, leaver], 3, true, &[0, 1]);
        let named = of_walks(&walks, &[true, false, true]).named(false);
        let ln2 = 2.0f64.ln();
        let expected = [
            ("steps_mean", 3.0 / 2.0),
            // Of five decisions. The router is asked what it thinks best, whatever was executed.
            ("imitation_accuracy", 3.0 / 5.0),
            // In nats: ln 4, ln 2, 3/2 ln 2, 0 and ln 2.
            ("entropy", 5.5 * ln2 / 5.0),
            ("out_probability", (0.25 + 1.0 + 0.5) / 5.0),
            ("fused", 1.0 / 5.0),
            ("random", 1.0 / 5.0),
            ("capped", 1.0 / 5.0),
            ("router", 3.0 / 5.0),
            // The longest row of equal blocks: two of one token, none of the other.
            ("self_run_mean", 2.0 / 2.0),
            ("load/0", 1.0 / 3.0),
            ("load/1", 0.0),
            ("load/2", 2.0 / 3.0),
            ("load_max", 2.0 / 3.0),
            // Of the largest that three blocks can have.
            ("load_entropy", 1.0 - 2.0 / 3.0 * ln2 / 3.0f64.ln()),
            ("back", 0.0),
            ("recur", 0.5),
            ("advance", 0.0),
            ("skip", 0.5),
            ("exit/1", 0.5),
            ("exit/2", 0.0),
            ("exit/4", 0.5),
            ("exit_first", 0.5),
            ("exit_never", 0.0),
            ("exit_forced", 0.5),
            ("path_top_share", 0.5),
            ("path_diversity", 2.0),
        ];
        holds(&named, &expected);
        let others = named
            .keys()
            .filter(|name| !expected.iter().any(|(known, _)| name[6..] == **known));
        assert_eq!(others.collect::<Vec<_>>(), ["route/exit/3"]);
    }

    #[test]
    fn an_exit_that_only_passes_a_step_breaks_a_run_and_counts_once() {
        let path = |actions: [usize; 6]| {
            actions
                .map(|action| (action, Origin::Router, 0, 0, EVEN))
                .to_vec()
        };
        let tokens = [path([0, OUT, 0, 0, OUT, 1]), path([1; 6])];
        let counts = of_walks(&recorded(&tokens, 2, false, &[]), &[true; 2]);
        assert_eq!((counts.tokens, counts.decisions), (2, 12));
        assert_eq!(counts.exits, [0, 1, 0, 0, 0, 0]);
        assert_eq!(counts.lengths, [0, 0, 0, 0, 1, 0, 1]);
        assert_eq!(counts.moves, [1, 0, 0, 0, 5, 0, 0, 0, 0]);
        let expected = [
            ("steps_mean", 10.0 / 2.0),
            ("exit_never", 0.5),
            ("exit_forced", 0.0),
            ("self_run_mean", (2.0 + 6.0) / 2.0),
            ("recur", 1.0),
            ("entropy", 4.0f64.ln()),
        ];
        holds(&counts.named(false), &expected);
    }

    #[test]
    fn a_router_that_nobody_asked_has_no_rates() {
        let mut walks = walks(&[&[0, 1, OUT], &[1, OUT]], 3);
        for step in &mut walks.steps {
            (step.best, step.probabilities) = (Vec::new(), Vec::new());
        }
        let named = of_walks(&walks, &[true; 2]).named(true);
        for absent in [
            "entropy",
            "out_probability",
            "imitation_accuracy",
            "difficulty_slope",
            "steps_easy",
        ] {
            assert!(!named.contains_key(&format!("route/{absent}")), "{absent}");
        }
        holds(
            &named,
            &[("steps_mean", 1.5), ("router", 1.0), ("advance", 1.0)],
        );
        // Nothing counts, and nobody moves.
        assert!(of_walks(&walks, &[false; 2]).named(true).is_empty());
        let named = of_walks(&self::walks(&[&[OUT], &[OUT]], 1), &[true; 2]).named(false);
        for absent in ["load/0", "load_max", "load_entropy", "recur"] {
            assert!(!named.contains_key(&format!("route/{absent}")), "{absent}");
        }
        holds(
            &named,
            &[
                ("steps_mean", 0.0),
                ("self_run_mean", 0.0),
                ("path_diversity", 1.0),
                ("entropy", 0.0),
            ],
        );
    }

    #[test]
    fn a_sequence_counts_once_with_the_mean_of_its_valid_tokens() {
        let paths: [&[usize]; 8] = [
            &[0, 1],
            &[2, OUT],
            &[0, 0],
            &[OUT],
            &[1, 2],
            &[1, 2],
            &[0, OUT],
            &[0, 1],
        ];
        let walks = Walks {
            batch: 4,
            seq: 2,
            ..walks(&paths, 2)
        };
        let valid = [true, true, true, false, false, false, true, true];
        let mut counts = RouteCounts::default();
        counts.add(&walks, &valid, &[Some(2), Some(0), Some(1), None]);
        // The third has no token that counts, and of the fourth nobody knows how hard it is.
        assert_eq!(counts.samples, [(2, 1.5), (0, 2.0)]);
    }

    #[test]
    fn a_slope_and_a_correlation_are_those_of_least_squares() {
        let mut counts = counted(&[&[0]], 1, &[None]);
        counts.samples = vec![(0, 1.0), (0, 2.0), (1, 2.0), (1, 4.0), (2, 3.0), (2, 6.0)];
        // About the means 1 and 3: squares 4 and 16, products 6.
        let expected = [
            ("steps_easy", 1.5),
            ("steps_medium", 3.0),
            ("steps_hard", 4.5),
            ("difficulty_slope", 6.0 / 4.0),
            ("difficulty_correlation", 6.0 / 8.0),
        ];
        let named = counts.named(false);
        holds(&named, &expected);
        assert!(
            !named.contains_key("route/difficulty_slope_low"),
            "nobody asked for intervals"
        );
        counts.samples.truncate(2);
        assert!(!counts.named(true).contains_key("route/difficulty_slope"));
    }

    #[test]
    fn an_interval_is_as_wide_as_95_percent_of_normal_noise() {
        let mut counts = counted(&[&[0]], 1, &[None]);
        let (n, noise) = (240, 0.5);
        let sample = |index: u64| {
            let drawn = random::normal(random::key(3, "noise", 0), index);
            (
                (index % 3) as u8,
                2.0 + 0.7 * (index % 3) as f64 + noise * drawn,
            )
        };
        counts.samples = (0..n).map(sample).collect();
        let named = counts.named(true);
        let [low, slope, high] =
            ["_low", "", "_high"].map(|end| named[&format!("route/difficulty_slope{end}")]);
        // The standard error is the noise over the root of the squares about the mean, 2/3 of a sequence each.
        let error = noise / (n as f64 * 2.0 / 3.0).sqrt();
        let (below, above) = ((slope - low) / error, (high - slope) / error);
        // 1.96 standard errors on either side; a bootstrap of 1000 and 240 draws of noise know that to about 5 %. 90 % would be
        // 1.64, 99 % 2.58.
        for side in [below, above] {
            assert!((side - 1.96).abs() < 0.25, "{below} {above}");
        }
        let [low, high] =
            ["low", "high"].map(|end| named[&format!("route/difficulty_correlation_{end}")]);
        let correlation = named["route/difficulty_correlation"];
        assert!(low < correlation && correlation < high && high < 1.0);
        assert_ne!(
            resample(
                &counts
                    .samples
                    .iter()
                    .map(|&(x, y)| (f64::from(x), y))
                    .collect::<Vec<_>>(),
                0
            )
            .slope,
            Some(slope)
        );
    }

    #[test]
    fn a_quantile_is_the_nearest_entry() {
        let values: Vec<f64> = (0..=40).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.025), Some(1.0));
        assert_eq!(quantile(&values, 0.975), Some(39.0));
        assert_eq!(quantile(&values, 1.0), Some(40.0));
        assert_eq!(quantile(&values[..1], 0.975), Some(0.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn entropy_is_in_nats_and_of_shares() {
        assert!((entropy(&[2, 1, 1, 0]) - 1.5 * 2.0f64.ln()).abs() < 1e-12);
        assert!((entropy(&[7; 5]) - 5.0f64.ln()).abs() < 1e-12);
        assert_eq!(entropy(&[9, 0]).to_bits(), 0.0f64.to_bits());
    }

    #[test]
    fn sums_of_batches_have_every_count_of_the_whole() {
        // Of every token a walk that ends somewhere, with everything that can be said about a decision.
        let token = |token: u64| {
            let key = random::key(5, "token", token);
            let mut left = false;
            let step = |step: u64| {
                let drawn = |n: usize, place: u64| {
                    (random::bits(key, 10 * step + place) % n as u64) as usize
                };
                let origins = [
                    Origin::Router,
                    Origin::Teacher,
                    Origin::Random,
                    Origin::Cap,
                    Origin::Last,
                ];
                let decided = match left {
                    true => (OUT, Origin::Left, OUT, 0, EVEN),
                    false => (
                        drawn(OUT + 1, 0),
                        origins[drawn(5, 1)],
                        drawn(4, 2),
                        drawn(4, 3),
                        [EVEN, HALVES][drawn(2, 4)],
                    ),
                };
                left |= decided.0 == OUT;
                decided
            };
            (0..5).map(step).collect::<Vec<_>>()
        };
        let tokens: Vec<Vec<Decided>> = (0..24).map(token).collect();
        let valid: Vec<bool> = (0..24).map(|token| token % 5 != 3).collect();
        let difficulty: Vec<Option<u8>> = (0..12).map(|row| Some(row % 3)).collect();
        let marked: Vec<usize> = (0..24).step_by(2).collect();
        let of = |range: std::ops::Range<usize>| {
            let marked: Vec<usize> = marked
                .iter()
                .filter(|m| range.contains(m))
                .map(|m| m - range.start)
                .collect();
            let mut walks = recorded(&tokens[range.clone()], 2, true, &marked);
            walks.memory = Some(MemoryUse {
                reads: range.len() as f64,
                open: 0.5 * range.len() as f64,
                ..MemoryUse::default()
            });
            let mut counts = RouteCounts::default();
            counts.add(
                &walks,
                &valid[range.clone()],
                &difficulty[range.start / 2..range.end / 2],
            );
            counts
        };
        let (mut sum, mut first, second) = (RouteCounts::default(), of(0..10), of(10..24));
        sum += &first;
        sum += &second;
        first += &second;
        let whole = of(0..24);
        for other in [&sum, &first] {
            let (named, expected) = (other.named(true), whole.named(true));
            assert_eq!(
                named.keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>()
            );
            for (name, value) in &expected {
                assert!(
                    (named[name] - value).abs() < 1e-9,
                    "{name}: {} and not {value}",
                    named[name]
                );
            }
            assert_eq!(
                (&other.lengths, &other.samples, &other.paths),
                (&whole.lengths, &whole.samples, &whole.paths)
            );
        }
        // Nothing above compared zeros alone.
        let named = whole.named(true);
        for name in [
            "fused",
            "capped",
            "random",
            "router",
            "exit_forced",
            "self_run_mean",
            "imitation_accuracy",
        ] {
            assert!(named[&format!("route/{name}")] > 0.0, "{name}");
        }
        assert_eq!(named["memory/open"], 0.5);
    }

    #[test]
    fn an_interval_is_made_of_no_more_sequences_than_a_bound() {
        let mut counts = counted(&[&[0]], 1, &[None]);
        counts.samples = vec![(0, 1.0); MOST_SAMPLES - 1];
        counts.add(&walks(&[&[0], &[0]], 1), &[true; 2], &[Some(1), Some(2)]);
        assert_eq!(counts.samples.len(), MOST_SAMPLES);
        assert_eq!(counts.samples.last(), Some(&(1, 1.0)));
        let more = counts.clone();
        counts += &more;
        assert_eq!(counts.samples, more.samples);
    }

    #[test]
    fn beyond_a_bound_new_paths_are_one_and_known_ones_are_not() {
        let mut counts = counted(&[&[0]], 1, &[None]);
        counts.paths.clear();
        counts.tokens = 0;
        for index in 0..MOST_PATHS + 10 {
            counts.add_path(vec![index], 1);
        }
        counts.add_path(vec![0], 1);
        assert_eq!(counts.paths.len(), MOST_PATHS + 1);
        assert_eq!(
            (counts.paths[&vec![0]], counts.paths[&vec![usize::MAX]]),
            (2, 10)
        );
    }
}

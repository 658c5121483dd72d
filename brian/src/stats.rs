//! What walks did, as numbers: counts that add up over batches, and the rates made of them. Host only.
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
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Tokens by their path; those of paths beyond a bound together, under a path that nobody has.
    pub paths: BTreeMap<Vec<usize>, u64>,
    /// Per sequence of known difficulty: the difficulty and the mean number of blocks executed.
    pub samples: Vec<(u8, f64)>,
    /// What was read from the memory, if there is one.
    pub memory: MemoryUse,
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
    /// `valid`: which tokens count, `[batch * seq]`; `difficulty`: per sequence.
    pub fn add(&mut self, walks: &Walks, valid: &[bool], difficulty: &[Option<u8>]) {
        self.grow(walks);
        for (row, difficulty) in difficulty.iter().enumerate() {
            let tokens = (row * walks.seq..(row + 1) * walks.seq).filter(|&token| valid[token]);
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
        self.add_path(walks.path(token), 1);
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

    /// All rates, under their names in metrics; `intervals` adds those that need resampling.
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
        rate(
            "load_max",
            self.load.iter().copied().max().unwrap_or(0) as f64,
            executed,
        );
        if self.n_pool > 1 && executed > 0 {
            rate(
                "load_entropy",
                entropy(&self.load) / (self.n_pool as f64).ln(),
                1,
            );
        }
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
        rate(
            "path_top_share",
            paths.iter().copied().max().unwrap_or(0) as f64,
            self.tokens,
        );
        rate("path_diversity", entropy(&paths).exp(), 1);
        for (difficulty, name) in ["easy", "medium", "hard"].into_iter().enumerate() {
            let of = |sample: &&(u8, f64)| usize::from(sample.0) == difficulty;
            let steps: Vec<f64> = self
                .samples
                .iter()
                .filter(of)
                .map(|sample| sample.1)
                .collect();
            rate(
                &format!("steps_{name}"),
                steps.iter().sum(),
                steps.len() as u64,
            );
        }
        named.extend(self.by_difficulty(intervals));
        named.extend(self.memory.named());
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
        let samples: Vec<(f64, f64)> = self
            .samples
            .iter()
            .map(|&(difficulty, steps)| (f64::from(difficulty), steps))
            .collect();
        if samples.len() < 3 {
            return named;
        }
        let line = Line::through(samples.iter().copied());
        let resampled: Vec<Line> = match intervals {
            true => (0..RESAMPLES)
                .map(|index| resample(&samples, index))
                .collect(),
            false => Vec::new(),
        };
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
    let draw = |place| samples[(random::bits(key, place) % samples.len() as u64) as usize];
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
            memory: None,
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
}

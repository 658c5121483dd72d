//! Random draws of a pass: each is a function of (run, step of the training, sequence, token, step of the walk, purpose).
//!
//! No draw depends on the batch a sequence is in or on later tokens, so draws are causal too.

use crate::random;
use std::ops::RangeInclusive;

/// What a draw decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The path of a random teacher.
    Teacher,
    /// Noise on the logit of an action.
    Noise(usize),
    /// Whether the router or the teacher decides.
    Blend,
    /// Which action a sampling router takes.
    Sample,
    /// Whether another block takes the place of the one chosen.
    Override,
    /// Which one.
    OverrideBlock,
}

impl Purpose {
    fn number(self) -> u64 {
        match self {
            Self::Teacher => 0,
            Self::Blend => 1,
            Self::Sample => 2,
            Self::Override => 3,
            Self::OverrideBlock => 4,
            Self::Noise(action) => 5 + action as u64,
        }
    }
}

/// The randomness of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    key: u64,
}

impl Draws {
    /// The draws of a training step of a run.
    pub fn new(seed: u64, step: u64) -> Self {
        Self {
            key: random::key(seed, "route", step),
        }
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(self, purpose: Purpose, sequence: u64, token: usize, step: usize) -> f64 {
        let (key, index) = self.key_and_index(purpose, sequence, token, step);
        random::uniform(key, index)
    }

    /// Uniform in `0..n`.
    pub fn below(
        self,
        n: usize,
        purpose: Purpose,
        sequence: u64,
        token: usize,
        step: usize,
    ) -> usize {
        nth(self.uniform(purpose, sequence, token, step), n)
    }

    /// A whole number of a range, the same for all tokens of the step, each as likely.
    pub fn whole(self, range: RangeInclusive<usize>) -> usize {
        let drawn = random::uniform(random::key(self.key, "pass", 0), 0);
        range.start() + nth(drawn, range.end() - range.start() + 1)
    }

    /// Standard normal.
    pub fn normal(self, purpose: Purpose, sequence: u64, token: usize, step: usize) -> f64 {
        let (key, index) = self.key_and_index(purpose, sequence, token, step);
        random::normal(key, index)
    }

    fn key_and_index(
        self,
        purpose: Purpose,
        sequence: u64,
        token: usize,
        step: usize,
    ) -> (u64, u64) {
        let key = random::bits(random::bits(self.key, sequence), purpose.number());
        (key, (token as u64) << 20 | step as u64)
    }
}

/// Which of `n` a draw in `[0, 1)` names.
fn nth(drawn: f64, n: usize) -> usize {
    ((drawn * n as f64) as usize).min(n - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const PURPOSES: [Purpose; 8] = [
        Purpose::Teacher,
        Purpose::Blend,
        Purpose::Sample,
        Purpose::Override,
        Purpose::OverrideBlock,
        Purpose::Noise(0),
        Purpose::Noise(1),
        Purpose::Noise(2),
    ];

    #[test]
    fn every_draw_is_another_one() {
        let mut seen = BTreeSet::new();
        let mut n = 0;
        for draws in [Draws::new(1, 0), Draws::new(1, 1), Draws::new(2, 0)] {
            for purpose in PURPOSES {
                for (sequence, token, step) in
                    (0..5).flat_map(|a| (0..5).flat_map(move |b| (0..5).map(move |c| (a, b, c))))
                {
                    seen.insert(draws.uniform(purpose, sequence, token, step).to_bits());
                    seen.insert(draws.normal(purpose, sequence, token, step).to_bits());
                    n += 2;
                }
            }
        }
        assert_eq!(seen.len(), n);
    }

    #[test]
    fn a_draw_is_uniform_over_tokens_over_steps_and_over_sequences() {
        let draws = Draws::new(3, 8);
        let along: [&dyn Fn(usize) -> usize; 3] = [
            &|n| draws.below(5, Purpose::OverrideBlock, n as u64, 0, 0),
            &|n| draws.below(5, Purpose::OverrideBlock, 0, n, 0),
            &|n| draws.below(5, Purpose::OverrideBlock, 0, 0, n),
        ];
        for draw in along {
            let mut counts = [0usize; 5];
            (0..5000).for_each(|n| counts[draw(n)] += 1);
            // Standard deviation 28.
            assert!(
                counts.iter().all(|count| count.abs_diff(1000) < 140),
                "{counts:?}"
            );
        }
        assert_eq!(draws.below(1, Purpose::Teacher, 4, 4, 4), 0);
    }

    #[test]
    fn noise_on_two_actions_is_independent() {
        let draws = Draws::new(3, 8);
        let pair = |n: usize| [0, 1].map(|action| draws.normal(Purpose::Noise(action), 0, n, 1));
        let pairs: Vec<[f64; 2]> = (0..4000).map(pair).collect();
        let mean = |of: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(of).sum::<f64>() / 4000.0;
        assert!(mean(&|pair| pair[0] * pair[1]).abs() < 0.06);
        assert!((mean(&|pair| pair[1] * pair[1]) - 1.0).abs() < 0.1);
    }
}

//! Settings of exploration in training: the noise on the router's logits and the probability of a random block, each a `Decay`,
//! a number that changes linearly over the steps of a stage. The noise and the blocks are drawn elsewhere.

use serde::Deserialize;

/// `steps`, or `share` of the `stage_steps` of a stage, rounded to whole steps; 0 if neither is given.
pub fn in_steps(steps: Option<u64>, share: Option<f64>, stage_steps: u64) -> u64 {
    steps.unwrap_or_else(|| (share.unwrap_or(0.0) * stage_steps as f64).round() as u64)
}

/// A number that falls linearly over the steps of a stage and then stays. Exactly one of `steps` and `share` is written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Decay {
    /// At the first step.
    pub from: f64,
    /// At the end.
    pub to: f64,
    /// Over so many steps; 0 for `from` at every step.
    pub steps: Option<u64>,
    /// Over this share of the stage.
    pub share: Option<f64>,
}

impl Decay {
    /// 0 at every step.
    pub const NONE: Self = Self {
        from: 0.0,
        to: 0.0,
        steps: Some(0),
        share: None,
    };

    /// The value at a step, from 0, of a stage of `stage_steps` steps.
    pub fn at(&self, step: u64, stage_steps: u64) -> f64 {
        match in_steps(self.steps, self.share, stage_steps) {
            0 => self.from,
            steps => {
                let done = (step as f64 / steps as f64).min(1.0);
                self.from + (self.to - self.from) * done
            }
        }
    }
}

/// What disturbs the router.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Exploration {
    /// Standard deviation of the noise on every logit.
    pub noise_std: Decay,
    /// Probability that any block takes the place of the one chosen.
    pub override_probability: Decay,
}

impl Exploration {
    /// No exploration.
    pub const NONE: Self = Self {
        noise_std: Decay::NONE,
        override_probability: Decay::NONE,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decay_meets_both_ends_and_stays_at_the_second() {
        let decay = Decay {
            from: 0.08,
            to: 0.008,
            steps: Some(100),
            share: None,
        };
        assert_eq!(decay.at(0, 200), 0.08);
        assert!((decay.at(50, 200) - 0.044).abs() < 1e-12);
        assert!((decay.at(100, 200) - 0.008).abs() < 1e-12);
        assert_eq!(decay.at(1000, 200), decay.at(100, 200));
        let never = Decay {
            steps: Some(0),
            ..decay
        };
        assert_eq!(never.at(1000, 200), 0.08);
    }

    #[test]
    fn a_share_follows_the_length_of_the_stage() {
        let half = Decay {
            from: 1.0,
            to: 0.0,
            steps: None,
            share: Some(0.5),
        };
        assert_eq!((half.at(5, 20), half.at(10, 20)), (0.5, 0.0));
        assert_eq!((half.at(5, 200), half.at(100, 200)), (0.95, 0.0));
        assert_eq!(in_steps(None, Some(0.333), 120), 40);
    }

    #[test]
    fn a_number_may_rise_too_and_never_leaves_its_ends() {
        let rises = Decay {
            from: 0.2,
            to: 1.0,
            steps: Some(4),
            share: None,
        };
        let found: Vec<f64> = (0..7).map(|step| rises.at(step, 100)).collect();
        for (found, expected) in found.iter().zip([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]) {
            assert!(
                (found - expected).abs() < 1e-12,
                "{found} and not {expected}"
            );
        }
        // What is said in steps does not look at the stage, and what is not said is nothing.
        assert_eq!(in_steps(Some(3), Some(0.5), 100), 3);
        assert_eq!(in_steps(None, None, 100), 0);
        assert_eq!(
            (
                in_steps(None, Some(0.005), 100),
                in_steps(None, Some(0.004), 100)
            ),
            (1, 0)
        );
        assert_eq!(Decay::NONE.at(5, 10), 0.0);
    }
}

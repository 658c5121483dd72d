//! How much a router in training is disturbed: noise on its logits, and blocks put in the place of its choice.

use serde::Deserialize;

/// A number that falls linearly over the steps of a stage and then stays.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Decay {
    /// At the first step.
    pub from: f64,
    /// At the end.
    pub to: f64,
    /// Over so many steps; 0 for `from` at every step.
    pub steps: u64,
}

impl Decay {
    /// Nothing at any step.
    pub const NONE: Self = Self {
        from: 0.0,
        to: 0.0,
        steps: 0,
    };

    /// The value at a step, from 0.
    pub fn at(&self, step: u64) -> f64 {
        match self.steps {
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
    /// Nothing does.
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
            steps: 100,
        };
        assert_eq!(decay.at(0), 0.08);
        assert!((decay.at(50) - 0.044).abs() < 1e-12);
        assert!((decay.at(100) - 0.008).abs() < 1e-12);
        assert_eq!(decay.at(1000), decay.at(100));
        assert_eq!(Decay { steps: 0, ..decay }.at(1000), 0.08);
    }
}

//! Learning rate schedules: linear warm-up to the peak, then constant, a cosine to the floor, or constant until a decay at the end.
//!
//! A pure function of the step, so that a resumed run needs no state of it.

use brian::route::exploration::in_steps;
use serde::Deserialize;
use std::f64::consts::PI;

/// The learning rate schedule of a stage. Rates are per optimizer step, steps count from 0 in the stage.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Warm-up, then the peak until the end.
    Constant {
        /// The highest rate.
        peak: f64,
        /// Steps from `peak / warmup_steps` to `peak`; 0 starts at the peak.
        warmup_steps: Option<u64>,
        /// The same as a share of the stage; exactly one of the two is written.
        warmup_share: Option<f64>,
    },
    /// Warm-up, then half a cosine from the peak to the floor, which the last step reaches.
    WarmupCosine {
        /// The highest rate.
        peak: f64,
        /// Steps from `peak / warmup_steps` to `peak`; 0 starts at the peak.
        warmup_steps: Option<u64>,
        /// The same as a share of the stage; exactly one of the two is written.
        warmup_share: Option<f64>,
        /// The rate of the last step and of every step after it.
        floor: f64,
    },
    /// Warm-up, then the peak, and a decay to the floor at the end, which the last step reaches (Hu et al. 2024).
    WarmupStableDecay {
        /// The highest rate.
        peak: f64,
        /// Steps from `peak / warmup_steps` to `peak`; 0 starts at the peak.
        warmup_steps: Option<u64>,
        /// The same as a share of the stage; exactly one of the two is written.
        warmup_share: Option<f64>,
        /// Steps of the decay.
        decay_steps: Option<u64>,
        /// The same as a share of the stage; exactly one of the two is written.
        decay_share: Option<f64>,
        /// Its course.
        decay: Fall,
        /// The rate of the last step and of every step after it.
        floor: f64,
    },
}

/// The course of a decay from the peak to the floor, of which a share `p` lies behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fall {
    /// `1 - p` of the way is left.
    Linear,
    /// `1 - √p` of the way is left (Hägele et al. 2024).
    OneMinusSqrt,
}

impl Schedule {
    /// The rate of a step (from 0) in a stage of `steps` steps.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        let (peak, warmup_steps) = (self.peak(), self.warmup_steps(steps));
        if step < warmup_steps {
            return peak * (step + 1) as f64 / warmup_steps as f64;
        }
        match self {
            Self::Constant { .. } => peak,
            Self::WarmupCosine { floor, .. } => {
                let share = decayed_share(step - warmup_steps, steps.saturating_sub(warmup_steps));
                floor + (peak - floor) * 0.5 * (1.0 + (PI * share).cos())
            }
            Self::WarmupStableDecay { decay, floor, .. } => {
                let n_decay = self.decay_steps(steps);
                let done = (step + 1).saturating_sub(steps.saturating_sub(n_decay));
                let share = done.min(n_decay) as f64 / n_decay.max(1) as f64;
                let left = match decay {
                    Fall::Linear => 1.0 - share,
                    Fall::OneMinusSqrt => 1.0 - share.sqrt(),
                };
                floor + (peak - floor) * left
            }
        }
    }

    /// The highest rate.
    pub fn peak(&self) -> f64 {
        match self {
            Self::Constant { peak, .. }
            | Self::WarmupCosine { peak, .. }
            | Self::WarmupStableDecay { peak, .. } => *peak,
        }
    }

    /// The number of warm-up steps in a stage of `steps` steps.
    pub fn warmup_steps(&self, steps: u64) -> u64 {
        let (warmup_steps, warmup_share) = self.warmup();
        in_steps(warmup_steps, warmup_share, steps)
    }

    /// The number of steps of a decay at the end of a stage of `steps` steps; 0 for other schedules.
    pub fn decay_steps(&self, steps: u64) -> u64 {
        let (decay_steps, decay_share) = self.decay();
        in_steps(decay_steps, decay_share, steps)
    }

    /// The decay at the end as it is written: in steps, or as a share of the stage.
    pub fn decay(&self) -> (Option<u64>, Option<f64>) {
        match self {
            Self::WarmupStableDecay {
                decay_steps,
                decay_share,
                ..
            } => (*decay_steps, *decay_share),
            Self::Constant { .. } | Self::WarmupCosine { .. } => (None, None),
        }
    }

    /// The warm-up as it is written: in steps, or as a share of the stage.
    pub fn warmup(&self) -> (Option<u64>, Option<f64>) {
        match self {
            Self::Constant {
                warmup_steps,
                warmup_share,
                ..
            }
            | Self::WarmupCosine {
                warmup_steps,
                warmup_share,
                ..
            }
            | Self::WarmupStableDecay {
                warmup_steps,
                warmup_share,
                ..
            } => (*warmup_steps, *warmup_share),
        }
    }
}

/// How much of a decay over `steps` steps lies behind, from 0 at its first step to 1 at its last and after.
fn decayed_share(step: u64, steps: u64) -> f64 {
    if step + 1 >= steps {
        // Also the decay of one step: its first step is its last, and the last step is at the floor.
        return 1.0;
    }
    step as f64 / (steps - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSINE: Schedule = Schedule::WarmupCosine {
        peak: 1e-3,
        warmup_steps: Some(10),
        warmup_share: None,
        floor: 1e-4,
    };

    // The rates are sums of a few f64 operations on numbers near 1e-3.
    const TOLERANCE: f64 = 1e-15;

    #[test]
    fn warm_up_rises_in_equal_parts_and_ends_at_the_peak() {
        assert!((COSINE.rate(0, 100) - 1e-4).abs() < TOLERANCE);
        assert!((COSINE.rate(4, 100) - 5e-4).abs() < TOLERANCE);
        assert_eq!(COSINE.rate(9, 100), 1e-3);
    }

    #[test]
    fn the_cosine_goes_from_the_peak_to_the_floor_at_the_last_step_and_stays_there() {
        assert!((COSINE.rate(10, 100) - 1e-3).abs() < TOLERANCE);
        assert_eq!(COSINE.rate(99, 100), 1e-4);
        assert_eq!(COSINE.rate(100, 100), 1e-4);
        assert_eq!(COSINE.rate(u64::MAX - 1, 100), 1e-4);
    }

    #[test]
    fn the_cosine_is_half_way_in_the_middle_and_never_rises() {
        // 91 steps of decay: the 46th is the middle one.
        assert!((COSINE.rate(55, 101) - 5.5e-4).abs() < TOLERANCE);
        for step in 10..100 {
            assert!(COSINE.rate(step + 1, 100) <= COSINE.rate(step, 100));
        }
    }

    #[test]
    fn a_constant_schedule_keeps_its_peak_and_may_go_without_warm_up() {
        let constant = Schedule::Constant {
            peak: 2e-4,
            warmup_steps: Some(0),
            warmup_share: None,
        };
        for step in [0, 1, 50, 1000] {
            assert_eq!(constant.rate(step, 100), 2e-4);
        }
    }

    #[test]
    fn a_warm_up_given_as_a_share_follows_the_length_of_the_stage() {
        let constant = Schedule::Constant {
            peak: 1e-3,
            warmup_steps: None,
            warmup_share: Some(0.1),
        };
        assert_eq!([20, 100].map(|steps| constant.warmup_steps(steps)), [2, 10]);
        assert_eq!([0, 1].map(|step| constant.rate(step, 20)), [5e-4, 1e-3]);
    }

    #[test]
    fn a_stable_rate_stays_at_its_peak_and_falls_over_the_last_steps_to_the_floor() {
        let schedule = |decay, floor| Schedule::WarmupStableDecay {
            peak: 1e-3,
            warmup_steps: Some(5),
            warmup_share: None,
            decay_steps: None,
            decay_share: Some(0.2),
            decay,
            floor,
        };
        let linear = schedule(Fall::Linear, 2e-4);
        assert_eq!(linear.decay_steps(20), 4);
        let rates = |schedule: &Schedule, steps: std::ops::Range<u64>| -> Vec<f64> {
            steps.map(|step| schedule.rate(step, 20)).collect()
        };
        let near = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            let pairs = found.iter().zip(expected);
            assert!(
                pairs.into_iter().all(|(a, b)| (a - b).abs() < TOLERANCE),
                "{found:?}"
            );
        };
        near(rates(&linear, 0..5), &[2e-4, 4e-4, 6e-4, 8e-4, 1e-3]);
        near(rates(&linear, 5..16), &[1e-3; 11]);
        near(
            rates(&linear, 16..22),
            &[8e-4, 6e-4, 4e-4, 2e-4, 2e-4, 2e-4],
        );
        // 1 - √(1/4), 1 - √(1/2), 1 - √(3/4), 0.
        let root = schedule(Fall::OneMinusSqrt, 0.0);
        let expected = [
            0.5e-3,
            0.292_893_218_813_452_4e-3,
            0.133_974_596_215_561_4e-3,
            0.0,
        ];
        near(rates(&root, 16..20), &expected);
        near(rates(&root, 15..16), &[1e-3]);
        assert_eq!(COSINE.decay_steps(100), 0);
    }

    #[test]
    fn a_decay_of_one_step_is_at_the_floor() {
        assert_eq!(COSINE.rate(10, 11), 1e-4);
        assert_eq!(COSINE.rate(10, 0), 1e-4);
    }
}

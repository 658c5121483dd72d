//! `Constraint`, the bounds on a walk: computes the bias of OUT's logit and the target of the exit loss by step; holds the
//! settings of the forced last exit and of the cap on repeating a block, which are applied elsewhere.
//!
//! With `n` the number of the step from 1 and `N` the last one, OUT gets
//! `− early_exit_penalty` for `n < min_exit_step`,
//! `+ exit_ramp_bias (n − start + 1) / (N − start + 1)` from `start = exit_ramp_start` on,
//! and `+ final_exit_bias` at `n = N`.

use serde::Deserialize;

/// Logit of a block that may not repeat once more: probability zero, but finite, so that no loss becomes infinite.
pub(crate) const CAPPED: f32 = -1e4;

/// Bounds on the walk.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Constraint {
    /// Subtracted from OUT's logit before `min_exit_step`.
    pub early_exit_penalty: f64,
    /// The first step, from 1, at which OUT costs nothing.
    pub min_exit_step: usize,
    /// What OUT's logit gains by the last step.
    pub exit_ramp_bias: f64,
    /// The step, from 1, at which it begins to gain; 0 for the last one.
    pub exit_ramp_start: usize,
    /// What OUT's logit gains at the last step besides.
    pub final_exit_bias: f64,
    /// Whether every token leaves at the last step.
    pub force_final_exit: bool,
    /// How often in a row a block may run; 0 for any number.
    pub self_recurrence_cap: usize,
}

impl Constraint {
    /// No bounds.
    pub const NONE: Self = Self {
        early_exit_penalty: 0.0,
        min_exit_step: 1,
        exit_ramp_bias: 0.0,
        exit_ramp_start: 0,
        final_exit_bias: 0.0,
        force_final_exit: false,
        self_recurrence_cap: 0,
    };

    /// What is added to OUT's logit at a step, counted from 0, of a walk of at most `n_steps`.
    pub fn exit_bias(&self, step: usize, n_steps: usize) -> f64 {
        let number = step + 1;
        let start = self.ramp_start(n_steps);
        let early = match number < self.min_exit_step {
            true => self.early_exit_penalty,
            false => 0.0,
        };
        let ramp = match number >= start {
            true => (number + 1 - start) as f64 / (n_steps + 1).saturating_sub(start).max(1) as f64,
            false => 0.0,
        };
        let last = match number >= n_steps {
            true => self.final_exit_bias,
            false => 0.0,
        };
        self.exit_ramp_bias * ramp + last - early
    }

    /// The target of the exit-boundary loss at a step, from 0 to 1.
    pub fn exit_target(&self, step: usize, n_steps: usize) -> f64 {
        let number = step + 1;
        let start = match self.exit_ramp_start {
            0 => n_steps.max(self.min_exit_step),
            start => start,
        };
        if number < self.min_exit_step || number < start {
            0.0
        } else if number >= n_steps {
            1.0
        } else {
            (number + 1 - start) as f64 / (n_steps.saturating_sub(start).max(1) + 1) as f64
        }
    }

    fn ramp_start(&self, n_steps: usize) -> usize {
        match self.exit_ramp_start {
            0 => n_steps,
            start => start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_is_pushed_away_early_and_pulled_in_late() {
        let constraint = Constraint {
            early_exit_penalty: 8.0,
            min_exit_step: 8,
            exit_ramp_bias: 3.0,
            exit_ramp_start: 12,
            final_exit_bias: 6.0,
            ..Constraint::NONE
        };
        let biases: Vec<f64> = (0..16).map(|step| constraint.exit_bias(step, 16)).collect();
        assert!(biases[..7].iter().all(|&bias| bias == -8.0));
        assert!(biases[7..11].iter().all(|&bias| bias == 0.0));
        for (bias, expected) in biases[11..].iter().zip([0.6, 1.2, 1.8, 2.4, 9.0]) {
            assert!((bias - expected).abs() < 1e-12, "{biases:?}");
        }
    }

    #[test]
    fn without_a_ramp_only_the_last_step_should_leave() {
        let targets: Vec<f64> = (0..4)
            .map(|step| Constraint::NONE.exit_target(step, 4))
            .collect();
        assert_eq!(targets, [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_ramp_is_a_target_that_rises() {
        let constraint = Constraint {
            exit_ramp_start: 2,
            ..Constraint::NONE
        };
        let targets: Vec<f64> = (0..4).map(|step| constraint.exit_target(step, 4)).collect();
        assert_eq!(targets, [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
    }

    /// Steps 1 to 5 with a ramp from the second on that ends at 4, nothing before the third step, and 10 more at the end.
    #[test]
    fn each_bound_has_its_own_step() {
        let constraint = Constraint {
            early_exit_penalty: 2.0,
            min_exit_step: 3,
            exit_ramp_bias: 4.0,
            exit_ramp_start: 2,
            final_exit_bias: 10.0,
            ..Constraint::NONE
        };
        let biases: Vec<f64> = (0..5).map(|step| constraint.exit_bias(step, 5)).collect();
        assert_eq!(biases, [-2.0, 1.0 - 2.0, 2.0, 3.0, 4.0 + 10.0]);
        // The ramp of a target has no last step of its own: that one is 1.
        let targets: Vec<f64> = (0..5).map(|step| constraint.exit_target(step, 5)).collect();
        assert_eq!(targets, [0.0, 0.0, 0.5, 0.75, 1.0]);
        // Without a start the last step is the whole ramp.
        let at_the_end = Constraint {
            exit_ramp_start: 0,
            ..constraint
        };
        let biases: Vec<f64> = (0..5).map(|step| at_the_end.exit_bias(step, 5)).collect();
        assert_eq!(biases, [-2.0, -2.0, 0.0, 0.0, 14.0]);
    }

    #[test]
    fn a_ramp_behind_the_end_of_a_walk_is_none() {
        let constraint = Constraint {
            exit_ramp_bias: 4.0,
            exit_ramp_start: 7,
            final_exit_bias: 1.0,
            ..Constraint::NONE
        };
        for step in 0..3 {
            let last = step == 2;
            assert_eq!(constraint.exit_bias(step, 3), f64::from(last));
            assert_eq!(constraint.exit_target(step, 3), 0.0);
        }
        // A walk that must be longer than it can be should not leave either.
        let longer = Constraint {
            min_exit_step: 5,
            ..Constraint::NONE
        };
        assert_eq!(longer.exit_target(2, 3), 0.0);
    }

    #[test]
    fn without_bounds_nothing_is_added_and_a_single_step_is_the_last() {
        for n_steps in 1..4 {
            for step in 0..n_steps {
                assert_eq!(Constraint::NONE.exit_bias(step, n_steps), 0.0);
            }
        }
        let ramp = Constraint {
            exit_ramp_bias: 3.0,
            exit_ramp_start: 1,
            ..Constraint::NONE
        };
        assert_eq!((ramp.exit_bias(0, 1), ramp.exit_target(0, 1)), (3.0, 1.0));
    }
}

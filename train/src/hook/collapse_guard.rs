//! Hook that warns, or stops the run, when a leading router has collapsed in the same way at three validations in a row.
//!
//! As long as a teacher takes part in a stage, a pattern that its own walks show is no collapse: a router that learnt one path
//! from it walks one path.

use crate::error::Error;
use crate::learner::{Hook, StepInfo, Verdict};
use crate::say::note;
use brian::collapse::{Collapse, Mode, by_design};
use brian::route::policy::Policy;
use burn::tensor::backend::AutodiffBackend;
use serde_json::{Value, json};

/// Looks in a row after which a collapse is one: a router may pass through any of them.
const PATIENCE: u64 = 3;

/// A hook that watches the validations of a routed stage for collapse.
pub struct CollapseGuard {
    fails: bool,
    /// How often in a row each mode was seen.
    seen: Vec<(Mode, u64)>,
}

impl CollapseGuard {
    /// The name under which its state is saved.
    pub const NAME: &'static str = "collapse_guard";

    /// A guard with the state of a checkpoint; `fails`: it stops the run instead of warning.
    pub fn new(fails: bool, state: Option<&Value>) -> Self {
        let count = |mode: &Mode| {
            let count = state.and_then(|state| state[key(*mode)].as_u64());
            (*mode, count.unwrap_or(0))
        };
        Self {
            fails,
            seen: Mode::ALL.iter().map(count).collect(),
        }
    }

    fn remembered(&self) -> Value {
        let counts = self.seen.iter();
        counts
            .map(|(mode, count)| (key(*mode), json!(count)))
            .collect()
    }

    /// Counts a look and gives what has lasted.
    fn look(&mut self, found: Vec<Collapse>) -> Vec<Collapse> {
        let mut lasting = Vec::new();
        for (mode, count) in &mut self.seen {
            let collapse = found.iter().find(|collapse| collapse.mode == *mode);
            *count = if collapse.is_some() { *count + 1 } else { 0 };
            lasting.extend(collapse.filter(|_| *count >= PATIENCE).cloned());
        }
        lasting
    }
}

fn key(mode: Mode) -> String {
    format!("{mode:?}")
}

fn describe(collapse: &Collapse, loads: &[u64]) -> String {
    format!(
        "the router has collapsed: {} is {:.3} (bound {}) at {PATIENCE} validations in a row; executions per block {loads:?}; \
         {}",
        collapse.mode.metric(),
        collapse.found,
        collapse.bound,
        collapse.mode.advice(),
    )
}

impl<B: AutodiffBackend, M> Hook<B, M> for CollapseGuard {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn after_step(&mut self, step: &mut StepInfo<M>) -> Result<Verdict, Error> {
        // A teacher may lead everybody along one path; a router should not.
        let leads = !matches!(step.plan.route.rules.policy, Policy::Teacher(_));
        let Some(valid) = step.valid.values().next().filter(|_| leads) else {
            return Ok(Verdict::Continue);
        };
        let teacher = step.plan.route.teacher();
        let excused = teacher.map_or(Vec::new(), |teacher| by_design(teacher, &valid.route));
        let mut found = valid.route.collapses();
        found.retain(|collapse| !excused.contains(&collapse.mode));
        for collapse in self.look(found) {
            let text = describe(&collapse, &valid.route.load);
            match self.fails {
                true => {
                    let place = format!("step {} of stage {}", step.step, step.stage);
                    return Ok(Verdict::Stop(Error::Numerical(format!("{place}: {text}"))));
                }
                false => note(&text),
            }
        }
        Ok(Verdict::Continue)
    }

    fn state(&mut self) -> Result<Option<Value>, Error> {
        Ok(Some(self.remembered()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<Collapse> {
        vec![Collapse {
            mode: Mode::OneBlock,
            found: 0.99,
            bound: 0.9,
        }]
    }

    #[test]
    fn only_what_lasts_is_a_collapse_also_over_a_resume() {
        let mut guard = CollapseGuard::new(true, None);
        assert_eq!(guard.look(found()), []);
        assert_eq!(guard.look(Vec::new()), []);
        assert_eq!(guard.look(found()), []);
        assert_eq!(guard.look(found()), []);
        let mut resumed = CollapseGuard::new(true, Some(&guard.remembered()));
        assert_eq!(resumed.look(found()), found());
    }
}

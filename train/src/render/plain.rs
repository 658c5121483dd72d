//! Training progress as lines on stderr, for people; it needs no terminal and uses no escape codes.

use super::StagePlace;
use crate::error::Error;
use crate::learner::{Hook, StepInfo, Verdict};
use crate::say::say;
use crate::task::StepPlan;
use brian::route::policy::Policy;
use burn::tensor::backend::AutodiffBackend;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Lines come no more often than this, except for validations and the last step.
const PAUSE: Duration = Duration::from_secs(5);

/// A hook that prints a line every few seconds.
pub struct PlainLines {
    place: StagePlace,
    started: Instant,
    first_step: Option<u64>,
    last_line: Option<Instant>,
    tokens_per_second: Option<f64>,
    /// How often the router decided at the step before.
    router: Option<f64>,
}

impl PlainLines {
    /// The lines of one stage.
    pub fn new(place: StagePlace) -> Self {
        Self {
            place,
            started: Instant::now(),
            first_step: None,
            last_line: None,
            tokens_per_second: None,
            router: None,
        }
    }

    fn head(&self, step: u64, steps: u64) -> Vec<String> {
        vec![format!("step {step}/{steps}"), self.place.to_string()]
    }

    /// What a step of training is worth saying.
    fn train(&mut self, step: u64, steps: u64, named: &BTreeMap<String, f64>) -> Option<String> {
        let speed_now = named.get("tokens_per_second").copied();
        self.tokens_per_second = speed_now.or(self.tokens_per_second);
        if self.first_step.is_none() {
            self.first_step = Some(step);
            self.started = Instant::now();
        }
        let rested = self.last_line.is_none_or(|last| last.elapsed() >= PAUSE);
        if !rested && step != steps {
            return None;
        }
        self.last_line = Some(Instant::now());
        let mut parts = self.head(step, steps);
        parts.extend(numbers(named));
        parts.extend(self.tokens_per_second.map(speed));
        parts.extend(self.eta(step, steps));
        Some(parts.join(" · "))
    }

    fn valid(&self, step: u64, steps: u64, split: &str, named: &BTreeMap<String, f64>) -> String {
        let mut parts = self.head(step, steps);
        parts.push(split.to_string());
        parts.extend(numbers(named));
        parts.join(" · ")
    }

    fn eta(&self, step: u64, steps: u64) -> Option<String> {
        let before = |step| self.place.micro_batches.before(step);
        let done = before(step) - before(self.first_step?.min(step));
        let left = before(steps).saturating_sub(before(step));
        if done == 0 || left == 0 {
            return None;
        }
        let seconds = self.started.elapsed().as_secs() * left / done;
        Some(format!("eta {}:{:02}", seconds / 60, seconds % 60))
    }

    /// What is to be said when the router begins to decide more or less often.
    fn handover(&mut self, step: u64, policy: &Policy) -> Option<String> {
        let Policy::Blend {
            router_probability: now,
            ..
        } = *policy
        else {
            return None;
        };
        let before = self.router.replace(now).filter(|&before| before != now)?;
        let loss = match now > before {
            true => "so the loss may rise at first",
            false => "so the loss may fall",
        };
        Some(format!(
            "{}: from step {} on the router decides {} % of the time, {} % before, {loss}",
            self.place,
            step + 1,
            100.0 * now,
            100.0 * before,
        ))
    }
}

/// The few numbers that belong on a line for people.
fn numbers(named: &BTreeMap<String, f64>) -> Vec<String> {
    type Words = fn(f64) -> String;
    let shown: [(&str, Words); 4] = [
        ("loss/lm", |nats| format!("lm {nats:.4}")),
        ("bits_per_byte", |bits| format!("bpb {bits:.4}")),
        ("route/steps_mean", |n| format!("{n:.2} blocks/token")),
        ("route/imitation_accuracy", |share| {
            format!("imitates {:.1} %", 100.0 * share)
        }),
    ];
    let known = |(name, show): (&str, Words)| named.get(name).map(|&value| show(value));
    shown.into_iter().filter_map(known).collect()
}

fn speed(tokens_per_second: f64) -> String {
    match tokens_per_second >= 10_000.0 {
        true => format!("{:.1}k tok/s", tokens_per_second / 1000.0),
        false => format!("{tokens_per_second:.0} tok/s"),
    }
}

impl<B: AutodiffBackend, M> Hook<B, M> for PlainLines {
    fn name(&self) -> &'static str {
        "plain_lines"
    }

    fn before_step(&mut self, plan: &mut StepPlan) -> Result<(), Error> {
        let handover = self.handover(plan.stage_step, &plan.route.rules.policy);
        handover.iter().for_each(|line| say(line));
        Ok(())
    }

    fn after_step(&mut self, step: &mut StepInfo<M>) -> Result<Verdict, Error> {
        let (now, all) = (step.stage_step, step.stage_steps);
        let train = step.train.as_ref();
        let line = train.and_then(|train| self.train(now, all, &train.named()));
        line.iter().for_each(|line| say(line));
        for (split, measured) in &step.valid {
            say(&self.valid(now, all, split, &measured.named()));
        }
        Ok(Verdict::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::MicroBatches;
    use brian::route::policy::{Select, Teacher};

    fn lines() -> PlainLines {
        PlainLines::new(StagePlace {
            stage: "scheduled".to_string(),
            number: 4,
            of: 5,
            micro_batches: MicroBatches::always(1),
        })
    }

    fn named(numbers: &[(&str, f64)]) -> BTreeMap<String, f64> {
        let named = numbers.iter();
        named
            .map(|&(name, value)| (name.to_string(), value))
            .collect()
    }

    #[test]
    fn a_line_has_stage_n_of_m_blocks_per_token_and_imitation() {
        let mut lines = lines();
        let measured = named(&[
            ("loss/lm", 3.25),
            ("bits_per_byte", 1.5),
            ("route/steps_mean", 2.125),
            ("route/imitation_accuracy", 0.875),
            ("tokens_per_second", 12_345.0),
        ]);
        assert_eq!(
            lines.train(20, 150, &measured).unwrap(),
            "step 20/150 · stage 4 of 5 scheduled · lm 3.2500 · bpb 1.5000 · 2.12 blocks/token · imitates 87.5 % · 12.3k tok/s"
        );
        assert_eq!(lines.train(21, 150, &measured), None, "too soon");
        assert!(lines.train(150, 150, &measured).is_some(), "the last step");
        assert_eq!(
            lines.valid(20, 150, "valid.hard", &named(&[("loss/lm", 0.0)])),
            "step 20/150 · stage 4 of 5 scheduled · valid.hard · lm 0.0000"
        );
    }

    #[test]
    fn a_handover_is_said_once_and_says_why_the_loss_rises() {
        let mut lines = lines();
        let by_lot = |router_probability| Policy::Blend {
            teacher: Teacher::Sequential,
            router_probability,
            select: Select::Argmax,
        };
        assert_eq!(lines.handover(0, &by_lot(0.25)), None);
        assert_eq!(lines.handover(1, &by_lot(0.25)), None);
        assert_eq!(
            lines.handover(50, &by_lot(0.5)).unwrap(),
            "stage 4 of 5 scheduled: from step 51 on the router decides 50 % of the time, 25 % before, so the loss may rise at first"
        );
        assert_eq!(
            lines.handover(51, &Policy::Teacher(Teacher::Sequential)),
            None
        );
    }

    /// Ten steps of one micro-batch took ten seconds; ten of three are left.
    #[test]
    fn the_time_left_is_that_of_the_batches_that_are_left() {
        let mut lines = lines();
        lines.place.micro_batches = MicroBatches::new(1, [(10, 3)]);
        lines.first_step = Some(0);
        lines.started = Instant::now() - Duration::from_secs(10);
        assert_eq!(lines.eta(10, 20).as_deref(), Some("eta 0:30"));
        assert_eq!(lines.eta(20, 20), None);
    }
}

//! Hook that measures tokens per second since its last call, and the process's peak memory.

use crate::device::memory_bytes;
use crate::error::Error;
use crate::learner::{Hook, StepInfo, Verdict};
use burn::tensor::backend::AutodiffBackend;
use std::time::Instant;

/// Measures speed; wrap it in `Every` to measure over more than one step.
pub struct Throughput {
    since: Instant,
    tokens: u64,
}

impl Throughput {
    /// Starts to count now, after `tokens` tokens.
    pub fn new(tokens: u64) -> Self {
        Self {
            since: Instant::now(),
            tokens,
        }
    }
}

impl<B: AutodiffBackend, M> Hook<B, M> for Throughput {
    fn name(&self) -> &'static str {
        "throughput"
    }

    fn after_step(&mut self, step: &mut StepInfo<M>) -> Result<Verdict, Error> {
        let seconds = self.since.elapsed().as_secs_f64().max(1e-9);
        step.add(
            "tokens_per_second",
            (step.tokens - self.tokens) as f64 / seconds,
        );
        if let Some(bytes) = memory_bytes("/proc/self/status", "VmHWM:") {
            step.add("peak_memory_mb", bytes as f64 / 1e6);
        }
        *self = Self::new(step.tokens);
        Ok(Verdict::Continue)
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::device::tests::Learning as B;
    use crate::task::{Measured, RoutePlan, StepPlan};
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn speed_is_that_of_the_tokens_since_the_last_look() {
        let plan = StepPlan::idle(RoutePlan::sequential());
        let mut hook = Throughput {
            since: Instant::now() - Duration::from_secs(10),
            tokens: 1000,
        };
        let mut look = |tokens: u64| {
            let mut info = StepInfo {
                step: 1,
                stage: "a",
                stage_step: 1,
                stage_steps: 4,
                tokens,
                wall_s: 50.0,
                plan: &plan,
                model: &(),
                train: Some(Measured::default()),
                valid: BTreeMap::new(),
            };
            Hook::<B, ()>::after_step(&mut hook, &mut info).unwrap();
            info.train.unwrap().numbers
        };
        // 2000 in ten seconds and a little; then 100 in that little, and then none.
        let speed = look(3000)["tokens_per_second"];
        assert!((190.0..=200.0).contains(&speed), "{speed}");
        assert!(look(3100)["tokens_per_second"] > 200.0);
        let last = look(3100);
        assert_eq!(last["tokens_per_second"], 0.0);
        let memory = last.get("peak_memory_mb");
        let now = memory_bytes("/proc/self/status", "VmHWM:");
        assert_eq!(memory.is_some(), now.is_some());
        if let (Some(memory), Some(now)) = (memory, now) {
            assert!(*memory > 1.0 && *memory <= now as f64 / 1e6, "{memory}");
        }
    }
}

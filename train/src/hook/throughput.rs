//! Tokens per second since the last look, and the process's peak memory.

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
    /// Begins to count now, after `tokens` tokens.
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

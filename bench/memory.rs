//! Prints the peak memory of one training step of a baseline for sequences of 256 to 4096 tokens, in MiB and in KiB per token:
//! the latter stays level if memory grows with the length and not with its square.
//!
//! One sequence per step, lengths doubling; the system's own count of the most that the process held.
#![allow(missing_docs)]

use bench::{ADAMW, BenchAutodiff, BenchBackend, Shape, in_place};
use brian::Baseline;
use brian::loss::language;
use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use std::process::Command;
use train::device::memory_bytes;
use train::learner::{ParameterOptimizer, Rate};

const LENGTHS: [usize; 5] = [256, 512, 1024, 2048, 4096];
const STATUS: &str = "/proc/self/status";

fn measured(seq: usize) {
    let device = Default::default();
    let shape = Shape::small(128, 4, 1, seq);
    let input = shape.input::<BenchAutodiff>(&device);
    let mut optimizer = ParameterOptimizer::new(&ADAMW);
    let model: Baseline<BenchAutodiff> = shape.baseline().init(shape.vocabulary, 1, &device);
    let before = memory_bytes(STATUS, "VmRSS:").expect("a system that counts memory in /proc");
    let nats = language::token_losses(model.forward(input.clone()), input);
    let gradients = GradientsParams::from_grads(nats.mean().backward(), &model);
    let _ = optimizer.step(Rate::at_peak(1e-4), model, gradients);
    BenchBackend::sync(&device).expect("the device answers");
    let peak = memory_bytes(STATUS, "VmHWM:").expect("a system that counts memory in /proc");
    let above = peak.saturating_sub(before) as f64;
    println!(
        "| {seq} | {:.1} | {:.1} |",
        above / f64::from(1 << 20),
        above / 1024.0 / seq as f64
    );
}

/// Every length in a process of its own: what one gave back stays with it.
fn main() {
    let length = std::env::args().find_map(|argument| argument.parse().ok());
    if let Some(length) = length {
        return in_place(|| measured(length));
    }
    println!("| tokens | peak of a step above what was held: MiB | KiB per token |");
    println!("|---|---|---|");
    let program = std::env::current_exe().expect("the place of this program");
    for length in LENGTHS {
        let status = Command::new(&program).arg(length.to_string()).status();
        assert!(status.expect("a process").success());
    }
}

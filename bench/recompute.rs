//! Prints peak memory and time of a forward and a backward pass with everything kept, and with blocks that run again
//! (`batch.recompute = "blocks"`), for a baseline of 16 blocks and for walks of 16 visits to one block, on all tokens and on some.
//!
//! 8 sequences of 256 tokens, width 256. Memory is the system's own count of the most that the process held, above what it held with the
//! model alone; time is that of the fastest of some passes. Every row has processes of its own: what one gave back stays with it.
#![allow(missing_docs)]

use bench::{BenchAutodiff, BenchBackend, Shape, in_place};
use brian::loss::language;
use brian::route::policy::{Policy, SequenceInfo, Teacher};
use brian::route::rules::Execution;
use brian::{BrianConfig, Recompute, Rules};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::process::Command;
use std::time::Instant;
use train::device::memory_bytes;

const SHAPE: Shape = Shape::small(256, 16, 8, 256);
const MODELS: [&str; 3] = ["baseline", "dense", "grouped"];
const PASSES: usize = 5;
const STATUS: &str = "/proc/self/status";

/// A pass of a model from tokens to logits.
type Forward = Box<dyn Fn() -> Tensor<BenchAutodiff, 3>>;

fn forward(model: &str, recompute: Option<Recompute>) -> Forward {
    let device = Default::default();
    let input = SHAPE.input::<BenchAutodiff>(&device);
    let execution = match model {
        "baseline" => {
            let model = SHAPE.baseline().init(SHAPE.vocabulary, 1, &device);
            let model = model.recomputing(recompute);
            return Box::new(move || model.forward(input.clone()));
        }
        "dense" => Execution::Dense,
        _ => Execution::Grouped,
    };
    let config = SHAPE.brian();
    let mut config = BrianConfig {
        n_pre: 0,
        n_pool: 1,
        n_post: 0,
        ..config
    };
    config.route.execution = execution;
    config.route.max_steps = SHAPE.n_layers;
    let model = config.init(SHAPE.vocabulary, 1, &device);
    let model = model.recomputing(recompute);
    let blocks = vec![0; SHAPE.n_layers];
    let rules = Rules {
        policy: Policy::Teacher(Teacher::Path { blocks }),
        with_gradients: true,
        ..Rules::sequential()
    };
    let rows = vec![SequenceInfo::default(); SHAPE.batch];
    Box::new(move || model.forward(input.clone(), &rules, &rows).0)
}

fn resident(line: &str) -> u64 {
    memory_bytes(STATUS, line).expect("a system that counts memory in /proc")
}

fn measured(model: &str, recompute: Option<Recompute>) {
    let input = SHAPE.input::<BenchAutodiff>(&Default::default());
    let forward = forward(model, recompute);
    let before = resident("VmRSS:");
    let mut fastest = f64::INFINITY;
    for _ in 0..PASSES {
        let begun = Instant::now();
        let nats = language::token_losses(forward(), input.clone());
        drop(nats.mean().backward());
        BenchBackend::sync(&Default::default()).expect("the device answers");
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    println!("{} {fastest}", resident("VmHWM:").saturating_sub(before));
}

/// Bytes and seconds of a process.
fn asked(model: &str, what: &str) -> [f64; 2] {
    let program = std::env::current_exe().expect("the place of this program");
    let output = Command::new(program).args([model, what]).output();
    let output = output.expect("a process");
    assert!(output.status.success(), "{model} {what}: {output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    let mut numbers = said.split_whitespace().map(|number| number.parse());
    let mut next = || numbers.next().and_then(Result::ok).expect("two numbers");
    [next(), next()]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| arguments.iter().any(|argument| argument == name);
    if let Some(model) = MODELS.into_iter().find(|model| argument(model)) {
        let recompute = argument("again").then_some(Recompute::Blocks);
        return in_place(|| measured(model, recompute));
    }
    println!("| model | MiB kept | MiB again | of it | s kept | s again | times |");
    println!("|---|---|---|---|---|---|---|");
    for model in MODELS {
        let [[kept, kept_s], [again, again_s]] = ["kept", "again"].map(|what| asked(model, what));
        println!(
            "| {model} | {:.0} | {:.0} | {:.2} | {kept_s:.3} | {again_s:.3} | {:.2} |",
            kept / f64::from(1 << 20),
            again / f64::from(1 << 20),
            again / kept,
            again_s / kept_s
        );
    }
}

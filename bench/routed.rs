//! Prints how much time routed walks save against a path of 8 steps, in prefill and in training steps, beside the FLOPs that
//! they save: whether a block that is not executed is time not spent.
//!
//! `eta = (time of the path / time of the walks) / (FLOPs of the path / FLOPs of the walks)`: 1 where every FLOP costs the same
//! in both, less where routing costs time that it does not count. Rounds are interleaved; the table shows medians.
//!
//! `cargo bench -p bench --bench routed -- key_value_prefix` measures a model with a memory instead: one of `bench::MEMORIES`.
#![allow(missing_docs)]

use bench::{
    ADAMW, BenchAutodiff, BenchBackend, MEMORIES, Shape, VOCABULARY, by_lot, in_place,
    leaving_by_lot,
};
use brian::loss::language;
use brian::memory::MemoryConfig;
use brian::route::policy::{Policy, SequenceInfo, Teacher};
use brian::route::rules::ChoiceGradient;
use brian::route::trace::Walks;
use brian::{Brian, BrianConfig, Rules};
use burn::optim::GradientsParams;
use burn::tensor::backend::Backend;
use std::time::Instant;
use train::learner::{ParameterOptimizer, Rate};
use train::model::Model;

const MAX_STEPS: usize = 8;
const LIVE: [f64; 4] = [1.0, 2.0, 4.0, 8.0];
const ROUNDS: usize = 9;
const SHAPE: Shape = Shape::small(256, 6, 8, 128);

/// A model with the rules of its walks.
struct Subject<B: Backend> {
    name: String,
    model: Brian<B>,
    rules: Rules,
}

fn config() -> BrianConfig {
    let mut config = SHAPE.brian();
    config.route.max_steps = MAX_STEPS;
    let named = |name: &str| std::env::args().any(|argument| argument == name);
    let memory = MEMORIES.into_iter().find(|(name, _)| named(name));
    config.memory = memory.map_or(MemoryConfig::None, |(_, memory)| memory);
    config
}

/// The path, and walks that leave by lot.
fn subjects<B: Backend>() -> Vec<Subject<B>> {
    let fresh: Brian<B> = config().init(VOCABULARY, 1, &Default::default());
    let n_pool = config().n_pool;
    let path = Teacher::Path {
        blocks: (0..MAX_STEPS).map(|step| step % n_pool).collect(),
    };
    let mut subjects = vec![Subject {
        name: format!("path of {MAX_STEPS}"),
        model: fresh.clone(),
        rules: Rules {
            policy: Policy::Teacher(path),
            ..Rules::sequential()
        },
    }];
    for live in LIVE
        .into_iter()
        .filter(|live| wanted(&format!("live{live}")))
    {
        subjects.push(Subject {
            name: format!("{live} live steps"),
            model: leaving_by_lot(&fresh, live, MAX_STEPS),
            rules: Rules {
                choice_gradient: ChoiceGradient::StraightThrough,
                ..by_lot()
            },
        });
    }
    subjects
}

/// Whether the command line, if it names any, names this: `cargo bench -p bench --bench routed -- prefill live1`.
fn wanted(name: &str) -> bool {
    let kind = |name: &str| name.starts_with("live");
    let is_memory = |argument: &str| MEMORIES.iter().any(|(name, _)| *name == argument);
    let mut named = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-') && !is_memory(argument))
        .filter(|argument| kind(argument) == kind(name))
        .peekable();
    named.peek().is_none() || named.any(|argument| argument == name)
}

fn measure<B: Backend>(
    title: &str,
    n: usize,
    mut run: impl FnMut(usize) -> Walks,
    name: impl Fn(usize) -> String,
) {
    let mut times = vec![Vec::new(); n];
    let mut counted = vec![0.0; n];
    let mut lengths = vec![0.0; n];
    for round in 0..=ROUNDS {
        for index in 0..n {
            let start = Instant::now();
            let walks = run(index);
            B::sync(&Default::default()).expect("the device answers");
            // The first round warms up.
            if round > 0 {
                times[index].push(start.elapsed().as_secs_f64() * 1e3);
            }
            counted[index] = config().flops(VOCABULARY, &walks).expect("one path");
            let tokens = 0..SHAPE.tokens() as usize;
            let executed: usize = tokens.map(|token| walks.n_executed(token)).sum();
            lengths[index] = executed as f64 / SHAPE.tokens() as f64;
        }
    }
    println!(
        "\n{title}, d{} pool {} b{}x{}, {MAX_STEPS} steps",
        SHAPE.d_model,
        config().n_pool,
        SHAPE.batch,
        SHAPE.seq
    );
    println!(
        "| walks | executed blocks | ms | FLOPs of the path / these | time of the path / this | eta |"
    );
    println!("|---|---|---|---|---|---|");
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let path = times[0].clone();
    for index in 0..n {
        let mut ratios: Vec<f64> = path.iter().zip(&times[index]).map(|(a, b)| a / b).collect();
        let (ratio, saved) = (median(&mut ratios), counted[0] / counted[index]);
        println!(
            "| {} | {:.2} | {:.1} | {saved:.2} | {ratio:.2} | {:.2} |",
            name(index),
            lengths[index],
            median(&mut times[index]),
            ratio / saved
        );
    }
}

fn main() {
    in_place(measured);
}

fn measured() {
    let device = Default::default();
    let rows: Vec<SequenceInfo> = (0..SHAPE.batch as u64)
        .map(|sequence| SequenceInfo {
            sequence,
            difficulty: None,
        })
        .collect();
    let prefill = subjects::<BenchBackend>();
    let input = SHAPE.input::<BenchBackend>(&device);
    let run = |index: usize| {
        let Subject { model, rules, .. } = &prefill[index];
        let (logits, trace) = model.forward(input.clone(), rules, &rows);
        let _ = logits.into_data();
        trace.walks
    };
    let name = |index: usize| prefill[index].name.clone();
    if wanted("prefill") {
        measure::<BenchBackend>("prefill", prefill.len(), run, name);
    }
    if !wanted("train_step") {
        return;
    }

    let input = SHAPE.input::<BenchAutodiff>(&device);
    let names: Vec<String> = prefill.iter().map(|subject| subject.name.clone()).collect();
    let mut learners: Vec<_> = subjects::<BenchAutodiff>()
        .into_iter()
        .map(|subject| {
            let rules = Rules {
                with_gradients: true,
                ..subject.rules
            };
            (
                Some(Model::trainable(subject.model)),
                rules,
                ParameterOptimizer::new(&ADAMW),
            )
        })
        .collect();
    let run = |index: usize| {
        let (model, rules, optimizer) = &mut learners[index];
        let before = model.take().expect("it is put back below");
        let (logits, trace) = before.forward(input.clone(), rules, &rows);
        let loss = language::token_losses(logits, input.clone()).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &before);
        // So slow that walks stay what they are.
        *model = Some(optimizer.step(Rate::at_peak(1e-9), before, gradients));
        trace.expect("the model walks").walks
    };
    measure::<BenchBackend>("train_step", names.len(), run, |index| names[index].clone());
}

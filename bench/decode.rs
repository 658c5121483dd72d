//! Benchmark of decoding: the time to continue a text by 256 greedy tokens, for a baseline and routed models, with memories and
//! without, each with caches and with a whole pass per token.
#![allow(missing_docs)]

use bench::{BenchBackend, MEMORIES, Shape, VOCABULARY, in_place};
use brian::generate::{Next, Sampling, generate};
use brian::memory::MemoryConfig;
use brian::random;
use brian::route::draws::Draws;
use brian::route::policy::{Policy, Select, SequenceInfo};
use brian::route::rules::{Attends, ExitObjective};
use brian::{Brian, Rules};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use train::model::Model;

const N_TOKENS: usize = 256;
const GREEDY: Sampling = Sampling {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    seed: 1,
};

/// A block before the pool, four in it, one after it, and eight steps.
fn brian(memory: MemoryConfig, attends: Attends) -> Brian<BenchBackend> {
    let shape = Shape::small(256, 6, 1, N_TOKENS);
    let mut config = shape.brian();
    config.route.max_steps = 8;
    config.memory = memory;
    config.route.attends = attends;
    scattered(config.init(VOCABULARY, 1, &Default::default()))
}

/// The same model with a router that tells tokens apart, so that all blocks are used at all steps.
fn scattered<B: Backend>(model: Brian<B>) -> Brian<B> {
    let mut values = brian::parameter::collect(&model);
    brian::parameter::assign(model, |path, shape| {
        let value: Vec<f32> = values
            .remove(path)
            .expect("it is the same model")
            .iter()
            .collect();
        match path.starts_with("router.") && shape.len() == 2 {
            true => {
                let key = random::key(7, path, 0);
                let normal = |place| random::normal(key, place) as f32;
                (0..value.len() as u64).map(normal).collect()
            }
            false => value,
        }
    })
}

fn decode(criterion: &mut Criterion) {
    let baseline = model_of_the_same_depth();
    let free = Rules {
        policy: Policy::Router {
            teacher: None,
            // Draws, so that no step is the same for all tokens.
            select: Select::Sample {
                temperature: 1.0,
                in_evaluation: true,
            },
        },
        exit_objective: ExitObjective::Legacy { hard: false },
        draws: Draws::new(1, 1),
        ..Rules::sequential()
    };
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(N_TOKENS as u64));
    let routed = |memory, attends| (Model::new(brian(memory, attends)), free.clone());
    let mut models = vec![
        ("baseline", (Model::new(baseline), Rules::sequential())),
        ("routed", routed(MemoryConfig::None, Attends::All)),
        ("selected", routed(MemoryConfig::None, Attends::Selected)),
    ];
    models.extend(MEMORIES.map(|(name, memory)| (name, routed(memory, Attends::All))));
    for (name, (model, rules)) in &models {
        group.bench_function(format!("{name}/kept"), |bencher| {
            bencher.iter(|| {
                in_place(|| {
                    let mut decoding = model.decoding(rules);
                    continued(|seen| decoding.follow(seen))
                })
            });
        });
        group.bench_function(format!("{name}/anew"), |bencher| {
            bencher.iter(|| in_place(|| continued(|seen| anew(model, rules, seen))));
        });
    }
    group.finish();
}

/// Ten blocks in a row: as many as a token of the routed model executes at most.
fn model_of_the_same_depth() -> brian::Baseline<BenchBackend> {
    let shape = Shape::small(256, 10, 1, N_TOKENS);
    shape.baseline().init(VOCABULARY, 1, &Default::default())
}

fn continued(logits: impl FnMut(&[u32]) -> Tensor<BenchBackend, 1>) -> Vec<u32> {
    let mut tokens = Vec::with_capacity(N_TOKENS);
    let each = |token| {
        tokens.push(token);
        Next::GoOn
    };
    let finite = generate(logits, &[1], N_TOKENS, N_TOKENS, GREEDY, &[], each);
    finite.expect("fresh weights give finite logits");
    tokens
}

/// Logits of the next token by a whole pass.
fn anew<B: Backend>(model: &Model<B>, rules: &Rules, seen: &[u32]) -> Tensor<B, 1> {
    let ids: Vec<i32> = seen.iter().map(|&token| token as i32).collect();
    let data = TensorData::new(ids, [1, seen.len()]);
    let input = Tensor::<B, 2, Int>::from_data(data, &model.device());
    let (logits, _) = model.forward(input, rules, &[SequenceInfo::default()]);
    let last = seen.len() - 1..seen.len();
    logits.slice_dim(1, last).squeeze_dims(&[0, 1])
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = decode
}
criterion_main!(benches);

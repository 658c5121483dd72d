//! What the benches share: the backend that is measured, `Shape` with its models and inputs, clocks that wait for the device,
//! and `Work`, which prints FLOP/s or bytes/s and their share of the device's best.

use brian::memory::{
    Compression, KeyValuePrefixConfig, Lifecycle, MemoryConfig, SharedCodeConfig, SharedCodes,
};
use brian::route::policy::{Policy, Select};
use brian::route::rules::ExitObjective;
use brian::{
    BaselineConfig, Brian, BrianConfig, Initial, PositionConfig, Rules, parameter, random,
};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup};
use rayon::prelude::*;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use train::allocator::{Allocator, allocator};
use train::device::Dtype;
use train::learner::{Decay, OptimizerConfig};

#[global_allocator]
static ALLOCATOR: Allocator = allocator();

/// What is measured: the GPU if it was compiled in.
#[cfg(feature = "cuda")]
pub type BenchBackend = burn::backend::Cuda;
/// What is measured: the GPU if it was compiled in.
#[cfg(all(feature = "vulkan", not(feature = "cuda")))]
pub type BenchBackend = burn::backend::Vulkan;
/// What is measured: the GPU if it was compiled in.
#[cfg(all(feature = "flex", not(any(feature = "cuda", feature = "vulkan"))))]
pub type BenchBackend = burn::backend::Flex;
/// What is measured: the GPU if it was compiled in.
#[cfg(all(
    feature = "ndarray",
    not(any(feature = "cuda", feature = "vulkan", feature = "flex"))
))]
pub type BenchBackend = burn_ndarray::NdArray;
/// The same with gradients.
pub type BenchAutodiff = Autodiff<BenchBackend>;

/// The same under another type of integers: no pass or kernel of ours knows it, so that all is composed of Burn's operations.
#[cfg(feature = "cuda")]
pub type Composed = Autodiff<burn::backend::Cuda<f32, i64>>;
/// The same under another type of truths: no kernel of ours knows it, so that all is composed of Burn's operations.
#[cfg(all(feature = "vulkan", not(feature = "cuda")))]
pub type Composed = Autodiff<burn::backend::Vulkan<f32, i32, u32>>;
/// The same: no pass or kernel of ours knows it, so that all is composed of Burn's operations.
#[cfg(all(feature = "flex", not(any(feature = "cuda", feature = "vulkan"))))]
pub type Composed = BenchAutodiff;
/// The same under another type of integers: no pass of ours knows it, so that all is composed of Burn's operations.
#[cfg(all(
    feature = "ndarray",
    not(any(feature = "cuda", feature = "vulkan", feature = "flex"))
))]
pub type Composed = Autodiff<burn_ndarray::NdArray<f32, i32>>;

/// The vocabulary of every bench that takes no shape from outside.
pub const VOCABULARY: usize = 512;

/// What every training step of a bench is updated by.
pub const ADAMW: OptimizerConfig = OptimizerConfig::Adamw {
    betas: [0.9, 0.95],
    epsilon: 1e-8,
    weight_decay: 0.1,
    decay: Decay::Matrices,
    decay_by: None,
    clip_norm: 1.0,
};

/// Memories to which blocks attend, by name: keys and values, and both forms of codes that blocks share.
pub const MEMORIES: [(&str, MemoryConfig); 3] = [
    (
        "key_value_prefix",
        MemoryConfig::KeyValuePrefix(KeyValuePrefixConfig {
            sink: 1,
            window: 2,
            bias: -4.0,
            compression: Compression::None,
            lifecycle: Lifecycle::Frozen,
        }),
    ),
    ("current_code", shared_code(SharedCodes::Current)),
    (
        "last_code",
        shared_code(SharedCodes::CurrentAndLast { bias: -4.0 }),
    ),
];

const fn shared_code(codes: SharedCodes) -> MemoryConfig {
    MemoryConfig::SharedCode(SharedCodeConfig { d_code: 32, codes })
}

/// One shape to measure.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Sequences.
    pub batch: usize,
    /// Tokens per sequence.
    pub seq: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Tokens there are.
    pub vocabulary: usize,
}

impl Shape {
    /// A small shape, with 32 numbers per head.
    pub const fn small(d_model: usize, n_layers: usize, batch: usize, seq: usize) -> Self {
        Self {
            d_model,
            n_layers,
            batch,
            seq,
            n_heads: d_model / 32,
            vocabulary: VOCABULARY,
        }
    }

    /// What is measured: the shapes in `NERVE_BENCH_SHAPES`, names as [`Self::name`] gives them, or two small ones.
    ///
    /// # Panics
    /// If a name is none.
    pub fn all() -> Vec<Self> {
        match std::env::var("NERVE_BENCH_SHAPES") {
            Ok(names) => {
                let named = |name: &str| {
                    let expected = "as in NERVE_BENCH_SHAPES=\"d768x12_b1x2048_h12_v32000\"";
                    Self::named(name).unwrap_or_else(|| panic!("{name:?} is no shape: {expected}"))
                };
                names.split_whitespace().map(named).collect()
            }
            Err(_) => vec![Self::small(128, 4, 8, 128), Self::small(256, 4, 8, 128)],
        }
    }

    /// Reads a name.
    fn named(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let mut numbers = |begin: char| -> Option<Vec<usize>> {
            let part = parts.next()?.strip_prefix(begin)?;
            part.split('x').map(|number| number.parse().ok()).collect()
        };
        let [d_model, n_layers] = numbers('d')?.try_into().ok()?;
        let [batch, seq] = numbers('b')?.try_into().ok()?;
        let [n_heads] = numbers('h')?.try_into().ok()?;
        let [vocabulary] = numbers('v')?.try_into().ok()?;
        Some(Self {
            d_model,
            n_layers,
            batch,
            seq,
            n_heads,
            vocabulary,
        })
    }

    /// The shape in the names of benches: width x blocks, sequences x tokens, heads, vocabulary.
    pub fn name(&self) -> String {
        let Self {
            d_model,
            n_layers,
            batch,
            seq,
            n_heads,
            vocabulary,
        } = self;
        format!("d{d_model}x{n_layers}_b{batch}x{seq}_h{n_heads}_v{vocabulary}")
    }

    /// Tokens per pass.
    pub fn tokens(&self) -> u64 {
        (self.batch * self.seq) as u64
    }

    /// FLOPs of a forward pass through all blocks in a row.
    pub fn flops(&self) -> f64 {
        self.baseline().flops(self.vocabulary, self.seq) * self.tokens() as f64
    }

    /// The plain decoder.
    pub fn baseline(&self) -> BaselineConfig {
        BaselineConfig {
            d_model: self.d_model,
            n_heads: self.n_heads,
            d_ff: 4 * self.d_model,
            n_layers: self.n_layers,
            context: self.seq,
            rope_base: 10_000.0,
            norm_epsilon: 1e-6,
            initial: Initial::Scaled { std: 0.02 },
            ..BaselineConfig::small()
        }
    }

    /// The routed model over the same blocks: the first and last are pre and post, the rest are the pool.
    pub fn brian(&self) -> BrianConfig {
        let base = self.baseline();
        let small = BrianConfig::small();
        BrianConfig {
            d_model: base.d_model,
            n_heads: base.n_heads,
            d_ff: base.d_ff,
            n_pool: base.n_layers - 2,
            d_ff_pool: base.d_ff,
            context: base.context,
            rope_base: base.rope_base,
            norm_epsilon: base.norm_epsilon,
            initial: base.initial,
            position: PositionConfig {
                d_position: 16,
                ..small.position
            },
            ..small
        }
    }

    /// Tokens `[batch, seq]`.
    pub fn input<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        let token = |index: usize| (index * 7919 % self.vocabulary) as i32;
        let values: Vec<i32> = (0..self.batch * self.seq).map(token).collect();
        Tensor::from_data(TensorData::new(values, [self.batch, self.seq]), device)
    }
}

/// The logit of OUT beside zeros for the blocks that makes walks of so many steps on average, of at most `max_steps`.
fn out_logit(live: f64, n_pool: usize, max_steps: usize) -> f32 {
    let mean = |go_on: f64| (1..=max_steps as i32).map(|n| go_on.powi(n)).sum::<f64>();
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        match mean(middle) < live {
            true => low = middle,
            false => high = middle,
        }
    }
    (n_pool as f64 * (1.0 - low) / low).ln().max(-30.0) as f32
}

/// The model with a router that lets tokens leave by lot, after so many steps on average, and chooses among the blocks alike.
pub fn leaving_by_lot<B: Backend>(model: &Brian<B>, live: f64, max_steps: usize) -> Brian<B> {
    let mut values = parameter::collect(model);
    parameter::assign(model.clone(), |path, shape| match path {
        "router.output.weight" => vec![0.0; shape.iter().product()],
        "router.output.bias" => {
            let n_pool = shape[0] - 1;
            let mut bias = vec![0.0; n_pool];
            bias.push(out_logit(live, n_pool, max_steps));
            bias
        }
        path => {
            let values = values.remove(path).expect("the same model");
            values.iter().collect()
        }
    })
}

/// The rules of such walks.
pub fn by_lot() -> Rules {
    Rules {
        policy: Policy::Router {
            teacher: None,
            select: Select::Sample {
                temperature: 1.0,
                in_evaluation: true,
            },
        },
        ask_router: true,
        exit_objective: ExitObjective::Legacy { hard: true },
        ..Rules::sequential()
    }
}

/// Does something where `nerve` does: on a thread of the pool, or, for a GPU whose queues belong to threads, on this one.
pub fn in_place<R: Send>(action: impl FnOnce() -> R + Send) -> R {
    match cfg!(any(feature = "cuda", feature = "vulkan")) {
        true => action(),
        false => rayon::scope(|_| action()),
    }
}

/// Times an action, the device's queue drained before the clock stops.
pub fn timed<B: Backend>(
    bencher: &mut Bencher,
    device: &B::Device,
    mut action: impl FnMut() + Send,
) {
    in_place(&mut action);
    bencher.iter_custom(|iterations| clocked::<B>(device, iterations, &mut action));
}

fn clocked<B: Backend>(
    device: &B::Device,
    iterations: u64,
    action: &mut (impl FnMut() + Send),
) -> Duration {
    in_place(|| clocked_here::<B>(device, iterations, action))
}

/// The same on this thread, for what no other thread may have.
pub fn clocked_here<B: Backend>(
    device: &B::Device,
    iterations: u64,
    mut action: impl FnMut(),
) -> Duration {
    B::sync(device).expect("the device answers");
    let start = Instant::now();
    for _ in 0..iterations {
        action();
    }
    B::sync(device).expect("the device answers");
    Duration::max(start.elapsed(), Duration::from_nanos(1))
}

/// What an action does at least, to be compared with what the device does at best.
#[derive(Clone, Copy)]
pub enum Work {
    /// Additions and multiplications in products.
    Flops(f64),
    /// Bytes of memory that are read and written.
    Bytes(f64),
}

impl Work {
    /// So much per second, and which share that is of a large product or of a large copy.
    pub fn report<B: Backend>(self, device: &B::Device, seconds: f64) {
        let best = Best::of::<B>(device);
        match self {
            Self::Flops(flops) => println!(
                "                        {:.1} GFLOP/s, {:.0} % of a large product",
                flops / seconds / 1e9,
                100.0 * flops / seconds / best.flops
            ),
            Self::Bytes(bytes) => println!(
                "                        {:.1} GB/s, {:.0} % of a large copy",
                bytes / seconds / 1e9,
                100.0 * bytes / seconds / best.bytes
            ),
        }
    }
}

/// Times an action as [`timed`] does, and says what it reached in its median sample.
pub fn measured<B: Backend>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: String,
    device: &B::Device,
    work: Work,
    mut action: impl FnMut() + Send,
) {
    in_place(&mut action);
    let mut samples = Vec::new();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let taken = clocked::<B>(device, iterations, &mut action);
            samples.push(taken.as_secs_f64() / iterations as f64);
            taken
        });
    });
    samples.sort_by(f64::total_cmp);
    if let Some(&median) = samples.get(samples.len() / 2) {
        work.report::<B>(device, median);
    }
}

/// What the device reaches in a large product of the same type, FLOP/s, and in a large copy, bytes/s: the fastest of a few, measured once.
struct Best {
    flops: f64,
    bytes: f64,
}

impl Best {
    fn of<B: Backend>(device: &B::Device) -> &'static Self {
        static BEST: OnceLock<Best> = OnceLock::new();
        BEST.get_or_init(|| {
            const SIDE: usize = 2048;
            const NUMBERS: usize = 1 << 26;
            const TRIES: usize = 5;
            let square = drawn::<B, 2>([SIDE, SIDE], device).cast(DType::from(products()));
            let fastest = |action: &mut (dyn FnMut() + Send)| {
                let mut action = action;
                let times = (0..TRIES).map(|_| clocked::<B>(device, 1, &mut action));
                times.min().expect("some tries").as_secs_f64()
            };
            let multiply = fastest(&mut || drop(square.clone().matmul(square.clone())));
            let copy = match cfg!(any(feature = "cuda", feature = "vulkan")) {
                true => {
                    let large = drawn::<B, 1>([NUMBERS], device);
                    fastest(&mut || drop(large.clone() + 1.0))
                }
                // Not by Burn, which asks the system for fresh memory each time.
                false => {
                    let from = vec![1.0f32; NUMBERS];
                    let mut to = vec![0.0f32; NUMBERS];
                    fastest(&mut || {
                        let pairs = to.par_chunks_mut(1 << 16).zip(from.par_chunks(1 << 16));
                        pairs.for_each(|(to, from)| to.copy_from_slice(from));
                    })
                }
            };
            Self {
                flops: 2.0 * (SIDE as f64).powi(3) / multiply,
                bytes: (2 * size_of::<f32>() * NUMBERS) as f64 / copy,
            }
        })
    }
}

/// Numbers that are not zero, the same again after a while: some devices multiply zeros faster.
pub fn drawn<B: Backend, const D: usize>(dims: [usize; D], device: &B::Device) -> Tensor<B, D> {
    const PERIOD: u64 = (1 << 16) + 1;
    let key = random::key(1, "bench", 0);
    let period = (0..PERIOD).map(|place| random::normal(key, place) as f32);
    let n_numbers: usize = dims.iter().product();
    let numbers = period.collect::<Vec<f32>>().into_iter().cycle();
    let data = TensorData::new(numbers.take(n_numbers).collect::<Vec<f32>>(), dims);
    Tensor::from_data(data, device)
}

/// The type that products run in: `NERVE_BENCH_DTYPE=bf16` asks for that one.
///
/// # Panics
/// If it is none.
pub fn products() -> Dtype {
    match std::env::var("NERVE_BENCH_DTYPE").as_deref() {
        Err(_) | Ok("f32") => Dtype::F32,
        Ok("bf16") => Dtype::Bf16,
        Ok(other) => panic!("NERVE_BENCH_DTYPE is {other:?}, expected f32 or bf16"),
    }
}

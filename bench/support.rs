//! The backend under measurement, shapes, and a clock that waits for the device.

use brian::route::parallel::Parallel;
use brian::route::position::{Injection, Reach, Start};
use brian::route::rules::{Attends, Execution, Sees};
use brian::{
    BaselineConfig, BrianConfig, Exit, Initial, Layout, MemoryConfig, PositionConfig, RouteConfig,
};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use criterion::Bencher;
use std::time::{Duration, Instant};
use train::learner::{Decay, OptimizerConfig};

/// What is measured: the GPU if it was compiled in.
#[cfg(feature = "cuda")]
pub type BenchBackend = burn::backend::Cuda;
/// What is measured: the GPU if it was compiled in.
#[cfg(all(feature = "flex", not(feature = "cuda")))]
pub type BenchBackend = burn::backend::Flex;
/// What is measured: the GPU if it was compiled in.
#[cfg(all(feature = "ndarray", not(any(feature = "cuda", feature = "flex"))))]
pub type BenchBackend = burn_ndarray::NdArray;
/// The same with gradients.
pub type BenchAutodiff = Autodiff<BenchBackend>;

/// The vocabulary of every bench.
pub const VOCABULARY: usize = 512;

/// What every training step of a bench is updated by.
pub const ADAMW: OptimizerConfig = OptimizerConfig::Adamw {
    betas: [0.9, 0.95],
    epsilon: 1e-8,
    weight_decay: 0.1,
    decay: Decay::Matrices,
    clip_norm: 1.0,
};

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
}

impl Shape {
    /// What every bench measures.
    pub const ALL: [Self; 2] = [
        Self {
            d_model: 128,
            n_layers: 4,
            batch: 8,
            seq: 128,
        },
        Self {
            d_model: 256,
            n_layers: 4,
            batch: 8,
            seq: 128,
        },
    ];

    /// The shape in the names of benches.
    pub fn name(&self) -> String {
        format!(
            "d{}x{}_b{}x{}",
            self.d_model, self.n_layers, self.batch, self.seq
        )
    }

    /// Tokens per pass.
    pub fn tokens(&self) -> u64 {
        (self.batch * self.seq) as u64
    }

    /// The plain decoder.
    pub fn baseline(&self) -> BaselineConfig {
        BaselineConfig {
            d_model: self.d_model,
            n_heads: self.d_model / 32,
            d_ff: 4 * self.d_model,
            n_layers: self.n_layers,
            context: self.seq,
            rope_base: 10_000.0,
            norm_epsilon: 1e-6,
            initial: Initial::Scaled { std: 0.02 },
        }
    }

    /// The routed model over the same blocks: the first and last are pre and post, the rest are the pool.
    pub fn brian(&self) -> BrianConfig {
        let base = self.baseline();
        BrianConfig {
            d_model: base.d_model,
            n_heads: base.n_heads,
            d_ff: base.d_ff,
            n_pre: 1,
            n_pool: base.n_layers - 2,
            d_ff_pool: base.d_ff,
            n_post: 1,
            context: base.context,
            rope_base: base.rope_base,
            norm_epsilon: base.norm_epsilon,
            initial: base.initial,
            position: PositionConfig {
                d_position: 16,
                layout: Layout::OpenArc,
                start: Start::Learned,
                injection: Injection::Adapter,
                into: Reach::Both,
            },
            route: RouteConfig {
                max_steps: 4,
                top_k_first: 1,
                top_k: 1,
                sees: Sees::Token,
                attends: Attends::All,
                execution: Execution::Grouped,
                parallel: Parallel::None,
            },
            exit: Exit::Residual,
            memory: MemoryConfig::None,
        }
    }

    /// Tokens `[batch, seq]`.
    pub fn input<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2, Int> {
        let token = |index: usize| (index * 7919 % VOCABULARY) as i32;
        let values: Vec<i32> = (0..self.batch * self.seq).map(token).collect();
        Tensor::from_data(TensorData::new(values, [self.batch, self.seq]), device)
    }
}

/// Times an action, the device's queue drained before the clock stops.
pub fn timed<B: Backend>(bencher: &mut Bencher, device: &B::Device, mut action: impl FnMut()) {
    action();
    bencher.iter_custom(|iterations| {
        B::sync(device).expect("the device answers");
        let start = Instant::now();
        for _ in 0..iterations {
            action();
        }
        B::sync(device).expect("the device answers");
        Duration::max(start.elapsed(), Duration::from_nanos(1))
    });
}

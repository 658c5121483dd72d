//! Example of a program with an optimizer (`Lion`), a loss (`NormaliserLoss`), a teacher of walks (`Stride`) and a memory of walks
//! (`Mean`) of its own, for the models that come with nerve, and every verb. A recipe names them:
//!
//! ```toml
//! [optimizer]
//! kind = "lion"
//! betas = [0.9, 0.99]
//! weight_decay = 0.1
//! clip_norm = 1.0
//!
//! [loss.normaliser]
//! weight = 1e-4
//!
//! [[stage]]
//! policy = { kind = "teacher", teacher = { kind = "stride", blocks = 2, n_steps = 3 } }
//!
//! [model]
//! memory = { kind = "mean", d_code = 16, window = 3 }
//! ```

#![recursion_limit = "256"]

use brian::described::Start;
use brian::memory::custom::{CodeFlops, CodeMap, Found};
use brian::memory::window::Window;
use brian::route::action::Action;
use brian::route::path_rule::{PoolSize, Turn};
use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use serde::Deserialize;
use std::process::ExitCode;
use train::learner::{CustomOptimizer, Tensors, UpdateInfo};
use train::model::{CustomLoss, CustomMemory, CustomTeacher, Pass};
use train::recipe::section::Section;
use train::task::Batch;
use train::{Registry, main_with};

fn main() -> ExitCode {
    main_with(
        Registry::built_in()
            .optimizer::<Lion>()
            .loss::<NormaliserLoss>()
            .teacher::<Stride>()
            .memory::<Mean>(),
    )
}

/// Lion (Chen et al. 2023, algorithm 2): `w ← w − rate (sign(β₁ m + (1 − β₁) g) + decay w)`, `m ← β₂ m + (1 − β₂) g`.
struct Lion;

/// `[optimizer]` with `kind = "lion"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct LionConfig {
    /// The share of the momentum in an update, and in the next momentum.
    betas: [f64; 2],
    /// Share of a weight that is taken away per unit of learning rate.
    weight_decay: f64,
    /// The longest global gradient.
    clip_norm: f64,
}

impl CustomOptimizer for Lion {
    const KIND: &'static str = "lion";
    const MOMENTS: &'static [&'static str] = &["momentum"];
    type Config = LionConfig;

    fn check(config: &LionConfig, section: &Section<'_>) {
        let shares = config.betas.iter().all(|beta| (0.0..1.0).contains(beta));
        section.require("betas", shares, "two numbers of at least 0 and less than 1");
        section.require("weight_decay", config.weight_decay >= 0.0, "at least 0");
        section.require("clip_norm", config.clip_norm > 0.0, "more than 0");
    }

    fn clip_norm(config: &LionConfig) -> f64 {
        config.clip_norm
    }

    fn update<B: Backend, const D: usize>(
        config: &LionConfig,
        at: UpdateInfo,
        mut tensors: Tensors<B, D>,
    ) -> (Tensor<B, D>, Vec<Tensor<B, D>>) {
        let momentum = tensors.moments.remove(0);
        let mixed = |beta: f64| momentum.clone() * beta + tensors.gradient.clone() * (1.0 - beta);
        let [now, next] = config.betas.map(mixed);
        let kept = tensors.weights * (1.0 - at.rate * config.weight_decay);
        (kept - now.sign() * at.rate, vec![next])
    }
}

/// Keeps the normaliser of the softmax near 1: the mean of `(ln Σ exp logits)²` over the targets (Chowdhery et al. 2022, §5).
struct NormaliserLoss;

/// `[loss.normaliser]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct NormaliserConfig {
    /// How much it adds to the language-model loss.
    weight: f64,
}

impl CustomLoss for NormaliserLoss {
    const NAME: &'static str = "normaliser";
    const TEXT: &'static str = "mean square of the logarithm of the softmax's normaliser";
    type Config = NormaliserConfig;

    fn check(config: &NormaliserConfig, section: &Section<'_>) {
        section.require("weight", config.weight >= 0.0, "at least 0");
    }

    fn weight(config: &NormaliserConfig) -> f64 {
        config.weight
    }

    fn value<B: Backend>(
        _: &NormaliserConfig,
        pass: &Pass<B>,
        batch: &Batch,
    ) -> Option<Tensor<B, 1>> {
        let logits = pass.logits.clone()?;
        let counted = batch.counted(&logits.device());
        let largest = logits.clone().max_dim(2);
        let sums = (logits - largest.clone()).exp().sum_dim(2).log() + largest;
        let squares = sums.squeeze_dim::<2>(2).square() * counted;
        Some(squares.sum() / batch.targets() as f64)
    }
}

/// From a drawn block on, at every step so many blocks further around the pool, then OUT: no two neighbours in a row.
struct Stride;

/// `teacher = { kind = "stride", … }`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct StrideConfig {
    /// How far a step goes.
    blocks: usize,
    /// Blocks that a sequence runs.
    n_steps: usize,
}

impl CustomTeacher for Stride {
    const KIND: &'static str = "stride";
    type Config = StrideConfig;

    fn check(config: &StrideConfig, pool: PoolSize, section: &Section<'_>) {
        section.whole("blocks", config.blocks as u64, 1, pool.n_pool as u64);
        section.whole("n_steps", config.n_steps as u64, 1, pool.max_steps as u64);
    }

    fn action(config: &StrideConfig, turn: Turn) -> Action {
        let n_pool = turn.pool.n_pool;
        match turn.step < config.n_steps {
            true => Action::Block((turn.draw(n_pool, 0) + turn.step * config.blocks) % n_pool),
            false => Action::Out,
        }
    }
}

/// The mean of all codes that a token sees: `c = W h`, `h ← h + (mean c) O` with `O` zero in the beginning. No query, no scores.
struct Mean;

/// `memory = { kind = "mean", … }`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct MeanConfig {
    /// Width of a code.
    d_code: usize,
    /// Last steps of the walk that are seen.
    window: usize,
}

impl CustomMemory for Mean {
    const KIND: &'static str = "mean";
    type Config = MeanConfig;

    fn check(config: &MeanConfig, d_model: usize, section: &Section<'_>) {
        section.whole("d_code", config.d_code as u64, 1, d_model as u64);
    }

    fn retention(config: &MeanConfig) -> Window {
        let (sink, window) = (0, config.window);
        Window { sink, window }
    }

    fn maps(config: &MeanConfig, d_model: usize) -> Vec<CodeMap> {
        let map = |d_in, d_out, start| CodeMap { d_in, d_out, start };
        let write = map(d_model, config.d_code, Start::Map);
        vec![write, map(config.d_code, d_model, Start::Constant(0.0))]
    }

    fn write<B: Backend>(
        _: &MeanConfig,
        maps: &[Tensor<B, 2>],
        hidden: Tensor<B, 3>,
    ) -> Tensor<B, 3> {
        hidden.matmul(maps[0].clone().unsqueeze())
    }

    fn read<B: Backend>(
        _: &MeanConfig,
        maps: &[Tensor<B, 2>],
        hidden: Tensor<B, 3>,
        codes: Tensor<B, 3>,
        mask: Tensor<B, 3>,
    ) -> Found<B> {
        let [[batch, seq, _], [_, n_codes, _]] = [hidden.dims(), codes.dims()];
        let attention = softmax(mask, 2).expand([batch, seq, n_codes]);
        let mean = attention.clone().matmul(codes);
        let change = mean.matmul(maps[1].clone().unsqueeze());
        let open = Tensor::ones([1], &change.device());
        Found {
            change,
            attention,
            open,
        }
    }

    fn flops(config: &MeanConfig, d_model: usize) -> CodeFlops {
        let map = 2 * d_model * config.d_code;
        let per_code = 2 * config.d_code;
        CodeFlops {
            write: map,
            read: map,
            per_code,
        }
    }
}

//! Helpers of the tests of walks: small models, rules and tokens drawn by a seed, gradients of all parameters, comparison
//! within a tolerance, and running a test once more in float64.

mod beam;
mod gradients;
mod memory;
mod recompute;
mod segments;
mod walk;

use super::constraint::Constraint;
use super::draws::Draws;
use super::parallel::Parallel;
use super::policy::{Policy, Select, SequenceInfo, Teacher};
use super::position::{Injection, Layout, PositionConfig, Reach, StartPosition};
use super::rules::{Attends, ChoiceGradient, Execution, ExitObjective, RouteConfig, Rules, Sees};
use crate::block::AttentionBias;
use crate::block::causal::RopeScaling;
use crate::block::residual::ResidualScale;
use crate::block::visits::{VisitScale, VisitsConfig};
use crate::ops::tests::Learning;
use crate::width_transfer::WidthTransfer;
use crate::{Brian, BrianConfig, Exit, Initial, MemoryConfig, parameter, random};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Int, Tensor, TensorData, set_default_dtypes};
use std::env;
use std::process::Command;

const SEQ: usize = 4;
const VOCABULARY: usize = 11;

/// One of the numbers below `n`, by a seed and a name.
fn drawn(seed: u64, name: &str, n: usize) -> usize {
    (random::bits(random::key(seed, name, 0), 0) % n as u64) as usize
}

/// One of several.
fn pick<T: Clone>(seed: u64, name: &str, from: &[T]) -> T {
    from[drawn(seed, name, from.len())].clone()
}

/// A small model of any kind without a memory and without a beam.
fn config(seed: u64) -> BrianConfig {
    let n_pool = 1 + drawn(seed, "n_pool", 3);
    let injection = pick(
        seed,
        "injection",
        &[Injection::Adapter, Injection::Adapter, Injection::Direct],
    );
    let top_k = |name| pick(seed, name, &[1, 1, 2, 3]).min(n_pool + 1);
    let biases = [
        None,
        Some(AttentionBias::QueryKeyValue),
        Some(AttentionBias::All),
    ];
    let scales = [
        None,
        Some(ResidualScale::Depth),
        Some(ResidualScale::Constant { factor: 0.8 }),
    ];
    let base = WidthTransfer {
        base_d_model: 4,
        base_d_head: 3,
    };
    let again = |scale, gains| Some(VisitsConfig { scale, gains });
    let visits = [
        None,
        again(Some(VisitScale::Inverse), None),
        again(Some(VisitScale::InverseSqrt), Some(true)),
        again(None, Some(true)),
    ];
    BrianConfig {
        d_model: 8,
        n_heads: 2,
        n_kv_heads: pick(seed, "n_kv_heads", &[None, Some(1)]),
        d_head: pick(seed, "d_head", &[None, Some(2), Some(6)]),
        attention_bias: pick(seed, "attention_bias", &biases),
        query_key_norm: pick(seed, "query_key_norm", &[None, Some(true)]),
        untied_head: pick(seed, "untied_head", &[None, Some(true)]),
        logit_cap: pick(seed, "logit_cap", &[None, Some(30.0)]),
        d_ff: 6,
        n_pre: 1,
        n_pool,
        d_ff_pool: 10,
        n_post: 1,
        context: SEQ,
        rope_base: 100.0,
        norm_epsilon: 1e-6,
        residual_scale: pick(seed, "residual_scale", &scales),
        width_transfer: pick(seed, "width_transfer", &[None, Some(base)]),
        visits: pick(seed, "visits", &visits),
        initial: Initial::Scaled { std: 0.4 },
        position: PositionConfig {
            d_position: if injection == Injection::Direct { 8 } else { 5 },
            layout: pick(
                seed,
                "layout",
                &[
                    Layout::OpenArc,
                    Layout::Circle,
                    Layout::ClosedCircle,
                    Layout::Random,
                    Layout::None,
                ],
            ),
            start: pick(
                seed,
                "start",
                &[StartPosition::Learned, StartPosition::FirstBlock],
            ),
            injection,
            into: pick(
                seed,
                "into",
                &[
                    Reach::Both,
                    Reach::Both,
                    Reach::Router,
                    Reach::Blocks,
                    Reach::Neither,
                ],
            ),
        },
        route: RouteConfig {
            max_steps: 1 + drawn(seed, "max_steps", 4),
            top_k_first: top_k("top_k_first"),
            top_k: top_k("top_k"),
            sees: pick(
                seed,
                "sees",
                &[Sees::Token, Sees::Token, Sees::Token, Sees::SequenceMean],
            ),
            attends: pick(
                seed,
                "attends",
                &[Attends::All, Attends::All, Attends::Selected],
            ),
            execution: pick(seed, "execution", &[Execution::Dense, Execution::Grouped]),
            parallel: Parallel::None,
        },
        exit: pick(seed, "exit", &[Exit::Residual, Exit::Projection]),
        memory: MemoryConfig::None,
        rope_scaling: pick(
            seed,
            "rope_scaling",
            &[None, Some(RopeScaling::Linear { factor: 2.0 })],
        ),
    }
}

fn constraint(seed: u64) -> Constraint {
    if drawn(seed, "bounded", 3) == 0 {
        return Constraint::NONE;
    }
    Constraint {
        early_exit_penalty: pick(seed, "early_exit_penalty", &[0.0, 1.5]),
        min_exit_step: pick(seed, "min_exit_step", &[1, 2, 3]),
        exit_ramp_bias: pick(seed, "exit_ramp_bias", &[0.0, 2.0]),
        exit_ramp_start: pick(seed, "exit_ramp_start", &[0, 1, 2]),
        final_exit_bias: pick(seed, "final_exit_bias", &[0.0, 1.0]),
        force_final_exit: pick(seed, "force_final_exit", &[false, true]),
        self_recurrence_cap: pick(seed, "self_recurrence_cap", &[0, 1, 1, 2]),
    }
}

/// Rules of any kind for a pool of so many blocks.
fn rules(seed: u64, n_pool: usize) -> Rules {
    let sampling = Select::Sample {
        temperature: 1.7,
        in_evaluation: true,
    };
    let select = pick(seed, "select", &[Select::Argmax, sampling]);
    let path = Teacher::Path {
        blocks: vec![0, n_pool - 1, 0],
    };
    let teacher = pick(
        seed,
        "teacher",
        &[
            Teacher::Sequential,
            Teacher::MixedSkipRecur,
            Teacher::BalancedCoverage,
            Teacher::RandomInternal,
            path,
        ],
    );
    let policy = match drawn(seed, "policy", 6) {
        0 => Policy::Teacher(teacher),
        1 => Policy::Blend {
            teacher,
            router_probability: 0.6,
            select,
        },
        2 => Policy::Router {
            teacher: Some(teacher),
            select,
        },
        _ => Policy::Router {
            teacher: None,
            select,
        },
    };
    let exits = [
        ExitObjective::Legacy { hard: false },
        ExitObjective::Legacy { hard: true },
        ExitObjective::SoftMixture,
        ExitObjective::StraightThrough,
        ExitObjective::StraightThrough,
    ];
    let choices = [
        ChoiceGradient::Legacy,
        ChoiceGradient::Gated,
        ChoiceGradient::StraightThrough,
    ];
    Rules {
        policy,
        ask_router: pick(seed, "ask_router", &[true, false]),
        location_bias: pick(seed, "location_bias", &[0.0, 0.4]),
        constraint: constraint(seed),
        exit_objective: pick(seed, "exit_objective", &exits),
        choice_gradient: pick(seed, "choice_gradient", &choices),
        noise_std: pick(seed, "noise_std", &[0.0, 0.6]),
        override_probability: pick(seed, "override_probability", &[0.0, 0.0, 0.4]),
        draws: Draws::new(seed, 3),
        shortest_walk: pick(seed, "shortest_walk", &[None, None, Some(1), Some(2)]),
        with_gradients: pick(seed, "learning", &[true, true, false]),
        ..Rules::sequential()
    }
}

/// The most steps of a pass whose walks have at most `longest`.
fn n_steps(rules: &Rules, longest: usize) -> usize {
    match rules.shortest_walk {
        Some(shortest) if rules.with_gradients && shortest <= longest => {
            rules.draws.whole(shortest..=longest)
        }
        _ => longest,
    }
}

/// A model with weights where it would start with zeros, and a router that decides differently for different tokens.
fn loud<B: Backend>(config: &BrianConfig, seed: u64) -> Brian<B> {
    let model = config.init::<B>(VOCABULARY, seed, &Default::default());
    let mut held = parameter::collect(&model);
    parameter::assign(model, |path, shape| {
        let std = match path {
            "router.output.weight" => 0.9,
            _ if path.starts_with("router.") => 0.5,
            _ if path.ends_with("adapter.weight") || path == "exit.projection.weight" => 0.4,
            // Of no unit length any more, as after some steps of a training.
            "position.embeddings" | "position.start" => 0.7,
            _ => return held.remove(path).expect("a parameter").iter().collect(),
        };
        normal(seed, path, std, shape.iter().product())
    })
}

fn normal(seed: u64, name: &str, std: f64, n: usize) -> Vec<f32> {
    let key = random::key(seed, name, 1);
    (0..n as u64)
        .map(|index| (std * random::normal(key, index)) as f32)
        .collect()
}

/// How many sequences there are.
fn n_sequences(seed: u64) -> usize {
    pick(seed, "sequences", &[1, 2])
}

fn tokens<B: Backend>(seed: u64) -> Tensor<B, 2, Int> {
    let (key, batch) = (random::key(seed, "tokens", 0), n_sequences(seed));
    let of = |place| (random::bits(key, place) % VOCABULARY as u64) as i64;
    let tokens: Vec<i64> = (0..(batch * SEQ) as u64).map(of).collect();
    Tensor::from_data(TensorData::new(tokens, [batch, SEQ]), &Default::default())
}

fn rows(seed: u64) -> Vec<SequenceInfo> {
    let row = |index: u64| SequenceInfo {
        sequence: seed + 5 * index,
        difficulty: pick(
            seed + index,
            "difficulty",
            &[None, Some(0), Some(1), Some(2)],
        ),
    };
    (0..n_sequences(seed) as u64).map(row).collect()
}

fn host<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Vec<f64> {
    tensor.clone().into_data().iter::<f64>().collect()
}

/// The largest difference, against the largest number expected.
fn relative(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-9, |a: f64, b| a.max(b.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max) / largest
}

/// Two ways to the same number through a few layers, relative to the largest one: what float32 rounds, and in float64 that norms
/// take their means in float32.
fn tolerance() -> f64 {
    match env::var_os(FLOAT64) {
        Some(_) => 1e-5,
        None => 1e-3,
    }
}

/// Gradients of a sum of the logits with different weights, of all parameters, one after the other.
fn gradients<B: AutodiffBackend>(model: &Brian<B>, logits: &Tensor<B, 3>) -> Vec<f64> {
    let dims = logits.dims();
    let weights = normal(9, "weights", 1.0, dims.iter().product());
    let weights = Tensor::from_data(TensorData::new(weights, dims), &logits.device());
    gradients_of(model, (logits.clone() * weights).sum())
}

/// Gradients of a number, of all parameters, one after the other.
fn gradients_of<B: AutodiffBackend>(model: &impl Module<B>, number: Tensor<B, 1>) -> Vec<f64> {
    struct All<'a, B: AutodiffBackend>(&'a B::Gradients, Vec<f64>);

    impl<B: AutodiffBackend> ModuleVisitor<B> for All<'_, B> {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
            let gradient = parameter.val().grad(self.0);
            let none = || vec![0.0; parameter.shape().num_elements()];
            self.1
                .extend(gradient.map_or_else(none, |gradient| host(&gradient)));
        }
    }

    let found = number.backward();
    let mut all = All::<B>(&found, Vec::new());
    model.visit(&mut all);
    all.1
}

/// Set in the process of a test in double precision.
const FLOAT64: &str = "NERVE_WALKS_IN_FLOAT64";

/// Runs the test of this name in a process of its own, in which tensors are float64 and no pass of our own runs; there, says so.
fn in_float64(name: &str) -> bool {
    if env::var_os(FLOAT64).is_some() {
        let set = set_default_dtypes::<Learning>(&Default::default(), DType::F64, DType::I64);
        set.expect("nothing was made on the device before");
        return true;
    }
    let program = env::current_exe().expect("a test is a program");
    let mut command = Command::new(program);
    command
        .args([name, "--exact", "--nocapture"])
        .env(FLOAT64, "1");
    let finished = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&finished.stdout);
    let complaint = String::from_utf8_lossy(&finished.stderr);
    let ran = finished.status.success() && said.contains("1 passed");
    assert!(ran, "{name} in float64: {said}{complaint}");
    false
}

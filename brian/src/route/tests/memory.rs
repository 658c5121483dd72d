//! A memory of a program with the mathematics of ours gives what ours gives, to the bit: logits, gradients, counted reads and
//! FLOPs, over one path and over branches. No token sees a later one, and grouped execution is dense execution.

use super::{
    SEQ, VOCABULARY, config, gradients, host, loud, relative, rows, rules, tokens, tolerance,
};
use crate::described::Start;
use crate::memory::custom::{Asked, CodeFlops, CodeMap, CodeRule, CustomMemory};
use crate::memory::hidden_code::{Reader, Writer};
use crate::memory::window::Window;
use crate::memory::{Adapters, HiddenCodeConfig, Lifecycle, MemoryConfig};
use crate::ops::tests::Learning;
use crate::route::parallel::{Parallel, ParentExit};
use crate::route::rules::{Execution, Sees};
use crate::route::trace::Trace;
use crate::{Brian, BrianConfig, Rules, parameter};
use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Int, Tensor};
use std::any::{Any, TypeId};

/// Where the numbers of the four maps lie in ours.
const OURS: [&str; 4] = [
    "memory.write.0.code.weight",
    "memory.read.0.query.weight",
    "memory.read.0.output.weight",
    "memory.read.0.gate",
];

/// What a memory of codes with these settings computes.
#[derive(Debug, PartialEq)]
struct Same(HiddenCodeConfig);

fn param<const D: usize>(map: Tensor<Learning, D>) -> Param<Tensor<Learning, D>> {
    Param::initialized(ParamId::from(0), map)
}

impl CodeRule for Same {
    fn kind(&self) -> &'static str {
        "same"
    }

    fn retention(&self) -> Window {
        self.0.retention()
    }

    fn maps(&self, d_model: usize) -> Vec<CodeMap> {
        let map = |d_in, d_out, start| CodeMap { d_in, d_out, start };
        let d_code = self.0.d_code;
        vec![
            map(d_model, d_code, Start::Map),
            map(d_model, d_code, Start::Map),
            map(d_code, d_model, Start::Map),
            map(1, 1, Start::Constant(-4.0)),
        ]
    }

    fn answer(&self, asked: Box<dyn Any>, backend: TypeId) -> Box<dyn Any> {
        assert_eq!(backend, TypeId::of::<Learning>());
        let linear = |map: &Tensor<Learning, 2>| Linear {
            weight: param(map.clone()),
            bias: None,
        };
        let asked: Box<Asked<Learning>> = asked.downcast().expect("a question of this backend");
        match *asked {
            Asked::Write { maps, hidden } => {
                let (code, heads) = (linear(&maps[0]), None);
                Box::new(Writer { code, heads }.forward(hidden))
            }
            Asked::Read {
                maps,
                hidden,
                codes,
                mask,
            } => {
                let reader = Reader {
                    query: linear(&maps[1]),
                    output: linear(&maps[2]),
                    gate: param(maps[3].clone().reshape([1])),
                    heads: None,
                };
                Box::new(reader.forward(hidden, codes, mask))
            }
        }
    }

    fn flops(&self, d_model: usize) -> CodeFlops {
        let map = 2 * d_model * self.0.d_code;
        CodeFlops {
            write: map,
            read: 2 * map,
            per_code: 4 * self.0.d_code,
        }
    }

    fn equals(&self, other: &dyn CodeRule) -> bool {
        let other: &dyn Any = other;
        other.downcast_ref() == Some(self)
    }
}

fn codes(sink: usize, window: usize) -> HiddenCodeConfig {
    HiddenCodeConfig {
        d_code: 3,
        sink,
        window,
        adapters: Adapters::Shared,
        head_rank: 0,
        lifecycle: Lifecycle::Frozen,
    }
}

pub(super) fn same(sink: usize, window: usize) -> MemoryConfig {
    MemoryConfig::Custom(CustomMemory::new(Same(codes(sink, window))))
}

/// A model with our memory, its gate open, and one with that of the program and the same numbers.
fn twins(config: BrianConfig, seed: u64) -> [(BrianConfig, Brian<Learning>); 2] {
    let (sink, window) = (seed as usize % 2, 1 + seed as usize % 3);
    let of = |memory| BrianConfig { memory, ..config };
    let [ours, theirs] = [
        MemoryConfig::HiddenCode(codes(sink, window)),
        same(sink, window),
    ]
    .map(of);
    let mut held = parameter::collect(&loud::<Learning>(&ours, seed));
    held.insert(OURS[3].to_string(), [0.5f32].into());
    let model = |config: BrianConfig| {
        let skeleton = config.skeleton::<Learning>(VOCABULARY, &Default::default());
        let model = parameter::assign(skeleton, |path, _| {
            let map = path.strip_prefix("memory.maps.");
            let path = map.map_or(path, |map| OURS[map.parse::<usize>().expect("a number")]);
            held[path].iter().collect()
        });
        (config, model)
    };
    [ours, theirs].map(model)
}

fn pass(
    model: &Brian<Learning>,
    rules: &Rules,
    seed: u64,
) -> (Tensor<Learning, 3>, Trace<Learning>) {
    model.forward(tokens(seed), rules, &rows(seed))
}

fn beam() -> Parallel {
    Parallel::Beam {
        width: 2,
        children: 2,
        branch_cost: 0.1,
        score_decay: 0.9,
    }
}

#[test]
fn a_memory_of_a_program_with_our_mathematics_is_ours_to_the_bit() {
    let (mut measured, mut counted) = (0, 0);
    for (seed, parallel) in (0..12).flat_map(|seed| [(seed, Parallel::None), (seed, beam())]) {
        let mut config = config(seed);
        config.route.parallel = parallel;
        // Several paths know no number of visits, and a program's memory no width that is transferred.
        config.visits = config.visits.filter(|_| parallel == Parallel::None);
        config.width_transfer = None;
        let rules = rules(seed, config.n_pool);
        let [ours, theirs] = twins(config, seed).map(|(config, model)| {
            assert_eq!(config.check(), []);
            let (logits, trace) = pass(&model, &rules, seed);
            let flops = config.flops(VOCABULARY, &trace.walks);
            let gradients = rules.with_gradients.then(|| gradients(&model, &logits));
            (host(&logits), gradients, trace.walks.memory, flops)
        });
        assert_eq!(ours, theirs, "seed {seed}, {parallel:?}");
        measured += usize::from(theirs.2.is_some());
        counted += usize::from(theirs.3.is_some());
    }
    assert!(measured > 2 && counted == 12, "{measured} {counted}");
}

#[test]
fn with_a_memory_of_a_program_no_token_sees_a_later_one_and_grouped_is_dense() {
    for (seed, parallel) in (20..32).flat_map(|seed| [(seed, Parallel::None), (seed, beam())]) {
        let mut config = config(seed);
        (config.route.parallel, config.route.sees) = (parallel, Sees::Token);
        let rules = rules(seed, config.n_pool);
        let mut logits = |execution, tokens: Tensor<Learning, 2, Int>| {
            config.route.execution = execution;
            let [_, (_, theirs)] = twins(config, seed);
            theirs.forward(tokens, &rules, &rows(seed)).0
        };
        let grouped = logits(Execution::Grouped, tokens(seed));
        let dense = logits(Execution::Dense, tokens(seed));
        assert!(relative(&host(&grouped), &host(&dense)) < tolerance());
        let last = tokens::<Learning>(seed).slice_dim(1, SEQ - 1..SEQ);
        let changed = (last + 1).remainder_scalar(VOCABULARY as i64);
        let changed = Tensor::cat(vec![tokens(seed).slice_dim(1, 0..SEQ - 1), changed], 1);
        let changed = logits(Execution::Dense, changed);
        let earlier = |logits: Tensor<Learning, 3>| host(&logits.slice_dim(1, 0..SEQ - 1));
        assert_eq!(earlier(changed.clone()), earlier(dense.clone()), "{seed}");
        assert_ne!(host(&changed), host(&dense));
    }
}

#[test]
fn a_memory_of_a_program_starts_as_its_rule_says_and_goes_with_beams_of_tokens() {
    let mut config = BrianConfig {
        memory: same(1, 2),
        ..BrianConfig::small()
    };
    let model = config.init::<Learning>(VOCABULARY, 3, &Default::default());
    let all = parameter::collect(&model);
    assert_eq!(
        all["memory.maps.3"].iter::<f32>().collect::<Vec<_>>(),
        [-4.0]
    );
    let drawn: Vec<f32> = all["memory.maps.2"].iter().collect();
    assert!(drawn.len() == 3 * config.d_model && drawn.iter().all(|&value| value != 0.0));
    assert_eq!(config.memory, same(1, 2));
    assert_ne!(config.memory, same(1, 3));
    config.route.parallel = Parallel::SequenceBeam {
        width: 1,
        branch_cost: 0.0,
        score_decay: 1.0,
        parent_exit: ParentExit::Branch,
    };
    config.memory = same(0, 0);
    let fields: Vec<_> = config
        .check()
        .into_iter()
        .map(|error| error.field)
        .collect();
    assert_eq!(fields, ["memory.window", "route.parallel"]);
}

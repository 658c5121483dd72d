//! Texts of one window are computed as each alone is: logits, walks and gradients, for the plain decoder and for every way of
//! walking, every memory and over branches.

use super::memory::same;
use super::{
    FLOAT64, VOCABULARY, config, drawn, gradients_of, host, in_float64, loud, normal, pick,
    relative, rules,
};
use crate::memory::{
    Adapters, AttendedConfig, BothConfig, Compression, HiddenCodeConfig, KeyValuePrefixConfig,
    Lifecycle, MemoryConfig, SharedCodeConfig, SharedCodes,
};
use crate::ops::tests::Learning;
use crate::random;
use crate::route::action::Action;
use crate::route::parallel::{Parallel, ParentExit};
use crate::route::policy::{Policy, Select, SequenceInfo};
use crate::route::rules::{Execution, Rules, Sees};
use crate::segments::Segments;
use crate::{BaselineConfig, Brian, BrianConfig, Initial};
use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use std::env;

/// Tokens of a window.
const WINDOW: usize = 9;
const N_WINDOWS: usize = 2;

/// Texts of any length, window by window.
fn texts(seed: u64) -> Segments {
    let mut lengths = Vec::new();
    for window in 0..N_WINDOWS {
        let mut left = WINDOW;
        while left > 0 {
            let name = format!("length {window} {left}");
            let length = (1 + drawn(seed, &name, 5)).min(left);
            lengths.push(length);
            left -= length;
        }
    }
    Segments::new(WINDOW, &lengths)
}

fn tokens(seed: u64) -> Tensor<Learning, 2, Int> {
    let key = random::key(seed, "texts", 0);
    let of = |place| (random::bits(key, place) % VOCABULARY as u64) as i64;
    let all: Vec<i64> = (0..(N_WINDOWS * WINDOW) as u64).map(of).collect();
    let all = TensorData::new(all, [N_WINDOWS, WINDOW]);
    Tensor::from_data(all, &Default::default())
}

/// The number of a window, and what is known of a text.
fn rows(seed: u64, segments: &Segments) -> Vec<SequenceInfo> {
    let row = |text: usize| SequenceInfo {
        sequence: seed + segments.window(text) as u64,
        difficulty: pick(
            seed + text as u64,
            "difficulty",
            &[None, Some(0), Some(1), Some(2)],
        ),
    };
    (0..segments.len()).map(row).collect()
}

/// What a pass gives: logits of all tokens, what they do step by step, and gradients of a sum of logits with different weights.
struct Found {
    logits: Vec<f64>,
    paths: Vec<Vec<Action>>,
    gradients: Vec<f64>,
}

/// Logits of a pass, `[batch, seq, vocabulary]`, and the paths of its tokens.
type Passed = (Tensor<Learning, 3>, Vec<Vec<Action>>);

fn weights(tokens: std::ops::Range<usize>) -> Tensor<Learning, 2> {
    let all = normal(4, "weights", 1.0, N_WINDOWS * WINDOW * VOCABULARY);
    let some = all[tokens.start * VOCABULARY..tokens.end * VOCABULARY].to_vec();
    Tensor::from_data(
        TensorData::new(some, [tokens.len(), VOCABULARY]),
        &Default::default(),
    )
}

fn found(model: &impl Module<Learning>, passes: Vec<Passed>) -> Found {
    let mut found = Found {
        logits: Vec::new(),
        paths: Vec::new(),
        gradients: Vec::new(),
    };
    let mut sum = Tensor::zeros([1], &Default::default());
    let mut first = 0;
    for (logits, paths) in passes {
        let [batch, seq, _] = logits.dims();
        let logits = logits.reshape([batch * seq, VOCABULARY]);
        let weights = weights(first..first + batch * seq);
        first += batch * seq;
        found.logits.extend(host(&logits));
        found.paths.extend(paths);
        sum = sum + (logits * weights).sum();
    }
    found.gradients = gradients_of(model, sum);
    found
}

/// All texts in windows, and each alone.
fn both(
    model: &impl Module<Learning>,
    seed: u64,
    pass: impl Fn(Tensor<Learning, 2, Int>, &Segments, &[SequenceInfo]) -> Passed,
) -> [Found; 2] {
    let segments = texts(seed);
    let (tokens, rows) = (tokens(seed), rows(seed, &segments));
    let flat = tokens.clone().reshape([N_WINDOWS * WINDOW]);
    let packed = vec![pass(tokens, &segments, &rows)];
    let alone = segments.ranges().zip(&rows).map(|(text, row)| {
        let length = text.len();
        let tokens = flat.clone().slice([text]).reshape([1, length]);
        pass(tokens, &Segments::whole(1, length), &[*row])
    });
    let alone = alone.collect();
    [packed, alone].map(|passes| found(model, passes))
}

/// For logits and gradients: sums in another order; in float64 what is left is that gradients of norms take their means in float32.
fn closeness() -> [f64; 2] {
    match env::var_os(FLOAT64) {
        Some(_) => [1e-10, 1e-7],
        None => [1e-5, 1e-5],
    }
}

fn compare(name: &str, [packed, alone]: [Found; 2]) {
    // A walk that is over earlier is not recorded further.
    for (token, (packed, alone)) in packed.paths.iter().zip(&alone.paths).enumerate() {
        assert_eq!(packed, alone, "{name}: the walk of token {token}");
    }
    let [of_logits, of_gradients] = closeness();
    let off = relative(&packed.logits, &alone.logits);
    assert!(off < of_logits, "{name}: logits differ by {off:e}");
    let off = relative(&packed.gradients, &alone.gradients);
    assert!(off < of_gradients, "{name}: gradients differ by {off:e}");
}

const CODES: HiddenCodeConfig = HiddenCodeConfig {
    d_code: 3,
    sink: 1,
    window: 2,
    adapters: Adapters::Shared,
    head_rank: 0,
    lifecycle: Lifecycle::Frozen,
};

const PREFIX: KeyValuePrefixConfig = KeyValuePrefixConfig {
    sink: 0,
    window: 2,
    bias: -0.5,
    compression: Compression::None,
    lifecycle: Lifecycle::Frozen,
};

/// Every kind of memory, with slots that a walk evicts and gates that let something through.
fn memories() -> Vec<MemoryConfig> {
    let per_block = HiddenCodeConfig {
        adapters: Adapters::PerBlock,
        head_rank: 2,
        ..CODES
    };
    let compressed = KeyValuePrefixConfig {
        compression: Compression::Code { d_code: 2 },
        ..PREFIX
    };
    let shared = |codes| SharedCodeConfig { d_code: 3, codes };
    let last = shared(SharedCodes::CurrentAndLast { bias: -0.5 });
    let with = |attended| {
        MemoryConfig::Both(BothConfig {
            codes: CODES,
            attended,
        })
    };
    vec![
        MemoryConfig::HiddenCode(CODES),
        MemoryConfig::HiddenCode(per_block),
        MemoryConfig::KeyValuePrefix(PREFIX),
        MemoryConfig::KeyValuePrefix(compressed),
        MemoryConfig::SharedCode(shared(SharedCodes::Current)),
        MemoryConfig::SharedCode(last),
        with(AttendedConfig::KeyValuePrefix(PREFIX)),
        with(AttendedConfig::SharedCode(last)),
        same(1, 2),
    ]
}

/// Settings of any kind in which nothing is drawn by the place in the window.
fn settings(seed: u64) -> (BrianConfig, Rules) {
    let mut config = config(seed);
    config.context = WINDOW;
    config.route.sees = Sees::Token;
    let mut rules = rules(seed, config.n_pool);
    (rules.noise_std, rules.override_probability) = (0.0, 0.0);
    let select = Select::Argmax;
    rules.policy = match rules.policy {
        Policy::Teacher(teacher) => Policy::Teacher(teacher),
        Policy::Blend { teacher, .. } => Policy::Router {
            teacher: Some(teacher),
            select,
        },
        Policy::Router { teacher, .. } => Policy::Router { teacher, select },
    };
    (config, rules)
}

fn check(name: &str, config: &BrianConfig, rules: &Rules, seed: u64) {
    let mut config = *config;
    if let MemoryConfig::Custom(_) = config.memory {
        // It does not say what its maps sum over.
        config.width_transfer = None;
    }
    assert_eq!(config.check_segments(), [], "{name}");
    assert_eq!(config.check(), [], "{name}");
    let model: Brian<Learning> = loud(&config, seed);
    let pass = |tokens: Tensor<Learning, 2, Int>, segments: &Segments, rows: &[SequenceInfo]| {
        let (logits, trace) = model.forward_segments(tokens, segments, rules, rows);
        assert_eq!(*trace.walks.texts(), *segments);
        let n_tokens = trace.walks.batch * trace.walks.seq;
        let n_steps = trace.walks.max_steps;
        let path = |token| {
            let mut path = trace.walks.actions(token);
            path.resize(n_steps, Action::Out);
            path
        };
        (logits, (0..n_tokens).map(path).collect())
    };
    compare(name, both(&model, seed, pass));
}

fn hold_alone(n_seeds: u64) {
    for seed in 0..n_seeds {
        let pretrained = BaselineConfig {
            initial: Initial::Scaled { std: 0.3 },
            n_kv_heads: pick(seed, "n_kv_heads", &[None, Some(1)]),
            ..BaselineConfig::small()
        };
        let baseline = pretrained.init::<Learning>(VOCABULARY, seed, &Default::default());
        let pass = |tokens: Tensor<Learning, 2, Int>, segments: &Segments, _: &[SequenceInfo]| {
            (baseline.forward_segments(tokens, segments), Vec::new())
        };
        compare(&format!("baseline {seed}"), both(&baseline, seed, pass));
        let (config, rules) = settings(seed);
        check(&format!("walk {seed}"), &config, &rules, seed);
        for (index, memory) in memories().into_iter().enumerate() {
            let mut config = config;
            config.memory = memory;
            if memory.attended().is_some() {
                config.route.attends = crate::route::rules::Attends::All;
            }
            check(&format!("memory {index}, {seed}"), &config, &rules, seed);
        }
        for memory in [
            MemoryConfig::None,
            MemoryConfig::HiddenCode(CODES),
            same(1, 2),
        ] {
            let mut config = config;
            (config.memory, config.visits) = (memory, None);
            config.route.parallel = Parallel::Beam {
                width: 2,
                children: 2,
                branch_cost: 0.1,
                score_decay: 0.9,
            };
            check(&format!("beam, {memory:?}, {seed}"), &config, &rules, seed);
        }
    }
}

#[test]
fn texts_of_one_window_are_computed_as_each_alone() {
    hold_alone(6);
}

#[test]
fn in_float64_they_are_the_same() {
    if in_float64("route::tests::segments::in_float64_they_are_the_same") {
        hold_alone(3);
    }
}

#[test]
fn whole_windows_are_computed_as_ever() {
    let (config, rules) = settings(3);
    let model: Brian<Learning> = loud(&config, 3);
    let rows = [SequenceInfo::default(); N_WINDOWS];
    let [found, expected] = [
        model.forward_segments(
            tokens(3),
            &Segments::whole(N_WINDOWS, WINDOW),
            &rules,
            &rows,
        ),
        model.forward(tokens(3), &rules, &rows),
    ];
    assert_eq!(host(&found.0), host(&expected.0));
    assert_eq!(found.1.walks, expected.1.walks);
}

#[test]
fn what_cannot_keep_texts_apart_is_named() {
    let named = |set: fn(&mut BrianConfig)| -> Vec<String> {
        let mut config = BrianConfig::small();
        set(&mut config);
        let problems = config.check_segments().into_iter();
        problems.map(|problem| problem.to_string()).collect()
    };
    assert_eq!(named(|_| ()), [""; 0]);
    assert_eq!(
        named(|config| config.route.sees = Sees::SequenceMean),
        [
            "route.sees: found sequence_mean, expected token where windows hold several documents: the mean of a window mixes them"
        ]
    );
    let beam = |config: &mut BrianConfig| {
        config.route.parallel = Parallel::SequenceBeam {
            width: 1,
            branch_cost: 0.0,
            score_decay: 1.0,
            parent_exit: ParentExit::Branch,
        };
    };
    assert_eq!(
        named(beam),
        [
            "route.parallel: found sequence_beam, expected none or beam where windows hold several documents: all of a window would \
          walk one path"
        ]
    );
    let of_old = "lifecycle: found reference, expected frozen where windows hold several documents: what one sees would depend on \
                  how long others walk";
    let old_codes = |config: &mut BrianConfig| {
        let lifecycle = Lifecycle::Reference;
        config.memory = MemoryConfig::HiddenCode(HiddenCodeConfig { lifecycle, ..CODES });
    };
    assert_eq!(named(old_codes), [format!("memory.{of_old}")]);
    let old_prefix = |config: &mut BrianConfig| {
        let lifecycle = Lifecycle::Reference;
        config.memory = MemoryConfig::KeyValuePrefix(KeyValuePrefixConfig {
            lifecycle,
            ..PREFIX
        });
    };
    assert_eq!(named(old_prefix), [format!("memory.{of_old}")]);
}

#[test]
#[should_panic(expected = "texts of one window that cannot be kept apart")]
fn a_mean_over_a_window_is_no_pass_over_texts() {
    let mut config = BrianConfig::small();
    config.route.sees = Sees::SequenceMean;
    config.route.execution = Execution::Dense;
    let model: Brian<Learning> = config.init(VOCABULARY, 1, &Default::default());
    let rows = [SequenceInfo::default(); 2];
    let segments = Segments::new(4, &[1, 3]);
    let tokens = Tensor::zeros([1, 4], &Default::default());
    let _ = model.forward_segments(tokens, &segments, &Rules::sequential(), &rows);
}

//! Tests that no logit depends on later tokens, padding or other rows, and no gradient reaches a later token, for every policy,
//! exit, memory and beam. The small models and rules made here serve other tests too.

use crate::support::{
    EXACT, REORDERED, TestAutodiff, TestBackend, as_pretrained, difference, in_float64, relative,
    small_baseline, small_brian, small_memories, tokens, values,
};
use brian::memory::{HiddenCodeConfig, Lifecycle, MemoryConfig};
use brian::random;
use brian::route::constraint::Constraint;
use brian::route::draws::Draws;
use brian::route::parallel::{Parallel, ParentExit};
use brian::route::policy::{Policy, Select, SequenceInfo, Teacher};
use brian::route::position::{Injection, Reach, StartPosition};
use brian::route::rules::{Attends, ChoiceGradient, Execution, ExitObjective, Sees};
use brian::{Baseline, Brian, BrianConfig, Exit, Layout, Rules};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use std::collections::BTreeSet;
use train::model::Model;

pub(crate) const VOCABULARY: usize = 31;
pub(crate) const SEQ: usize = 29;

/// A model and how its walks are led.
struct Case {
    name: String,
    model: Model<TestBackend>,
    rules: Rules,
}

impl Case {
    fn logits(&self, sequences: &[Vec<i64>], rows: &[SequenceInfo]) -> Vec<f32> {
        values(self.model.forward(tokens(sequences), &self.rules, rows).0)
    }
}

/// Every model on the fixed route, and the routed one under every policy and exit.
fn cases() -> Vec<Case> {
    let device = Default::default();
    let baseline = Model::new(small_baseline().init(VOCABULARY, 3, &device));
    let mut cases = vec![Case {
        name: "baseline".to_string(),
        model: baseline,
        rules: Rules::sequential(),
    }];
    let mut add = |name: String, config: &BrianConfig, rules: Rules| {
        cases.push(Case {
            name,
            model: Model::new(loud(config.init(VOCABULARY, 3, &device))),
            rules,
        });
    };
    for exit in [Exit::Residual, Exit::Projection] {
        for layout in [
            Layout::OpenArc,
            Layout::Circle,
            Layout::Random,
            Layout::None,
        ] {
            let name = format!("{exit:?} {layout:?}");
            let config = small_brian(exit, layout);
            add(format!("fixed {name}"), &config, Rules::sequential());
            let rules = walk(router(Select::Argmax), ExitObjective::Legacy { hard: true });
            add(format!("routed {name}"), &config, rules);
        }
    }
    let memories = [MemoryConfig::None].into_iter().chain(small_memories());
    for (index, memory) in memories.enumerate() {
        let mut config = with_memory(memory);
        as_pretrained(&mut config);
        let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough);
        add(format!("as pretrained, memory {index}"), &config, rules);
    }
    let mut config = beam(2);
    as_pretrained(&mut config);
    let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough);
    add("as pretrained, beam".to_string(), &config, rules);
    let config = pool_of_three();
    for into in [Reach::Router, Reach::Blocks, Reach::Neither] {
        let mut config = config;
        config.position.into = into;
        let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough);
        add(format!("position into {into:?}"), &config, rules);
    }
    let mut direct = config;
    direct.position.injection = Injection::Direct;
    direct.position.d_position = direct.d_model;
    direct.position.start = StartPosition::FirstBlock;
    let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough);
    add("direct injection".to_string(), &direct, rules);
    for (policy_name, policy) in policies() {
        for exit_objective in exits() {
            for top_k in [1, 2] {
                for learning in [false, true] {
                    let mut config = config;
                    config.route.top_k = top_k;
                    let rules = Rules {
                        with_gradients: learning,
                        noise_std: 0.3,
                        override_probability: 0.2,
                        ..walk(policy.clone(), exit_objective)
                    };
                    let name =
                        format!("{policy_name} {exit_objective:?} top {top_k} learning {learning}");
                    add(name, &config, rules);
                }
            }
        }
    }
    for memory in small_memories() {
        for exit_objective in exits() {
            for top_k in [1, 2] {
                // Nothing in a walk of the reference depends on whether gradients are wanted.
                let legacy = matches!(exit_objective, ExitObjective::Legacy { .. });
                for learning in [false, true].into_iter().filter(|&on| !(on && legacy)) {
                    let mut config = with_memory(memory);
                    config.route.top_k = top_k;
                    let rules = Rules {
                        with_gradients: learning,
                        ..walk(router(Select::Argmax), exit_objective)
                    };
                    let name =
                        format!("{memory:?} {exit_objective:?} top {top_k} learning {learning}");
                    add(name, &config, rules);
                }
            }
        }
        let mixed = Policy::Teacher(Teacher::MixedSkipRecur);
        let rules = walk(mixed, ExitObjective::Legacy { hard: true });
        add(
            format!("{memory:?} led by a teacher"),
            &with_memory(memory),
            rules,
        );
    }
    for choice_gradient in [ChoiceGradient::Gated, ChoiceGradient::StraightThrough] {
        let rules = Rules {
            choice_gradient,
            ..walk(router(Select::Argmax), ExitObjective::StraightThrough)
        };
        add(format!("{choice_gradient:?} choice"), &config, rules);
    }
    for (attends, execution) in [
        (Attends::All, Execution::Dense),
        (Attends::Selected, Execution::Dense),
        (Attends::Selected, Execution::Grouped),
    ] {
        for exit_objective in exits() {
            for top_k in [1, 2] {
                let mut config = config;
                config.route.top_k = top_k;
                config.route.attends = attends;
                config.route.execution = execution;
                let rules = walk(router(Select::Argmax), exit_objective);
                let name = format!("{attends:?} {execution:?} {exit_objective:?} top {top_k}");
                add(name, &config, rules);
            }
        }
    }
    let constraint = bounded();
    for exit_objective in exits() {
        let rules = Rules {
            constraint,
            ..walk(router(Select::Argmax), exit_objective)
        };
        add(format!("constrained {exit_objective:?}"), &config, rules);
    }
    // An exit that pulls from the first step on: many tokens are over long before the last one is.
    let pulled = Constraint {
        exit_ramp_bias: 4.0,
        exit_ramp_start: 1,
        ..Constraint::NONE
    };
    for width in [2, 3] {
        for attends in [Attends::All, Attends::Selected] {
            for (bounds, constraint) in [
                ("free", Constraint::NONE),
                ("constrained", constraint),
                ("pulled out", pulled),
            ] {
                let mut config = beam(width);
                config.route.attends = attends;
                let rules = Rules {
                    constraint,
                    noise_std: 0.3,
                    ..walk(router(Select::Argmax), ExitObjective::Legacy { hard: true })
                };
                let name = format!("beam of {width} {attends:?} {bounds}");
                add(name, &config, rules.clone());
                for memory in memories_of_codes() {
                    config.memory = memory;
                    let name = format!("beam of {width} {attends:?} {bounds} {memory:?}");
                    add(name, &config, rules.clone());
                }
            }
        }
    }
    cases
}

pub(crate) fn pool_of_three() -> BrianConfig {
    let mut config = small_brian(Exit::Residual, Layout::OpenArc);
    config.n_pool = 3;
    config
}

/// Every token on several paths.
pub(crate) fn beam(width: usize) -> BrianConfig {
    let mut config = pool_of_three();
    config.route.parallel = Parallel::Beam {
        width,
        children: 2,
        branch_cost: 0.01,
        score_decay: 0.9,
    };
    config
}

/// Those that a beam may have.
pub(crate) fn memories_of_codes() -> Vec<MemoryConfig> {
    let memories = small_memories().into_iter();
    memories
        .filter(|memory| matches!(memory, MemoryConfig::HiddenCode(_)))
        .collect()
}

fn with_memory(memory: MemoryConfig) -> BrianConfig {
    BrianConfig {
        memory,
        ..pool_of_three()
    }
}

pub(crate) fn router(select: Select) -> Policy {
    Policy::Router {
        teacher: None,
        select,
    }
}

pub(crate) fn policies() -> Vec<(&'static str, Policy)> {
    let drawn = Select::Sample {
        temperature: 1.5,
        in_evaluation: true,
    };
    let blend = |teacher| Policy::Blend {
        teacher,
        router_probability: 0.5,
        select: Select::Argmax,
    };
    vec![
        ("mixed", Policy::Teacher(Teacher::MixedSkipRecur)),
        ("coverage", Policy::Teacher(Teacher::BalancedCoverage)),
        ("random", Policy::Teacher(Teacher::RandomInternal)),
        ("blend", blend(Teacher::MixedSkipRecur)),
        ("blend with random", blend(Teacher::RandomInternal)),
        ("router", router(Select::Argmax)),
        ("sampling router", router(drawn)),
    ]
}

/// Every bound on a walk at once.
pub(crate) fn bounded() -> Constraint {
    Constraint {
        early_exit_penalty: 1.0,
        min_exit_step: 2,
        exit_ramp_bias: 1.0,
        exit_ramp_start: 2,
        final_exit_bias: 2.0,
        force_final_exit: true,
        self_recurrence_cap: 1,
    }
}

pub(crate) fn exits() -> [ExitObjective; 4] {
    [
        ExitObjective::Legacy { hard: false },
        ExitObjective::Legacy { hard: true },
        ExitObjective::SoftMixture,
        ExitObjective::StraightThrough,
    ]
}

pub(crate) fn walk(policy: Policy, exit_objective: ExitObjective) -> Rules {
    Rules {
        policy,
        exit_objective,
        ask_router: true,
        location_bias: 0.1,
        draws: Draws::new(5, 7),
        with_gradients: true,
        ..Rules::sequential()
    }
}

/// The same model with weights where it starts with zeros, so that nothing is causal only because it is silent, and a router
/// that decides differently for different tokens.
pub(crate) fn loud<B: Backend>(model: Brian<B>) -> Brian<B> {
    let mut values = brian::parameter::collect(&model);
    brian::parameter::assign(model, |path, shape| {
        let value: Vec<f32> = values.remove(path).unwrap().iter().collect();
        let silent = path.ends_with("adapter.weight") || path == "exit.projection.weight";
        let std = match path {
            "router.output.weight" => 0.5,
            _ if path.starts_with("memory.") => 1.0,
            _ => 0.3,
        };
        match silent || path.starts_with("router.") || path.starts_with("memory.") {
            true => {
                let key = random::key(7, path, 0);
                (0..shape.iter().product::<usize>() as u64)
                    .map(|position| (std * random::normal(key, position)) as f32)
                    .collect()
            }
            false => value,
        }
    })
}

pub(crate) fn sequence(seed: u64, length: usize) -> Vec<i64> {
    let key = random::key(seed, "tokens", 0);
    (0..length as u64)
        .map(|t| (random::bits(key, t) % VOCABULARY as u64) as i64)
        .collect()
}

pub(crate) fn row(sequence: u64) -> SequenceInfo {
    SequenceInfo {
        sequence,
        difficulty: Some((sequence % 3) as u8),
    }
}

/// The walks of the cases are no trivial ones: somewhere each of them leaves early, late, repeats, and differs by token.
#[test]
fn the_walks_of_the_cases_differ() {
    let mut lengths = BTreeSet::new();
    for case in cases() {
        let input = tokens(&[sequence(1, SEQ)]);
        let (_, trace) = case.model.forward(input, &case.rules, &[row(1)]);
        let Some(trace) = trace else { continue };
        lengths.extend((0..SEQ).map(|token| trace.walks.n_executed(token)));
    }
    assert!(lengths.len() >= 4, "{lengths:?}");
}

/// What the tests below say about memories they say about memories that matter: of slots of their own, of those of earlier
/// tokens, and after some tokens left.
#[test]
fn every_memory_changes_the_logits_and_the_walks_around_it_differ() {
    let cases = cases();
    let with_memory = cases.iter().filter(|case| {
        let marks = ["lifecycle", "SharedCode"];
        marks.iter().any(|mark| case.name.contains(mark))
    });
    let mut n = 0;
    for case in with_memory {
        let input = [sequence(1, SEQ)];
        let (found, trace) = case.model.forward(tokens(&input), &case.rules, &[row(1)]);
        let rules = Rules {
            without_memory: true,
            ..case.rules.clone()
        };
        let (without, _) = case.model.forward(tokens(&input), &rules, &[row(1)]);
        let change = difference(&values(found), &values(without));
        assert!(change > 100.0 * REORDERED, "{}: {change:e}", case.name);
        let walks = trace.unwrap().walks;
        let usage = walks.memory.is_some();
        let of_blocks = case.name.contains("Both");
        assert_eq!(
            walks.attended.is_some(),
            usage && of_blocks,
            "{}",
            case.name
        );
        // Codes of this step alone are not of an earlier one: there is nothing to count.
        let counts = !case.name.contains("codes: Current }");
        let expected = counts && !case.rules.with_gradients;
        assert_eq!(usage, expected, "{}", case.name);
        let lengths: BTreeSet<usize> = (0..SEQ).map(|token| walks.n_executed(token)).collect();
        let mixes =
            case.rules.with_gradients && case.rules.exit_objective == ExitObjective::SoftMixture;
        if !mixes && matches!(case.rules.policy, Policy::Router { .. }) {
            assert!(lengths.len() >= 2, "{}: {lengths:?}", case.name);
        }
        n += 1;
    }
    let of_beams = memories_of_codes().len() * 2 * 2 * 3;
    assert_eq!(n, small_memories().len() * (2 * 2 + 2 * 4 + 1) + of_beams);
}

/// The reference's lifecycle is not causal with a hard exit, and these tests would have found it.
#[test]
fn the_lifecycle_of_the_reference_lets_a_token_see_how_long_others_walk() {
    let changed = |memory: MemoryConfig| {
        let case = Case {
            name: format!("{memory:?}"),
            model: Model::new(loud(with_memory(memory).init(
                VOCABULARY,
                3,
                &Default::default(),
            ))),
            rules: walk(router(Select::Argmax), ExitObjective::Legacy { hard: true }),
        };
        let whole = sequence(1, SEQ);
        let expected = case.logits(std::slice::from_ref(&whole), &[row(1)]);
        let differs = |length: usize| {
            let found = case.logits(&[whole[..length].to_vec()], &[row(1)]);
            difference(&found, &expected[..length * VOCABULARY]) > REORDERED
        };
        (1..SEQ).filter(|&length| differs(length)).count()
    };
    let MemoryConfig::HiddenCode(config) = small_memories()[0] else {
        unreachable!("the first is one of codes")
    };
    let lifecycle = Lifecycle::Reference;
    assert_eq!(changed(small_memories()[0]), 0);
    assert!(
        changed(MemoryConfig::HiddenCode(HiddenCodeConfig {
            lifecycle,
            ..config
        })) > 0
    );
}

#[test]
fn a_changed_suffix_leaves_every_earlier_logit_the_same_to_the_bit() {
    for case in cases() {
        let name = &case.name;
        let original = sequence(1, SEQ);
        let expected = case.logits(std::slice::from_ref(&original), &[row(1)]);
        for kept in 1..SEQ {
            let found = case.logits(&[with_other_end(&original, kept)], &[row(1)]);
            let bits = |values: &[f32]| -> Vec<u32> {
                values[..kept * VOCABULARY]
                    .iter()
                    .map(|value| value.to_bits())
                    .collect()
            };
            assert_eq!(bits(&found), bits(&expected), "{name}, {kept} tokens kept");
            let after = kept * VOCABULARY;
            assert_ne!(
                found[after..],
                expected[after..],
                "{name}: the change has no effect at all"
            );
        }
    }
}

/// The same tokens up to `kept`, then others.
fn with_other_end(original: &[i64], kept: usize) -> Vec<i64> {
    let mut changed = original.to_vec();
    changed[kept..].copy_from_slice(&sequence(2, original.len())[kept..]);
    changed[kept] = (original[kept] + 1) % VOCABULARY as i64;
    changed
}

#[test]
fn what_looks_at_the_whole_sequence_sees_the_future() {
    let mut mean = pool_of_three();
    mean.route.sees = Sees::SequenceMean;
    let mut sequence_beam = pool_of_three();
    (sequence_beam.route.top_k_first, sequence_beam.route.top_k) = (2, 2);
    sequence_beam.route.parallel = Parallel::SequenceBeam {
        width: 2,
        branch_cost: 0.01,
        score_decay: 0.99,
        parent_exit: ParentExit::Branch,
    };
    for (name, config) in [("sequence mean", mean), ("sequence beam", sequence_beam)] {
        let case = Case {
            name: name.to_string(),
            model: Model::new(loud(config.init(VOCABULARY, 3, &Default::default()))),
            rules: walk(router(Select::Argmax), ExitObjective::Legacy { hard: true }),
        };
        let original = sequence(1, SEQ);
        let expected = case.logits(std::slice::from_ref(&original), &[row(1)]);
        let changes = (1..SEQ).filter(|&kept| {
            let found = case.logits(&[with_other_end(&original, kept)], &[row(1)]);
            let size = kept * VOCABULARY;
            difference(&found[..size], &expected[..size]) > REORDERED
        });
        assert!(
            changes.count() > 0,
            "{name}: the test above would not have found it"
        );
    }
}

#[test]
fn a_prefix_has_the_logits_of_the_whole_sequence() {
    in_float64(|| {
        for case in cases() {
            let whole = sequence(1, SEQ);
            let expected = case.logits(std::slice::from_ref(&whole), &[row(1)]);
            for length in 1..SEQ {
                let found = case.logits(&[whole[..length].to_vec()], &[row(1)]);
                let difference = relative(&found, &expected[..length * VOCABULARY]);
                assert!(
                    difference < EXACT,
                    "{}, {length} tokens: {difference:e}",
                    case.name
                );
            }
        }
    });
}

#[test]
fn a_sequence_does_not_see_the_other_rows_of_its_batch() {
    in_float64(|| {
        for case in cases() {
            let sequences: Vec<_> = (0..3).map(|seed| sequence(seed, SEQ)).collect();
            let rows: Vec<_> = (0..3).map(row).collect();
            let together = case.logits(&sequences, &rows);
            for (index, alone) in sequences.iter().enumerate() {
                let alone = case.logits(std::slice::from_ref(alone), &rows[index..=index]);
                let size = SEQ * VOCABULARY;
                let difference = relative(&alone, &together[index * size..][..size]);
                let name = &case.name;
                assert!(difference < EXACT, "{name}, row {index}: {difference:e}");
            }
        }
    });
}

#[test]
fn padding_behind_a_sequence_changes_nothing() {
    for case in cases() {
        let sequences = [sequence(1, SEQ), sequence(2, SEQ)];
        let short = SEQ - 9;
        let mut padded = sequences.clone();
        padded[0][short..].fill(0);
        let rows = [row(1), row(2)];
        let expected = case.logits(&sequences, &rows);
        let found = case.logits(&padded, &rows);
        let other = SEQ * VOCABULARY;
        assert_eq!(found[other..], expected[other..], "{}", case.name);
        let kept = short * VOCABULARY;
        assert_eq!(found[..kept], expected[..kept], "{}", case.name);
    }
}

#[test]
fn no_gradient_flows_from_a_logit_to_a_later_token() {
    let device = Default::default();
    let models: Vec<(Model<TestAutodiff>, Rules)> = std::iter::once((
        Model::new(small_baseline().init(VOCABULARY, 3, &device)),
        Rules::sequential(),
    ))
    .chain(small_memories().into_iter().map(|memory| {
        let model = loud(with_memory(memory).init(VOCABULARY, 3, &device));
        let rules = walk(router(Select::Argmax), ExitObjective::StraightThrough);
        (Model::new(model), rules)
    }))
    .chain(exits().map(|exit_objective| {
        let model = loud(pool_of_three().init(VOCABULARY, 3, &device));
        let rules = Rules {
            choice_gradient: ChoiceGradient::StraightThrough,
            ..walk(router(Select::Argmax), exit_objective)
        };
        (Model::new(model), rules)
    }))
    .chain([MemoryConfig::None, memories_of_codes()[1]].map(|memory| {
        let mut config = beam(3);
        config.memory = memory;
        let model = loud(config.init(VOCABULARY, 3, &device));
        let rules = walk(router(Select::Argmax), ExitObjective::Legacy { hard: true });
        (Model::new(model), rules)
    }))
    .collect();
    // Every token occurs once, so a row of the embedding's gradient is the gradient of one position. The tied head
    // also adds to it: only for the tokens whose logits are taken.
    let input: Vec<i64> = (0..SEQ as i64).collect();
    let input: Tensor<TestAutodiff, 2, Int> = tokens(&[input]);
    let position = 11;
    for (model, rules) in models {
        let (logits, _) = model.forward(input.clone(), &rules, &[row(1)]);
        let logit = logits.slice([0..1, position..position + 1, 0..1]).sum();
        let gradients = logit.backward();
        let plain = model.get::<Baseline<TestAutodiff>>();
        let plain = plain.map(|model| &model.embedding);
        let routed = model.get::<Brian<TestAutodiff>>();
        let routed = routed.map(|model| &model.embedding);
        let embedding = plain.or(routed).expect("one of the two was made");
        let gradient = values(embedding.weight.grad(&gradients).unwrap());
        let d_model = small_baseline().d_model;
        for token in 0..SEQ {
            let silent = gradient[token * d_model..][..d_model]
                .iter()
                .all(|&entry| entry == 0.0);
            assert_eq!(silent, token > position, "{rules:?}, token {token}");
        }
    }
}

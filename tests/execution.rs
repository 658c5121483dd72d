//! Tests that grouped execution (each block runs on its own tokens) gives the logits, walks and gradients of dense execution
//! (each block runs on all tokens), for every way of walking.

use crate::causality::{
    SEQ, VOCABULARY, exits, loud, policies, pool_of_three, router, row, sequence, walk,
};
use crate::support::{
    EXACT, REORDERED, TestAutodiff, as_pretrained, difference, gradients, in_float64, relative,
    small_memories, tokens, values,
};
use brian::loss::language;
use brian::memory::MemoryConfig;
use brian::route::policy::Select;
use brian::route::rules::{Attends, ChoiceGradient, Execution};
use brian::route::trace::Walks;
use brian::{Brian, BrianConfig, Initial, Rules};

/// What a pass gives.
struct Pass {
    logits: Vec<f32>,
    walks: Walks,
    /// One after the other.
    gradients: Vec<f32>,
}

fn pass(model: &Brian<TestAutodiff>, rules: &Rules) -> Pass {
    let sequences: Vec<Vec<i64>> = (0..3).map(|seed| sequence(seed, SEQ)).collect();
    let rows: Vec<_> = (0..3).map(row).collect();
    let input = tokens(&sequences);
    let (logits, trace) = model.forward(input.clone(), rules, &rows);
    let loss = language::token_losses(logits.clone(), input).mean();
    Pass {
        logits: values(logits),
        walks: trace.walks,
        gradients: gradients(model, &loss.backward()),
    }
}

fn model(config: &BrianConfig, execution: Execution) -> Brian<TestAutodiff> {
    let mut config = *config;
    config.route.execution = execution;
    config.init(VOCABULARY, 3, &Default::default())
}

fn actions(walks: &Walks) -> Vec<&[usize]> {
    let steps = walks.steps.iter();
    steps.map(|step| step.actions.as_slice()).collect()
}

#[test]
fn grouped_execution_is_dense_execution() {
    in_float64(|| {
        let mut lengths = std::collections::BTreeSet::new();
        let mut check = |name: String, config: &BrianConfig, rules: &Rules| {
            let loudly = |execution| pass(&loud(model(config, execution)), rules);
            let [dense, grouped] = [Execution::Dense, Execution::Grouped].map(loudly);
            assert_eq!(actions(&grouped.walks), actions(&dense.walks), "{name}");
            let logits = relative(&grouped.logits, &dense.logits);
            assert!(logits < EXACT, "{name}: logits differ by {logits:e}");
            let gradients = relative(&grouped.gradients, &dense.gradients);
            assert!(
                gradients < EXACT,
                "{name}: gradients differ by {gradients:e}"
            );
            lengths.extend((0..3 * SEQ).map(|token| dense.walks.n_executed(token)));
        };
        for attends in [Attends::All, Attends::Selected] {
            for exit_objective in exits() {
                for top_k in [1, 2] {
                    let mut config = pool_of_three();
                    config.route.attends = attends;
                    config.route.top_k = top_k;
                    for (policy_name, policy) in policies() {
                        let rules = Rules {
                            choice_gradient: ChoiceGradient::StraightThrough,
                            ..walk(policy, exit_objective)
                        };
                        let name =
                            format!("{attends:?} {policy_name} {exit_objective:?} top {top_k}");
                        check(name, &config, &rules);
                    }
                    let gated = Rules {
                        choice_gradient: ChoiceGradient::Gated,
                        with_gradients: false,
                        ..walk(router(Select::Argmax), exit_objective)
                    };
                    let name = format!("{attends:?} gated {exit_objective:?} top {top_k}");
                    check(name, &config, &gated);
                }
            }
        }
        for exit_objective in exits() {
            for attends in [Attends::All, Attends::Selected] {
                let mut config = pool_of_three();
                config.route.attends = attends;
                as_pretrained(&mut config);
                let rules = walk(router(Select::Argmax), exit_objective);
                let name = format!("as pretrained, {attends:?} {exit_objective:?}");
                check(name, &config, &rules);
            }
        }
        for memory in small_memories() {
            for exit_objective in exits() {
                for top_k in [1, 2] {
                    let mut config = pool_of_three();
                    config.memory = memory;
                    config.route.top_k = top_k;
                    let rules = Rules {
                        choice_gradient: ChoiceGradient::StraightThrough,
                        ..walk(router(Select::Argmax), exit_objective)
                    };
                    let name = format!("{memory:?} {exit_objective:?} top {top_k}");
                    check(name, &config, &rules);
                }
            }
        }
        assert!(lengths.len() >= 4, "walks of {lengths:?} blocks");
    });
}

/// With weights as training starts with, and in the precision that it has; ten blocks are more than run together.
#[test]
fn in_float32_grouped_execution_is_dense_execution_too() {
    let mut config = pool_of_three();
    config.initial = Initial::Scaled { std: 0.02 };
    let mut settings = vec![
        (MemoryConfig::None, 3, Attends::All, 1),
        (MemoryConfig::None, 3, Attends::All, 2),
        (MemoryConfig::None, 3, Attends::Selected, 1),
        (MemoryConfig::None, 10, Attends::All, 1),
        (MemoryConfig::None, 10, Attends::Selected, 2),
    ];
    let memories = small_memories().into_iter();
    settings.extend(memories.map(|memory| (memory, 10, Attends::All, 2)));
    for (memory, n_pool, attends, top_k) in settings {
        config.memory = memory;
        config.n_pool = n_pool;
        config.route.attends = attends;
        config.route.top_k = top_k;
        for exit_objective in exits() {
            for (policy_name, policy) in policies() {
                let rules = walk(policy, exit_objective);
                let quietly = |execution| pass(&model(&config, execution), &rules);
                let [dense, grouped] = [Execution::Dense, Execution::Grouped].map(quietly);
                let name = format!(
                    "{memory:?} {n_pool} {attends:?} top {top_k} {policy_name} {exit_objective:?}"
                );
                assert_eq!(actions(&grouped.walks), actions(&dense.walks), "{name}");
                let logits = difference(&grouped.logits, &dense.logits);
                let gradients = relative(&grouped.gradients, &dense.gradients);
                assert!(logits < REORDERED, "{name}: logits differ by {logits:e}");
                assert!(
                    gradients < 1e-4,
                    "{name}: gradients differ by {gradients:e}"
                );
            }
        }
    }
}

#[test]
fn whom_a_block_attends_to_matters() {
    let rules = walk(router(Select::Argmax), exits()[1]);
    let mut config = pool_of_three();
    let grouped = |config: &BrianConfig| {
        let model = loud(model(config, Execution::Grouped));
        pass(&model, &rules).logits
    };
    let all = grouped(&config);
    config.route.attends = Attends::Selected;
    assert!(relative(&grouped(&config), &all) > 1e-2);
}

//! Tests of BRIAN's beam: with width 1 it is the greedy walk, more branches change the logits, one token agrees with the
//! reference, gradients reach the router, a teacher leads one path, and invalid widths are refused.

use crate::causality::{
    SEQ, VOCABULARY, beam, loud, memories_of_codes, pool_of_three, router, row, sequence, walk,
};
use crate::support::{REORDERED, TestAutodiff, TestBackend, difference, tokens, values};
use brian::loss::language;
use brian::route::constraint::Constraint;
use brian::route::parallel::{Parallel, ParentExit};
use brian::route::policy::{Policy, Select, Teacher};
use brian::route::rules::{Attends, Execution, ExitObjective};
use brian::route::trace::{Origin, Trace};
use brian::{Brian, BrianConfig, MemoryConfig, Rules, parameter};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

fn greedy() -> Rules {
    walk(router(Select::Argmax), ExitObjective::Legacy { hard: true })
}

fn without_cost(width: usize) -> Parallel {
    Parallel::Beam {
        width,
        children: width,
        branch_cost: 0.0,
        score_decay: 1.0,
    }
}

fn model<B: Backend>(config: &BrianConfig) -> Brian<B> {
    loud(config.init(VOCABULARY, 3, &Default::default()))
}

fn pass<B: Backend>(
    model: &Brian<B>,
    sequences: &[Vec<i64>],
    rules: &Rules,
) -> (Tensor<B, 3>, Trace<B>) {
    let rows: Vec<_> = (0..sequences.len() as u64).map(row).collect();
    model.forward(tokens(sequences), rules, &rows)
}

fn sequences(length: usize) -> Vec<Vec<i64>> {
    (0..3).map(|seed| sequence(seed, length)).collect()
}

fn actions<B: Backend>(trace: &Trace<B>) -> Vec<Vec<usize>> {
    let steps = trace.walks.steps.iter();
    steps.map(|step| step.actions.clone()).collect()
}

#[test]
fn a_beam_of_one_branch_is_the_greedy_walk_with_a_hard_exit() {
    let constraint = Constraint {
        exit_ramp_bias: 1.0,
        exit_ramp_start: 2,
        force_final_exit: true,
        self_recurrence_cap: 1,
        ..Constraint::NONE
    };
    let plain = [
        (Attends::All, Execution::Grouped),
        (Attends::All, Execution::Dense),
        (Attends::Selected, Execution::Grouped),
    ]
    .map(|(attends, execution)| (attends, execution, MemoryConfig::None));
    let with_memory = memories_of_codes()
        .into_iter()
        .map(|memory| (Attends::All, Execution::Grouped, memory));
    for (attends, execution, memory) in plain.into_iter().chain(with_memory) {
        for constraint in [Constraint::NONE, constraint] {
            let mut config = pool_of_three();
            (config.route.attends, config.route.execution) = (attends, execution);
            config.memory = memory;
            let rules = Rules {
                constraint,
                noise_std: 0.3,
                ..greedy()
            };
            let (expected, walk) = pass::<TestBackend>(&model(&config), &sequences(SEQ), &rules);
            config.route.parallel = without_cost(1);
            let (found, trace) = pass::<TestBackend>(&model(&config), &sequences(SEQ), &rules);
            let name = format!("{attends:?} {execution:?} {memory:?} {constraint:?}");
            assert_eq!(actions(&trace), actions(&walk), "{name}");
            let near = |found: &[f32], expected: &[f32]| {
                let difference = difference(found, expected);
                assert!(difference < REORDERED, "{name}: {difference:e}");
            };
            near(&values(found), &values(expected));
            for (found, expected) in trace.walks.steps.iter().zip(&walk.walks.steps) {
                assert_eq!(found.origins, expected.origins, "{name}");
                assert_eq!(found.best, expected.best, "{name}");
                assert_eq!(found.likeliest, expected.likeliest, "{name}");
                assert_eq!(found.capped, expected.capped, "{name}");
                near(&found.probabilities, &expected.probabilities);
            }
            for (found, expected) in trace.steps.iter().zip(&walk.steps) {
                near(
                    &values(found.logits.clone()),
                    &values(expected.logits.clone()),
                );
                near(
                    &values(found.last_move.location()),
                    &values(expected.last_move.location()),
                );
            }
        }
    }
}

#[test]
fn every_further_branch_changes_the_logits() {
    let logits = |width| {
        let (logits, _) = pass::<TestBackend>(&model(&beam(width)), &sequences(SEQ), &greedy());
        values(logits)
    };
    let logits: Vec<Vec<f32>> = (1..=3).map(logits).collect();
    for pair in logits.windows(2) {
        let change = difference(&pair[0], &pair[1]);
        assert!(change > 100.0 * REORDERED, "{change:e}");
    }
}

/// A single token is a sequence, so both beams are one, as long as no branch leaves: what the reference repeats then, ours does not.
#[test]
fn on_a_single_token_it_is_the_beam_of_the_reference() {
    for width in [2, 3, 4] {
        let mut config = beam(width);
        config.n_pool = 4;
        let children = 3;
        (config.route.top_k_first, config.route.top_k) = (children, children);
        let run = |parallel| {
            let mut config = config;
            config.route.parallel = parallel;
            let model: Brian<TestBackend> = model(&config);
            let mut held = parameter::collect(&model);
            let model = parameter::assign(model, |path, _| {
                let mut value: Vec<f32> = held.remove(path).unwrap().iter().collect();
                if path == "router.output.bias" {
                    *value.last_mut().unwrap() = -30.0;
                }
                value
            });
            let input: Vec<_> = (0..9).map(|token| vec![token]).collect();
            let (logits, trace) = pass(&model, &input, &greedy());
            let longest = (0..9).map(|token| trace.walks.n_executed(token)).max();
            assert_eq!(longest, Some(config.route.max_steps));
            values(logits)
        };
        let (branch_cost, score_decay) = (0.05, 0.9);
        let ours = run(Parallel::Beam {
            width,
            children,
            branch_cost,
            score_decay,
        });
        let theirs = run(Parallel::SequenceBeam {
            width,
            branch_cost,
            score_decay,
            parent_exit: ParentExit::Branch,
        });
        let difference = difference(&ours, &theirs);
        assert!(difference < REORDERED, "{width}: {difference:e}");
    }
}

#[test]
fn what_is_recorded_is_one_walk_until_it_leaves() {
    let (_, trace) = pass::<TestBackend>(&model(&beam(3)), &sequences(SEQ), &greedy());
    let out = trace.walks.n_pool;
    let mut lengths = std::collections::BTreeSet::new();
    for token in 0..3 * SEQ {
        lengths.insert(trace.walks.n_executed(token));
        let mut left = false;
        for step in &trace.walks.steps {
            let expected = if left { Origin::Left } else { Origin::Router };
            assert_eq!(step.origins[token], expected, "{token}");
            assert!(!left || step.actions[token] == out, "{token}");
            left |= step.actions[token] == out;
        }
    }
    assert!(lengths.len() >= 3, "{lengths:?}");
    let best = |step: &brian::route::trace::Decisions| step.best == step.actions;
    let greedy_everywhere = trace.walks.steps.iter().all(best);
    assert!(
        !greedy_everywhere,
        "the best branch is sometimes another than the greedy one"
    );
}

#[test]
fn the_task_reaches_the_router_through_the_scores_of_several_branches() {
    let gradient = |parallel| {
        let mut config = beam(2);
        config.route.parallel = parallel;
        let model: Brian<TestAutodiff> = model(&config);
        let input = sequences(SEQ);
        let (logits, _) = pass(&model, &input, &greedy());
        let loss = language::token_losses(logits, tokens(&input)).mean();
        let gradients = loss.backward();
        let weight = &model.router.output.weight;
        let values = weight.grad(&gradients).map(values).unwrap_or_default();
        assert!(values.iter().all(|value| value.is_finite()));
        values
            .iter()
            .fold(0.0, |largest, value| f32::max(largest, value.abs()))
    };
    assert_eq!(gradient(without_cost(1)), 0.0);
    assert!(gradient(without_cost(2)) > 1e-4);
    assert!(gradient(without_cost(3)) > 1e-4);
}

#[test]
fn a_teacher_leads_one_path_also_where_there_is_a_beam() {
    let rules = walk(
        Policy::Teacher(Teacher::MixedSkipRecur),
        ExitObjective::Legacy { hard: true },
    );
    let run = |config: &BrianConfig| {
        let (logits, trace) = pass::<TestBackend>(&model(config), &sequences(SEQ), &rules);
        (values(logits), actions(&trace))
    };
    let mut alone = beam(3);
    alone.route.parallel = Parallel::None;
    assert_eq!(run(&beam(3)), run(&alone));
}

#[test]
fn a_beam_that_cannot_be_is_refused() {
    let width_of = |width, children| {
        let mut config = pool_of_three();
        config.route.parallel = Parallel::Beam {
            width,
            children,
            branch_cost: 0.0,
            score_decay: 1.0,
        };
        let errors = config.check();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        width_of(0, 2),
        ["route.parallel.width: found 0, expected at least 1"]
    );
    assert_eq!(
        width_of(2, 1),
        ["route.parallel.width: found 2, expected 1, or more children: no branch has two"]
    );
    assert_eq!(
        width_of(2, 5),
        ["route.parallel.children: found 5, expected at least 1 and at most n_pool + 1, 4"]
    );
    assert!(width_of(1, 1).is_empty());
    assert!(width_of(3, 2).is_empty());
}

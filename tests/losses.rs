//! Tests of BRIAN's route losses (cost, load balance, moves, halting prior) by hand-computed values, and of which gradients
//! reach OUT and the choice of blocks under each exit objective.

use crate::support::{TestAutodiff, TestBackend, small_brian, tokens, values};
use brian::loss::balance::balance;
use brian::loss::cost::cost;
use brian::loss::halting_prior::halting_prior;
use brian::loss::imitation::imitation;
use brian::loss::load::{coverage_floor, selected_balance};
use brian::loss::route::RouteLosses;
use brian::loss::transition::transition_diversity;
use brian::loss::view::{Scope, View};
use brian::route::policy::{Policy, Select, SequenceInfo, Teacher};
use brian::route::rules::{ChoiceGradient, ExitObjective};
use brian::route::trace::{Decisions, Move, Origin, Trace, TraceStep, Walks};
use brian::{Brian, Exit, Layout, Rules, parameter, random};
use burn::tensor::{Tensor, TensorData};

const N_POOL: usize = 2;
const OUT: usize = N_POOL;

/// One token per sequence: its probabilities and its actions at every step.
fn trace(probabilities: &[&[[f32; 3]]], actions: &[&[usize]], target: usize) -> Trace<TestBackend> {
    let n = actions.len();
    let n_steps = actions[0].len();
    let left = |token: usize, step: usize| actions[token][..step].contains(&OUT);
    let mut steps = Vec::new();
    let mut decisions = Vec::new();
    for step in 0..n_steps {
        let logits: Vec<f32> = (0..n)
            .flat_map(|token| probabilities[token][step].map(|p| p.max(1e-12).ln()))
            .collect();
        steps.push(TraceStep {
            logits: Tensor::from_data(TensorData::new(logits, [n, 3]), &Default::default()),
            last_move: Move {
                probabilities: Tensor::zeros([n, 3], &Default::default()),
                position: Tensor::zeros([n, 1], &Default::default()),
                of_actions: Tensor::zeros([3, 1], &Default::default()),
            },
        });
        decisions.push(Decisions {
            actions: (0..n).map(|token| actions[token][step]).collect(),
            origins: (0..n)
                .map(|token| {
                    if left(token, step) {
                        Origin::Left
                    } else {
                        Origin::Router
                    }
                })
                .collect(),
            targets: Some(vec![target; n]),
            ..Decisions::default()
        });
    }
    let walks = Walks {
        batch: n,
        seq: 1,
        n_pool: N_POOL,
        max_steps: n_steps,
        hard_exit: true,
        steps: decisions,
        ..Walks::default()
    };
    Trace { walks, steps }
}

fn view(trace: &Trace<TestBackend>, scope: Scope) -> View<TestBackend> {
    let rules = Rules {
        exit_objective: ExitObjective::Legacy { hard: true },
        ..Rules::sequential()
    };
    let valid = vec![true; trace.walks.batch];
    View::new(trace, &rules, scope, &valid).unwrap()
}

fn number(tensor: Tensor<TestBackend, 1>) -> f32 {
    values(tensor)[0]
}

fn close(found: f32, expected: f32) {
    assert!(
        (found - expected).abs() < 1e-5,
        "{found} and not {expected}"
    );
}

#[test]
fn what_a_token_would_have_done_after_it_left_costs_nothing() {
    let early: &[[f32; 3]] = &[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]];
    let strange: &[[f32; 3]] = &[[0.2, 0.3, 0.5], [0.98, 0.01, 0.01]];
    let actions: &[&[usize]] = &[&[OUT, OUT]];
    let both = [early, strange].map(|path| view(&trace(&[path], actions, 0), Scope::Walking));
    let all = |view: &View<TestBackend>| {
        [
            number(imitation(view).unwrap()),
            number(balance(view)),
            number(selected_balance(view)),
        ]
    };
    assert_eq!(all(&both[0]), all(&both[1]));
    close(number(imitation(&both[0]).unwrap()), -(0.2f32.ln()));
}

#[test]
fn cost_is_the_expected_number_of_blocks() {
    let path: &[[f32; 3]] = &[[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.4, 0.5, 0.1]];
    let seen = view(&trace(&[path], &[&[0, 1, 1]], 0), Scope::Walking);
    close(number(cost(&seen)), 0.8 + 0.8 * 0.4 + 0.8 * 0.4 * 0.9);
    let reference = view(&trace(&[path], &[&[0, 1, 1]], 0), Scope::LastToken);
    close(number(cost(&reference)), 0.8 + 0.4 + 0.9);
}

#[test]
fn an_even_load_costs_less_than_a_collapsed_one() {
    let certain = |action: usize| std::array::from_fn(|other| f32::from(other == action));
    let walk = |first: usize, second: usize| -> View<TestBackend> {
        let paths = [[certain(first); 1], [certain(second); 1]];
        let paths: Vec<&[[f32; 3]]> = paths.iter().map(|path| path.as_slice()).collect();
        view(&trace(&paths, &[&[first], &[second]], 0), Scope::Walking)
    };
    let (even, collapsed) = (walk(0, 1), walk(0, 0));
    for loss in [balance::<TestBackend>, selected_balance::<TestBackend>] {
        close(number(loss(&even)), 0.0);
        assert!(number(loss(&collapsed)) > 0.1);
    }
    close(number(coverage_floor(&even, 0.4)), 0.0);
    close(number(coverage_floor(&even, 0.7)), 0.4);
    close(number(coverage_floor(&collapsed, 0.3)), 0.3);
    // Nobody executes anything: nothing to balance, and a floor that is missed everywhere.
    let idle = walk(OUT, OUT);
    close(number(selected_balance(&idle)), 0.0);
    close(number(coverage_floor(&idle, 0.3)), 0.6);
}

#[test]
fn moves_that_are_all_alike_cost_one_and_no_move_costs_nothing() {
    let likely: &[[f32; 3]] = &[[0.4, 0.4, 0.2]; 2];
    let of = |actions: &[&[usize]]| {
        let paths = vec![likely; actions.len()];
        number(transition_diversity(&view(
            &trace(&paths, actions, 0),
            Scope::Walking,
        )))
    };
    close(of(&[&[0, 1], &[0, 1]]), 1.0);
    close(of(&[&[0, 0], &[0, 1], &[1, 0], &[1, 1]]), 0.0);
    close(of(&[&[0, OUT], &[OUT, OUT]]), 0.0);
    let single: &[[f32; 3]] = &likely[..1];
    let view = view(&trace(&[single], &[&[0]], 0), Scope::Walking);
    close(number(transition_diversity(&view)), 0.0);
}

#[test]
fn a_halting_distribution_like_the_prior_costs_nothing() {
    // Mean 2: each step leaves with one half; the last weight takes what a truncated geometric distribution leaves.
    let weights = [1.0, 0.5, 0.25].map(|weight: f32| weight / 1.75);
    let second = weights[1] / (1.0 - weights[0]);
    let steps = [weights[0], second].map(|out| [(1.0 - out) / 2.0, (1.0 - out) / 2.0, out]);
    let like = view(&trace(&[&steps], &[&[0, 0]], 0), Scope::Walking);
    close(number(halting_prior(&like, 2.0)), 0.0);
    let late = view(
        &trace(&[&[[0.5, 0.49, 0.01]; 2]], &[&[0, 0]], 0),
        Scope::Walking,
    );
    assert!(number(halting_prior(&late, 2.0)) > 0.1);
}

/// A model whose router decides differently for different tokens.
fn model() -> Brian<TestAutodiff> {
    let mut config = small_brian(Exit::Residual, Layout::OpenArc);
    config.n_pool = 3;
    config.route.max_steps = 3;
    let model = config.init::<TestAutodiff>(31, 4, &Default::default());
    let mut kept = parameter::collect(&model);
    parameter::assign(model, |path, shape| {
        let value = kept.remove(path).unwrap().iter().collect();
        match path.starts_with("router.") {
            true => {
                let key = random::key(9, path, 0);
                let n = shape.iter().product::<usize>() as u64;
                (0..n)
                    .map(|i| 0.4 * random::normal(key, i) as f32)
                    .collect()
            }
            false => value,
        }
    })
}

fn rules(exit_objective: ExitObjective, choice_gradient: ChoiceGradient) -> Rules {
    Rules {
        policy: Policy::Router {
            teacher: None,
            select: Select::Argmax,
        },
        exit_objective,
        choice_gradient,
        with_gradients: true,
        ..Rules::sequential()
    }
}

/// The task: some smooth function of the logits.
fn task(model: &Brian<TestAutodiff>, rules: &Rules) -> Tensor<TestAutodiff, 1> {
    let input = (0..20).map(|t| t * 11 % 31).collect();
    let row = SequenceInfo {
        sequence: 1,
        difficulty: None,
    };
    let (logits, _) = model.forward(tokens(&[input]), rules, &[row]);
    logits.tanh().square().mean()
}

/// Gradients of the bias of the router's output, per action.
fn gradient(exit_objective: ExitObjective, choice_gradient: ChoiceGradient) -> Vec<f32> {
    let model = model();
    let rules = rules(exit_objective, choice_gradient);
    let gradients = task(&model, &rules).backward();
    let bias = model.router.output.bias.as_ref().unwrap();
    bias.grad(&gradients).map_or(vec![0.0; 4], values)
}

#[test]
fn the_task_reaches_out_and_the_choice_only_where_the_objective_says_so() {
    let hard = ExitObjective::Legacy { hard: true };
    let silent = gradient(hard, ChoiceGradient::Legacy);
    assert_eq!(
        silent, [0.0; 4],
        "top-1 and legacy: no gradient of the task at all"
    );
    for choice_gradient in [ChoiceGradient::Gated, ChoiceGradient::StraightThrough] {
        let found = gradient(hard, choice_gradient);
        assert_eq!(
            found[3], 0.0,
            "the choice among blocks is not OUT's: {found:?}"
        );
        assert!(
            found[..3].iter().any(|entry| entry.abs() > 1e-6),
            "{found:?}"
        );
    }
    for exit_objective in [ExitObjective::SoftMixture, ExitObjective::StraightThrough] {
        let found = gradient(exit_objective, ChoiceGradient::Legacy);
        assert!(found[3].abs() > 1e-6, "{exit_objective:?}: {found:?}");
    }
}

#[test]
fn straight_through_changes_gradients_and_no_value() {
    let model = model();
    let legacy = rules(ExitObjective::Legacy { hard: true }, ChoiceGradient::Legacy);
    let straight = rules(
        ExitObjective::StraightThrough,
        ChoiceGradient::StraightThrough,
    );
    let found = [legacy, straight].map(|rules| values(task(&model, &rules)));
    assert_eq!(found[0], found[1]);
}

#[test]
fn the_gradient_of_a_mixture_is_that_of_its_value() {
    let model = model();
    let rules = rules(ExitObjective::SoftMixture, ChoiceGradient::Legacy);
    let out = gradient(ExitObjective::SoftMixture, ChoiceGradient::Legacy)[3];
    // A shift of OUT's bias moves no choice among the blocks, so the value is smooth in it.
    let shifted = |by: f32| {
        let mut kept = parameter::collect(&model);
        let shifted = parameter::assign(model.clone(), |path, _| {
            let mut value: Vec<f32> = kept.remove(path).unwrap().iter().collect();
            if path == "router.output.bias" {
                value[3] += by;
            }
            value
        });
        values(task(&shifted, &rules))[0]
    };
    let step = 0.05;
    let slope = (shifted(step) - shifted(-step)) / (2.0 * step);
    assert!(
        (slope - out).abs() < 0.02 * out.abs() + 1e-6,
        "{slope} and {out}"
    );
}

#[test]
fn the_smallest_walks_have_finite_losses_and_gradients() {
    let all = RouteLosses {
        scope: Scope::Walking,
        imitation: 1.0,
        balance: 1.0,
        selected_balance: 1.0,
        coverage_floor: 1.0,
        coverage_least: 0.5,
        transition_diversity: 1.0,
        cost: 1.0,
        location: 1.0,
        exit_boundary: 1.0,
        input_anchor: 1.0,
        halting_prior: 1.0,
        halting_steps: 2.0,
    };
    let exits = [
        ExitObjective::Legacy { hard: true },
        ExitObjective::SoftMixture,
        ExitObjective::StraightThrough,
    ];
    for (n_pool, max_steps, scope) in [
        (1, 1, Scope::Walking),
        (2, 1, Scope::LastToken),
        (1, 3, Scope::Walking),
    ] {
        for exit_objective in exits {
            let mut config = small_brian(Exit::Residual, Layout::OpenArc);
            (config.n_pre, config.n_pool, config.n_post) = (0, n_pool, 0);
            config.route.max_steps = max_steps;
            config.route.top_k = 2;
            let model = config.init::<TestAutodiff>(31, 4, &Default::default());
            let mut rules = rules(exit_objective, ChoiceGradient::StraightThrough);
            rules.policy = Policy::Blend {
                teacher: Teacher::MixedSkipRecur,
                router_probability: 0.5,
                select: Select::Argmax,
            };
            rules.constraint.self_recurrence_cap = 1;
            let rows = [0, 2].map(|difficulty| SequenceInfo {
                sequence: difficulty.into(),
                difficulty: Some(difficulty),
            });
            let (logits, trace) = model.forward(tokens(&[vec![3], vec![7]]), &rules, &rows);
            let losses = RouteLosses { scope, ..all };
            let terms = losses.terms(&trace, &model.position, &rules, &[true, false]);
            let sum = terms
                .into_iter()
                .map(|term| term.value)
                .fold(logits.mean(), |sum, term| sum + term);
            assert!(
                values(sum.clone())[0].is_finite(),
                "{n_pool} {max_steps} {exit_objective:?}"
            );
            let gradients = sum.backward();
            let router = values(model.router.output.weight.grad(&gradients).unwrap());
            assert!(router.iter().all(|entry| entry.is_finite()));
        }
    }
}

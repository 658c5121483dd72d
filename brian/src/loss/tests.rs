//! Tests of all losses: values and gradients against plain arithmetic in float64 and examples worked out on paper, with both
//! scopes, padding, certain routers and terms of weight zero.

use super::input_anchor::input_anchor;
use super::language;
use super::route::{RouteLosses, Term};
use super::view::{Scope, View};
use super::z_loss::z_loss;
use crate::ops::composed::here::composed;
use crate::ops::tests::Learning;
use crate::random;
use crate::route::constraint::Constraint;
use crate::route::position::{Injection, Layout, PositionConfig, Positions, Reach, StartPosition};
use crate::route::rules::{ExitObjective, Rules};
use crate::route::trace::{Decisions, Move, Origin, Trace, TraceStep, Walks};
use burn::module::Param;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Int, Tensor, TensorData};

type Matrix = Tensor<Learning, 2>;

/// All terms of a walk, in the order in which they are given; that of the start has no walk.
const NAMES: [&str; 9] = [
    "imitation",
    "balance",
    "selected_balance",
    "coverage_floor",
    "transition_diversity",
    "cost",
    "location",
    "exit_boundary",
    "halting_prior",
];

const D_POSITION: usize = 2;

/// What a pass with one term alone weighs.
fn only(name: &str, weight: f64, scope: Scope) -> RouteLosses {
    let mut losses = RouteLosses {
        scope,
        coverage_least: 0.3,
        halting_steps: 3.0,
        ..RouteLosses::NONE
    };
    *match name {
        "imitation" => &mut losses.imitation,
        "balance" => &mut losses.balance,
        "selected_balance" => &mut losses.selected_balance,
        "coverage_floor" => &mut losses.coverage_floor,
        "transition_diversity" => &mut losses.transition_diversity,
        "cost" => &mut losses.cost,
        "location" => &mut losses.location,
        "exit_boundary" => &mut losses.exit_boundary,
        "input_anchor" => &mut losses.input_anchor,
        "halting_prior" => &mut losses.halting_prior,
        other => panic!("no term {other}"),
    } = weight;
    losses
}

/// What was walked, and which of the tokens count.
#[derive(Clone)]
struct Case {
    batch: usize,
    seq: usize,
    n_pool: usize,
    max_steps: usize,
    /// What has a gradient: of every step the logits of all tokens, of every step where they stand, and where the actions lie.
    inputs: Vec<Vec<f64>>,
    /// By step.
    actions: Vec<Vec<usize>>,
    origins: Vec<Vec<Origin>>,
    targets: Vec<Vec<usize>>,
    valid: Vec<bool>,
    rules: Rules,
    scope: Scope,
}

impl Case {
    /// Any walk there can be.
    fn drawn(seed: u64) -> Self {
        let key = random::key(seed, "case", 0);
        let mut place = 0;
        let mut below = |n: usize| {
            place += 1;
            (random::bits(key, place) % n as u64) as usize
        };
        let (batch, seq, n_pool) = (1 + below(3), 1 + below(3), 1 + below(3));
        let n_steps = 1 + below(4);
        let (n, n_actions) = (batch * seq, n_pool + 1);
        let objectives = [
            ExitObjective::Legacy { hard: true },
            ExitObjective::SoftMixture,
            ExitObjective::Legacy { hard: false },
            ExitObjective::StraightThrough,
        ];
        let exit_objective = objectives[seed as usize % 4];
        let mut walks_on = vec![true; n];
        let (mut actions, mut origins, mut targets) = (vec![], vec![], vec![]);
        for _ in 0..n_steps {
            let walked = walks_on.clone();
            let action = |token: usize| match walks_on[token] {
                true => below(n_actions),
                false => n_pool,
            };
            actions.push((0..n).map(action).collect::<Vec<_>>());
            let said = [
                Origin::Router,
                Origin::Teacher,
                Origin::Random,
                Origin::Last,
            ];
            let origin = |&walks: &bool| match walks {
                true => said[below(said.len())],
                false => Origin::Left,
            };
            origins.push(walked.iter().map(origin).collect());
            targets.push((0..n).map(|_| below(n_actions)).collect());
            let taken = actions.last().expect("just pushed");
            for (walks_on, &action) in walks_on.iter_mut().zip(taken) {
                *walks_on &= action < n_pool || !exit_objective.hard();
            }
        }
        let widths = [n * n_actions, n * D_POSITION].map(|size| vec![size; n_steps]);
        let sizes = widths.concat().into_iter().chain([n_actions * D_POSITION]);
        // As float32 holds them, so that both ways start from the same numbers.
        let input = |(index, size)| {
            let key = random::key(seed, "input", index);
            let value = |place| f64::from(random::normal(key, place) as f32);
            (0..size as u64).map(value).collect()
        };
        Self {
            batch,
            seq,
            n_pool,
            max_steps: n_steps + below(2),
            inputs: (0..).zip(sizes).map(input).collect(),
            actions,
            origins,
            targets,
            // The first one counts, so that something does.
            valid: (0..n).map(|token| token == 0 || below(3) > 0).collect(),
            rules: Rules {
                exit_objective,
                with_gradients: true,
                constraint: Constraint {
                    exit_ramp_start: below(3),
                    min_exit_step: 1 + below(2),
                    ..Constraint::NONE
                },
                ..Rules::sequential()
            },
            scope: match seed % 5 {
                0 => Scope::LastToken,
                _ => Scope::Walking,
            },
        }
    }

    /// The record of it, and its inputs as tensors.
    fn trace(&self) -> (Trace<Learning>, Vec<Matrix>) {
        let (n, n_actions, n_steps) = (self.valid.len(), self.n_pool + 1, self.actions.len());
        let leaf = |(index, values): (usize, &Vec<f64>)| {
            let width = if index < n_steps {
                n_actions
            } else {
                D_POSITION
            };
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            let dims = [values.len() / width, width];
            Tensor::from_data(TensorData::new(values, dims), &Default::default()).require_grad()
        };
        let leaves: Vec<Matrix> = self.inputs.iter().enumerate().map(leaf).collect();
        let step = |step: usize| TraceStep {
            logits: leaves[step].clone(),
            last_move: Move {
                probabilities: softmax(leaves[step].clone(), 1),
                position: leaves[n_steps + step].clone(),
                of_actions: leaves[2 * n_steps].clone(),
            },
        };
        let decisions = |step: usize| Decisions {
            actions: self.actions[step].clone(),
            origins: self.origins[step].clone(),
            targets: Some(self.targets[step].clone()),
            ..Decisions::default()
        };
        assert_eq!(n, self.batch * self.seq);
        let walks = Walks {
            batch: self.batch,
            seq: self.seq,
            n_pool: self.n_pool,
            max_steps: self.max_steps,
            hard_exit: self.rules.exit_objective.hard(),
            steps: (0..n_steps).map(decisions).collect(),
            ..Walks::default()
        };
        let steps = (0..n_steps).map(step).collect();
        (Trace { walks, steps }, leaves)
    }

    /// The only term of a pass, and the inputs that it has gradients for.
    fn term(&self, losses: &RouteLosses) -> (Term<Learning>, Vec<Matrix>) {
        let (trace, leaves) = self.trace();
        let mut terms = losses.terms(&trace, &positions(), &self.rules, &self.valid);
        assert_eq!(terms.len(), 1, "{losses:?}");
        (terms.remove(0), leaves)
    }

    fn value(&self, name: &str) -> f64 {
        number(&self.term(&only(name, 1.0, self.scope)).0.value)
    }

    fn probabilities(&self, inputs: &[Vec<f64>], step: usize, token: usize) -> Vec<f64> {
        let n_actions = self.n_pool + 1;
        let logits = &inputs[step][token * n_actions..][..n_actions];
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        logits.iter().map(|logit| logit.exp() / total).collect()
    }

    /// The probability that a token is still there at a step.
    fn alive(&self, inputs: &[Vec<f64>], step: usize, token: usize) -> f64 {
        if self.scope == Scope::LastToken || !self.rules.exit_objective.hard() {
            return 1.0;
        }
        let stays = |step| 1.0 - self.probabilities(inputs, step, token)[self.n_pool];
        (0..step).map(stays).product()
    }

    /// The tokens that count.
    fn counted(&self) -> Vec<usize> {
        match self.scope {
            Scope::Walking => (0..self.valid.len())
                .filter(|&token| self.valid[token])
                .collect(),
            Scope::LastToken => (0..self.batch)
                .map(|row| row * self.seq + self.seq - 1)
                .collect(),
        }
    }

    /// How much a decision counts, whatever becomes of the inputs.
    fn weight(&self, step: usize, token: usize) -> f64 {
        let there = self.origins[step][token] != Origin::Left;
        match (self.scope, self.rules.exit_objective) {
            (Scope::LastToken, _) => 1.0,
            (_, ExitObjective::SoftMixture) if there => self.alive(&self.inputs, step, token),
            _ => f64::from(u8::from(there)),
        }
    }

    /// The term by its equation, at these inputs: counts stay what they are here, but move as the probabilities do.
    fn plain(&self, name: &str, inputs: &[Vec<f64>]) -> f64 {
        let (n_pool, n_steps) = (self.n_pool, self.actions.len());
        let counted = self.counted();
        let p = |step, token, action: usize| self.probabilities(inputs, step, token)[action];
        let moved = |step, token, action: usize| {
            p(step, token, action) - self.probabilities(&self.inputs, step, token)[action]
        };
        let hot = |step: usize, token: usize, block| {
            f64::from(u8::from(self.actions[step][token] == block))
        };
        let mean = |of: &dyn Fn(usize, usize) -> f64| {
            let (mut sum, mut whole) = (0.0, 0.0);
            for (step, &token) in (0..n_steps).flat_map(|s| counted.iter().map(move |t| (s, t))) {
                sum += self.weight(step, token) * of(step, token);
                whole += self.weight(step, token);
            }
            sum / whole
        };
        let of_tokens = |of: &dyn Fn(usize) -> f64| {
            counted.iter().map(|&token| of(token)).sum::<f64>() / counted.len() as f64
        };
        let pool = 0..n_pool;
        let n = n_pool as f64;
        let load = |block| mean(&|s, t| hot(s, t, block) + moved(s, t, block));
        match name {
            "imitation" => mean(&|s, t| -p(s, t, self.targets[s][t]).ln()),
            "balance" => {
                let share = |block| mean(&|s, t| p(s, t, block));
                pool.map(|block| (share(block) - 1.0 / n).powi(2))
                    .sum::<f64>()
                    / n
            }
            "selected_balance" => {
                let blocks = pool.clone();
                let executed = mean(&|s, t| blocks.clone().map(|block| hot(s, t, block)).sum());
                pool.map(|block| (load(block) - executed / n).powi(2))
                    .sum::<f64>()
                    / n
            }
            "coverage_floor" => pool.map(|block| (0.3 - load(block)).max(0.0)).sum(),
            "transition_diversity" => self.plain_diversity(inputs),
            "cost" => of_tokens(&|t| {
                let step = |s| self.alive(inputs, s, t) * (1.0 - p(s, t, n_pool));
                (0..n_steps).map(step).sum()
            }),
            "location" => mean(&|s, t| {
                let squares = |action: usize| {
                    let here = &inputs[n_steps + s][t * D_POSITION..][..D_POSITION];
                    let there = &inputs[2 * n_steps][action * D_POSITION..][..D_POSITION];
                    let square = |(a, b): (&f64, &f64)| (a - b).powi(2);
                    here.iter().zip(there).map(square).sum::<f64>()
                };
                (0..=n_pool).map(|a| p(s, t, a) * squares(a)).sum()
            }),
            "exit_boundary" => mean(&|s, t| {
                let target = self.rules.constraint.exit_target(s, self.max_steps);
                let out = p(s, t, n_pool);
                -target * out.ln() - (1.0 - target) * (1.0 - out).ln()
            }),
            "halting_prior" => of_tokens(&|t| {
                // Two thirds as likely at every step, three in the mean; the last entry is whoever never leaves.
                let total: f64 = (0..=n_steps).map(|s| (2.0f64 / 3.0).powi(s as i32)).sum();
                let share = |s: usize| match s == n_steps {
                    true => self.alive(inputs, s - 1, t) * (1.0 - p(s - 1, t, n_pool)),
                    false => self.alive(inputs, s, t) * p(s, t, n_pool),
                };
                let term =
                    |s: usize| share(s) * (share(s) * total / (2.0f64 / 3.0).powi(s as i32)).ln();
                (0..=n_steps).map(term).sum()
            }),
            other => panic!("no term {other}"),
        }
    }

    fn plain_diversity(&self, inputs: &[Vec<f64>]) -> f64 {
        let m = self.n_pool;
        let mut weights = 0.0;
        let (mut counts, mut loads) = (vec![0.0; m * m], vec![0.0; m * m]);
        for (step, token) in
            (1..self.actions.len()).flat_map(|s| self.counted().into_iter().map(move |t| (s, t)))
        {
            let weight = self.weight(step - 1, token) * self.weight(step, token);
            weights += weight;
            let pair = |inputs: &[Vec<f64>], i: usize| {
                let [from, to] = [step - 1, step].map(|s| self.probabilities(inputs, s, token));
                from[i / m] * to[i % m]
            };
            for (i, (made, load)) in counts.iter_mut().zip(&mut loads).enumerate() {
                let moves =
                    self.actions[step - 1][token] == i / m && self.actions[step][token] == i % m;
                let count = f64::from(u8::from(moves));
                *made += weight * count;
                *load += weight * (count + pair(inputs, i) - pair(&self.inputs, i));
            }
        }
        let total: f64 = counts.iter().sum();
        if m < 2 || total == 0.0 {
            return 0.0;
        }
        assert!(weights > 0.0);
        // A move that nobody made has no share and none to gain: its logarithm is cut off.
        let made = (0..m * m).filter(|&i| counts[i] > 0.0);
        let term = |i: usize| loads[i] / total * (loads[i] / total).ln();
        1.0 + made.map(term).sum::<f64>() / ((m * m) as f64).ln()
    }
}

fn positions() -> Positions<Learning> {
    let config = PositionConfig {
        d_position: D_POSITION,
        layout: Layout::OpenArc,
        start: StartPosition::Learned,
        injection: Injection::Adapter,
        into: Reach::Both,
    };
    let mut positions = Positions::new(&config, 3, &Default::default());
    let embeddings = [[3.0, 4.0], [0.0, 2.0], [9.0, 9.0]];
    positions.embeddings = Param::from_data(embeddings, &Default::default());
    positions.start = Some(Param::from_data([2.0, 0.0], &Default::default()));
    positions
}

fn number(value: &Tensor<Learning, 1>) -> f64 {
    f64::from(value.clone().into_scalar())
}

/// Values in float32 are sums of some dozens of numbers about 1.
fn close(found: f64, expected: f64, what: &str) {
    let bound = 1e-5 * expected.abs().max(1.0);
    assert!(
        (found - expected).abs() < bound,
        "{what}: {found} and not {expected}"
    );
}

#[test]
fn every_term_and_its_gradient_is_what_plain_arithmetic_says() {
    for seed in 0..16 {
        let case = Case::drawn(seed);
        for name in NAMES {
            let what = format!("{name} of case {seed}");
            let (term, leaves) = case.term(&only(name, 0.5, case.scope));
            assert_eq!((term.name, term.weight), (name, 0.5));
            close(number(&term.value), case.plain(name, &case.inputs), &what);
            // A term that is a mere zero is tied to the inputs, so that there is something to go back to.
            let tied = leaves[0].clone().sum() * 0.0;
            let gradients = (term.value + tied).backward();
            for (index, leaf) in leaves.iter().enumerate() {
                let found: Vec<f32> = match leaf.grad(&gradients) {
                    Some(gradient) => gradient.into_data().iter().collect(),
                    None => vec![0.0; case.inputs[index].len()],
                };
                for (place, found) in found.into_iter().enumerate() {
                    let at = |shift: f64| {
                        let mut inputs = case.inputs.clone();
                        inputs[index][place] += shift;
                        case.plain(name, &inputs)
                    };
                    let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                    close(
                        f64::from(found),
                        slope,
                        &format!("{what}, gradient {index} {place}"),
                    );
                }
            }
        }
    }
}

/// Three tokens that count and one of padding, which walks a step more than all others.
///
/// | token | executes | probabilities of block 0, block 1, OUT |
/// |---|---|---|
/// | 0 | 0, 1, OUT | ½ ¼ ¼, then ¼ ½ ¼, then ¼ ¼ ½ |
/// | 1 | OUT | ¼ ¼ ½ |
/// | 2 | 1, OUT | ¼ ½ ¼, then ¼ ¼ ½ |
fn on_paper() -> Case {
    let (first, second, out) = ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]);
    let padding = [0.01, 0.9, 0.09];
    let probabilities = [
        [first, out, second, padding],
        [second, out, out, padding],
        [out, out, out, padding],
        [out, out, out, padding],
    ];
    let logits = probabilities.map(|step| step.concat().iter().map(|p: &f64| p.ln()).collect());
    let standing = std::array::from_fn::<_, 4, _>(|_| vec![0.0; 4 * D_POSITION]);
    let places = vec![1.0, 0.0, 0.0, 2.0, 0.0, 0.0];
    let (router, left) = (Origin::Router, Origin::Left);
    Case {
        batch: 2,
        seq: 2,
        n_pool: 2,
        max_steps: 4,
        inputs: logits.into_iter().chain(standing).chain([places]).collect(),
        actions: vec![
            vec![0, 2, 1, 1],
            vec![1, 2, 2, 1],
            vec![2, 2, 2, 1],
            vec![2, 2, 2, 1],
        ],
        origins: vec![
            vec![router; 4],
            vec![router, left, router, router],
            vec![router, left, left, router],
            vec![left, left, left, router],
        ],
        targets: vec![vec![0; 4]; 4],
        valid: vec![true, true, true, false],
        rules: Rules {
            exit_objective: ExitObjective::Legacy { hard: true },
            ..Rules::sequential()
        },
        scope: Scope::Walking,
    }
}

#[test]
fn every_term_is_what_paper_says() {
    let case = on_paper();
    let ln2 = 2.0f64.ln();
    // The tokens leave at steps 1 to 4 and after them with these probabilities; of the prior two thirds are left from step to step.
    let halting = [
        [1.0 / 4.0, 3.0 / 16.0, 9.0 / 32.0, 9.0 / 64.0, 9.0 / 64.0],
        [1.0 / 2.0, 1.0 / 4.0, 1.0 / 8.0, 1.0 / 16.0, 1.0 / 16.0],
        [1.0 / 4.0, 3.0 / 8.0, 3.0 / 16.0, 3.0 / 32.0, 3.0 / 32.0],
    ];
    let prior = [81.0, 54.0, 36.0, 24.0, 16.0].map(|weight: f64| weight / 211.0);
    let divergence = |shares: &[f64; 5]| {
        shares
            .iter()
            .zip(prior)
            .map(|(p, q)| p * (p / q).ln())
            .sum::<f64>()
    };
    let expected = [
        // Six decisions: one says the teacher's action with ½, five with ¼.
        ("imitation", 11.0 / 6.0 * ln2),
        // The means of p are 7/24 and 8/24, and 12/24 each would be even.
        ("balance", f64::midpoint(25.0, 16.0) / 576.0),
        // Block 0 was executed once and block 1 twice in six decisions: 1/12 from 1/4 both.
        ("selected_balance", 1.0 / 144.0),
        ("coverage_floor", 0.3 - 1.0 / 6.0),
        // The only move is from 0 to 1.
        ("transition_diversity", 1.0),
        // 3/4 + 9/16 + 9/32 + 9/64, and 15/16, and 3/4 · 15/8.
        ("cost", (111.0 + 60.0 + 90.0) / 64.0 / 3.0),
        // Block 0 is 1 away, block 1 2, OUT is where everybody stands.
        ("location", 7.0 / 24.0 + 4.0 * 8.0 / 24.0),
        // Nobody is there at the last step, and before it nobody should leave: three times 3/4, three times ½.
        (
            "exit_boundary",
            (3.0 * (4.0f64 / 3.0).ln() + 3.0 * ln2) / 6.0,
        ),
        (
            "halting_prior",
            halting.iter().map(divergence).sum::<f64>() / 3.0,
        ),
    ];
    for (name, expected) in expected {
        close(case.value(name), expected, name);
    }
}

#[test]
fn the_reference_counts_the_last_token_of_every_sequence_to_the_end() {
    let case = Case {
        scope: Scope::LastToken,
        ..on_paper()
    };
    let (ln2, ln100) = (2.0f64.ln(), 100.0f64.ln());
    let expected = [
        // Of token 1 four times ¼, of the padded one four times 0.01: whoever left decides on.
        ("imitation", (4.0 * 2.0 * ln2 + 4.0 * ln100) / 8.0),
        ("cost", (4.0 * 0.5 + 4.0 * 0.91) / 2.0),
        ("selected_balance", 1.0 / 16.0),
        ("coverage_floor", 0.3),
        // The padded token repeats block 1, and the other makes no move.
        ("transition_diversity", 1.0),
        // The last step wants OUT, the three before do not.
        (
            "exit_boundary",
            (3.0 * ln2 + ln2 - 3.0 * 0.91f64.ln() - 0.09f64.ln()) / 8.0,
        ),
    ];
    for (name, expected) in expected {
        close(case.value(name), expected, name);
    }
}

#[test]
fn a_router_that_is_certain_has_finite_terms_and_gradients() {
    // Sure to leave at once, where it should not, and sure to stay, where it should leave.
    let certain = |inputs: Vec<Vec<f64>>| {
        let n_steps = inputs.len();
        let standing = vec![vec![0.0; D_POSITION]; n_steps];
        Case {
            batch: 1,
            seq: 1,
            max_steps: n_steps,
            inputs: inputs
                .into_iter()
                .chain(standing)
                .chain([vec![0.0; 3 * D_POSITION]])
                .collect(),
            actions: vec![vec![0]; n_steps],
            origins: vec![vec![Origin::Router]; n_steps],
            targets: vec![vec![0]; n_steps],
            valid: vec![true],
            ..on_paper()
        }
    };
    let (leaves, stays) = (vec![0.0, 0.0, 200.0], vec![200.0, 0.0, 0.0]);
    let leaving = certain(vec![leaves.clone(), stays.clone()]);
    let staying = certain(vec![stays]);
    for name in NAMES {
        for case in [&leaving, &staying] {
            let (term, inputs) = case.term(&only(name, 1.0, Scope::Walking));
            let tied = inputs[0].clone().sum() * 0.0;
            assert!(number(&term.value).is_finite(), "{name}");
            let gradients = (term.value + tied).backward();
            let of_logits = inputs[0].grad(&gradients).expect("it is tied").into_data();
            assert!(of_logits.iter::<f32>().all(f32::is_finite), "{name}");
        }
    }
    // A millionth is left of each certainty. In float32 one less a millionth is known to 6 %.
    let certain = 1e6f64.ln();
    assert!((staying.value("exit_boundary") - certain).abs() < 1e-3);
    assert!((leaving.value("exit_boundary") - certain).abs() < 0.1);
    // All at the first of two steps and what is behind them, whose share of the prior is 9 of 19.
    let early = leaving.value("halting_prior");
    assert!((early - (19.0f64 / 9.0).ln()).abs() < 1e-4, "{early}");
    // All behind the last of one step: 2 of 5.
    let late = staying.value("halting_prior");
    assert!((late - (5.0f64 / 2.0).ln()).abs() < 1e-4, "{late}");
}

#[test]
fn a_padded_token_costs_nothing_whatever_it_does() {
    for seed in 0..6 {
        let case = Case {
            scope: Scope::Walking,
            ..Case::drawn(seed)
        };
        let mut other = case.clone();
        let (n_steps, n_actions) = (case.actions.len(), case.n_pool + 1);
        for token in (0..case.valid.len()).filter(|&token| !case.valid[token]) {
            for step in 0..n_steps {
                other.inputs[step][token * n_actions..][..n_actions].rotate_left(1);
                other.inputs[step][token * n_actions] += 3.0;
                other.inputs[n_steps + step][token * D_POSITION] -= 2.0;
                other.actions[step][token] = (case.actions[step][token] + 1) % n_actions;
                other.origins[step][token] = Origin::Router;
                other.targets[step][token] = 0;
            }
        }
        for name in NAMES {
            assert_eq!(case.value(name), other.value(name), "{name} of case {seed}");
        }
    }
}

#[test]
fn sequences_may_come_in_any_order() {
    for seed in 0..6 {
        let case = Case::drawn(seed);
        let mut turned = case.clone();
        let n_steps = case.actions.len();
        for (index, input) in turned.inputs.iter_mut().enumerate().take(2 * n_steps) {
            let of_sequence = case.inputs[index].len() / case.batch;
            *input = case.inputs[index]
                .rchunks(of_sequence)
                .flatten()
                .copied()
                .collect();
        }
        fn back<T: Clone>(of_tokens: &mut Vec<T>, seq: usize) {
            *of_tokens = of_tokens.rchunks(seq).flatten().cloned().collect();
        }
        turned
            .actions
            .iter_mut()
            .for_each(|step| back(step, case.seq));
        turned
            .origins
            .iter_mut()
            .for_each(|step| back(step, case.seq));
        turned
            .targets
            .iter_mut()
            .for_each(|step| back(step, case.seq));
        back(&mut turned.valid, case.seq);
        for name in NAMES {
            close(
                turned.value(name),
                case.value(name),
                &format!("{name} of case {seed}"),
            );
        }
    }
}

#[test]
fn a_term_of_weight_zero_is_absent_and_the_others_keep_their_order_and_weight() {
    let case = on_paper();
    let terms = |losses: &RouteLosses| {
        let (trace, _) = case.trace();
        let terms = losses.terms(&trace, &positions(), &case.rules, &case.valid);
        terms
            .into_iter()
            .map(|term| (term.name, term.weight))
            .collect::<Vec<_>>()
    };
    let all = RouteLosses {
        imitation: 0.1,
        balance: 0.2,
        selected_balance: 0.3,
        coverage_floor: 0.4,
        transition_diversity: 0.5,
        cost: 0.6,
        location: 0.7,
        exit_boundary: 0.8,
        input_anchor: 0.9,
        halting_prior: 1.0,
        ..only("cost", 0.0, Scope::Walking)
    };
    let mut expected: Vec<(&str, f64)> = NAMES
        .into_iter()
        .zip([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0])
        .collect();
    expected.insert(8, ("input_anchor", 0.9));
    assert_eq!(terms(&all), expected);
    assert_eq!(terms(&RouteLosses::NONE), []);
    for (name, _) in expected {
        assert_eq!(terms(&only(name, 0.0, Scope::Walking)), []);
    }
    // A walk that nobody taught is not imitated; one at which the router was not asked has no terms.
    let (mut trace, _) = case.trace();
    trace.walks.steps[2].targets = None;
    let terms = |trace| all.terms(&trace, &positions(), &case.rules, &case.valid);
    assert_eq!(terms(trace.clone()).len(), 9);
    trace.steps.clear();
    assert_eq!(terms(trace).len(), 0);
}

#[test]
fn the_scopes_count_other_tokens() {
    let case = on_paper();
    let weights = |scope, rules: &Rules| {
        let view = View::new(&case.trace().0, rules, scope, &case.valid).expect("it was asked");
        let steps = view
            .steps
            .iter()
            .map(|step| step.weight.clone().into_data().to_vec::<f32>());
        let counted = view
            .counted
            .into_data()
            .to_vec::<f32>()
            .expect("as it was made");
        (
            counted,
            steps
                .map(|step| step.expect("as it was made"))
                .collect::<Vec<_>>(),
        )
    };
    let walked = vec![
        vec![1., 1., 1., 0.],
        vec![1., 0., 1., 0.],
        vec![1., 0., 0., 0.],
        vec![0.; 4],
    ];
    assert_eq!(
        weights(Scope::Walking, &case.rules),
        (vec![1., 1., 1., 0.], walked)
    );
    let of_last = (vec![1., 1.], vec![vec![1., 1.]; 4]);
    assert_eq!(weights(Scope::LastToken, &case.rules), of_last);
    let mixing = Rules {
        exit_objective: ExitObjective::SoftMixture,
        with_gradients: true,
        ..case.rules.clone()
    };
    // By what is left of the first token: 1, 3/4, 9/16, and it is not there at the last step.
    let (_, mixed) = weights(Scope::Walking, &mixing);
    let of_first: Vec<f32> = mixed.iter().map(|step| step[0]).collect();
    for (found, expected) in of_first.into_iter().zip([1.0, 0.75, 0.5625, 0.0]) {
        close(f64::from(found), expected, "what is left");
    }
    let resting = Rules {
        with_gradients: false,
        ..mixing
    };
    assert_eq!(
        weights(Scope::Walking, &resting),
        weights(Scope::Walking, &case.rules)
    );
}

#[test]
fn a_step_at_which_nobody_counts_has_finite_terms_and_gradients() {
    let mut case = on_paper();
    case.valid = vec![false; 4];
    for name in NAMES {
        let (term, leaves) = case.term(&only(name, 1.0, Scope::Walking));
        assert!(number(&term.value).is_finite(), "{name}");
        let gradients = term.value.backward();
        for leaf in leaves.iter().filter_map(|leaf| leaf.grad(&gradients)) {
            assert!(
                leaf.into_data().iter::<f32>().all(|entry| entry == 0.0),
                "{name}"
            );
        }
    }
}

#[test]
fn a_start_is_drawn_to_the_middle_of_the_blocks_and_out_is_none() {
    let positions = positions();
    // At unit length the blocks lie at (0.6, 0.8) and (0, 1) with the middle (0.3, 0.9), and the start at (1, 0).
    let distance = input_anchor(&positions);
    close(number(&distance), 0.49 + 0.81, "the distance");
    let gradients = distance.backward();
    // Only what is across the start moves it: twice −0.9 over its length, 2.
    let start = positions.start.as_ref().expect("a learned one").val();
    let start: Vec<f32> = start
        .grad(&gradients)
        .expect("a gradient")
        .into_data()
        .iter()
        .collect();
    for (found, expected) in start.into_iter().zip([0.0, -0.9]) {
        close(f64::from(found), expected, "the gradient");
    }
    let of_blocks = positions.embeddings.val().grad(&gradients);
    assert!(of_blocks.is_none_or(|gradient| gradient.abs().sum().into_scalar() == 0.0));
    let mut at_block = positions;
    at_block.start = None;
    assert_eq!(number(&input_anchor(&at_block)), 0.0);
}

/// In the precision that has a pass of its own, and in one that is composed of tensor operations.
#[test]
fn the_nats_of_a_target_are_those_of_its_own_position() {
    let (batch, seq, vocabulary) = (2, 3, 5);
    let key = random::key(1, "logits", 0);
    let logits: Vec<f32> = (0..30)
        .map(|place| 3.0 * random::normal(key, place) as f32)
        .collect();
    let targets = [[4i64, 0, 2], [1, 1, 3]];
    // Each position with a weight of its own, so that no gradient can be that of a neighbour.
    let weights = [[1.0, 2.0, 0.0], [-1.0, 0.5, 3.0]];
    for dtype in [DType::F32, DType::F64] {
        let (device, data) = (
            Default::default(),
            TensorData::new(logits.clone(), [batch, seq, vocabulary]),
        );
        let input = Tensor::<Learning, 3>::from_data(data, (&device, dtype)).require_grad();
        let nats = language::token_losses(
            input.clone(),
            Tensor::<Learning, 2, Int>::from_data(targets, &device),
        );
        assert_eq!(nats.dims(), [batch, seq]);
        let weighted = nats.clone() * Tensor::from_data(weights, (&device, dtype));
        let gradient = input.grad(&weighted.sum().backward()).expect("a gradient");
        let gradient: Vec<f64> = gradient.into_data().iter().collect();
        let nats: Vec<f64> = nats.into_data().iter().collect();
        let positions = targets.iter().flatten().zip(weights.iter().flatten());
        for (position, (&target, weight)) in positions.enumerate() {
            let row = &logits[position * vocabulary..][..vocabulary];
            let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            let share = |id: usize| f64::from(row[id]).exp() / total;
            let target = target as usize;
            close(nats[position], -share(target).ln(), "nats");
            for id in 0..vocabulary {
                let slope = share(id) - f64::from(u8::from(id == target));
                close(
                    gradient[position * vocabulary + id],
                    weight * slope,
                    "gradient",
                );
            }
        }
    }
}

/// Rows whose exponentials sum to 1, e and e³: squares of 0, 1 and 9; the last one does not count.
#[test]
fn the_z_loss_is_the_mean_square_of_the_normaliser_over_what_counts() {
    let half = 0.5f32.ln();
    let rows = [[half, half], [1.0 + half, 1.0 + half], [3.0 + half; 2]];
    let of = |counted: [f32; 3]| {
        let device = Default::default();
        let logits = Tensor::<Learning, 3>::from_floats([rows], &device).require_grad();
        let loss = z_loss(logits.clone(), Tensor::from_floats([counted], &device));
        let gradient = logits.grad(&loss.backward()).expect("a gradient");
        let gradient: Vec<f64> = gradient.into_data().iter().collect();
        (number(&loss), gradient)
    };
    let check = || {
        let (loss, gradient) = of([1.0, 1.0, 0.0]);
        close(loss, 0.5, "of two");
        // Of a square half the mean's share times twice the root, times a probability of one half.
        for (place, expected) in [0.0, 0.0, 0.5, 0.5, 0.0, 0.0].into_iter().enumerate() {
            close(gradient[place], expected, "gradient");
        }
        close(of([1.0; 3]).0, 10.0 / 3.0, "of three");
        assert_eq!(of([0.0; 3]), (0.0, vec![0.0; 6]), "of none");
    };
    check();
    composed(check);
}

/// Against central differences in double precision, by the pass of single precision and by tensor operations of both.
#[test]
fn the_gradient_of_the_z_loss_is_its_slope() {
    const COUNTED: [[f64; 3]; 2] = [[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]];
    let key = random::key(2, "logits", 0);
    let logits: Vec<f64> = (0..30)
        .map(|place| f64::from(3.0 * random::normal(key, place) as f32))
        .collect();
    let expected = |logits: &[f64]| -> f64 {
        let rows = logits.chunks(5).zip(COUNTED.iter().flatten());
        let squares = rows.map(|(row, counts)| {
            let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
            counts * sum.ln().powi(2)
        });
        squares.sum::<f64>() / 4.0
    };
    let check = |dtype| {
        let device = Default::default();
        let data = TensorData::new(logits.clone(), [2, 3, 5]);
        let input = Tensor::<Learning, 3>::from_data(data, (&device, dtype)).require_grad();
        let counted = Tensor::from_data(COUNTED, (&device, dtype));
        let loss = z_loss(input.clone(), counted);
        let value = loss.clone().into_data().iter::<f64>().sum();
        close(value, expected(&logits), "value");
        let gradient = input.grad(&loss.backward()).expect("a gradient");
        for (place, found) in gradient.into_data().iter::<f64>().enumerate() {
            let moved = |by: f64| {
                let mut logits = logits.clone();
                logits[place] += by;
                expected(&logits)
            };
            close(found, (moved(1e-5) - moved(-1e-5)) / 2e-5, "gradient");
        }
    };
    check(DType::F32);
    check(DType::F64);
    composed(|| check(DType::F32));
}

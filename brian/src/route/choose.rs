//! `choose` decides one token's action at a step, from its adjusted logits and the teacher's target, on the host without
//! tensors; `Token` is the state of a token's walk between two steps.
//!
//! The order is part of the model: the router or the teacher proposes; exploration may put another block in its place; the
//! self-recurrence cap may forbid it; the last step may force OUT; a token that has left stays out.

use super::action::Action;
use super::draws::{Draws, Purpose};
use super::policy::{Policy, Select};
use super::rules::{ExitObjective, Rules};
use super::trace::Origin;
use std::ops::RangeInclusive;

/// The state of a token's walk between two steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    /// The sequence it belongs to.
    pub sequence: u64,
    /// Its place there.
    pub place: usize,
    /// Whether it has left.
    pub left: bool,
    /// The block it executed last, unless it chose OUT since, and how often in a row.
    pub last: Option<usize>,
    pub run: usize,
    /// The probability that it is still walking, according to the router.
    pub still: f64,
}

/// One step of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepContext<'a> {
    pub rules: &'a Rules,
    /// Counted from 0.
    pub index: usize,
    /// Of the longest walk.
    pub n_steps: usize,
    pub is_last: bool,
    pub n_pool: usize,
    /// How many of the likeliest actions are mixed.
    pub top_k: usize,
}

/// What a token does at a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chosen {
    pub action: Action,
    pub origin: Origin,
    pub fused: bool,
    /// The block that a leaving token would have run instead.
    pub forgone: Option<usize>,
    /// The index of the largest adjusted logit.
    pub best: usize,
    /// The indices of the likeliest actions, likeliest first.
    pub likeliest: Vec<usize>,
    /// The block that may not be executed once more.
    pub capped: Option<usize>,
    /// The router's probability to leave.
    pub out_probability: f64,
}

impl Chosen {
    /// A choice of one action, without anything about the router.
    pub fn alone(action: Action, origin: Origin) -> Self {
        Self {
            action,
            origin,
            fused: false,
            forgone: None,
            best: 0,
            likeliest: Vec::new(),
            capped: None,
            out_probability: 0.0,
        }
    }
}

impl Token {
    pub fn new(sequence: u64, place: usize) -> Self {
        Self {
            sequence,
            place,
            left: false,
            last: None,
            run: 0,
            still: 1.0,
        }
    }

    /// The block that may not be executed once more.
    pub fn capped(&self, cap: usize) -> Option<usize> {
        self.last.filter(|_| cap > 0 && self.run >= cap)
    }

    /// Updates the state after a step.
    pub fn go(&mut self, chosen: &Chosen, hard_exit: bool) {
        let block = chosen.action.block();
        self.run = match block {
            None => 0,
            block if block == self.last => self.run + 1,
            _ => 1,
        };
        self.last = block;
        self.left |= hard_exit && block.is_none();
        self.still *= 1.0 - chosen.out_probability;
    }
}

/// The action of a token. `logits` are adjusted, and empty if the router was not asked; `target` is the teacher's action.
pub(crate) fn choose(
    step: StepContext<'_>,
    token: &Token,
    logits: &[f32],
    target: Option<Action>,
) -> Chosen {
    let rules = step.rules;
    let draws = Lot { step, token };
    let capped = token.capped(rules.constraint.self_recurrence_cap);
    let router = (!logits.is_empty()).then(|| Router::new(step, token, logits));
    let taught = target.unwrap_or(Action::Out);
    let asked = || router.as_ref().expect("who decides is asked").action;

    let (mut action, mut origin) = match &rules.policy {
        Policy::Teacher(_) => (taught, Origin::Teacher),
        Policy::Router { .. } => (asked(), Origin::Router),
        Policy::Blend {
            router_probability, ..
        } => match draws.uniform(Purpose::Blend) < *router_probability {
            true => (asked(), Origin::Router),
            false => (taught, Origin::Teacher),
        },
    };
    let explores = rules.override_probability > 0.0 && !matches!(rules.policy, Policy::Teacher(_));
    let disturbs = || draws.uniform(Purpose::Override) < rules.override_probability;
    if explores && action != Action::Out && disturbs() {
        let mut block = draws.below(step.n_pool, Purpose::OverrideBlock);
        if Some(block) == capped {
            block = (block + 1) % step.n_pool;
        }
        (action, origin) = (Action::Block(block), Origin::Random);
    }
    if capped.map(Action::Block) == Some(action) {
        // A capped block is never the best action, and a mixture keeps the tokens walking.
        let router = router.as_ref().expect("a cap asks the router");
        action = match rules.mixes_states() {
            true => router
                .block
                .filter(|&block| Some(block) != capped)
                .map_or(Action::Out, Action::Block),
            false => Action::from_index(router.best, step.n_pool),
        };
        origin = Origin::Cap;
    }
    if step.is_last && rules.constraint.force_final_exit {
        (action, origin) = (Action::Out, Origin::Last);
    }
    if token.left {
        (action, origin) = (Action::Out, Origin::Left);
    }
    let fused = origin == Origin::Router && action != Action::Out && step.top_k > 1;
    let router = router.unwrap_or(Router::SILENT);
    let leaves = action == Action::Out && origin == Origin::Router && rules.with_gradients;
    let forgone = router
        .block
        .filter(|_| leaves && rules.exit_objective == ExitObjective::StraightThrough);
    Chosen {
        action,
        origin,
        fused,
        forgone,
        best: router.best,
        likeliest: router.likeliest,
        capped,
        out_probability: router.out_probability,
    }
}

/// The router's proposal for a token.
#[derive(Clone, Debug, PartialEq)]
struct Router {
    action: Action,
    best: usize,
    /// The best block.
    block: Option<usize>,
    likeliest: Vec<usize>,
    out_probability: f64,
}

impl Router {
    /// What a router says that was not asked.
    const SILENT: Self = Self {
        action: Action::Out,
        best: 0,
        block: None,
        likeliest: Vec::new(),
        out_probability: 0.0,
    };

    fn new(step: StepContext<'_>, token: &Token, logits: &[f32]) -> Self {
        let (rules, out) = (step.rules, step.n_pool);
        let mut likeliest = by_logit(logits);
        let best = likeliest[0];
        let block = if best == out { likeliest[1] } else { best };
        let out_probability = Shares::new(logits, 1.0, 0..=out).of(out);
        let (select, in_question) = match &rules.policy {
            Policy::Blend { select, .. } | Policy::Router { select, .. } => (*select, true),
            Policy::Teacher(_) => (Select::Argmax, false),
        };
        let draw = |actions| match select {
            Select::Sample { temperature, .. } if in_question => {
                let draw = Lot { step, token }.uniform(Purpose::Sample);
                sample(logits, temperature, actions, draw)
            }
            _ if actions == (0..=out) => best,
            _ => block,
        };
        let blocks_only = 0..=out - 1;
        let action = match rules.exit_objective {
            ExitObjective::SoftMixture if rules.with_gradients => draw(blocks_only),
            ExitObjective::SoftMixture if token.still * (1.0 - out_probability) < 0.5 => out,
            ExitObjective::SoftMixture => draw(blocks_only),
            // It goes nowhere, whatever is drawn.
            _ if token.left => out,
            _ => draw(0..=out),
        };
        if rules.leaves_apart() {
            likeliest.retain(|&action| action != out);
        }
        likeliest.truncate(step.top_k);
        Self {
            action: Action::from_index(action, out),
            best,
            block: Some(block),
            likeliest,
            out_probability,
        }
    }
}

/// Actions by falling logit, the lower one first among equals.
pub(super) fn by_logit(logits: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order
}

/// Probabilities of the actions in a range.
struct Shares<'a> {
    logits: &'a [f32],
    temperature: f64,
    largest: f64,
    total: f64,
}

impl<'a> Shares<'a> {
    fn new(logits: &'a [f32], temperature: f64, range: RangeInclusive<usize>) -> Self {
        let mut shares = Self {
            logits,
            temperature,
            largest: f64::NEG_INFINITY,
            total: 1.0,
        };
        shares.largest = range
            .clone()
            .map(|action| shares.scaled(action))
            .fold(f64::NEG_INFINITY, f64::max);
        shares.total = range.map(|action| shares.of(action)).sum();
        shares
    }

    fn scaled(&self, action: usize) -> f64 {
        f64::from(self.logits[action]) / self.temperature
    }

    fn of(&self, action: usize) -> f64 {
        (self.scaled(action) - self.largest).exp() / self.total
    }
}

/// The action at the uniform draw.
fn sample(logits: &[f32], temperature: f64, range: RangeInclusive<usize>, draw: f64) -> usize {
    let mut rest = draw;
    let shares = Shares::new(logits, temperature, range.clone());
    for action in range.clone() {
        rest -= shares.of(action);
        if rest < 0.0 {
            return action;
        }
    }
    *range.end()
}

/// The draws of a token at a step.
struct Lot<'a> {
    step: StepContext<'a>,
    token: &'a Token,
}

impl Lot<'_> {
    fn uniform(&self, purpose: Purpose) -> f64 {
        let Lot { step, token } = self;
        let draws: Draws = step.rules.draws;
        draws.uniform(purpose, token.sequence, token.place, step.index)
    }

    fn below(&self, n: usize, purpose: Purpose) -> usize {
        let Lot { step, token } = self;
        let draws: Draws = step.rules.draws;
        draws.below(n, purpose, token.sequence, token.place, step.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::constraint::{CAPPED, Constraint};
    use crate::route::policy::Teacher;

    const OUT: usize = 3;
    const TAUGHT: Option<Action> = Some(Action::Block(0));

    fn router() -> Rules {
        Rules {
            policy: Policy::Router {
                teacher: None,
                select: Select::Argmax,
            },
            ..Rules::sequential()
        }
    }

    fn step(rules: &Rules, index: usize, top_k: usize) -> StepContext<'_> {
        StepContext {
            rules,
            index,
            n_steps: 5,
            is_last: index == 4,
            n_pool: OUT,
            top_k,
        }
    }

    #[test]
    fn out_among_the_likeliest_but_not_first_does_not_leave() {
        let rules = router();
        let token = Token::new(0, 0);
        let chosen = choose(step(&rules, 0, 2), &token, &[0.0, 3.0, 1.0, 2.0], None);
        assert_eq!((chosen.action.index(OUT), chosen.fused), (1, true));
        assert_eq!(chosen.likeliest, [1, OUT]);
        let chosen = choose(step(&rules, 0, 2), &token, &[0.0, 3.0, 1.0, 4.0], None);
        assert_eq!((chosen.action.index(OUT), chosen.fused), (OUT, false));
    }

    #[test]
    fn a_cap_forbids_the_third_run_whoever_asks_for_it() {
        let constraint = Constraint {
            self_recurrence_cap: 2,
            ..Constraint::NONE
        };
        let token = Token {
            last: Some(0),
            run: 2,
            ..Token::new(0, 0)
        };
        let logits = [CAPPED, 1.0, 0.0, 0.5];
        let taught = Rules {
            policy: Policy::Teacher(Teacher::Sequential),
            constraint,
            ..router()
        };
        let chosen = choose(step(&taught, 0, 1), &token, &logits, TAUGHT);
        assert_eq!((chosen.action.index(OUT), chosen.origin), (1, Origin::Cap));
        // All overrides fall on a block; those on the capped one move on by one.
        for place in 0..50 {
            let disturbed = Rules {
                override_probability: 1.0,
                constraint,
                ..router()
            };
            let token = Token {
                place,
                ..token.clone()
            };
            let chosen = choose(step(&disturbed, 0, 2), &token, &logits, None);
            assert_eq!(chosen.origin, Origin::Random);
            assert!([1, 2].contains(&chosen.action.index(OUT)) && !chosen.fused);
        }
    }

    #[test]
    fn a_run_ends_with_another_block_and_with_out() {
        let rules = router();
        let mut token = Token::new(0, 0);
        let mut runs = Vec::new();
        for best in [0, 0, 1, OUT, 1] {
            let mut logits = [0.0; 4];
            logits[best] = 1.0;
            let chosen = choose(step(&rules, 0, 1), &token, &logits, None);
            token.go(&chosen, false);
            runs.push((token.last, token.run));
        }
        let expected = [
            (Some(0), 1),
            (Some(0), 2),
            (Some(1), 1),
            (None, 0),
            (Some(1), 1),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn who_left_stays_out_and_the_last_step_takes_everybody() {
        let rules = Rules {
            constraint: Constraint {
                force_final_exit: true,
                ..Constraint::NONE
            },
            ..router()
        };
        let logits = [5.0, 0.0, 0.0, 0.0];
        let left = Token {
            left: true,
            ..Token::new(0, 0)
        };
        let chosen = choose(step(&rules, 1, 1), &left, &logits, None);
        assert_eq!(
            (chosen.action.index(OUT), chosen.origin),
            (OUT, Origin::Left)
        );
        let chosen = choose(step(&rules, 4, 1), &Token::new(0, 0), &logits, None);
        assert_eq!(
            (chosen.action.index(OUT), chosen.origin),
            (OUT, Origin::Last)
        );
    }

    #[test]
    fn a_blend_asks_the_router_as_often_as_its_probability_says() {
        let rules = Rules {
            policy: Policy::Blend {
                teacher: Teacher::Sequential,
                router_probability: 0.3,
                select: Select::Argmax,
            },
            ..router()
        };
        let n = 20_000;
        let asked = (0..n)
            .filter(|&place| {
                let token = Token::new(1, place);
                let chosen = choose(step(&rules, 0, 2), &token, &[0.0, 2.0, 1.0, 0.0], TAUGHT);
                assert_eq!(chosen.fused, chosen.origin == Origin::Router);
                chosen.action == Action::Block(1)
            })
            .count();
        assert!((asked as f64 / n as f64 - 0.3).abs() < 0.01, "{asked}");
    }

    #[test]
    fn samples_follow_the_tempered_softmax() {
        let rules = Rules {
            policy: Policy::Router {
                teacher: None,
                select: Select::Sample {
                    temperature: 2.0,
                    in_evaluation: true,
                },
            },
            ..router()
        };
        let logits = [1.0, 0.0, 2.0, -1.0];
        let expected = Shares::new(&logits, 2.0, 0..=OUT);
        let n = 20_000;
        let mut shares = [0.0; 4];
        for place in 0..n {
            let chosen = choose(step(&rules, 2, 1), &Token::new(3, place), &logits, None);
            shares[chosen.action.index(OUT)] += 1.0 / n as f64;
        }
        for (action, share) in shares.iter().enumerate() {
            assert!((share - expected.of(action)).abs() < 0.015, "{shares:?}");
        }
    }

    #[test]
    fn a_mixture_leaves_in_evaluation_where_half_of_it_has_left() {
        let rules = Rules {
            exit_objective: ExitObjective::SoftMixture,
            ..router()
        };
        // OUT has probability 0.3 at each step: 1 - 0.7² is the first sum above one half.
        let logits = [0.0, 0.0, 0.0, (3.0f32 * 0.3 / 0.7).ln()];
        let mut token = Token::new(0, 0);
        let mut actions = Vec::new();
        for index in 0..3 {
            let chosen = choose(step(&rules, index, 1), &token, &logits, None);
            token.go(&chosen, true);
            actions.push(chosen.action.index(OUT));
        }
        assert_eq!(actions, [0, OUT, OUT]);
    }

    fn with_exit(exit_objective: ExitObjective, learning: bool) -> Rules {
        Rules {
            exit_objective,
            with_gradients: learning,
            ..router()
        }
    }

    fn sampling(rules: &Rules) -> Rules {
        Rules {
            policy: Policy::Router {
                teacher: None,
                select: Select::Sample {
                    temperature: 1.0,
                    in_evaluation: true,
                },
            },
            ..rules.clone()
        }
    }

    #[test]
    fn an_override_takes_any_block_as_often_as_it_should_and_never_outs_place() {
        let rules = Rules {
            override_probability: 0.3,
            ..router()
        };
        let n = 20_000;
        let mut counts = [0; OUT];
        for place in 0..n {
            let token = Token::new(2, place);
            let chosen = choose(step(&rules, 1, 1), &token, &[0.0, 2.0, 1.0, 0.5], None);
            if chosen.origin == Origin::Random {
                counts[chosen.action.index(OUT)] += 1;
            }
            let leaves = choose(step(&rules, 1, 1), &token, &[0.0, 2.0, 1.0, 3.0], None);
            assert_eq!(
                (leaves.action.index(OUT), leaves.origin),
                (OUT, Origin::Router)
            );
        }
        // Standard deviation of each share: 0.002.
        for count in counts {
            assert!(
                (f64::from(count) / n as f64 - 0.1).abs() < 0.01,
                "{counts:?}"
            );
        }
        // A teacher is not disturbed.
        let taught = Rules {
            policy: Policy::Teacher(Teacher::Sequential),
            override_probability: 1.0,
            ..router()
        };
        let chosen = choose(
            step(&taught, 0, 1),
            &Token::new(0, 0),
            &[],
            Some(Action::Block(2)),
        );
        assert_eq!(
            (chosen.action.index(OUT), chosen.origin),
            (2, Origin::Teacher)
        );
    }

    #[test]
    fn a_cap_holds_from_its_run_on_and_is_lifted_by_another_block() {
        let token = |last, run| Token {
            last,
            run,
            ..Token::new(0, 0)
        };
        assert_eq!(token(Some(1), 1).capped(2), None);
        assert_eq!(token(Some(1), 2).capped(2), Some(1));
        assert_eq!(token(Some(1), 3).capped(2), Some(1));
        assert_eq!(token(Some(1), 9).capped(0), None, "no cap at all");
        assert_eq!(token(None, 0).capped(1), None);
    }

    #[test]
    fn a_mixture_in_training_goes_on_whatever_the_router_thinks_of_leaving() {
        let rules = with_exit(ExitObjective::SoftMixture, true);
        let logits = [0.0, 1.0, 2.0, 9.0];
        let chosen = choose(step(&rules, 0, 2), &Token::new(0, 0), &logits, None);
        assert_eq!(
            (chosen.action.index(OUT), chosen.best, chosen.fused),
            (2, OUT, true)
        );
        assert_eq!(chosen.likeliest, [2, 1], "OUT is no candidate of a mixture");
        assert!(chosen.out_probability > 0.99);
        // What is drawn is drawn among blocks, by their own shares.
        let rules = sampling(&rules);
        let (n, mut shares) = (20_000, [0.0; 4]);
        for place in 0..n {
            let chosen = choose(step(&rules, 0, 1), &Token::new(0, place), &logits, None);
            shares[chosen.action.index(OUT)] += 1.0 / n as f64;
        }
        let odds: Vec<f64> = (0..OUT)
            .map(|block| f64::from(logits[block]).exp())
            .collect();
        for (share, odds_of) in shares.iter().zip(&odds) {
            assert!(
                (share - odds_of / odds.iter().sum::<f64>()).abs() < 0.015,
                "{shares:?}"
            );
        }
        assert_eq!(shares[OUT], 0.0);
        // A capped block makes place for the best other one; where there is none, the token is out.
        let capped = Token {
            last: Some(0),
            run: 1,
            ..Token::new(0, 0)
        };
        let mut rules = Rules {
            policy: Policy::Teacher(Teacher::Sequential),
            ..with_exit(ExitObjective::SoftMixture, true)
        };
        rules.constraint.self_recurrence_cap = 1;
        let chosen = choose(
            step(&rules, 0, 1),
            &capped,
            &[CAPPED, 0.5, 0.4, 2.0],
            TAUGHT,
        );
        assert_eq!((chosen.action.index(OUT), chosen.origin), (1, Origin::Cap));
        let mut alone = step(&rules, 0, 1);
        alone.n_pool = 1;
        let chosen = choose(alone, &capped, &[CAPPED, 2.0], TAUGHT);
        assert_eq!((chosen.action.index(1), chosen.origin), (1, Origin::Cap));
    }

    #[test]
    fn a_leaving_token_forgoes_its_best_block_only_where_the_exit_learns_through_it() {
        let logits = [0.0, 2.0, 1.0, 3.0];
        let forgone = |rules: &Rules, logits: &[f32], target| {
            choose(step(rules, 0, 1), &Token::new(0, 0), logits, target).forgone
        };
        let straight = with_exit(ExitObjective::StraightThrough, true);
        assert_eq!(forgone(&straight, &logits, None), Some(1));
        assert_eq!(
            forgone(&straight, &[4.0, 2.0, 1.0, 3.0], None),
            None,
            "it goes on"
        );
        assert_eq!(
            forgone(
                &with_exit(ExitObjective::StraightThrough, false),
                &logits,
                None
            ),
            None
        );
        assert_eq!(
            forgone(
                &with_exit(ExitObjective::Legacy { hard: true }, true),
                &logits,
                None
            ),
            None
        );
        let taught = Rules {
            policy: Policy::Teacher(Teacher::Sequential),
            ..straight.clone()
        };
        assert_eq!(
            forgone(&taught, &logits, Some(Action::Out)),
            None,
            "a teacher's OUT learns nothing"
        );
        // Nor is OUT among what such a router would mix.
        let chosen = choose(step(&straight, 0, 2), &Token::new(0, 0), &logits, None);
        assert_eq!(chosen.likeliest, [1, 2]);
    }

    #[test]
    fn still_walking_is_a_product_and_leaving_needs_a_hard_exit() {
        let mut token = Token::new(0, 0);
        for (action, out_probability) in [(0, 0.25), (OUT, 0.5), (1, 0.5)] {
            let chosen = Chosen {
                out_probability,
                ..Chosen::alone(Action::from_index(action, OUT), Origin::Router)
            };
            token.go(&chosen, false);
            assert!(!token.left);
        }
        assert_eq!(token.still, 0.75 * 0.5 * 0.5);
        token.go(&Chosen::alone(Action::Out, Origin::Router), true);
        assert!(token.left);
        token.go(&Chosen::alone(Action::Block(0), Origin::Router), true);
        assert!(token.left, "nobody comes back");
    }

    #[test]
    fn a_low_temperature_takes_the_best_and_a_high_one_anything() {
        let logits = [1.0, 0.0, 2.0, -1.0];
        let actions = |temperature: f64| -> Vec<usize> {
            (0..400)
                .map(|index| {
                    sample(
                        &logits,
                        temperature,
                        0..=OUT,
                        (f64::from(index) + 0.5) / 400.0,
                    )
                })
                .collect()
        };
        assert!(actions(0.01).iter().all(|&action| action == 2));
        let even = actions(1e6);
        for action in 0..=OUT {
            let count = even.iter().filter(|&&drawn| drawn == action).count();
            assert!(count.abs_diff(100) <= 1, "{action}: {count}");
        }
        // Draws rise with the actions, and the largest draw takes the last of them.
        assert!(even.is_sorted());
        assert_eq!(sample(&logits, 1.0, 0..=2, 1.0), 2);
        assert_eq!(by_logit(&[1.0, 3.0, 1.0, 3.0]), [1, 3, 0, 2]);
    }
}

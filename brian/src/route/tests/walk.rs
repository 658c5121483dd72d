//! Tests of the walk against a slow one that goes token by token (logits, gradients, record), of decoding against a whole pass,
//! and of the last step of a taught walk. Its slow scoring and comparison also serve the tests of beams.

use super::*;
use crate::block::causal::Causal;
use crate::block::routed::RoutedBlock;
use crate::block::visits::VisitScale;
use crate::ops::attention_spans::MASKED;
use crate::ops::cat::cat;
use crate::route::draws::Purpose;
use crate::route::trace::{Origin, TraceStep};
use burn::tensor::activation::softmax;
use std::collections::BTreeSet;

/// What a slow walk found.
pub(super) struct Found<B: Backend> {
    pub logits: Tensor<B, 3>,
    pub steps: Vec<Vec<Word>>,
}

/// What is recorded of a token at a step.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub action: usize,
    pub origin: Origin,
    pub fused: bool,
    pub capped: bool,
    pub target: Option<usize>,
    /// Nothing if nobody asked the router.
    pub said: Option<Said>,
}

/// What the router said about a token.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub best: usize,
    pub likeliest: Vec<usize>,
    pub logits: Vec<f64>,
    pub probabilities: Vec<f64>,
    /// `Σ_a p_a |P' − E_a|²`.
    pub location: f64,
}

/// Where operators lie.
pub(super) struct Places<B: Backend> {
    pub raw: Tensor<B, 2>,
    pub start: Tensor<B, 2>,
    nowhere: bool,
}

impl<B: Backend> Places<B> {
    pub fn new(model: &Brian<B>, config: &BrianConfig) -> Self {
        let nowhere = config.position.layout == Layout::None;
        let table = model.position.embeddings.val();
        let raw = if nowhere { table.zeros_like() } else { table };
        let start = match &model.position.start {
            _ if nowhere => raw.clone().narrow(0, 0, 1),
            Some(start) => unit(start.val().reshape([1, config.position.d_position])),
            None => raw.clone().narrow(0, 0, 1).detach(),
        };
        Self {
            raw,
            start,
            nowhere,
        }
    }

    /// Where a mixture of actions leads.
    pub fn after(&self, weighted: &[(usize, Tensor<B, 2>)]) -> Tensor<B, 2> {
        let of = |(action, weight): &(usize, Tensor<B, 2>)| {
            self.raw.clone().narrow(0, *action, 1) * weight.clone()
        };
        let sum = weighted
            .iter()
            .map(of)
            .reduce(|a, b| a + b)
            .expect("an action");
        if self.nowhere {
            sum.zeros_like()
        } else {
            unit(sum)
        }
    }

    /// `|P − E_a|²`, `[1, n_actions]`.
    pub fn distances(&self, position: &Tensor<B, 2>) -> Tensor<B, 2> {
        let apart = self.raw.clone() - position.clone();
        (apart.clone() * apart).sum_dim(1).transpose()
    }
}

fn unit<B: Backend>(row: Tensor<B, 2>) -> Tensor<B, 2> {
    let squared = (row.clone() * row.clone()).sum_dim(1);
    row / squared.sqrt()
}

pub(super) fn one<B: Backend>(value: f64) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(vec![value], [1, 1]), &Default::default())
}

/// A tensor less its own value: zero, with its gradient.
fn gradient_only<B: Backend>(x: &Tensor<B, 2>) -> Tensor<B, 2> {
    x.clone() - x.clone().detach()
}

/// A position, or zeros for who is not to know it.
pub(super) fn told<B: Backend>(is_told: bool, position: &Tensor<B, 2>) -> Tensor<B, 2> {
    if is_told {
        position.clone()
    } else {
        position.zeros_like()
    }
}

pub(super) fn tells(into: Reach) -> (bool, bool) {
    match into {
        Reach::Both => (true, true),
        Reach::Router => (true, false),
        Reach::Blocks => (false, true),
        Reach::Neither => (false, false),
    }
}

/// What OUT's logit gains at step `n` of `last`, both from 1.
pub(super) fn exit_bias(bounds: &Constraint, n: usize, last: usize) -> f64 {
    let start = if bounds.exit_ramp_start == 0 {
        last
    } else {
        bounds.exit_ramp_start
    };
    let mut bias = 0.0;
    if n < bounds.min_exit_step {
        bias -= bounds.early_exit_penalty;
    }
    if n >= start {
        let length = (last as f64 - start as f64 + 1.0).max(1.0);
        bias += bounds.exit_ramp_bias * (n - start + 1) as f64 / length;
    }
    if n == last {
        bias += bounds.final_exit_bias;
    }
    bias
}

/// The logits of a state with all that is added to them, `[1, n_actions]`.
pub(super) struct Scoring<'a, B: Backend> {
    pub model: &'a Brian<B>,
    pub places: &'a Places<B>,
    pub rules: &'a Rules,
    pub tells_router: bool,
    pub n_steps: usize,
}

impl<B: Backend> Scoring<'_, B> {
    pub fn logits(
        &self,
        seen: Tensor<B, 2>,
        position: &Tensor<B, 2>,
        (sequence, place): (u64, usize),
        step: usize,
        capped: Option<usize>,
    ) -> Tensor<B, 2> {
        let rules = self.rules;
        let [n_actions, _] = self.places.raw.dims();
        let logits = self
            .model
            .router
            .forward(seen, told(self.tells_router, position));
        let logits = logits - self.places.distances(position) * rules.location_bias;
        let added = |action: usize| {
            let noise = rules
                .draws
                .normal(Purpose::Noise(action), sequence, place, step);
            let bias = match action + 1 == n_actions {
                true => exit_bias(&rules.constraint, step + 1, self.n_steps),
                false => 0.0,
            };
            rules.noise_std * noise + bias
        };
        let added: Vec<f64> = (0..n_actions).map(added).collect();
        let hit: Vec<bool> = (0..n_actions)
            .map(|action| capped == Some(action))
            .collect();
        let data = |values| TensorData::new(values, [1, n_actions]);
        let logits = logits + Tensor::from_data(data(added), &Default::default());
        let hit = Tensor::from_data(TensorData::new(hit, [1, n_actions]), &Default::default());
        logits.mask_fill(hit, -1e4)
    }
}

/// A token on its way.
struct Walker<B: Backend> {
    sequence: u64,
    place: usize,
    state: Tensor<B, 2>,
    position: Tensor<B, 2>,
    left: bool,
    last: Option<usize>,
    run: usize,
    still: f64,
    /// Of every step whether it went on, and the probability to leave where the router decided.
    factors: Vec<(f64, Option<Tensor<B, 2>>)>,
    mixed: Tensor<B, 2>,
    mixing: Tensor<B, 2>,
}

impl<B: Backend> Walker<B> {
    fn capped(&self, cap: usize) -> Option<usize> {
        self.last.filter(|_| cap > 0 && self.run >= cap)
    }

    /// Zero, with the gradient of the product of all factors, each taken for itself with the others at their values.
    fn gain(&self) -> Tensor<B, 2> {
        let mut gain = one(0.0);
        for (index, (_, leaving)) in self.factors.iter().enumerate() {
            let others = self
                .factors
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index);
            let others: f64 = others.map(|(_, (value, _))| value).product();
            if let Some(leaving) = leaving {
                gain = gain - gradient_only(leaving) * others;
            }
        }
        gain
    }
}

/// A decision, by the words of the architecture: proposal, override, cap, last step, left.
struct Decision {
    action: usize,
    origin: Origin,
    fused: bool,
    forgone: Option<usize>,
    likeliest: Vec<usize>,
}

struct Turn<'a> {
    rules: &'a Rules,
    out: usize,
    step: usize,
    is_last: bool,
    top_k: usize,
    place: (u64, usize),
    left: bool,
    still: f64,
    capped: Option<usize>,
    target: Option<usize>,
}

impl Turn<'_> {
    fn draw(&self, purpose: Purpose) -> f64 {
        let (sequence, place) = self.place;
        self.rules
            .draws
            .uniform(purpose, sequence, place, self.step)
    }

    fn decide(&self, said: Option<(&[f64], &[f64])>) -> Decision {
        let (rules, out) = (self.rules, self.out);
        let soft = rules.exit_objective == ExitObjective::SoftMixture;
        let legacy = matches!(rules.exit_objective, ExitObjective::Legacy { .. });
        let mut order: Vec<usize> = Vec::new();
        let mut wish = out;
        if let Some((logits, probabilities)) = said {
            order = (0..=out).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            let over = self.still * (1.0 - probabilities[out]) < 0.5;
            wish = match soft {
                true if over && !rules.with_gradients => out,
                true => self.wish(logits, out),
                false => self.wish(logits, out + 1),
            };
        }
        let blocks: Vec<usize> = order
            .iter()
            .copied()
            .filter(|&action| action != out)
            .collect();
        let taught = self.target.unwrap_or(out);
        let (mut action, mut origin) = match &rules.policy {
            Policy::Teacher(_) => (taught, Origin::Teacher),
            Policy::Blend {
                router_probability, ..
            } if self.draw(Purpose::Blend) >= *router_probability => (taught, Origin::Teacher),
            _ => (wish, Origin::Router),
        };
        let led = matches!(rules.policy, Policy::Teacher(_));
        if !led && action != out && self.draw(Purpose::Override) < rules.override_probability {
            action = (self.draw(Purpose::OverrideBlock) * out as f64) as usize;
            if self.capped == Some(action) {
                action = (action + 1) % out;
            }
            origin = Origin::Random;
        }
        if self.capped == Some(action) {
            let allowed = |action: &&usize| Some(**action) != self.capped;
            action = match soft && rules.with_gradients {
                true => blocks.iter().find(allowed).copied().unwrap_or(out),
                false => order[0],
            };
            origin = Origin::Cap;
        }
        if self.is_last && rules.constraint.force_final_exit {
            (action, origin) = (out, Origin::Last);
        }
        if self.left {
            (action, origin) = (out, Origin::Left);
        }
        let by_router = origin == Origin::Router;
        let through =
            rules.with_gradients && rules.exit_objective == ExitObjective::StraightThrough;
        let mut likeliest = if legacy { order } else { blocks.clone() };
        likeliest.truncate(self.top_k);
        Decision {
            action,
            origin,
            fused: by_router && action != out && self.top_k > 1,
            forgone: blocks
                .first()
                .copied()
                .filter(|_| by_router && action == out && through),
            likeliest,
        }
    }

    /// What the router takes among the first `n` actions.
    fn wish(&self, logits: &[f64], n: usize) -> usize {
        let select = match &self.rules.policy {
            Policy::Blend { select, .. } | Policy::Router { select, .. } => *select,
            Policy::Teacher(_) => Select::Argmax,
        };
        let (Select::Sample { temperature, .. }, false) = (select, self.left) else {
            return (0..n)
                .rev()
                .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .expect("an action");
        };
        let odds: Vec<f64> = logits[..n]
            .iter()
            .map(|logit| (logit / temperature).exp())
            .collect();
        let drawn = self.draw(Purpose::Sample) * odds.iter().sum::<f64>();
        let below = |action: &usize| odds[..=*action].iter().sum::<f64>() > drawn;
        (0..n).find(below).unwrap_or(n - 1)
    }
}

/// A block on every token, where each sees what it is to see: of earlier tokens those that `runs` names, if any are.
pub(super) fn attended<B: Backend>(
    block: &RoutedBlock<B>,
    hidden: &Tensor<B, 3>,
    position: &Tensor<B, 3>,
    causal: &Causal<B>,
    runs: Option<&[bool]>,
    factors: Option<&Tensor<B, 2>>,
) -> Tensor<B, 2> {
    let [batch, seq, d_model] = hidden.dims();
    let placed = block.add_position(hidden.clone(), position.clone());
    let (queries, own) = block.block.project(placed.clone(), causal);
    let hidden_from = |index: usize| {
        let (key, query, row) = (index % seq, index / seq % seq, index / seq / seq);
        let among = runs.is_none_or(|runs| key == query || runs[row * seq + key]);
        let seen = key <= query && among;
        if seen { 0.0 } else { MASKED }
    };
    let mask: Vec<f32> = (0..batch * seq * seq).map(hidden_from).collect();
    let mask = Tensor::from_data(
        TensorData::new(mask, [batch, 1, seq, seq]),
        &Default::default(),
    );
    block
        .block
        .finish(placed, queries, own, mask, factors)
        .reshape([batch * seq, d_model])
}

/// By what a block multiplies what it adds to tokens that have run it so often before.
fn factors<B: Backend>(
    config: &BrianConfig,
    block: &RoutedBlock<B>,
    before: &[usize],
) -> Option<Tensor<B, 2>> {
    let visits = config.visits?;
    let of_token = |&before: &usize| {
        let number = before as f64 + 1.0;
        let scale = match visits.scale {
            None => 1.0,
            Some(VisitScale::Inverse) => 1.0 / number,
            Some(VisitScale::InverseSqrt) => number.powf(-0.5),
        };
        let row = before.min(config.route.max_steps - 1);
        let gain = match &block.visits.gains {
            Some(gains) => gains.val().narrow(0, row, 1),
            None => Tensor::zeros([1, config.d_model], &Default::default()),
        };
        (gain + 1.0) * scale
    };
    Some(cat(before.iter().map(of_token).collect(), 0))
}

/// The whole model with a slow walk.
fn walk<B: Backend>(model: &Brian<B>, config: &BrianConfig, rules: &Rules, seed: u64) -> Found<B> {
    let (n_pool, d_model, batch) = (config.n_pool, config.d_model, n_sequences(seed));
    let causal = model.rotary.causal(SEQ);
    let embedded = model.embedding.forward(tokens(seed));
    let entered = model
        .pre
        .iter()
        .fold(embedded, |hidden, block| block.forward(hidden, &causal));
    let entered = entered.reshape([batch * SEQ, d_model]);
    let places = Places::new(model, config);
    let (tells_router, tells_blocks) = tells(config.position.into);
    let rows = rows(seed);
    let teacher = rules.policy.teacher();
    let targets =
        teacher.map(|teacher| teacher.targets(n_pool, config.route.max_steps, &rows, rules.draws));
    let longest = match (&rules.policy, &targets) {
        (Policy::Teacher(_), Some(targets)) => targets.len(),
        _ => config.route.max_steps,
    };
    let n_steps = n_steps(rules, longest);
    let asks = !matches!(rules.policy, Policy::Teacher(_))
        || rules.ask_router
        || rules.constraint.self_recurrence_cap > 0;
    let hard = rules.exit_objective != ExitObjective::Legacy { hard: false };
    let mixes = rules.with_gradients && rules.exit_objective == ExitObjective::SoftMixture;
    let scoring = Scoring {
        model,
        places: &places,
        rules,
        tells_router,
        n_steps,
    };
    let mut walkers: Vec<Walker<B>> = (0..batch * SEQ)
        .map(|token| Walker {
            sequence: rows[token / SEQ].sequence,
            place: token % SEQ,
            state: entered.clone().narrow(0, token, 1),
            position: places.start.clone(),
            left: false,
            last: None,
            run: 0,
            still: 1.0,
            factors: Vec::new(),
            mixed: Tensor::zeros([1, d_model], &Default::default()),
            mixing: one(1.0),
        })
        .collect();
    let mut steps = Vec::new();
    // Of every block and token, how often the one has run the other.
    let mut visits = vec![vec![0; batch * SEQ]; n_pool];
    for step in 0..n_steps {
        let of_rows =
            |of: &dyn Fn(&Walker<B>) -> Tensor<B, 2>| cat(walkers.iter().map(of).collect(), 0);
        let hidden = of_rows(&|walker| walker.state.clone()).reshape([batch, SEQ, d_model]);
        let position = of_rows(&|walker| told(tells_blocks, &walker.position));
        let position = position.reshape([batch, SEQ, config.position.d_position]);
        let top_k = if step == 0 {
            config.route.top_k_first
        } else {
            config.route.top_k
        };
        let mut decided = Vec::new();
        for (token, walker) in walkers.iter().enumerate() {
            let capped = walker.capped(rules.constraint.self_recurrence_cap);
            let sequence = hidden
                .clone()
                .narrow(0, token / SEQ, 1)
                .reshape([SEQ, d_model]);
            let seen = match config.route.sees {
                Sees::Token => walker.state.clone(),
                Sees::SequenceMean => sequence.mean_dim(0),
            };
            let place = (walker.sequence, walker.place);
            let logits = asks.then(|| scoring.logits(seen, &walker.position, place, step, capped));
            let shares = logits.clone().map(|logits| softmax(logits, 1));
            let told = logits.as_ref().map(host).zip(shares.as_ref().map(host));
            let target = targets.as_ref().map(|targets| {
                targets
                    .get(step)
                    .map_or(n_pool, |t| t[token / SEQ].index(n_pool))
            });
            let turn = Turn {
                rules,
                out: n_pool,
                step,
                is_last: step + 1 == n_steps,
                top_k,
                place,
                left: walker.left,
                still: walker.still,
                capped,
                target,
            };
            let decision = turn.decide(told.as_ref().map(|(a, b)| (&a[..], &b[..])));
            decided.push((decision, logits, shares, told, capped, target));
        }
        let runs = |block: usize| -> Vec<bool> {
            let runs = decided.iter().map(|(decision, ..)| match decision.fused {
                true => decision.likeliest.contains(&block),
                false => decision.action == block,
            });
            runs.collect()
        };
        let outputs: Vec<Tensor<B, 2>> = (0..n_pool)
            .map(|block| {
                let runs = runs(block);
                let only = (config.route.attends == Attends::Selected).then_some(&runs[..]);
                let block_of = &model.pool[block];
                let factors = factors(config, block_of, &visits[block]);
                let factors = factors.as_ref();
                attended(block_of, &hidden, &position, &causal, only, factors)
            })
            .collect();
        for (block, visits) in visits.iter_mut().enumerate() {
            for (visits, runs) in visits.iter_mut().zip(runs(block)) {
                *visits += usize::from(runs);
            }
        }
        let mut words = Vec::new();
        for (token, (decision, logits, shares, told, capped, target)) in
            decided.into_iter().enumerate()
        {
            let walker = &mut walkers[token];
            let output = |block: usize| outputs[block].clone().narrow(0, token, 1);
            let share =
                |action: usize| shares.as_ref().expect("asked").clone().narrow(1, action, 1);
            let Decision {
                action,
                origin,
                fused,
                forgone,
                likeliest,
            } = decision;
            let by_router = origin == Origin::Router;
            if mixes && asks {
                let mut leaving = one(if action == n_pool { 1.0 } else { 0.0 });
                if by_router {
                    leaving = leaving + share(n_pool);
                }
                let part = walker.mixing.clone() * leaving;
                walker.mixed = walker.mixed.clone() + walker.state.clone() * part.clone();
                walker.mixing = walker.mixing.clone() - part;
            }
            let goes_on = if action < n_pool { 1.0 } else { 0.0 };
            walker
                .factors
                .push((goes_on, by_router.then(|| share(n_pool))));
            let mut next = walker.state.clone();
            let mut leads = vec![(action, one(1.0))];
            if fused {
                let blocks = likeliest.iter().copied().filter(|&block| block < n_pool);
                let total = blocks
                    .clone()
                    .map(share)
                    .reduce(|a, b| a + b)
                    .expect("a block");
                leads = blocks
                    .map(|block| (block, share(block) / total.clone()))
                    .collect();
                let mixed = leads
                    .iter()
                    .map(|(block, weight)| output(*block) * weight.clone());
                next = mixed.reduce(|a, b| a + b).expect("a block");
            } else if action < n_pool {
                next = output(action);
            }
            let ran = match forgone {
                Some(block) => output(block),
                None => next.clone(),
            };
            let change = ran - walker.state.clone();
            if by_router
                && !fused
                && action < n_pool
                && rules.choice_gradient != ChoiceGradient::Legacy
            {
                let among = (0..n_pool)
                    .map(share)
                    .reduce(|a, b| a + b)
                    .expect("a block");
                let gate = share(action) / among;
                next = match rules.choice_gradient {
                    ChoiceGradient::Gated => walker.state.clone() + change.clone() * gate,
                    _ if rules.with_gradients => {
                        next + change.clone().detach() * gradient_only(&gate)
                    }
                    _ => next,
                };
            }
            let through =
                rules.with_gradients && rules.exit_objective == ExitObjective::StraightThrough;
            if through && (action < n_pool || forgone.is_some()) {
                next = next + change.detach() * walker.gain();
            }
            walker.state = next;
            walker.position = places.after(&leads);
            let p = told
                .as_ref()
                .map_or(0.0, |(_, probabilities)| probabilities[n_pool]);
            walker.still *= 1.0 - p;
            walker.left |= hard && action == n_pool;
            walker.run = match action {
                _ if action == n_pool => 0,
                _ if walker.last == Some(action) => walker.run + 1,
                _ => 1,
            };
            walker.last = (action < n_pool).then_some(action);
            let said = told.zip(logits).map(|((logits, probabilities), _)| {
                let apart = host(&places.distances(&walker.position));
                let best = (0..=n_pool)
                    .rev()
                    .max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                Said {
                    best: best.expect("an action"),
                    likeliest,
                    location: probabilities
                        .iter()
                        .zip(apart)
                        .map(|(p, apart)| p * apart)
                        .sum(),
                    logits,
                    probabilities,
                }
            });
            words.push(Word {
                action,
                origin,
                fused,
                capped: capped.is_some(),
                target,
                said,
            });
        }
        steps.push(words);
        if walkers.iter().all(|walker| walker.left) {
            break;
        }
    }
    if mixes {
        let out = places.after(&[(n_pool, one(1.0))]);
        for walker in &mut walkers {
            let rest = walker.mixing.clone();
            walker.state = walker.mixed.clone() + walker.state.clone() * rest.clone();
            walker.position =
                walker.position.clone() * rest.clone() + out.clone() * (one(1.0) - rest);
        }
    }
    let states = cat(
        walkers.iter().map(|walker| walker.state.clone()).collect(),
        0,
    );
    let told = walkers
        .iter()
        .map(|walker| told(tells_blocks, &walker.position));
    let position = cat(told.collect(), 0);
    Found {
        logits: leave(model, config, states, position),
        steps,
    }
}

/// Behind the walk: exit, last blocks, head. Rows are tokens.
pub(super) fn leave<B: Backend>(
    model: &Brian<B>,
    config: &BrianConfig,
    states: Tensor<B, 2>,
    position: Tensor<B, 2>,
) -> Tensor<B, 3> {
    let placed = match &model.exit.adapter {
        Some(adapter) => states.clone() + position.matmul(adapter.weight.val()),
        None => states.clone() + position,
    };
    let left = model
        .exit
        .norm
        .forward(placed)
        .matmul(model.exit.projection.weight.val());
    let left = match config.exit {
        Exit::Residual => states + left,
        Exit::Projection => left,
    };
    let causal = model.rotary.causal(SEQ);
    let batch = left.dims()[0] / SEQ;
    let left = left.reshape([batch, SEQ, config.d_model]);
    model.head(
        model
            .post
            .iter()
            .fold(left, |hidden, block| block.forward(hidden, &causal)),
    )
}

/// Holds a pass beside the slow one: logits, gradients of all parameters, every word of the record.
pub(super) fn compare(
    name: &str,
    config: &BrianConfig,
    rules: &Rules,
    seed: u64,
    slow: Slow,
) -> BTreeSet<String> {
    let model: Brian<Learning> = loud(config, seed);
    let (logits, trace) = model.forward(tokens(seed), rules, &rows(seed));
    let expected = slow(&model, config, rules, seed);
    let tolerance = tolerance();
    let near = |what: &str, found: &[f64], expected: &[f64]| {
        let apart = relative(found, expected);
        assert!(apart < tolerance, "{name}: {what} differ by {apart:e}");
    };
    let walks = &trace.walks;
    let sizes = (walks.batch, walks.seq, walks.n_pool, walks.steps.len());
    let batch = n_sequences(seed);
    assert_eq!(
        sizes,
        (batch, SEQ, config.n_pool, expected.steps.len()),
        "{name}"
    );
    let mut seen = BTreeSet::new();
    for (step, (found, words)) in walks.steps.iter().zip(&expected.steps).enumerate() {
        let place = format!("{name}, step {step}");
        let of = |of: fn(&Word) -> usize| words.iter().map(of).collect::<Vec<usize>>();
        assert_eq!(found.actions, of(|word| word.action), "{place}");
        let origins: Vec<Origin> = words.iter().map(|word| word.origin).collect();
        assert_eq!(found.origins, origins, "{place}");
        seen.extend(origins.iter().map(|origin| format!("{origin:?}")));
        seen.extend(
            words
                .iter()
                .filter(|word| word.fused)
                .map(|_| "fused".to_string()),
        );
        let flags = |of: fn(&Word) -> bool| words.iter().map(of).collect::<Vec<bool>>();
        assert_eq!(found.fused, flags(|word| word.fused), "{place}");
        assert_eq!(found.capped, flags(|word| word.capped), "{place}");
        let targets: Option<Vec<usize>> = words.iter().map(|word| word.target).collect();
        assert_eq!(found.targets, targets, "{place}");
        let said: Vec<&Said> = words.iter().filter_map(|word| word.said.as_ref()).collect();
        assert_eq!(
            found.best,
            said.iter().map(|said| said.best).collect::<Vec<_>>(),
            "{place}"
        );
        let likeliest: Vec<usize> = said
            .iter()
            .flat_map(|said| said.likeliest.clone())
            .collect();
        assert_eq!(found.likeliest, likeliest, "{place}");
        let probabilities: Vec<f64> = found.probabilities.iter().map(|&p| f64::from(p)).collect();
        let all =
            |of: fn(&Said) -> Vec<f64>| said.iter().flat_map(|said| of(said)).collect::<Vec<f64>>();
        near(
            "probabilities",
            &probabilities,
            &all(|said| said.probabilities.clone()),
        );
        if let Some(found) = trace.steps.get(step) {
            near(
                "scores",
                &host(&found.logits),
                &all(|said| said.logits.clone()),
            );
            let location = all(|said| vec![said.location]);
            near("distances", &host(&found.last_move.location()), &location);
            let shares = all(|said| said.probabilities.clone());
            near("shares", &host(&found.last_move.probabilities), &shares);
        }
        assert_eq!(
            trace.steps.len(),
            if said.is_empty() {
                0
            } else {
                walks.steps.len()
            },
            "{place}"
        );
    }
    near("logits", &host(&logits), &host(&expected.logits));
    let [found, expected] = [logits, expected.logits].map(|logits| gradients(&model, &logits));
    near("gradients", &found, &expected);
    seen
}

type Slow = fn(&Brian<Learning>, &BrianConfig, &Rules, u64) -> Found<Learning>;

/// Walks of all kinds; what happened on them.
fn all_kinds(seeds: std::ops::Range<u64>) {
    let mut seen = BTreeSet::new();
    for seed in seeds {
        let config = config(seed);
        let rules = rules(seed, config.n_pool);
        let name = format!("{seed}: {:?} {:?} {rules:?}", config.route, config.position);
        seen.extend(compare(&name, &config, &rules, seed, walk));
    }
    let kinds = [
        "Cap", "Last", "Left", "Random", "Router", "Teacher", "fused",
    ];
    assert_eq!(seen, kinds.map(String::from).into(), "nothing is missing");
}

#[test]
fn a_walk_is_what_a_slow_one_is_that_follows_the_words() {
    all_kinds(0..45);
}

#[test]
fn it_is_so_in_float64_without_passes_of_our_own_too() {
    let name = "route::tests::walk::it_is_so_in_float64_without_passes_of_our_own_too";
    if in_float64(name) {
        all_kinds(100..145);
    }
}

/// Token by token, with what is kept of the tokens before.
#[test]
fn a_token_that_comes_alone_has_the_logits_of_a_whole_pass() {
    let (mut n, mut seed) = (0, 400);
    while n < 15 {
        seed += 1;
        let config = config(seed);
        let rules = rules(seed, config.n_pool);
        let model: Brian<Learning> = loud(&config, seed);
        if !model.goes_on(&rules) {
            continue;
        }
        let text = tokens::<Learning>(seed).narrow(0, 0, 1);
        let row = [rows(seed)[0]];
        let (expected, _) = model.forward(text.clone(), &rules.evaluation(), &row);
        let expected = host(&expected);
        let text: Vec<u32> = text.into_data().iter().collect();
        let mut decoding = crate::Decoding::brian(&model, &rules, row[0]);
        let begin = 1 + drawn(seed, "begin", SEQ - 1);
        for end in begin..=SEQ {
            let found = decoding.follow(&text[..end]);
            let apart = relative(
                &host(&found),
                &expected[(end - 1) * VOCABULARY..][..VOCABULARY],
            );
            assert!(
                apart < tolerance(),
                "{seed}, token {end}: {apart:e}, {:?} {rules:?}",
                config.route
            );
        }
        n += 1;
    }
}

/// Two blocks and OUT are three steps, although a walk may have five: the third is the last, where OUT gets its final bias.
#[test]
fn the_last_step_of_a_taught_walk_is_that_of_its_path() {
    let mut config = config(0);
    config.n_pool = 2;
    config.route.max_steps = 5;
    (config.route.top_k_first, config.route.top_k) = (1, 1);
    let model: Brian<Learning> = loud(&config, 0);
    let scores_of_out = |final_exit_bias| {
        let rules = Rules {
            ask_router: true,
            constraint: Constraint {
                final_exit_bias,
                ..Constraint::NONE
            },
            ..Rules::sequential()
        };
        let (_, trace) = model.forward(tokens(0), &rules, &rows(0));
        let scores = |step: &TraceStep<Learning>| host(&step.logits.clone().slice_dim(1, 2..3));
        trace.steps.iter().map(scores).collect::<Vec<Vec<f64>>>()
    };
    let (without, with) = (scores_of_out(0.0), scores_of_out(3.0));
    assert_eq!([without.len(), with.len()], [3, 3]);
    for (step, (without, with)) in without.iter().zip(&with).enumerate() {
        let expected = if step == 2 { 3.0 } else { 0.0 };
        for (without, with) in without.iter().zip(with) {
            assert!((with - without - expected).abs() < 1e-5, "step {step}");
        }
    }
}

/// Where walks of 2 to 5 steps are drawn, a pass of training is that of a model whose walks have as many steps as were drawn, every number comes
/// as often, and evaluation walks as far as it may.
#[test]
fn a_training_step_draws_how_long_its_walks_may_be() {
    let mut longest = config(0);
    longest.route.max_steps = 5;
    (longest.residual_scale, longest.visits) = (None, None);
    let model: Brian<Learning> = loud(&longest, 0);
    let drawn = |step| Rules {
        policy: Policy::Router {
            teacher: None,
            select: Select::Argmax,
        },
        ask_router: true,
        draws: Draws::new(7, step),
        shortest_walk: Some(2),
        with_gradients: true,
        ..Rules::sequential()
    };
    let lengths: Vec<usize> = (0..400).map(|step| drawn(step).n_steps(5)).collect();
    for length in 2..=5 {
        let n = lengths.iter().filter(|&&drawn| drawn == length).count();
        // Of 400 draws 100, with a standard deviation of 9.
        assert!(n.abs_diff(100) < 40, "{length} came {n} times");
        let step = lengths.iter().position(|&drawn| drawn == length);
        let rules = drawn(step.expect("a step") as u64);
        let mut config = longest;
        config.route.max_steps = length;
        let mut held = parameter::collect(&model);
        let fresh = config.init::<Learning>(VOCABULARY, 0, &Default::default());
        let shorter =
            parameter::assign(fresh, |path, _| held.remove(path).unwrap().iter().collect());
        let always = Rules {
            shortest_walk: None,
            ..rules.clone()
        };
        let (found, _) = model.forward(tokens(0), &rules, &rows(0));
        let (expected, _) = shorter.forward(tokens(0), &always, &rows(0));
        assert_eq!(host(&found), host(&expected), "{length}");
        assert_eq!(rules.evaluation().n_steps(5), 5);
    }
}

//! Tests of passes and steps on the host against brute force, finite differences and dense AdamW in f64; of equal bits for any
//! number of threads, long texts, frozen rows, tables of bf16 and published decodings. `ops/tests.rs` uses its models.

use crate::candidate::{Candidates, Competition, Group, Paths};
use crate::compat;
use crate::counts::PairCounts;
use crate::flow::{Bias, FlowConfig, Mix};
use crate::generate::{Decoding, SignalState};
use crate::graph::{BackOff, Graph};
use crate::model::{BackOffRows, BriLlm, BriLlmConfig, Initial, row_places};
use crate::position::Encoding;
use crate::prior::{Prior, Weights};
use crate::row_adamw::{AdamW, Mode};
use crate::table::{Storage, Table};
use crate::training::RowAdamW;
use std::sync::Arc;

pub(in crate::ops) const ADAMW: AdamW = AdamW {
    betas: [0.9, 0.999],
    epsilon: 1e-8,
    weight_decay: 0.01,
};
pub(in crate::ops) const NODES: usize = 13;

/// A number in `[0, 1)` for every place, from a sine.
fn uniform(stream: &str, place: u64) -> f64 {
    let phase = stream.len() as f64 + 1.7 * place as f64;
    (phase.sin() * 43_758.545).rem_euclid(1.0)
}

/// Paths of different lengths; what follows the last edge is padding.
pub(in crate::ops) struct Text {
    sources: Vec<u32>,
    targets: Vec<u32>,
    valid: Vec<bool>,
    seq: usize,
}

impl Text {
    pub(in crate::ops) fn new(seed: u64, batch: usize, seq: usize, nodes: usize) -> Self {
        let mut text = Self {
            sources: Vec::new(),
            targets: Vec::new(),
            valid: Vec::new(),
            seq,
        };
        for row in 0..batch {
            let token = |place: usize| {
                let at = uniform("text", seed * 7919 + (row * (seq + 1) + place) as u64);
                (at * at * nodes as f64) as u32
            };
            let length = seq - row % 3;
            for edge in 0..seq {
                text.sources.push(token(edge));
                text.targets.push(token(edge + 1));
                text.valid.push(edge < length);
            }
        }
        text
    }

    pub(in crate::ops) fn paths(&self) -> Paths<'_> {
        Paths {
            sources: &self.sources,
            targets: &self.targets,
            valid: &self.valid,
            seq: self.seq,
        }
    }
}

fn counts() -> PairCounts {
    let text = Text::new(1, 6, 20, NODES - 2);
    let rows = text.sources.chunks(20).zip(text.targets.chunks(20));
    PairCounts::of(NODES, rows.map(|(from, to)| [from, &to[19..]].concat()))
}

fn model(flow: FlowConfig, graph: Graph) -> BriLlm {
    let config = BriLlmConfig {
        d_node: 10,
        flow,
        initial: Initial::Uniform { half_range: 0.5 },
        back_off_rows: BackOffRows::Trained,
        storage: Storage::F32,
        decoding: Decoding::NATIVE,
    };
    let mut parameters = config.init(graph.nodes(), graph.rows(), &uniform);
    for (place, value) in parameters.mix.iter_mut().enumerate() {
        *value += (place as f32).sin();
    }
    BriLlm {
        config,
        graph: Arc::new(graph),
        parameters,
    }
}

/// Every way of a signal, over graphs with one back-off row and with classes.
pub(in crate::ops) fn models() -> Vec<BriLlm> {
    let classes = BackOff::Classes { n_classes: 3 };
    let decayed = FlowConfig {
        mix: Mix::Decay { initial: 0.7 },
        ..compat::PAPER
    };
    [
        (compat::REFERENCE, BackOff::SharedRow),
        (compat::DENSE_2025, classes),
        (compat::PAPER, classes),
        (compat::NATIVE, classes),
        (decayed, BackOff::SharedRow),
        (
            FlowConfig {
                mix: Mix::Absolute { max_length: 4 },
                ..compat::REFERENCE
            },
            classes,
        ),
        (
            FlowConfig {
                bias: Bias::Node,
                encoding: Encoding::Learnt { max_length: 5 },
                ..compat::REFERENCE
            },
            BackOff::Hash { n_rows: 4 },
        ),
        (
            FlowConfig {
                bias: Bias::EdgeAndNode,
                encoding: Encoding::Learnt { max_length: 50 },
                ..compat::PAPER
            },
            BackOff::SharedRow,
        ),
        (
            FlowConfig {
                bias: Bias::None,
                ..compat::NATIVE
            },
            BackOff::Hash { n_rows: 7 },
        ),
    ]
    .map(|(flow, back_off)| model(flow, counts().graph(2, back_off)))
    .into()
}

pub(in crate::ops) fn competition(
    model: &BriLlm,
    candidates: Candidates,
    prior: Prior,
    excluded: &[u32],
) -> Competition {
    let counts = counts();
    let weights = Weights::new(prior, Some(&counts), &model.graph);
    let bias = model.config.flow.bias;
    Competition::new(candidates, weights, bias, Some(&counts)).without(excluded.to_vec())
}

pub(in crate::ops) fn groups(model: &BriLlm, text: &Text, competition: &Competition) -> Vec<Group> {
    competition.groups(&model.graph, &text.paths(), &|place| uniform("draw", place))
}

#[test]
fn the_full_softmax_is_that_over_every_single_target() {
    let text = Text::new(5, 4, 9, NODES);
    for model in models() {
        for prior in [Prior::None, Prior::Bigram] {
            let excluded = [NODES as u32 - 1];
            let competition = competition(&model, Candidates::All, prior, &excluded);
            let text = Text {
                targets: text.targets.iter().map(|&target| target.min(11)).collect(),
                ..Text::new(5, 4, 9, NODES)
            };
            let nats = model.token_losses(&text.paths(), &groups(&model, &text, &competition));
            let mut state = SignalState::start(&model, 0);
            for (place, found) in nats.into_iter().enumerate() {
                if place % text.seq == 0 {
                    state = SignalState::start(&model, text.sources[place]);
                }
                // A target that is not the next source begins nothing here: paths are followed by their targets.
                state.token = text.sources[place];
                let reached = state.candidates(&model, &competition, Decoding::NATIVE);
                assert_eq!(reached.len(), NODES - 1);
                let sum: f64 = reached.iter().map(|c| f64::from(c.score).exp()).sum();
                let truth = reached
                    .iter()
                    .find(|c| c.target == text.targets[place])
                    .unwrap();
                let expected = if text.valid[place] {
                    sum.ln() - f64::from(truth.score)
                } else {
                    0.0
                };
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{:?}: {} {expected}",
                    model.config.flow,
                    found
                );
                state.advance(&model, Decoding::NATIVE, text.targets[place]);
            }
        }
    }
}

/// Mean of nats in the competition of training.
fn loss(model: &BriLlm, text: &Text, groups: &[Group]) -> f64 {
    model
        .token_losses(&text.paths(), groups)
        .iter()
        .sum::<f64>()
        / text.paths().edges() as f64
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let text = Text::new(3, 4, 7, NODES);
    let every = [
        Candidates::All,
        Candidates::Frequent { n: 4 },
        Candidates::Sampled { n: 6 },
    ];
    for (model, candidates) in models()
        .into_iter()
        .flat_map(|model| every.map(|candidates| (model.clone(), candidates)))
    {
        let competition = competition(&model, candidates, Prior::Bigram, &[]);
        let groups = groups(&model, &text, &competition);
        let mut optimizer = RowAdamW::new(&model, Mode::Touched, ADAMW, None);
        optimizer.step(&mut model.clone(), &text.paths(), &groups, 0.0);
        let gradient = |moments: &[f32], place: usize| f64::from(moments[place]) / 0.1;
        let check = |name: &str, found: f64, change: &dyn Fn(&mut BriLlm, f32)| {
            let at = |by: f32| {
                let mut moved = model.clone();
                change(&mut moved, by);
                loss(&moved, &text, &groups)
            };
            let expected = (at(0.01) - at(-0.01)) / 0.02;
            assert!(
                (found - expected).abs() < 3e-4,
                "{:?} {candidates:?} {name}: {found} {expected}",
                model.config.flow
            );
        };
        let of_edges = optimizer.edges.first.part(0..model.parameters.edges.len());
        let weights = 10
            * if model.config.flow.bias.of_edge() {
                11
            } else {
                10
            };
        for place in (0..of_edges.len()).step_by(97) {
            if place % 110 >= weights {
                assert_eq!(of_edges[place], 0.0);
                continue;
            }
            check("edges", gradient(&of_edges, place), &|model, by| {
                let edges = &mut model.parameters.edges;
                let value = edges.part(place..place + 1)[0];
                edges.set(place, &[value + by]);
            });
        }
        for place in (0..model.parameters.codes.len()).step_by(3) {
            let found = gradient(&optimizer.codes[0], place);
            check("codes", found, &|model, by| {
                model.parameters.codes[place] += by
            });
        }
        for place in (0..model.parameters.node_bias.len()).step_by(7) {
            let found = gradient(&optimizer.node_bias[0], place);
            check("node_bias", found, &|model, by| {
                model.parameters.node_bias[place] += by
            });
        }
        for place in 0..model.parameters.mix.len().min(8) {
            let found = gradient(&optimizer.mix[0], place);
            check("mix", found, &|model, by| model.parameters.mix[place] += by);
        }
    }
}

#[test]
fn drawn_candidates_estimate_the_full_sum_without_bias() {
    let model = models().remove(0);
    let text = Text::new(4, 2, 6, NODES);
    let all = groups(
        &model,
        &text,
        &competition(&model, Candidates::All, Prior::None, &[]),
    );
    let mut optimizer = RowAdamW::new(&model, Mode::Touched, ADAMW, None);
    let full = optimizer
        .step(&mut model.clone(), &text.paths(), &all, 0.0)
        .nats;
    let sampled = competition(&model, Candidates::Sampled { n: 8 }, Prior::None, &[]);
    let mut sums = vec![0.0; full.len()];
    let n = 4000;
    for draw in 0..n {
        let groups = sampled.groups(&model.graph, &text.paths(), &|place| {
            uniform("draw", draw * 1009 + place)
        });
        let nats = model.token_losses(&text.paths(), &groups);
        // exp(nats) is the sum over all candidates divided by the truth's share.
        sums.iter_mut()
            .zip(nats)
            .for_each(|(sum, nats)| *sum += nats.exp() / n as f64);
    }
    for place in (0..full.len()).filter(|&place| text.valid[place]) {
        let ratio = sums[place] / full[place].exp();
        assert!((ratio - 1.0).abs() < 0.05, "{place}: {ratio}");
    }
}

/// Dense AdamW in f64 over gradients that are given per step.
struct Dense {
    values: Vec<f64>,
    moments: Vec<[f64; 2]>,
}

impl Dense {
    fn step(&mut self, time: i32, rate: f64, gradient: &dyn Fn(usize) -> f64) {
        let [beta_1, beta_2] = ADAMW.betas;
        for (place, (value, [first, second])) in
            self.values.iter_mut().zip(&mut self.moments).enumerate()
        {
            let g = gradient(place);
            *first = beta_1 * *first + (1.0 - beta_1) * g;
            *second = beta_2 * *second + (1.0 - beta_2) * g * g;
            let root = (*second / (1.0 - beta_2.powi(time))).sqrt() + ADAMW.epsilon;
            *value = *value * (1.0 - rate * ADAMW.weight_decay)
                - rate * *first / (1.0 - beta_1.powi(time)) / root;
        }
    }
}

#[test]
fn exact_rows_follow_dense_adamw_over_gaps_of_every_length() {
    use crate::row_adamw::{Clock, FADED, Moments, Replay, Rows};
    let (rows, row_len, steps) = (40, 6, 500);
    let start: Vec<f32> = (0..rows * row_len)
        .map(|place| uniform("start", place as u64) as f32 - 0.5)
        .collect();
    let mut values = Table::F32(start.clone());
    let mut moments = Moments::new(Storage::F32, rows, row_len);
    let mut dense = Dense {
        values: start.iter().map(|&x| f64::from(x)).collect(),
        moments: vec![[0.0; 2]; values.len()],
    };
    // Row r is touched about every r² / 3 steps: from every step to gaps beyond the end; row 39 never.
    let touched = |row: usize, step: usize| {
        row < 39 && uniform("touch", (row * steps + step) as u64) < 3.0 / (1 + row * row) as f64
    };
    let gradient = |place: usize, step: usize| {
        (uniform("gradient", (place * steps + step) as u64) - 0.4) as f32 * 0.3
    };
    let corrections: Vec<[f64; 2]> = (1..=steps as u32)
        .map(|time| ADAMW.corrections(time))
        .collect();
    let fades: Vec<[f64; 2]> = (0..=FADED).map(|steps| ADAMW.fades(steps)).collect();
    let mut replay = Replay::default();
    let mut rates = Vec::new();
    for step in 0..steps {
        let rate = 0.05 * (1.0 - step as f32 / 1000.0);
        rates.push(rate);
        let clock = Clock {
            mode: Mode::Exact,
            adamw: ADAMW,
            rates: &rates,
            corrections: &corrections,
            fades: &fades,
            clip: None,
            frozen: 0,
        };
        let mut table = Rows::all(&mut values, &mut moments, row_len);
        for row in (0..rows).filter(|&row| touched(row, step)) {
            table.catch_up(row, step as u32, &clock, &mut replay);
            let mut of_row: Vec<f32> = (0..row_len)
                .map(|k| gradient(row * row_len + k, step))
                .collect();
            table.update(row, &mut of_row, &clock);
        }
        // Looking in between changes nothing: done here at odd moments.
        if step % 37 == 5 {
            (0..rows).for_each(|row| table.catch_up(row, step as u32 + 1, &clock, &mut replay));
        }
        dense.step(
            step as i32 + 1,
            f64::from(rate),
            &|place| match touched(place / row_len, step) {
                true => f64::from(gradient(place, step)),
                false => 0.0,
            },
        );
    }
    let clock = Clock {
        mode: Mode::Exact,
        adamw: ADAMW,
        rates: &rates,
        corrections: &corrections,
        fades: &fades,
        clip: None,
        frozen: 0,
    };
    let mut table = Rows::all(&mut values, &mut moments, row_len);
    (0..rows).for_each(|row| table.catch_up(row, steps as u32, &clock, &mut replay));
    let largest = dense
        .values
        .iter()
        .fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (found, expected) in values.part(0..values.len()).iter().zip(&dense.values) {
        assert!(
            (f64::from(*found) - expected).abs() < 1e-5 * largest,
            "{found} {expected}"
        );
    }
}

#[test]
fn a_row_that_was_never_used_keeps_its_bits_and_no_row_sees_when_others_looked() {
    let no_decay = AdamW {
        weight_decay: 0.0,
        ..ADAMW
    };
    for mode in [Mode::Exact, Mode::Touched, Mode::Dense] {
        let start = models().remove(3);
        let competition = competition(&start, Candidates::Frequent { n: 2 }, Prior::None, &[]);
        let run = |look: bool| {
            let mut model = start.clone();
            let mut optimizer = RowAdamW::new(&model, mode, no_decay, Some(0.5));
            let mut used = vec![false; model.graph.rows()];
            for step in 0..60 {
                let text = Text::new(step, 2, 5, 5);
                let groups = groups(&model, &text, &competition);
                groups
                    .iter()
                    .flat_map(|group| &group.rows)
                    .for_each(|&row| used[row] = true);
                optimizer.step(&mut model, &text.paths(), &groups, 0.02);
                if look && step % 7 == 3 {
                    optimizer.catch_up(&mut model);
                }
            }
            optimizer.catch_up(&mut model);
            (model, optimizer, used)
        };
        let (model, optimizer, used) = run(false);
        assert!(used.iter().any(|used| !used) && used.iter().any(|used| *used));
        for row in (0..used.len()).filter(|&row| !used[row]) {
            let places = row_places(row, 10);
            assert_eq!(
                model.parameters.edges.part(places.clone()),
                start.parameters.edges.part(places)
            );
        }
        let (again, others, _) = run(true);
        assert!(again == model && others == optimizer, "{mode:?}");
    }
}

#[test]
fn steps_are_bitwise_the_same_for_any_number_of_threads() {
    let start = models().remove(0);
    let competition = competition(&start, Candidates::All, Prior::Bigram, &[]);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut model = start.clone();
            let mut optimizer = RowAdamW::new(&model, Mode::Exact, ADAMW, None);
            for step in 0..10 {
                let text = Text::new(step, 8, 12, NODES);
                let groups = groups(&model, &text, &competition);
                optimizer.step(&mut model, &text.paths(), &groups, 0.02);
            }
            (model, optimizer)
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}

#[test]
fn a_million_tokens_stay_finite_and_close_to_f64() {
    for (mix, hop) in [(compat::REFERENCE, "absolute"), (compat::NATIVE, "decay")] {
        let model = model(mix, Graph::full(5));
        let d = model.config.d_node;
        let mut state = SignalState::start(&model, 0);
        let size = size_of_val(&state)
            + 4 * (state.mixed.len() + state.arrived.len())
            + 8 * state.mixer.sum.len();
        // The oracle mixes the same arriving signals in f64, compensated, with weights from their definition.
        let (mut sum, mut total) = (vec![[0.0f64; 2]; d], [0.0f64; 2]);
        let add = |sum: &mut [f64; 2], keep: f64, value: f64| {
            sum[0] *= keep;
            sum[1] *= keep;
            let y = value - sum[1];
            let t = sum[0] + y;
            sum[1] = (t - sum[0]) - y;
            sum[0] = t;
        };
        for step in 0..1_000_000usize {
            let token = (uniform("long", step as u64) * 5.0) as u32;
            state.advance(&model, Decoding::NATIVE, token);
            let weights = &model.parameters.mix;
            let (keep, take) = match model.config.flow.mix {
                Mix::Absolute { .. } => {
                    (1.0, f64::from(weights[step.min(weights.len() - 1)]).exp())
                }
                Mix::Decay { .. } => (1.0 / (1.0 + (-f64::from(weights[0])).exp()), 1.0),
            };
            for (sum, value) in sum.iter_mut().zip(&state.arrived) {
                add(sum, keep, take * f64::from(*value));
            }
            add(&mut total, keep, take);
        }
        for (found, sum) in state.mixed.iter().zip(&sum) {
            assert!(found.is_finite());
            assert!(
                (f64::from(*found) - sum[0] / total[0]).abs() < 1e-4,
                "{hop}"
            );
        }
        let after = size_of_val(&state)
            + 4 * (state.mixed.len() + state.arrived.len())
            + 8 * state.mixer.sum.len();
        assert_eq!(after, size);
    }
}

#[test]
fn frozen_back_off_rows_keep_their_bits_and_others_learn() {
    let mut model = models().remove(0);
    model.config.back_off_rows = BackOffRows::Frozen;
    let start = model.clone();
    let competition = competition(&model, Candidates::All, Prior::None, &[]);
    let mut optimizer = RowAdamW::new(&model, Mode::Exact, ADAMW, None);
    for step in 0..5 {
        let text = Text::new(step, 4, 9, NODES);
        let groups = groups(&model, &text, &competition);
        optimizer.step(&mut model, &text.paths(), &groups, 0.02);
    }
    optimizer.catch_up(&mut model);
    let row = |model: &BriLlm, row: usize| model.parameters.edge(row, 10).into_owned();
    assert_eq!(row(&model, 0), row(&start, 0));
    let rows = 1..model.graph.rows();
    assert!(
        rows.clone()
            .filter(|&at| row(&model, at) != row(&start, at))
            .count()
            > rows.len() / 2
    );
}

#[test]
fn a_table_of_bf16_learns_like_one_of_f32_and_the_same_bits_each_time() {
    let start = models().remove(3);
    let competition = competition(&start, Candidates::All, Prior::Bigram, &[]);
    let text = Text::new(9, 6, 9, NODES);
    let train = |storage: Storage| {
        let mut model = start.clone();
        model.config.storage = storage;
        model.parameters.edges = model.parameters.edges.stored_as(storage);
        let mut optimizer = RowAdamW::new(&model, Mode::Touched, ADAMW, None);
        let groups = groups(&model, &text, &competition);
        let before = loss(&model, &text, &groups);
        for _ in 0..150 {
            // Steps far below what bf16 can hold of a number near 0.5: only chance carries them.
            optimizer.step(&mut model, &text.paths(), &groups, 5e-4);
        }
        let after = loss(&model, &text, &groups);
        (model, optimizer, before - after)
    };
    let (_, _, wide) = train(Storage::F32);
    let (model, optimizer, narrow) = train(Storage::Bf16);
    assert!(matches!(model.parameters.edges, Table::Bf16(_)));
    assert!(wide > 0.1, "{wide}");
    assert!((narrow / wide - 1.0).abs() < 0.1, "{narrow} {wide}");
    let again = train(Storage::Bf16);
    assert!(again.0 == model && again.1 == optimizer);
}

#[test]
fn published_decodings_differ_from_ours_where_they_say_so() {
    use crate::generate::{Sampling, SelfTransition, draw};
    let model = models().remove(1);
    let everybody = competition(&model, Candidates::All, Prior::None, &[]);
    let reached = |decoding: Decoding, prompt: usize, generated: usize| {
        let mut state = SignalState::start(&model, 2);
        (0..prompt).for_each(|_| state.advance(&model, decoding, 3));
        state.end_prompt(decoding);
        (0..generated).for_each(|_| state.advance(&model, decoding, 4));
        (
            state.code(&model, decoding, 0),
            state.candidates(&model, &everybody, decoding),
        )
    };
    let code = |position: usize| {
        let mut code = vec![0.0; 10];
        crate::position::add(model.config.flow.encoding, &[], position, &mut code);
        code
    };
    // The release of March 2025 counts hops from 0, and again from 0 behind the prompt.
    assert_eq!(reached(Decoding::NATIVE, 3, 2).0, code(5));
    assert_eq!(reached(Decoding::DENSE_2025, 3, 0).0, code(0));
    assert_eq!(reached(Decoding::DENSE_2025, 3, 2).0, code(2));
    let (_, all) = reached(Decoding::NATIVE, 2, 0);
    let (_, others) = reached(Decoding::REFERENCE, 2, 0);
    assert_eq!((all.len(), others.len()), (NODES, NODES - 1));
    assert!(others.iter().all(|candidate| candidate.target != 3));
    let cold = Sampling {
        temperature: 0.05,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };
    let drawn = |sampling: Sampling| {
        let token = |place: u64| draw(&all, sampling, uniform("draw", place)).unwrap().target;
        (0..200)
            .map(token)
            .collect::<std::collections::BTreeSet<u32>>()
    };
    let ours = cold.under(Decoding::NATIVE);
    let theirs = cold.under(Decoding::REFERENCE);
    assert!(drawn(ours).len() < drawn(theirs).len());
    assert_eq!(theirs.temperature, 1.0);
    assert_eq!(Decoding::NATIVE.self_transition, SelfTransition::Allowed);
}

//! Tests of the whole BriLLM against its equations written plainly in f64: losses, gradients, decoding and AdamW steps; also
//! that padding, other rows and grouping change nothing.

use crate::candidate::{Candidates, Competition, Group, Paths};
use crate::compat;
use crate::counts::PairCounts;
use crate::flow::{Bias, First, FlowConfig, Hop, Mix};
use crate::generate::{Decoding, Positions, SelfTransition, SignalState};
use crate::graph::{BackOff, Graph};
use crate::model::{BackOffRows, BriLlm, BriLlmConfig, Initial, Parameters};
use crate::position::Encoding;
use crate::prior::{Prior, Weights};
use crate::row_adamw::{AdamW, Mode};
use crate::table::Storage;
use crate::training::RowAdamW;
use std::cmp::Reverse;
use std::sync::Arc;

/// A number in `[0, 1)` for every stream and place.
fn uniform(stream: &str, place: u64) -> f64 {
    let phase = stream.len() as f64 + 1.7 * place as f64;
    (phase.sin() * 43_758.545).rem_euclid(1.0)
}

/// `z Φ(z)`; the error function by its series of positive terms.
fn gelu(z: f64) -> f64 {
    let x = z.abs() * std::f64::consts::FRAC_1_SQRT_2;
    let (mut term, mut sum) = (x, x);
    for n in 1.. {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
        if term <= 1e-17 * sum {
            break;
        }
    }
    let erf = std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    0.5 * z * (1.0 + if x > 6.0 { 1.0 } else { erf } * z.signum())
}

/// What stands in a batch.
#[derive(Clone)]
struct Text {
    sources: Vec<u32>,
    targets: Vec<u32>,
    valid: Vec<bool>,
    seq: usize,
}

impl Text {
    /// Rows of different lengths, and in every second one a place in the middle that nothing is predicted at.
    fn new(seed: u64, [batch, seq, nodes]: [usize; 3]) -> Self {
        let token = |row: usize, place: usize| {
            let at = uniform("text", seed * 7919 + (row * (seq + 1) + place) as u64);
            (at * at * nodes as f64) as u32
        };
        let places = (0..batch).flat_map(|row| (0..seq).map(move |edge| (row, edge)));
        let valid = |(row, edge)| edge < seq - row % 3 && (row % 2 == 0 || edge != 1);
        Self {
            sources: places.clone().map(|(row, edge)| token(row, edge)).collect(),
            targets: places
                .clone()
                .map(|(row, edge)| token(row, edge + 1))
                .collect(),
            valid: places.map(valid).collect(),
            seq,
        }
    }

    fn paths(&self) -> Paths<'_> {
        Paths {
            sources: &self.sources,
            targets: &self.targets,
            valid: &self.valid,
            seq: self.seq,
        }
    }

    /// Some of its rows.
    fn rows(&self, rows: &[usize]) -> Self {
        let places = || {
            rows.iter()
                .flat_map(|row| row * self.seq..(row + 1) * self.seq)
        };
        Self {
            sources: places().map(|place| self.sources[place]).collect(),
            targets: places().map(|place| self.targets[place]).collect(),
            valid: places().map(|place| self.valid[place]).collect(),
            seq: self.seq,
        }
    }
}

/// A model with everything that decides who competes, and the texts its counts are of.
struct Case {
    model: BriLlm,
    competition: Competition,
    sequences: Vec<Vec<u32>>,
    prior: Prior,
    excluded: Vec<u32>,
}

/// What a case is made of.
#[derive(Clone, Copy, Debug)]
struct Made {
    flow: FlowConfig,
    back_off: BackOff,
    candidates: Candidates,
    prior: Prior,
    d: usize,
    nodes: usize,
}

const MADE: Made = Made {
    flow: compat::NATIVE,
    back_off: BackOff::SharedRow,
    candidates: Candidates::All,
    prior: Prior::None,
    d: 4,
    nodes: 6,
};

impl Case {
    fn new(made: Made, excluded: &[u32]) -> Self {
        let Made { nodes, flow, .. } = made;
        // The last two nodes are in no text.
        let token = |place: u64| (uniform("counted", place).powi(2) * (nodes - 2) as f64) as u32;
        let sequence = |row: u64| (0..9).map(|at| token(row * 17 + at)).collect();
        let sequences: Vec<Vec<u32>> = (0..5).map(sequence).collect();
        let counts = PairCounts::of(nodes, &sequences);
        let graph = counts.graph(2, made.back_off);
        let config = BriLlmConfig {
            d_node: made.d,
            flow,
            initial: Initial::Uniform { half_range: 0.8 },
            back_off_rows: BackOffRows::Trained,
            storage: Storage::F32,
            decoding: Decoding::NATIVE,
        };
        let mut parameters = config.init(nodes, graph.rows(), &uniform);
        for (place, value) in parameters.mix.iter_mut().enumerate() {
            *value += (place as f32).sin();
        }
        let weights = Weights::new(made.prior, Some(&counts), &graph);
        let competition = Competition::new(made.candidates, weights, flow.bias, Some(&counts));
        Self {
            competition: competition.without(excluded.to_vec()),
            prior: made.prior,
            excluded: excluded.to_vec(),
            sequences,
            model: BriLlm {
                config,
                graph: Arc::new(graph),
                parameters,
            },
        }
    }

    fn groups(&self, text: &Text) -> Vec<Group> {
        let draw = |place| uniform("draw", place);
        self.competition
            .groups(&self.model.graph, &text.paths(), &draw)
    }

    fn nodes(&self) -> u32 {
        self.model.graph.nodes() as u32
    }

    fn count(&self, source: u32, target: u32) -> usize {
        let pairs = self.sequences.iter().flat_map(|text| text.windows(2));
        pairs.filter(|pair| *pair == [source, target]).count()
    }

    /// What a pair is worth before signals flow: 1, or interpolated Kneser-Ney, from the texts.
    fn prior(&self, source: u32, target: u32) -> f64 {
        if self.excluded.contains(&target) {
            return 0.0;
        }
        if self.prior == Prior::None {
            return 1.0;
        }
        let n = self.nodes();
        let of_all = (0..n).flat_map(|s| (0..n).map(move |t| (s, t)));
        let counts: Vec<usize> = of_all.map(|(s, t)| self.count(s, t)).collect();
        let n_of = |count: usize| counts.iter().filter(|&&c| c == count).count() as f64;
        let discount = n_of(1) / (n_of(1) + 2.0 * n_of(2));
        let discount = if discount > 0.0 && discount < 1.0 {
            discount
        } else {
            0.75
        };
        let kinds_before = |t: u32| (0..n).filter(|&s| self.count(s, t) > 0).count() as f64;
        let all: f64 = (0..n).map(kinds_before).sum();
        let followed = (0..n).filter(|&t| kinds_before(t) > 0.0).count() as f64;
        let base = (kinds_before(target) - discount).max(0.0) / all
            + discount * followed / all / f64::from(n);
        let total: usize = (0..n).map(|t| self.count(source, t)).sum();
        if total == 0 {
            return base;
        }
        let kinds = (0..n).filter(|&t| self.count(source, t) > 0).count() as f64;
        let own = (self.count(source, target) as f64 - discount).max(0.0);
        (own + discount * kinds * base) / total as f64
    }

    /// The weight with which a target competes where `truth` is true.
    fn weight(&self, source: u32, truth: u32, target: u32) -> f64 {
        let prior = self.prior(source, target);
        let others = || (0..self.nodes()).filter(|&other| other != truth);
        match self.competition.candidates {
            _ if target == truth => prior,
            Candidates::All => prior,
            Candidates::Frequent { n } => {
                let mut others: Vec<u32> = others().collect();
                others.sort_by_key(|&other| (Reverse(self.count(source, other)), other));
                let competes = others.iter().take(n).any(|&other| other == target);
                f64::from(u8::from(competes)) * prior
            }
            Candidates::Sampled { n } => {
                let seen = |token: u32| {
                    let tokens = self.sequences.iter().flatten();
                    tokens.filter(|&&other| other == token).count() as f64 + 1.0
                };
                let all: f64 = (0..self.nodes()).map(seen).sum();
                let before: f64 = (0..target).map(seen).sum::<f64>() / all;
                let chance = seen(target) / all;
                let draws =
                    (0..n as u64).map(|at| uniform("draw", u64::from(source) * n as u64 + at));
                let hits = draws.filter(|at| (before..before + chance).contains(at));
                hits.count() as f64 / (n as f64 * chance) * prior
            }
        }
    }

    /// `[place][target]`; made once, for parameters do not change it.
    fn weights(&self, text: &Text) -> Vec<Vec<f64>> {
        let places = text.sources.iter().zip(&text.targets);
        let of = |(&source, &truth): (&u32, &u32)| {
            let all = 0..self.nodes();
            all.map(|target| self.weight(source, truth, target))
                .collect()
        };
        places.map(of).collect()
    }
}

/// All parameters of a model in f64, one list after the other: mix, node biases, codes, edges.
#[derive(Clone)]
struct Plain {
    config: BriLlmConfig,
    graph: Arc<Graph>,
    values: Vec<f64>,
    /// Where node biases, codes and edges begin.
    starts: [usize; 3],
}

impl Plain {
    fn new(model: &BriLlm) -> Self {
        let Parameters {
            mix,
            node_bias,
            codes,
            edges,
        } = &model.parameters;
        let edges = edges.part(0..edges.len());
        let lists = [mix, node_bias, codes, &edges.to_vec()].map(|list| list.to_vec());
        let mut starts = [0; 3];
        let mut end = 0;
        for (start, list) in starts.iter_mut().zip(&lists) {
            end += list.len();
            *start = end;
        }
        Self {
            config: model.config,
            graph: model.graph.clone(),
            values: lists.concat().into_iter().map(f64::from).collect(),
            starts,
        }
    }

    fn code(&self, position: usize) -> Vec<f64> {
        let d = self.config.d_node;
        let codes = &self.values[self.starts[1]..self.starts[2]];
        let wave = |k: usize, angle: f64| {
            if k.is_multiple_of(2) {
                angle.sin()
            } else {
                angle.cos()
            }
        };
        let frequency = |k: usize| 10000f64.powf((k / 2 * 2) as f64 / d as f64);
        let component = |k: usize| match self.config.flow.encoding {
            Encoding::ReferenceMultiply => {
                wave(k, f64::from(position as f32 * frequency(k) as f32))
            }
            Encoding::Standard => wave(k, position as f64 / frequency(k)),
            Encoding::Learnt { max_length } => codes[position.min(max_length - 1) * d + k],
            Encoding::None => 0.0,
        };
        (0..d).map(component).collect()
    }

    fn node_bias(&self, node: u32) -> &[f64] {
        let d = self.config.d_node;
        &self.values[self.starts[0] + node as usize * d..][..d]
    }

    fn first(&self, token: u32) -> Vec<f64> {
        let d = self.config.d_node;
        let parts = self.node_bias(token).iter().zip(self.code(0));
        match self.config.flow.first {
            First::Even => vec![1.0 / d as f64; d],
            First::Ones => vec![1.0; d],
            First::NodeBias => parts
                .map(|(b, code)| gelu(1.0 / d as f64 + b + code))
                .collect(),
        }
    }

    /// `GELU(h W + b + code + node bias)`.
    fn behind(&self, signal: &[f64], (source, target): (u32, u32), position: usize) -> Vec<f64> {
        let d = self.config.d_node;
        let row = self.graph.row(source, target) * d * (d + 1);
        let row = &self.values[self.starts[2] + row..][..d * (d + 1)];
        let bias = self.config.flow.bias;
        let code = self.code(position);
        let component = |k: usize| {
            let product: f64 = (0..d).map(|i| signal[i] * row[i * d + k]).sum();
            let of_edge = if bias.of_edge() { row[d * d + k] } else { 0.0 };
            let of_node = if bias.of_node() {
                self.node_bias(target)[k]
            } else {
                0.0
            };
            gelu(product + of_edge + of_node + code[k])
        };
        (0..d).map(component).collect()
    }

    /// The mix of all that arrived; the first signal where nothing has.
    fn mixed(&self, first: &[f64], arrived: &[Vec<f64>]) -> Vec<f64> {
        let mix = &self.values[..self.starts[0]];
        let n = arrived.len();
        if n == 0 {
            return first.to_vec();
        }
        let weight = |k: usize| match self.config.flow.mix {
            Mix::Absolute { .. } => mix[k.min(mix.len() - 1)].exp(),
            Mix::Decay { .. } => (1.0 / (1.0 + (-mix[0]).exp())).powi((n - 1 - k) as i32),
        };
        let total: f64 = (0..n).map(weight).sum();
        let component = |at: usize| (0..n).map(|k| weight(k) * arrived[k][at]).sum::<f64>() / total;
        (0..first.len()).map(component).collect()
    }

    /// For every place along the tokens, the energies of all targets; `position` says which code a hop adds.
    fn energies(&self, tokens: &[u32], position: &dyn Fn(usize) -> usize) -> Vec<Vec<f64>> {
        let first = self.first(tokens[0]);
        let mut arrived: Vec<Vec<f64>> = Vec::new();
        let mut all = Vec::new();
        for (hop, &source) in tokens.iter().enumerate() {
            let mixed = self.mixed(&first, &arrived);
            let energy = |target: u32| {
                let signal = self.behind(&mixed, (source, target), position(hop));
                signal.iter().map(|x| x * x).sum::<f64>().sqrt()
            };
            all.push((0..self.graph.nodes() as u32).map(energy).collect());
            if let Some(&target) = tokens.get(hop + 1) {
                let along = match (self.config.flow.hop, arrived.last()) {
                    (Hop::Previous, Some(last)) => last.clone(),
                    _ => mixed,
                };
                arrived.push(self.behind(&along, (source, target), position(hop)));
            }
        }
        all
    }

    /// `−ln p` per place; 0 where nothing is predicted.
    fn token_losses(&self, text: &Text, weights: &[Vec<f64>]) -> Vec<f64> {
        let first_hop = self.config.flow.first_hop;
        let mut nats = vec![0.0; text.valid.len()];
        for begin in (0..nats.len()).step_by(text.seq) {
            let tokens = &text.sources[begin..][..text.seq];
            for (edge, energies) in self
                .energies(tokens, &|hop| hop + first_hop)
                .iter()
                .enumerate()
            {
                let place = begin + edge;
                if text.valid[place] {
                    let share = |target: usize| weights[place][target] * energies[target].exp();
                    let all: f64 = (0..energies.len()).map(share).sum();
                    nats[place] = -(share(text.targets[place] as usize) / all).ln();
                }
            }
        }
        nats
    }

    /// The mean over what is predicted.
    fn loss(&self, text: &Text, weights: &[Vec<f64>]) -> f64 {
        let valid = text.valid.iter().filter(|&&valid| valid).count();
        self.token_losses(text, weights).iter().sum::<f64>() / valid as f64
    }

    /// Of one parameter, by a central difference.
    fn slope(&self, place: usize, text: &Text, weights: &[Vec<f64>]) -> f64 {
        let at = |by: f64| {
            let mut moved = self.clone();
            moved.values[place] += by;
            moved.loss(text, weights)
        };
        (at(1e-5) - at(-1e-5)) / 2e-5
    }
}

/// Every way of a signal and every way to compete, on small graphs.
fn cases() -> Vec<Made> {
    let mut all = Vec::new();
    let flows = [
        compat::REFERENCE,
        compat::DENSE_2025,
        compat::PAPER,
        compat::NATIVE,
        FlowConfig {
            mix: Mix::Absolute { max_length: 2 },
            bias: Bias::EdgeAndNode,
            encoding: Encoding::None,
            ..compat::REFERENCE
        },
        FlowConfig {
            bias: Bias::Node,
            encoding: Encoding::Learnt { max_length: 3 },
            ..compat::REFERENCE
        },
        FlowConfig {
            mix: Mix::Decay { initial: 0.4 },
            encoding: Encoding::Learnt { max_length: 3 },
            first: First::NodeBias,
            ..compat::PAPER
        },
        FlowConfig {
            bias: Bias::None,
            hop: Hop::Previous,
            first_hop: 2,
            ..compat::NATIVE
        },
    ];
    let back_offs = [
        BackOff::SharedRow,
        BackOff::Classes { n_classes: 3 },
        BackOff::Hash { n_rows: 4 },
    ];
    let ways = [
        Candidates::All,
        Candidates::Frequent { n: 2 },
        Candidates::Sampled { n: 3 },
    ];
    for (index, flow) in flows.into_iter().enumerate() {
        for (way, candidates) in ways.into_iter().enumerate() {
            all.push(Made {
                flow,
                back_off: back_offs[(index + way) % 3],
                candidates,
                prior: [Prior::None, Prior::Bigram][(index / 2 + way) % 2],
                ..MADE
            });
        }
    }
    all
}

#[test]
fn nats_are_those_of_the_equations_in_f64() {
    for (index, made) in cases().into_iter().enumerate() {
        let text = Text::new(index as u64, [5, 4, made.nodes - 1]);
        // A node that no text holds is never predicted in every second case.
        let excluded = [made.nodes as u32 - 1];
        let case = Case::new(made, &excluded[..index % 2]);
        let expected = Plain::new(&case.model).token_losses(&text, &case.weights(&text));
        let found = case.model.token_losses(&text.paths(), &case.groups(&text));
        let evaluated = case.competition.evaluation();
        let groups = evaluated.groups(&case.model.graph, &text.paths(), &|_| 0.0);
        let everybody = Case {
            competition: evaluated,
            ..Case::new(made, &excluded[..index % 2])
        };
        let expected_of_all =
            Plain::new(&case.model).token_losses(&text, &everybody.weights(&text));
        let found_of_all = case.model.token_losses(&text.paths(), &groups);
        let pairs = found.iter().zip(&expected);
        for (found, expected) in pairs.chain(found_of_all.iter().zip(&expected_of_all)) {
            // A few roundings of f32 of numbers of about 3.
            assert!(
                (found - expected).abs() < 1e-5,
                "{made:?}: {found} {expected}"
            );
        }
    }
}

/// AdamW of which the first moment is the gradient itself.
const PLAIN_MOMENT: AdamW = AdamW {
    betas: [0.0, 0.999],
    epsilon: 1e-8,
    weight_decay: 0.0,
};

/// The gradient of everything in the order of [`Plain`], from a step at a learning rate of zero; and the length it says.
fn gradient(case: &Case, text: &Text) -> (Vec<f32>, f64) {
    let mut optimizer = RowAdamW::new(&case.model, Mode::Touched, PLAIN_MOMENT, None);
    let mut model = case.model.clone();
    let learnt = optimizer.step(&mut model, &text.paths(), &case.groups(text), 0.0);
    assert!(model == case.model, "a rate of zero moves nothing");
    let edges = optimizer.edges.first.part(0..optimizer.edges.first.len());
    let [mix, node_bias, codes] = [optimizer.mix, optimizer.node_bias, optimizer.codes];
    let lists = [&mix[0][..], &node_bias[0], &codes[0], &edges];
    (lists.concat(), learnt.gradient_norm)
}

#[test]
fn gradients_of_every_parameter_are_those_of_the_equations_in_f64() {
    let mut holes = 0;
    for (index, made) in cases().into_iter().enumerate() {
        let text = Text::new(index as u64 + 50, [3, 4, made.nodes]);
        // The second row has a place in the middle that nothing is predicted at.
        holes += usize::from(!text.valid[5]);
        let case = Case::new(made, &[]);
        let plain = Plain::new(&case.model);
        let weights = case.weights(&text);
        let (found, length) = gradient(&case, &text);
        assert_eq!(found.len(), plain.values.len());
        let rows = (plain.starts[2]..found.len()).skip(index % 5).step_by(5);
        for place in (0..6).chain(plain.starts[0]..plain.starts[2]).chain(rows) {
            let expected = plain.slope(place, &text, &weights);
            let found = f64::from(found[place]);
            assert!(
                (found - expected).abs() < 3e-6,
                "{made:?} {place}: {found} {expected}"
            );
        }
        let square: f64 = found.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((length - square.sqrt()).abs() < 1e-5 * length, "{length}");
    }
    assert!(holes > 2, "{holes}");
}

#[test]
fn a_signal_along_three_tokens_is_the_one_on_paper() {
    let flow = FlowConfig {
        first: First::Ones,
        hop: Hop::Mixed,
        mix: Mix::Absolute { max_length: 4 },
        encoding: Encoding::None,
        first_hop: 1,
        bias: Bias::Edge,
    };
    let mut case = Case::new(
        Made {
            flow,
            d: 2,
            nodes: 3,
            ..MADE
        },
        &[],
    );
    let graph = Graph::full(3);
    let row = |source, target| graph.row(source, target);
    let mut edges = vec![0.0; graph.rows() * 6];
    let mut set = |row: usize, values: [f32; 6]| edges[row * 6..][..6].copy_from_slice(&values);
    // h0 = (1, 1); z = (1, 1) W + b = (1, 0); e1 = GELU(z) = (0.8413447, 0).
    set(row(0, 1), [1.0, 2.0, 0.0, -1.0, 0.0, -1.0]);
    // h1 = e1; z = (0, 2) exactly: 0.8413447 (0, 0) + (0, 2); e2 = (0, 1.9544997).
    set(row(1, 2), [0.0, 0.0, 3.0, 5.0, 0.0, 2.0]);
    // h2 = (e1 + 3 e2) / 4 = (0.2103362, 1.4658748), for α = (0, ln 3). Energies at node 2:
    // to 0: z = h2, GELU = (0.1226885, 1.3612975), E = 1.3668151.
    set(row(2, 0), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    // To 1: z = (1.4658748, 0.4206724) by W = [0 2; 1 0], GELU = (1.3612975, 0.2789070), E = 1.3895755.
    set(row(2, 1), [0.0, 2.0, 1.0, 0.0, 0.0, 0.0]);
    // To 2: z = (0, 0), E = 0.
    let energies = [1.366_815_1, 1.389_575_5, 0.0];
    case.model = BriLlm {
        config: case.model.config,
        graph: Arc::new(graph.clone()),
        parameters: Parameters {
            mix: vec![0.0, 3f32.ln(), 0.0, 0.0],
            node_bias: vec![9.0; 6],
            codes: Vec::new(),
            edges: edges.into(),
        },
    };
    let everybody = Competition::new(Candidates::All, Weights::One, flow.bias, None);
    let mut state = SignalState::start(&case.model, 0);
    assert_eq!(state.mixed, [1.0, 1.0]);
    state.advance(&case.model, Decoding::NATIVE, 1);
    state.advance(&case.model, Decoding::NATIVE, 2);
    let candidates = state.candidates(&case.model, &everybody, Decoding::NATIVE);
    for (found, expected) in candidates.iter().zip(energies) {
        assert!(
            (found.energy - expected).abs() < 1e-6,
            "{found:?} {expected}"
        );
        assert_eq!(found.score, found.energy);
    }
    let text = Text {
        sources: vec![0, 1, 2],
        targets: vec![1, 2, 1],
        valid: vec![false, false, true],
        seq: 3,
    };
    let groups = everybody.groups(&graph, &text.paths(), &|_| 0.0);
    let nats = case.model.token_losses(&text.paths(), &groups);
    assert_eq!(nats[..2], [0.0, 0.0]);
    // ln(e^1.3668151 + e^1.3895755 + e^0) − 1.3895755.
    assert!((nats[2] - 0.800_510_7).abs() < 1e-6, "{nats:?}");
}

#[test]
fn what_stands_in_padding_and_beside_a_row_changes_nothing() {
    for (index, made) in cases().into_iter().enumerate() {
        let case = Case::new(made, &[]);
        let text = Text::new(index as u64 + 90, [4, 5, made.nodes]);
        let mut other = text.clone();
        for row in 0..4 {
            // What is behind the last edge; the last source is the last target before.
            for place in row * 5 + text.paths().length(row)..(row + 1) * 5 {
                other.sources[place] = (other.sources[place] + 1) % made.nodes as u32;
                other.targets[place] = (other.targets[place] + 2) % made.nodes as u32;
            }
        }
        assert_ne!(text.targets, other.targets);
        let nats = |text: &Text| case.model.token_losses(&text.paths(), &case.groups(text));
        let whole = nats(&text);
        assert_eq!(whole, nats(&other), "{made:?}");
        assert!(
            gradient(&case, &text) == gradient(&case, &other),
            "{made:?}"
        );
        for row in 0..4 {
            assert_eq!(nats(&text.rows(&[row])), whole[row * 5..][..5], "{made:?}");
        }
        let turned = text.rows(&[2, 0, 3, 1]);
        let found = nats(&turned);
        assert_eq!(found[5..10], whole[..5]);
        let (a, b) = (gradient(&case, &text), gradient(&case, &turned));
        // The same terms in another order.
        assert!(
            a.0.iter().zip(&b.0).all(|(a, b)| (a - b).abs() < 1e-6),
            "{made:?}"
        );
    }
}

#[test]
fn many_rows_and_many_tokens_make_the_same_as_few() {
    let flow = FlowConfig {
        bias: Bias::EdgeAndNode,
        ..compat::REFERENCE
    };
    for flow in [flow, compat::REFERENCE] {
        let made = Made {
            flow,
            d: 2,
            nodes: 150,
            ..MADE
        };
        let mut case = Case::new(made, &[]);
        let graph = Graph::full(150);
        case.model.parameters = case.model.config.init(150, graph.rows(), &uniform);
        case.model.graph = Arc::new(graph);
        // All in one group: more pairs than one thread works on, more tokens than are kept as vectors.
        let n = 56;
        let text = Text {
            sources: vec![7; n],
            targets: (0..n)
                .map(|row| if row < 30 { 64 } else { row as u32 })
                .collect(),
            valid: vec![true; n],
            seq: 1,
        };
        let plain = Plain::new(&case.model);
        let weights = vec![vec![1.0; 150]; n];
        let expected = plain.token_losses(&text, &weights);
        let found = case.model.token_losses(&text.paths(), &case.groups(&text));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        let (found, _) = gradient(&case, &text);
        for target in [0, 54, 63, 64, 65, 127, 128, 149] {
            let edge = plain.starts[2] + case.model.graph.row(7, target) * 6;
            let node = plain.starts[0] + 2 * target as usize;
            for place in [edge + 1, edge + 4, node] {
                let expected = plain.slope(place, &text, &weights);
                assert!(
                    (f64::from(found[place]) - expected).abs() < 3e-6,
                    "{target} {place}"
                );
            }
        }
        let state = SignalState::start(&case.model, 7);
        let score = || state.candidates(&case.model, &case.competition, Decoding::NATIVE);
        // From within the pool the rows are shared between its threads.
        let shared = rayon::scope(|_| score());
        assert_eq!(score(), shared);
        let energies = plain.energies(&[7], &|hop| hop + 1);
        for (found, expected) in shared.iter().zip(&energies[0]) {
            assert!(
                (f64::from(found.energy) - expected).abs() < 1e-5,
                "{found:?} {expected}"
            );
        }
    }
}

#[test]
fn decoding_one_by_one_is_the_equations_at_the_positions_it_names() {
    for made in cases() {
        let case = Case::new(made, &[2]);
        let plain = Plain::new(&case.model);
        let tokens = [1, 3, 0, 1, 1, 2];
        let first_hop = made.flow.first_hop;
        for positions in [Positions::AsTrained, Positions::OneBack, Positions::Restart] {
            for self_transition in [SelfTransition::Allowed, SelfTransition::Never] {
                let decoding = Decoding {
                    positions,
                    self_transition,
                    ..Decoding::NATIVE
                };
                // The prompt is three tokens, so two hops.
                let position = |hop: usize| match positions {
                    Positions::AsTrained => hop + first_hop,
                    Positions::OneBack => hop + first_hop.max(1) - 1,
                    Positions::Restart if hop >= 2 => hop - 2 + first_hop,
                    Positions::Restart => hop + first_hop,
                };
                let expected = plain.energies(&tokens, &position);
                let mut state = SignalState::start(&case.model, tokens[0]);
                for (hop, &token) in tokens.iter().enumerate() {
                    if hop > 0 {
                        state.advance(&case.model, decoding, token);
                    }
                    if hop == 2 {
                        state.end_prompt(decoding);
                    }
                    let found = state.candidates(&case.model, &case.competition, decoding);
                    let barred =
                        |target| self_transition == SelfTransition::Never && target == token;
                    let who = (0..case.nodes()).filter(|&target| target != 2 && !barred(target));
                    assert!(found.iter().map(|c| c.target).eq(who));
                    for found in found {
                        let energy = expected[hop][found.target as usize];
                        let score = energy + case.prior(token, found.target).ln();
                        assert!((f64::from(found.energy) - energy).abs() < 1e-5, "{made:?}");
                        assert!((f64::from(found.score) - score).abs() < 1e-5, "{made:?}");
                    }
                }
            }
        }
    }
}

/// AdamW as it is written, in f64, with a time for every place.
struct Dense {
    values: Vec<f64>,
    moments: Vec<[f64; 2]>,
    times: Vec<i32>,
}

impl Dense {
    fn step(&mut self, adamw: AdamW, rate: f64, gradient: &[Option<f64>]) {
        let [beta_1, beta_2] = adamw.betas;
        for (place, g) in gradient.iter().enumerate() {
            let Some(g) = g else { continue };
            self.times[place] += 1;
            let time = self.times[place];
            let [first, second] = &mut self.moments[place];
            *first = beta_1 * *first + (1.0 - beta_1) * g;
            *second = beta_2 * *second + (1.0 - beta_2) * g * g;
            let root = (*second / (1.0 - beta_2.powi(time))).sqrt() + adamw.epsilon;
            let step = *first / (1.0 - beta_1.powi(time)) / root;
            self.values[place] -= rate * (adamw.weight_decay * self.values[place] + step);
        }
    }
}

#[test]
fn steps_are_adamw_as_it_is_written_with_rows_that_count_their_own_and_are_clipped() {
    let adamw = AdamW {
        betas: [0.8, 0.95],
        // Large against the rounding of gradients.
        epsilon: 1e-3,
        weight_decay: 0.3,
    };
    let flow = FlowConfig {
        mix: Mix::Absolute { max_length: 3 },
        encoding: Encoding::Learnt { max_length: 3 },
        ..compat::REFERENCE
    };
    let plain = Made {
        flow,
        d: 2,
        nodes: 5,
        candidates: Candidates::Frequent { n: 1 },
        ..MADE
    };
    for (mode, clip, frozen) in [
        (Mode::Touched, None, BackOffRows::Trained),
        (Mode::Touched, Some(0.05), BackOffRows::Trained),
        (Mode::Exact, Some(0.05), BackOffRows::Frozen),
        (Mode::Dense, None, BackOffRows::Trained),
    ] {
        let mut case = Case::new(plain, &[]);
        case.model.config.back_off_rows = frozen;
        let mut optimizer = RowAdamW::new(&case.model, mode, adamw, clip);
        let start = Plain::new(&case.model);
        let (starts, n) = (start.starts, start.values.len());
        let mut dense = Dense {
            values: start.values.clone(),
            moments: vec![[0.0; 2]; n],
            times: vec![0; n],
        };
        let mut clipped = 0;
        for step in 0..4 {
            let text = Text::new(20 + step, [2, 3, [5, 2][step as usize % 2]]);
            let rate = 0.05 / (1.0 + step as f64);
            let at = Plain {
                values: dense.values.clone(),
                ..start.clone()
            };
            let weights = case.weights(&text);
            let slopes: Vec<f64> = (0..n)
                .map(|place| at.slope(place, &text, &weights))
                .collect();
            let groups = case.groups(&text);
            let mut used = crate::ops::gather::rows_of(&case.model.graph, &text.paths(), &groups);
            let frozen_rows = case.model.frozen_rows();
            used.retain(|&row| row >= frozen_rows);
            let mut gradient: Vec<Option<f64>> = slopes.iter().copied().map(Some).collect();
            let mut square: f64 = slopes[..starts[2]].iter().map(|g| g * g).sum();
            for row in 0..case.model.graph.rows() {
                let places = starts[2] + row * 6..starts[2] + (row + 1) * 6;
                let length = slopes[places.clone()].iter().map(|g| g * g).sum::<f64>();
                let scale = clip.map_or(1.0, |clip| (f64::from(clip) / length.sqrt()).min(1.0));
                clipped += usize::from(used.contains(&row) && scale < 1.0);
                square += if row < frozen_rows { 0.0 } else { length };
                for g in &mut gradient[places] {
                    let rests = row < frozen_rows || mode == Mode::Touched && !used.contains(&row);
                    *g = g.map(|g| g * scale).filter(|_| !rests);
                }
            }
            dense.step(adamw, rate, &gradient);
            let learnt = optimizer.step(&mut case.model, &text.paths(), &groups, rate);
            assert!(
                (learnt.gradient_norm - square.sqrt()).abs() < 1e-5,
                "{mode:?}"
            );
            // Dense rows are never behind; others catch up in the end.
            if mode == Mode::Exact && step < 3 {
                continue;
            }
            optimizer.catch_up(&mut case.model);
            let found = Plain::new(&case.model).values;
            for (place, (found, expected)) in found.iter().zip(&dense.values).enumerate() {
                assert!(
                    (found - expected).abs() < 2e-5,
                    "{mode:?} {place}: {found} {expected}"
                );
            }
        }
        assert_eq!(clip.is_some(), clipped > 0, "{mode:?}");
    }
}

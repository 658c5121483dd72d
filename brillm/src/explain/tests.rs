//! Tests of traces, attributions, odds, edges and opposition: against the evaluation pass, finite differences and brute force.

use super::*;
use crate::candidate::{Candidates, Competition, Paths};
use crate::compat;
use crate::counts::PairCounts;
use crate::flow::{Bias, FlowConfig, Hop, Mix, arrive};
use crate::generate::{Decoding, SignalState};
use crate::graph::BackOff;
use crate::model::{BackOffRows, BriLlm, BriLlmConfig, Initial};
use crate::ops::host::numeric::norm;
use crate::position::Encoding;
use crate::prior::{Prior, Weights};
use crate::table::Storage;
use std::collections::BTreeSet;
use std::sync::Arc;

const NODES: usize = 11;
const D: usize = 10;
const NOBODY: BTreeSet<usize> = BTreeSet::new();

/// A number in `[0, 1)` for every place, from a sine.
fn uniform(stream: &str, place: u64) -> f64 {
    let phase = stream.len() as f64 + 1.7 * place as f64;
    (phase.sin() * 43_758.545).rem_euclid(1.0)
}

fn text(seed: u64, length: u64) -> Vec<u32> {
    let token = |place| (uniform("text", seed * 101 + place).powi(2) * NODES as f64) as u32;
    (0..length).map(token).collect()
}

fn counts() -> PairCounts {
    PairCounts::of(NODES, (0..6).map(|seed| text(seed, 25)))
}

/// A model with everything that decides who follows whom.
struct Case {
    model: BriLlm,
    counts: PairCounts,
    everybody: Competition,
    training: Competition,
}

impl Case {
    fn new(flow: FlowConfig, back_off: BackOff, prior: Prior, candidates: Candidates) -> Self {
        let counts = counts();
        let graph = counts.graph(2, back_off);
        let config = BriLlmConfig {
            d_node: D,
            flow,
            initial: Initial::Uniform { half_range: 0.5 },
            back_off_rows: BackOffRows::Trained,
            storage: Storage::F32,
            decoding: Decoding::NATIVE,
        };
        let mut parameters = config.init(NODES, graph.rows(), &uniform);
        for (place, value) in parameters.mix.iter_mut().enumerate() {
            *value += (place as f32).sin();
        }
        let weights = Weights::new(prior, Some(&counts), &graph);
        let training = Competition::new(candidates, weights, flow.bias, Some(&counts));
        Self {
            everybody: training.evaluation(),
            training,
            counts,
            model: BriLlm {
                config,
                graph: Arc::new(graph),
                parameters,
            },
        }
    }

    fn plain() -> Self {
        Self::new(compat::NATIVE, CLASSES, Prior::None, Candidates::All)
    }

    fn tracer(&self, top: usize) -> Tracer<'_> {
        Tracer {
            model: &self.model,
            competition: &self.everybody,
            counts: Some(&self.counts),
            decoding: Decoding::NATIVE,
            top,
        }
    }

    fn trace(&self, tokens: &[u32]) -> Vec<TracedStep> {
        self.tracer(NODES).trace(tokens, &NOBODY)
    }

    /// `−ln p` of every next token, by the pass that training and evaluation use.
    fn token_losses(&self, tokens: &[u32]) -> Vec<f64> {
        let seq = tokens.len() - 1;
        let paths = Paths {
            sources: &tokens[..seq],
            targets: &tokens[1..],
            valid: &vec![true; seq],
            seq,
        };
        let groups = self.everybody.groups(&self.model.graph, &paths, &|_| 0.0);
        self.model.token_losses(&paths, &groups)
    }
}

const CLASSES: BackOff = BackOff::Classes { n_classes: 3 };

/// Every way of a signal, both kinds of back-off, with and without a prior.
fn cases() -> Vec<Case> {
    let decayed = FlowConfig {
        mix: Mix::Decay { initial: 0.7 },
        ..compat::PAPER
    };
    let of_nodes = FlowConfig {
        bias: Bias::EdgeAndNode,
        encoding: Encoding::Learnt { max_length: 6 },
        ..compat::NATIVE
    };
    let mut cases = Vec::new();
    for (flow, back_off) in [
        (compat::REFERENCE, BackOff::SharedRow),
        (compat::DENSE_2025, CLASSES),
        (compat::PAPER, CLASSES),
        (compat::NATIVE, BackOff::SharedRow),
        (decayed, CLASSES),
        (of_nodes, BackOff::Hash { n_rows: 4 }),
    ] {
        for prior in [Prior::None, Prior::Bigram] {
            cases.push(Case::new(flow, back_off, prior, Candidates::All));
        }
    }
    cases
}

#[test]
fn a_trace_measures_what_evaluation_measures() {
    for case in cases() {
        for seed in 0..3 {
            let tokens = text(seed + 40, 18);
            let steps = case.trace(&tokens);
            assert_eq!(steps.len(), tokens.len());
            for (step, nats) in steps.iter().zip(case.token_losses(&tokens)) {
                let truth = step.truth.unwrap();
                assert!(
                    (truth.nats - nats).abs() < 1e-5,
                    "step {}: {} {nats}",
                    step.position,
                    truth.nats
                );
            }
            assert!(steps.last().unwrap().truth.is_none());
        }
    }
}

#[test]
fn probabilities_are_one_distribution_and_ranks_are_its_order() {
    for case in cases() {
        for step in case.trace(&text(7, 12)) {
            let all = &step.candidates;
            assert_eq!(all.len(), NODES);
            let total: f64 = all.iter().map(Placed::probability).sum();
            assert!((total - 1.0).abs() < 1e-9);
            let entropy: f64 = all.iter().map(|c| c.probability() * c.nats).sum();
            assert!((entropy - step.odds.entropy).abs() < 1e-9);
            let margin = f64::from(all[0].score) - f64::from(all[1].score);
            assert_eq!(step.odds.margin, Some(margin));
            for (place, candidate) in all.iter().enumerate() {
                assert_eq!(candidate.rank, Some(place + 1));
                assert!(place == 0 || candidate.score <= all[place - 1].score);
                let weight = case.everybody.weights.of(step.token, candidate.target);
                let score = f64::from(candidate.energy) + weight.ln();
                assert!((score - f64::from(candidate.score)).abs() < 1e-5);
                assert_eq!(
                    candidate.row,
                    case.model.graph.row(step.token, candidate.target)
                );
                assert_eq!(candidate.own, case.model.graph.is_own(candidate.row));
            }
            let truth = step.truth.map(|truth| truth.rank.unwrap());
            assert!(truth.is_none_or(|rank| all[rank - 1] == step.truth.unwrap()));
        }
    }
}

#[test]
fn the_shares_of_the_past_make_the_mix() {
    for case in cases() {
        let tokens = text(3, 14);
        let mut state = SignalState::start(&case.model, tokens[0]);
        let mut arrived = vec![state.arrived.clone()];
        for (step, next) in case.trace(&tokens).iter().zip(&tokens[1..]) {
            let sum: f64 = step.shares.iter().sum();
            assert!((sum - 1.0).abs() < 1e-9);
            assert_eq!(step.shares.len(), step.position + 1);
            // The first signal is for the first prediction alone.
            assert_eq!(step.shares[0] > 0.0, step.position == 0);
            for k in 0..D {
                let parts = arrived.iter().zip(&step.shares);
                let mix: f64 = parts.map(|(e, share)| share * f64::from(e[k])).sum();
                assert!((mix - f64::from(step.signal[k])).abs() < 1e-6);
            }
            state.advance(&case.model, Decoding::NATIVE, *next);
            arrived.push(state.arrived.clone());
        }
    }
}

#[test]
fn contributions_add_up_to_the_energy() {
    for case in cases() {
        for step in case.trace(&text(5, 12)) {
            for attribution in &step.attributions {
                let energy = attribution.energy;
                let gaps = [&attribution.gradient, &attribution.integrated].map(|split| {
                    let sum = split.positions.iter().sum::<f64>() + split.bias + split.code;
                    assert!((energy - sum - split.gap).abs() < 1e-9);
                    split.gap.abs()
                });
                // The midpoint rule at 32 steps and more.
                assert!(gaps[1] < 1e-3 * energy, "{} of {energy}", gaps[1]);
                assert!(gaps[1] < gaps[0], "{gaps:?}");
                assert_eq!(attribution.gradient.positions.len(), step.position + 1);
            }
            let first = step.truth.or(step.best().copied()).unwrap();
            assert_eq!(step.attributions[0].target, first.target);
            let energy = step.attributions[0].energy;
            assert!((energy - f64::from(first.energy)).abs() < 1e-5);
        }
    }
}

/// The energy of a target if `change` were added to the mix.
fn energy_with(case: &Case, step: &TracedStep, target: u32, change: &[f64]) -> f64 {
    let mut state = SignalState::start(&case.model, step.token);
    // Only the number of hops counts for the code.
    for token in text(5, 12).into_iter().skip(1).take(step.position) {
        state.advance(&case.model, Decoding::NATIVE, token);
    }
    let mixed = step.signal.iter().zip(change);
    let mixed: Vec<f32> = mixed
        .map(|(h, change)| (f64::from(*h) + change) as f32)
        .collect();
    let row = case.model.graph.row(step.token, target);
    let row = case.model.parameters.edge(row, D).to_vec();
    let mut z = state.code(&case.model, Decoding::NATIVE, target);
    let mut slope = vec![0.0; D];
    arrive(&mixed, &row, &mut z, &mut slope);
    f64::from(norm(&z))
}

#[test]
fn a_gradient_is_what_a_small_change_of_a_signal_does() {
    for case in cases() {
        let tokens = text(5, 12);
        let mut state = SignalState::start(&case.model, tokens[0]);
        let mut arrived = vec![state.arrived.clone()];
        for next in &tokens[1..] {
            state.advance(&case.model, Decoding::NATIVE, *next);
            arrived.push(state.arrived.clone());
        }
        for step in case.trace(&tokens) {
            let attribution = &step.attributions[0];
            for (position, share) in step.shares.iter().enumerate() {
                // Long enough against the rounding of f32, short enough against the bend of GELU.
                let reach = 0.02;
                let energy = |sign: f64| {
                    let signal = arrived[position].iter();
                    let change: Vec<f64> = signal
                        .map(|e| sign * reach * share * f64::from(*e))
                        .collect();
                    energy_with(&case, &step, attribution.target, &change)
                };
                let difference = (energy(1.0) - energy(-1.0)) / (2.0 * reach);
                let found = attribution.gradient.positions[position];
                assert!((found - difference).abs() < 2e-3, "{found} {difference}");
            }
        }
    }
}

#[test]
fn a_dropped_signal_is_in_no_mix_and_the_others_take_its_weight() {
    for case in cases() {
        let tokens = text(9, 12);
        for dropped in [vec![2], vec![1, 4], vec![1], vec![0]] {
            let dropped: BTreeSet<usize> = dropped.into_iter().collect();
            let whole = case.trace(&tokens);
            let steps = case.tracer(3).trace(&tokens, &dropped);
            // By definition, hop after hop.
            let mut arrived: Vec<Vec<f32>> =
                vec![SignalState::start(&case.model, tokens[0]).arrived];
            for (place, step) in steps.iter().enumerate() {
                let kept = (0..=place).filter(|p| !dropped.contains(p));
                let weight = |p: usize| whole[place].shares[p];
                let total: f64 = kept.clone().map(weight).sum();
                let mut mix = [0.0; D];
                for position in kept {
                    assert!(
                        total == 0.0
                            || (step.shares[position] - weight(position) / total).abs() < 1e-9
                    );
                    for (mix, e) in mix.iter_mut().zip(&arrived[position]) {
                        *mix += step.shares[position] * f64::from(*e);
                    }
                }
                assert!(dropped.iter().all(|&p| p > place || step.shares[p] == 0.0));
                for (mix, h) in mix.iter().zip(&step.signal) {
                    assert!((mix - f64::from(*h)).abs() < 1e-5, "{place}");
                }
                let Some(&next) = tokens.get(place + 1) else {
                    break;
                };
                let mut state = SignalState::start(&case.model, tokens[0]);
                for &token in &tokens[1..=place] {
                    state.advance(&case.model, Decoding::NATIVE, token);
                }
                let carried = match case.model.config.flow.hop {
                    Hop::Mixed => step.signal.clone(),
                    Hop::Previous => arrived[place].clone(),
                };
                let row = case.model.graph.row(step.token, next);
                arrived.push(state.signal_behind(
                    &case.model,
                    Decoding::NATIVE,
                    &carried,
                    row,
                    next,
                ));
            }
            for (step, whole) in steps.iter().zip(&whole) {
                if dropped.iter().all(|&position| position > step.position) {
                    assert_eq!(step.truth, whole.truth);
                }
            }
            let first = *dropped.first().unwrap();
            assert_ne!(steps[first].signal, whole[first].signal);
        }
    }
}

#[test]
fn short_texts_and_tokens_that_may_not_follow_are_no_trouble() {
    let case = Case::plain();
    assert!(case.trace(&[]).is_empty());
    let one = case.trace(&[4]);
    assert_eq!((one.len(), one[0].truth), (1, None));
    let tracer = Tracer {
        decoding: Decoding::REFERENCE,
        top: 0,
        ..case.tracer(0)
    };
    let steps = tracer.trace(&[3, 3], &NOBODY);
    let truth = steps[0].truth.unwrap();
    assert_eq!((truth.rank, truth.nats), (None, f64::INFINITY));
    assert!(truth.energy > 0.0 && steps[0].odds.ln_sum_exp.is_finite());
    assert_eq!(steps[0].candidates.len(), 1);
}

#[test]
fn a_spectral_norm_is_the_largest_singular_value() {
    let mut case = Case::plain();
    let (source, target) = case.model.graph.pair(case.model.graph.rows() - 1).unwrap();
    let row = case.model.graph.own_row(source, target).unwrap();
    let mut size_of = |value: &dyn Fn(usize, usize) -> f32| {
        let mut values = vec![2.0; D * (D + 1)];
        for i in 0..D {
            for k in 0..D {
                values[i * D + k] = value(i, k);
            }
        }
        write_row(&mut case.model, row, &values);
        EdgeSize::of(&case.model, row)
    };
    let near = |a: f64, b: f64| (a - b).abs() < 1e-6 * (1.0 + b);
    let diagonal = size_of(&|i, k| if i == k { i as f32 } else { 0.0 });
    assert!(near(diagonal.spectral, 9.0) && near(diagonal.frobenius, 285f64.sqrt()));
    assert!(near(diagonal.bias, 40f64.sqrt()));
    let shift = size_of(&|i, k| if (i + 1) % D == k { -3.0 } else { 0.0 });
    assert!(near(shift.spectral, 3.0));
    let one = size_of(&|i, k| if (i, k) == (7, 2) { 0.5 } else { 0.0 });
    assert!(near(one.spectral, 0.5) && near(one.frobenius, 0.5));
    // Of rank one: the product of the lengths.
    let outer = size_of(&|i, k| (i as f32 - 4.0) * (k as f32 + 1.0));
    assert!(near(outer.spectral, (85f64 * 385.0).sqrt()));
    assert_eq!(size_of(&|_, _| 0.0).spectral, 0.0);
}

#[test]
fn an_edge_can_be_replaced_and_put_back_and_a_shared_row_cannot() {
    let mut case = Case::plain();
    let graph = case.model.graph.clone();
    let before = case.model.parameters.clone();
    let pair = graph.pair(graph.rows() - 3).unwrap();
    let other = graph.pair(graph.rows() - 1).unwrap();
    let own = graph.own_row(pair.0, pair.1).unwrap();
    let back_off = graph.back_off_row(pair.0, pair.1);
    for (by, expected) in [
        (Replacement::Zero, vec![0.0; D * (D + 1)]),
        (Replacement::BackOff, before.edge(back_off, D).to_vec()),
        (
            Replacement::Edge(other.0, other.1),
            before.edge(graph.row(other.0, other.1), D).to_vec(),
        ),
    ] {
        let (row, old) = replace(&mut case.model, pair, by).unwrap();
        assert_eq!(row, own);
        for row in 0..graph.rows() {
            let values = case.model.parameters.edge(row, D);
            match row == own {
                true => assert!(values.iter().eq(&expected)),
                false => assert!(values.iter().eq(before.edge(row, D).iter())),
            }
        }
        write_row(&mut case.model, row, &old);
        assert!(case.model.parameters == before);
    }
    let pairs = (0..NODES as u32).map(|target| (2, target));
    let shared = pairs
        .into_iter()
        .find(|&(source, target)| graph.own_row(source, target).is_none());
    assert!(replace(&mut case.model, shared.unwrap(), Replacement::Zero).is_none());
    assert!(case.model.parameters == before);
}

#[test]
fn an_output_is_dead_where_its_slope_is_nothing() {
    let mut case = Case::plain();
    let tokens = text(2, 20);
    let (source, target) = (tokens[3], tokens[4]);
    let visits = tokens.iter().filter(|&&token| token == source).count() as u64;
    let row = case.model.graph.row(source, target);
    let mut values = vec![0.0; D * (D + 1)];
    for (dead, bias) in values[D * D..].iter_mut().enumerate() {
        // Far below zero GELU is flat; far above it is not, and a little below it slopes downwards.
        *bias = match dead {
            0..3 => -50.0,
            3..6 => -2.5,
            _ => 50.0,
        };
    }
    write_row(&mut case.model, row, &values);
    let mut found = DeadOutputs::default();
    found.add(&case.model, Decoding::NATIVE, &tokens, (source, target));
    assert_eq!((found.signals, found.dead), (visits, 3 * visits));
    assert!((found.share().unwrap() - 0.3).abs() < 1e-12);
    let mut nowhere = DeadOutputs::default();
    nowhere.add(&case.model, Decoding::NATIVE, &[], (source, target));
    assert_eq!(nowhere.share(), None);
}

/// Every pair that stands against some truth in a competition, tried one by one.
fn opposed(case: &Case) -> BTreeSet<(u32, u32)> {
    let mut opposed = BTreeSet::new();
    let nodes = NODES as u32;
    for (source, truth) in (0..nodes).flat_map(|s| (0..nodes).map(move |t| (s, t))) {
        let paths = Paths {
            sources: &[source],
            targets: &[truth],
            valid: &[true],
            seq: 1,
        };
        let graph = &case.model.graph;
        for group in case.training.groups(graph, &paths, &|_| 0.5) {
            let mut weights = group.weights.clone();
            for (_, row, weight) in &group.corrections {
                weights[*row as usize] += weight;
            }
            let rows = group.rows.iter().zip(weights);
            let competing = rows.filter(|(_, weight)| *weight > 0.0);
            let pairs = competing.filter_map(|(row, _)| graph.pair(*row));
            opposed.extend(pairs.filter(|&(_, target)| target != truth));
        }
    }
    opposed
}

#[test]
fn an_edge_that_never_competes_is_found_and_no_other() {
    for n in [0, 1, 2, 4] {
        let candidates = Candidates::Frequent { n };
        let case = Case::new(compat::NATIVE, CLASSES, Prior::None, candidates);
        let opposed = opposed(&case);
        let graph = &case.model.graph;
        let mut raised = Vec::new();
        for row in graph.back_off_rows()..graph.rows() {
            let (source, target) = graph.pair(row).unwrap();
            let kind = opposition(&case.training, source, target);
            let never = !opposed.contains(&(source, target));
            // With n = 0 the list of one is never used: the truth has nobody to compete with.
            assert!(n == 0 || (kind == Opposition::Never) == never, "{n}");
            if kind == Opposition::Never {
                raised.push((source, target, case.counts.count(source, target)));
            }
        }
        let found = raised_only(&case.training, graph, &case.counts, 100);
        assert!(found.edges.is_sorted_by(|a, b| a.2 >= b.2));
        let mut edges = found.edges;
        edges.sort_unstable();
        assert_eq!(edges, raised);
        assert_eq!(found.n_edges, graph.edges() as u64);
        assert_eq!(found.n_candidates, 121);
        assert!(n > 2 || !edges.is_empty());
    }
}

#[test]
fn with_all_candidates_every_edge_competes_and_with_draws_some_do() {
    let case = Case::plain();
    assert_eq!(opposition(&case.training, 1, 2), Opposition::Always);
    let found = raised_only(&case.training, &case.model.graph, &case.counts, 0);
    assert!(found.edges.is_empty() && found.untouched == 0);
    let case = Case::new(
        compat::NATIVE,
        CLASSES,
        Prior::None,
        Candidates::Sampled { n: 5 },
    );
    let draws = (0..NODES as u32).map(|target| match opposition(&case.training, 0, target) {
        Opposition::Drawn { per_step } => per_step,
        other => panic!("{other:?}"),
    });
    let draws: Vec<f64> = draws.collect();
    assert!((draws.iter().sum::<f64>() - 5.0).abs() < 1e-9);
    let after = |steps| {
        let found = raised_only(&case.training, &case.model.graph, &case.counts, steps);
        found.edges.len()
    };
    assert_eq!((after(0), after(10_000)), (case.model.graph.edges(), 0));
}

#[test]
fn the_bias_and_the_code_get_what_their_direction_gives_them() {
    use crate::ops::host::numeric::gelu;
    let tokens = text(5, 6);
    for case in cases() {
        let mut state = SignalState::start(&case.model, tokens[0]);
        for step in case.trace(&tokens) {
            if step.position > 0 {
                state.advance(&case.model, Decoding::NATIVE, tokens[step.position]);
            }
            for attribution in &step.attributions {
                let row = case.model.graph.row(step.token, attribution.target);
                let row = case.model.parameters.edge(row, D).to_vec();
                let code = state.code(&case.model, Decoding::NATIVE, attribution.target);
                let of = |i: usize, k: usize| state.mixed[i] * row[i * D + k];
                let sum = |k: usize| (0..D).map(|i| of(i, k)).sum::<f32>();
                let z: Vec<f32> = (0..D).map(|k| code[k] + row[D * D + k] + sum(k)).collect();
                // The derivative of the length of GELU(s z) by s z, with as many midpoints of s as wanted.
                let mean = |from: f32, n: usize| {
                    let mut mean = [0.0; D];
                    for place in 0..n {
                        let s = from + (1.0 - from) * (place as f32 + 0.5) / n as f32;
                        let signal: Vec<(f32, f32)> = z.iter().map(|z| gelu(s * z)).collect();
                        let length = signal.iter().map(|(e, _)| e * e).sum::<f32>().sqrt();
                        for (mean, (e, slope)) in mean.iter_mut().zip(signal) {
                            *mean += e / length * slope / n as f32;
                        }
                    }
                    mean
                };
                for (split, direction) in [
                    (&attribution.gradient, mean(1.0, 1)),
                    (&attribution.integrated, mean(0.0, 200)),
                ] {
                    let along = |part: &[f32]| {
                        let products = part.iter().zip(direction).map(|(part, at)| part * at);
                        f64::from(products.sum::<f32>())
                    };
                    // The midpoint rules differ in their steps, by some 1e-4.
                    assert!((split.bias - along(&row[D * D..])).abs() < 1e-3);
                    assert!((split.code - along(&code)).abs() < 1e-3);
                }
            }
        }
    }
}

#[test]
fn odds_are_the_ones_on_paper() {
    use super::odds::Ranking;
    use crate::generate::Candidate;
    use crate::graph::Graph;
    let graph = Graph::new(4, [vec![0, 2], vec![], vec![], vec![]]);
    let counts = PairCounts::of(4, [[0, 2, 0, 2, 1]]);
    let candidate = |(target, weight): (u32, f32)| Candidate {
        target,
        row: graph.row(0, target),
        energy: weight,
        score: weight.ln(),
    };
    // Shares of 10: 1, 2, 5 and 2; of equals the lower id comes first.
    let all: Vec<Candidate> = (0..).zip([2.0, 1.0, 5.0, 2.0]).map(candidate).collect();
    let ranking = Ranking::new(&graph, Some(&counts), 0, all.clone());
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
    near(ranking.odds.ln_sum_exp, 10f64.ln());
    near(ranking.odds.margin.unwrap(), 2.5f64.ln());
    let surprise = |p: f64| -p * p.ln();
    near(
        ranking.odds.entropy,
        surprise(0.5) + 2.0 * surprise(0.2) + surprise(0.1),
    );
    let order: Vec<u32> = ranking.top(9).iter().map(|placed| placed.target).collect();
    assert_eq!(order, [2, 0, 3, 1]);
    assert_eq!(ranking.top(2).len(), 2);
    let third = ranking.of(3).unwrap();
    near(third.probability(), 0.2);
    assert_eq!(
        (third.rank, third.own, third.count),
        (Some(3), false, Some(0))
    );
    let best = ranking.of(2).unwrap();
    assert_eq!(
        (best.rank, best.own, best.count, best.energy),
        (Some(1), true, Some(2), 5.0)
    );
    let alone = Ranking::new(&graph, None, 0, all[..1].to_vec());
    assert_eq!((alone.odds.margin, alone.odds.entropy), (None, 0.0));
    assert_eq!((alone.top(1)[0].count, alone.of(2)), (None, None));
    let nowhere = alone.outside(all[1]);
    assert_eq!((nowhere.rank, nowhere.probability()), (None, 0.0));
}

#[test]
fn opposition_tells_the_place_and_edges_never_seen_are_untouched() {
    // Listed: 0 to 1 was never seen, 0 to 2 three times, 0 to 3 twice.
    let counts = PairCounts {
        first: vec![0, 3, 3, 3, 3],
        targets: vec![1, 2, 3],
        counts: vec![0, 3, 2],
        tokens: vec![5, 0, 3, 2],
    };
    let graph = counts.graph(0, BackOff::SharedRow);
    let competition =
        |candidates| Competition::new(candidates, Weights::One, Bias::Edge, Some(&counts));
    let one = competition(Candidates::Frequent { n: 1 });
    let kinds = [2, 3, 0, 1].map(|target| opposition(&one, 0, target));
    let listed = |place| Opposition::Listed { place };
    assert_eq!(kinds[..2], [listed(1), listed(2)]);
    assert_eq!(kinds[2..], [Opposition::Never; 2]);
    let found = raised_only(
        &competition(Candidates::Frequent { n: 0 }),
        &graph,
        &counts,
        9,
    );
    // The list of one is 2.
    assert_eq!((found.edges, found.untouched), (vec![(0, 3, 2)], 1));
    assert_eq!((found.n_edges, found.n_candidates), (3, 16));
    // 4 draws by chances of (tokens + 1) / 14: 1 in 3.5 steps, 2 in 0.875, 3 in 1.17.
    let drawn = competition(Candidates::Sampled { n: 4 });
    assert_eq!(drawn.expected_draws(2), Some(4.0 * (4.0 / 14.0)));
    let after = |steps| raised_only(&drawn, &graph, &counts, steps);
    assert_eq!(after(0).edges, [(0, 2, 3), (0, 3, 2)]);
    assert_eq!((after(1).edges, after(1).untouched), (vec![(0, 3, 2)], 1));
    assert_eq!((after(2).edges, after(2).untouched), (vec![], 1));
    assert_eq!((after(4).edges, after(4).untouched), (vec![], 0));
}

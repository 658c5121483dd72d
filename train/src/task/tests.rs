//! Tests of losses, gradients, micro-batches and continuations of baseline, BRIAN and BriLLM, against sums that are written
//! out.

use super::*;
use crate::data::HostBatch;
use crate::device::{self, DeviceConfig, Task};
use crate::error::Error;
use crate::family::brillm::{BriLlmState, BriLlmTask};
use crate::model::loss::LossEntry;
use crate::model::loss::z::{ZConfig, ZLoss};
use crate::model::{Model, OwnOptimizer};
use brian::baseline::BaselineConfig;
use brian::generate::Sampling;
use brian::initial::Initial;
use brian::loss::route::RouteLosses;
use brian::route::rules::Rules;
use brian::{parameter, random};
use brillm::candidate::{Candidates, Competition, LastEdge};
use brillm::compat::NATIVE;
use brillm::counts::PairCounts;
use brillm::generate::{Decoding, Positions, SignalState, Temperature, draw};
use brillm::graph::BackOff;
use brillm::model::{BackOffRows, BriLlm, BriLlmConfig};
use brillm::prior::Weights;
use brillm::row_adamw::{AdamW, Mode};
use brillm::table::Storage;
use brillm::training::RowAdamW;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use burn::train::TrainStep;
use std::sync::Arc;

/// Runs a check on the first backend that is compiled in.
macro_rules! on_a_backend {
    ($check:ident) => {{
        struct Check;

        impl Task for Check {
            type Output = ();

            fn run<B: AutodiffBackend>(self, device: B::Device) -> Result<(), Error> {
                $check::<B>(&device);
                Ok(())
            }
        }
        device::run(&DeviceConfig::any(), Check).unwrap()
    }};
}

/// Inputs, targets and which of them count.
type Lines<'a> = &'a [([u32; 3], [u32; 3], [bool; 3])];

/// Three rows, of which the second and the third are padded.
const ROWS: Lines<'static> = &[
    ([1, 2, 3], [2, 3, 1], [true, true, true]),
    ([4, 0, 5], [0, 5, 5], [true, false, false]),
    ([2, 3, 1], [3, 1, 6], [true, true, false]),
];

fn batch(rows: Lines<'_>, route: &RoutePlan, targets: u64) -> Batch {
    let mut host = HostBatch {
        batch: rows.len(),
        seq: 3,
        bytes: 10 * rows.len() as u64,
        difficulty: vec![None; rows.len()],
        sequences: (0..rows.len() as u64).collect(),
        ..HostBatch::default()
    };
    for (inputs, targets, valid) in rows {
        host.inputs.extend(inputs);
        host.targets.extend(targets);
        host.valid.extend(valid);
    }
    Batch {
        host,
        source: 0,
        plan: StepPlan {
            targets,
            ..StepPlan::idle(route.clone())
        },
    }
}

const VOCABULARY: usize = 7;

fn baseline<B: Backend>(device: &B::Device) -> Model<B> {
    let config = BaselineConfig {
        d_model: 4,
        n_heads: 2,
        d_ff: 6,
        n_layers: 1,
        context: 6,
        rope_base: 10_000.0,
        norm_epsilon: 1e-6,
        initial: Initial::Scaled { std: 0.5 },
        ..BaselineConfig::small()
    };
    Model::new(config.init(VOCABULARY, 3, device))
}

fn brian<B: Backend>(device: &B::Device) -> Model<B> {
    let config = r#"
        d_model = 4
        n_heads = 2
        d_ff = 6
        n_pre = 1
        n_pool = 2
        d_ff_pool = 6
        n_post = 0
        context = 6
        rope_base = 10000.0
        norm_epsilon = 1e-6
        initial = { scaled = { std = 0.5 } }
        exit = "residual"
        memory = "none"
        position = { d_position = 3, layout = "open_arc", start = "learned", injection = "adapter", into = "both" }
        [route]
        max_steps = 2
        top_k_first = 1
        top_k = 1
        sees = "token"
        attends = "all"
        execution = "grouped"
        parallel = "none"
    "#;
    let config: brian::BrianConfig = toml::from_str(config).unwrap();
    Model::new(config.init(VOCABULARY, 3, device))
}

/// The fixed route, at the cost of its imitation and of the blocks that the router would execute.
fn costly() -> RoutePlan {
    let mut plan = RoutePlan::sequential();
    plan.rules.ask_router = true;
    plan.losses = RouteLosses {
        // So much that a step which weighs them wrongly goes another way.
        imitation: 20.0,
        cost: 10.0,
        ..RouteLosses::NONE
    };
    plan
}

/// `ln` of the sum of exponentials, minus the one of the target.
fn nats_of(scores: &[f32], target: u32) -> f64 {
    let scores = scores.iter().map(|&score| f64::from(score));
    let sum: f64 = scores.clone().map(f64::exp).sum();
    sum.ln() - scores.clone().nth(target as usize).unwrap()
}

fn close(found: f64, expected: f64, what: &str) {
    // Two ways to one sum in f32.
    let bound = 1e-5 * expected.abs().max(1.0);
    assert!(
        (found - expected).abs() < bound,
        "{what}: {found} instead of {expected}"
    );
}

#[test]
fn a_place_that_counts_costs_its_nats_and_the_others_nothing() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        for (decoder, route) in [
            (baseline::<B>(device), RoutePlan::sequential()),
            (brian::<B>(device), costly()),
        ] {
            let batch = batch(ROWS, &route, 6);
            let (logits, _) = decoder.forward(batch.inputs(device), &route.rules, &batch.rows());
            let logits: Vec<f32> = logits.into_data().iter().collect();
            let (measured, nats) = decoder.measure(&batch);
            let host = &batch.host;
            let mut sum = 0.0;
            for (place, &found) in nats.iter().enumerate() {
                let scores = &logits[place * VOCABULARY..][..VOCABULARY];
                let expected = match host.valid[place] {
                    true => nats_of(scores, host.targets[place]),
                    false => 0.0,
                };
                close(found, expected, "a place");
                sum += expected;
            }
            close(measured.nats, sum, "the sum");
            assert_eq!((measured.targets, measured.bytes), (6, 30));
            let walked = if route.rules.ask_router { 6 } else { 0 };
            assert_eq!(
                measured.route.tokens, walked,
                "what is padded walks for nobody"
            );
            close(measured.added, added(&measured), "what is added");
            let inference = burn::train::InferenceStep::step(&decoder, batch.clone());
            assert_eq!(inference.nats, measured.nats);
            let learnt = TrainStep::step(&decoder, batch).item;
            close(learnt.nats, measured.nats, "in training");
            close(learnt.added, measured.added, "in training");
        }
    }
    on_a_backend!(check);
}

/// What the terms add by the weights of [`costly`].
fn added(measured: &Measured) -> f64 {
    let term = |name: &str| measured.terms.get(name).copied().unwrap_or(0.0);
    20.0 * term("imitation") + 10.0 * term("cost")
}

#[test]
fn terms_are_means_over_the_targets_of_their_batch() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        let (decoder, route) = (brian::<B>(device), costly());
        let of = |rows: Lines<'_>| decoder.measure(&batch(rows, &route, 6)).0;
        let measured = of(ROWS);
        assert_eq!(
            measured.terms.keys().cloned().collect::<Vec<_>>(),
            ["cost", "imitation"]
        );
        // The same rows twice: the same means, over twice as many targets.
        let twice = of(&[ROWS, ROWS].concat());
        for (name, sum) in &measured.terms {
            assert!(*sum > 0.0, "{name}");
            close(twice.terms[name], 2.0 * sum, name);
        }
        let free = decoder.measure(&batch(ROWS, &RoutePlan::sequential(), 6)).0;
        assert!(free.terms.is_empty() && free.added == 0.0);
        close(free.nats, measured.nats, "the language model alone");
    }
    on_a_backend!(check);
}

/// The gradient of the embedding from some micro-batches of one step.
fn gradient<B: AutodiffBackend>(decoder: &Model<B>, batches: &[Batch]) -> Vec<f64> {
    let id = parameter::id("embedding.weight");
    let mut sum = vec![0.0; VOCABULARY * 4];
    for batch in batches {
        let output = TrainStep::step(decoder, batch.clone());
        let gradient = output.grads.get::<B::InnerBackend, 2>(id).unwrap();
        let gradient: Vec<f64> = gradient.into_data().iter().collect();
        sum.iter_mut()
            .zip(gradient)
            .for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// The plan with the z-loss of a weight; `None` for a recipe without its table.
fn with_z(route: RoutePlan, weight: Option<f64>) -> RoutePlan {
    let loss = |weight| (LossEntry::of::<ZLoss>().with)(&ZConfig { weight });
    RoutePlan {
        added: AddedLosses(weight.map(loss).into_iter().collect()),
        ..route
    }
}

#[test]
fn the_z_loss_is_a_mean_over_what_counts_for_every_decoder() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        for (decoder, route) in [
            (baseline::<B>(device), RoutePlan::sequential()),
            (brian::<B>(device), costly()),
        ] {
            let without = decoder.measure(&batch(ROWS, &route, 6)).0;
            let route = with_z(route, Some(0.5));
            let all = batch(ROWS, &route, 6);
            let (logits, _) = decoder.forward(all.inputs(device), &route.rules, &all.rows());
            let logits: Vec<f32> = logits.into_data().iter().collect();
            let rows = logits.chunks(VOCABULARY).zip(&all.host.valid);
            let counted = rows.filter(|(_, counts)| **counts);
            // The nats of a token and its logit are the normaliser.
            let normalisers = counted.map(|(row, _)| nats_of(row, 0) + f64::from(row[0]));
            let expected: f64 = normalisers.map(|normaliser| normaliser.powi(2)).sum();
            let measured = decoder.measure(&all).0;
            close(measured.terms["z"], expected, "the sum of squares");
            close(measured.added - without.added, 0.5 * expected, "its part");
            assert_eq!(measured.nats, without.nats, "the language model alone");
            let learnt = TrainStep::step(&decoder, all).item;
            close(learnt.terms["z"], expected, "in training");
            // Three, one and two targets: the parts of a step are those of the whole.
            let parts = ROWS.chunks(1).map(|rows| batch(rows, &route, 6));
            let parts = parts.map(|part| decoder.measure(&part).0.terms["z"]);
            close(parts.sum(), expected, "in micro-batches");
        }
    }
    on_a_backend!(check);
}

#[test]
fn a_z_loss_of_weight_0_leaves_every_bit_of_a_step() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        let decoder = baseline::<B>(device);
        let of = |weight| {
            let route = with_z(RoutePlan::sequential(), weight);
            let all = batch(ROWS, &route, 6);
            let measured = decoder.measure(&all).0;
            (measured, gradient(&decoder, &[all]))
        };
        assert_eq!(of(Some(0.0)), of(None));
        assert_ne!(of(Some(0.5)), of(None));
    }
    on_a_backend!(check);
}

#[test]
fn micro_batches_of_any_size_add_up_to_the_gradient_of_the_mean_loss() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        for (decoder, route) in [
            (baseline::<B>(device), RoutePlan::sequential()),
            (
                baseline::<B>(device),
                with_z(RoutePlan::sequential(), Some(3.0)),
            ),
            (brian::<B>(device), costly()),
            (brian::<B>(device), with_z(costly(), Some(3.0))),
        ] {
            // Three, one and two targets; two and then one row.
            for cut in [1, 2] {
                let (first, second) = ROWS.split_at(cut);
                let batches = [first, second].map(|rows| batch(rows, &route, 6));
                let gradient = gradient(&decoder, &batches);
                let length = gradient.iter().map(|part| part * part).sum::<f64>().sqrt();
                // Along the gradient the mean loss rises by its length.
                let loss = |step: f64| -> f64 {
                    let values = parameter::collect(&decoder);
                    let moved = parameter::assign(decoder.clone(), |path, _| {
                        let values = values[path].iter::<f64>();
                        match path {
                            "embedding.weight" => values
                                .zip(&gradient)
                                .map(|(value, part)| (value + step * part / length) as f32)
                                .collect(),
                            _ => values.map(|value| value as f32).collect(),
                        }
                    });
                    let measured = batches.each_ref().map(|batch| moved.measure(batch).0);
                    measured.iter().map(|it| (it.nats + it.added) / 6.0).sum()
                };
                let slope = (loss(1e-2) - loss(-1e-2)) / 2e-2;
                // Rounding in f32 and the third derivative; a micro-batch that weighs too much is off by a third.
                assert!((slope / length - 1.0).abs() < 0.02, "{slope} and {length}");
            }
        }
    }
    on_a_backend!(check);
}

fn how(n_tokens: usize, context: usize) -> Continuation {
    Continuation {
        vocabulary: usize::MAX,
        n_tokens,
        context,
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::plain(1)
        },
        never: vec![],
        ends: vec![],
        at_end: AtEnd::Stop,
    }
}

/// The likeliest tokens one by one, each from a whole pass over what is seen.
fn greedily<B: Backend>(decoder: &Model<B>, prompt: &[u32], how: &Continuation) -> Drawn {
    let mut seen = prompt.to_vec();
    let mut tokens = Vec::new();
    while tokens.len() < how.n_tokens {
        let last: Vec<i32> = seen[seen.len().saturating_sub(how.context)..]
            .iter()
            .map(|&token| token as i32)
            .collect();
        let length = last.len();
        let input = TensorData::new(last, [1, length]);
        let input = Tensor::<B, 2, Int>::from_data(input, &decoder.device());
        let (logits, _) = decoder.forward(input, &Rules::sequential(), &[Default::default()]);
        let logits: Vec<f32> = logits.into_data().iter().collect();
        let scores = &logits[(length - 1) * VOCABULARY..];
        let allowed = (0..VOCABULARY as u32).filter(|id| !how.never.contains(id));
        let best = allowed.max_by(|a, b| scores[*a as usize].total_cmp(&scores[*b as usize]));
        let best = best.unwrap();
        tokens.push(best);
        seen.push(best);
        match (how.ends.contains(&best), how.at_end) {
            (true, AtEnd::Stop) => {
                return Drawn {
                    tokens,
                    stop: StopReason::End,
                };
            }
            (true, AtEnd::GoOn(Some(symbol))) => seen.push(symbol),
            _ => {}
        }
    }
    Drawn {
        tokens,
        stop: StopReason::Length,
    }
}

#[test]
fn a_text_goes_on_as_whole_passes_over_what_is_seen_say() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        let rules = Rules::sequential();
        for decoder in [baseline::<B::InnerBackend>(device), brian(device)] {
            for (context, prompt) in [
                (6, &[1][..]),
                (6, &[3, 1, 2]),
                (3, &[5, 4, 3, 2, 1, 6]),
                (1, &[2, 3]),
            ] {
                let mut how = how(5, context);
                let free = greedily(&decoder, prompt, &how);
                assert_eq!(
                    decoder.continue_tokens(prompt, &rules, &how),
                    Ok(free.clone())
                );
                how.never = vec![free.tokens[0], 0];
                let other = greedily(&decoder, prompt, &how);
                assert_ne!(other.tokens[0], free.tokens[0]);
                assert_eq!(decoder.continue_tokens(prompt, &rules, &how), Ok(other));
                (how.never, how.ends) = (vec![], vec![free.tokens[1]]);
                let ended = decoder.continue_tokens(prompt, &rules, &how).unwrap();
                assert_eq!(ended, greedily(&decoder, prompt, &how));
                assert_eq!(ended.stop, StopReason::End);
                for symbol in [None, Some(4)] {
                    how.at_end = AtEnd::GoOn(symbol);
                    let beyond = decoder.continue_tokens(prompt, &rules, &how).unwrap();
                    assert_eq!(beyond, greedily(&decoder, prompt, &how));
                    assert_eq!((beyond.tokens.len(), beyond.stop), (5, StopReason::Length));
                }
            }
        }
    }
    on_a_backend!(check);
}

#[test]
fn whoever_wants_no_more_tokens_gets_none() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        let graph = Model::new(BriLlmTask::new(
            core(Candidates::All, LastEdge::Trained),
            device,
        ));
        for decoder in [baseline::<B::InnerBackend>(device), graph] {
            let mut handed = Vec::new();
            let each = |token| {
                handed.push(token);
                handed.len() < 3
            };
            let mut how = how(9, 6);
            let stop = decoder.stream([1].into_iter(), &Rules::sequential(), &how, each);
            assert_eq!((stop, handed.len()), (Ok(StopReason::Refused), 3));
            how.n_tokens = 0;
            let stop = decoder
                .continue_tokens(&[1], &Rules::sequential(), &how)
                .unwrap();
            assert_eq!((stop.tokens.len(), stop.stop), (0, StopReason::Length));
        }
    }
    on_a_backend!(check);
}

/// A graph of seven tokens whose pairs were seen once, eleven times and often.
fn core(candidates: Candidates, last_edge: LastEdge) -> BriLlmState {
    let mut seen = vec![vec![1, 2]; 150];
    seen.extend(vec![vec![2, 3]; 11]);
    seen.extend([vec![3, 1, 6], vec![4, 0, 5, 5], vec![0, 6, 2]]);
    let counts = PairCounts::of(VOCABULARY, seen);
    let config = BriLlmConfig {
        d_node: 4,
        flow: NATIVE,
        initial: brillm::model::Initial::Uniform { half_range: 0.5 },
        back_off_rows: BackOffRows::Trained,
        storage: Storage::F32,
        decoding: Decoding::NATIVE,
    };
    let graph = counts.graph(1, BackOff::SharedRow);
    let uniform = |stream: &str, place: u64| random::uniform(random::key(5, stream, 0), place);
    let model = BriLlm {
        config,
        parameters: config.init(graph.nodes(), graph.rows(), &uniform),
        graph: Arc::new(graph),
    };
    let adamw = AdamW {
        betas: [0.9, 0.99],
        epsilon: 1e-8,
        weight_decay: 0.1,
    };
    let training = Competition::new(candidates, Weights::One, NATIVE.bias, Some(&counts));
    BriLlmState {
        optimizer: RowAdamW::new(&model, Mode::Exact, adamw, None),
        model,
        evaluation: training.evaluation(),
        training,
        counts: Some(Arc::new(counts)),
        seed: 11,
        last_edge,
        on_host: true,
        shared_out: None,
    }
}

/// `−ln p` of every place, by following each row token by token with all of the vocabulary as candidates.
fn followed(core: &BriLlmState, host: &HostBatch) -> Vec<f64> {
    let mut nats = vec![0.0; host.valid.len()];
    for row in 0..host.batch {
        let mut state = SignalState::start(&core.model, host.inputs[row * host.seq]);
        let places = row * host.seq..(row + 1) * host.seq;
        for place in places {
            if !host.valid[place] {
                break;
            }
            let mut candidates = state.candidates(&core.model, &core.evaluation, Decoding::NATIVE);
            candidates.sort_by_key(|candidate| candidate.target);
            let scores: Vec<f32> = candidates.iter().map(|candidate| candidate.score).collect();
            nats[place] = nats_of(&scores, host.targets[place]);
            state.advance(&core.model, Decoding::NATIVE, host.targets[place]);
        }
    }
    nats
}

#[test]
fn a_graph_measures_what_following_it_token_by_token_says() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        let batch = batch(ROWS, &RoutePlan::sequential(), 6);
        let core = core(Candidates::Sampled { n: 2 }, LastEdge::Left);
        let expected = followed(&core, &batch.host);
        let signal = BriLlmTask::<B>::new(core, device);
        for on_host in [true, false] {
            signal.write().on_host = on_host;
            let (measured, nats) = signal.measure(&batch);
            for (found, expected) in nats.iter().zip(&expected) {
                close(*found, *expected, "a place");
            }
            close(measured.nats, expected.iter().sum(), "the sum");
            assert_eq!((measured.targets, measured.bytes), (6, 30));
            // 1 2 often, 2 3 eleven times and twice in the rows, 3 1 and 4 0 once.
            let coverage = measured.coverage;
            assert_eq!(coverage.targets, [0, 3, 2, 1]);
            close(
                coverage.nats[1],
                expected[2] + expected[3] + expected[7],
                "seen once",
            );
            close(
                coverage.nats[2],
                expected[1] + expected[6],
                "seen eleven times",
            );
            close(coverage.nats[3], expected[0], "seen often");
        }
        signal.write().counts = None;
        assert_eq!(signal.measure(&batch).0.coverage, Coverage::default());
    }
    on_a_backend!(check);
}

#[test]
fn a_graph_learns_from_all_micro_batches_at_once() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        let route = RoutePlan::sequential();
        let whole = [batch(ROWS, &route, 6)];
        let parts = [&ROWS[..1], &ROWS[1..]].map(|rows| batch(rows, &route, 6));
        for last_edge in [LastEdge::Trained, LastEdge::Left] {
            let core = || core(Candidates::All, last_edge);
            let mut nats = followed(&core(), &whole[0].host);
            let mut targets = 6;
            if last_edge == LastEdge::Left {
                // The last place of a row is left out; only the first row has one that counts.
                [2, 5, 8].into_iter().for_each(|place| nats[place] = 0.0);
                targets = 5;
            }
            let learnt = [&whole[..], &parts].map(|batches| {
                let signal = BriLlmTask::<B>::new(core(), device);
                let learnt = signal.learn(batches, 0.1);
                close(learnt.measured.nats, nats.iter().sum(), "before the step");
                assert_eq!(learnt.measured.targets, targets);
                assert!(learnt.gradient_norm > 0.0);
                let core = signal.settled();
                assert_eq!(core.optimizer.rates, [0.1]);
                (core.model.parameters.clone(), learnt.measured.bytes)
            });
            assert!(learnt[0] == learnt[1]);
            assert_eq!(learnt[0].1, 30);
            assert!(learnt[0].0 != core().model.parameters);
        }
    }
    on_a_backend!(check);
}

#[test]
fn every_step_draws_its_own_candidates_and_the_seed_decides_which() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        let batches = [batch(ROWS, &RoutePlan::sequential(), 6)];
        let nats = |seed: u64| -> Vec<f64> {
            let mut core = core(Candidates::Sampled { n: 1 }, LastEdge::Trained);
            core.seed = seed;
            let signal = BriLlmTask::<B>::new(core, device);
            // At a rate of 0 nothing moves, so that only the draws differ.
            (0..6)
                .map(|_| signal.learn(&batches, 0.0).measured.nats)
                .collect()
        };
        let first = nats(1);
        assert_eq!(first, nats(1));
        assert_ne!(first, nats(2));
        assert!(first.iter().any(|nats| *nats != first[0]), "{first:?}");
    }
    on_a_backend!(check);
}

/// A graph that goes on token by token, each drawn where the seed and its place say.
fn drawn_by_hand(prompt: &[u32], decoding: Decoding, how: &Continuation) -> Vec<u32> {
    let core = core(Candidates::All, LastEdge::Trained);
    let mut state = SignalState::start(&core.model, prompt[0]);
    let advance = |state: &mut SignalState, token| state.advance(&core.model, decoding, token);
    prompt[1..]
        .iter()
        .for_each(|&token| advance(&mut state, token));
    if decoding.positions == Positions::Restart {
        state.end_prompt(decoding);
    }
    let sampling = brillm::generate::Sampling {
        temperature: match decoding.temperature {
            Temperature::Probabilities if how.sampling.temperature > 0.0 => 1.0,
            _ => how.sampling.temperature,
        },
        top_k: how.sampling.top_k,
        top_p: how.sampling.top_p,
        min_p: how.sampling.min_p,
    };
    let mut tokens = Vec::new();
    while tokens.len() < how.n_tokens {
        let mut candidates = state.candidates(&core.model, &core.evaluation, decoding);
        candidates.retain(|candidate| !how.never.contains(&candidate.target));
        let at = random::uniform(how.sampling.seed, tokens.len() as u64);
        let next = draw(&candidates, sampling, at).unwrap().target;
        tokens.push(next);
        advance(&mut state, next);
        match (how.ends.contains(&next), how.at_end) {
            (true, AtEnd::Stop) => break,
            (true, AtEnd::GoOn(Some(symbol))) => advance(&mut state, symbol),
            _ => {}
        }
    }
    tokens
}

#[test]
fn a_graph_goes_on_along_its_edges_as_the_draws_say() {
    fn check<B: AutodiffBackend>(device: &B::Device) {
        for (decoding, temperature) in [
            (Decoding::NATIVE, 0.0),
            (Decoding::NATIVE, 0.3),
            (Decoding::DENSE_2025, 0.3),
        ] {
            let drawn = |prompt: &[u32], how: &Continuation| {
                let mut core = core(Candidates::All, LastEdge::Trained);
                core.model.config.decoding = decoding;
                let decoder = Model::new(BriLlmTask::<B>::new(core, device));
                decoder
                    .continue_tokens(prompt, &Rules::sequential(), how)
                    .unwrap()
            };
            for prompt in [&[1][..], &[4, 0, 5], &[2, 3, 1, 6, 0]] {
                let mut how = how(12, 3);
                how.sampling.temperature = temperature;
                let free = drawn(prompt, &how);
                let by_hand = |how: &Continuation| drawn_by_hand(prompt, decoding, how);
                assert_eq!(
                    (&free.tokens, free.stop),
                    (&by_hand(&how), StopReason::Length)
                );
                how.never = vec![free.tokens[0]];
                assert_eq!(drawn(prompt, &how).tokens, by_hand(&how));
                how.never = vec![];
                (how.sampling.top_k, how.sampling.top_p, how.sampling.min_p) = (5, 0.9, 0.05);
                assert_eq!(drawn(prompt, &how).tokens, by_hand(&how));
                how.ends = vec![drawn(prompt, &how).tokens[2]];
                let ended = drawn(prompt, &how);
                assert_eq!((ended.tokens, ended.stop), (by_hand(&how), StopReason::End));
                how.at_end = AtEnd::GoOn(Some(6));
                assert_eq!(drawn(prompt, &how).tokens, by_hand(&how));
            }
            assert_eq!(drawn(&[], &how(5, 3)).stop, StopReason::NoCandidate);
        }
    }
    on_a_backend!(check);
}

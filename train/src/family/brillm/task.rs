//! `BriLlmTask`: a BriLLM behind a lock, as the learner sees it: steps of its own row optimizer, measured losses, generation.
//!
//! It brings its optimizer, because a step touches a few rows of a table that may be larger than the memory of any device.
//!
//! The table lies on the host, behind a lock, and clones share it. Where the backend computes on the CPU a step is done
//! in place. On a GPU it is done on a copy that stays there, and the host's is old until somebody reads it
//! ([`BriLlmTask::settled`]); what has no kernels sends the rows that it uses to the device and back.

use super::shards::give_rows;
use super::slots::Signals;
use super::state::BriLlmState;
use super::tables;
use crate::data::HostBatch;
use crate::error::{Error, Problem};
use crate::model::{LanguageModel, OwnOptimizer, Slots};
use crate::run::TensorMap;
use crate::task::{Batch, Continuation, Coverage, Learnt, Measured, StopReason};
use brian::generate::{Next, NotFinite};
use brian::random;
use brian::route::policy::SequenceInfo;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use brillm::candidate::{LastEdge, Paths};
use brillm::generate::{Candidate, Sampling, SignalState, draw};
use brillm::ops::pass;
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Shared by all clones.
#[derive(Module, Debug)]
pub struct BriLlmTask<B: Backend> {
    /// Says on which device passes run that are not done on the host; burn-train wants every model to be somewhere.
    place: Tensor<B, 1>,
    #[module(skip)]
    core: Arc<RwLock<BriLlmState>>,
}

impl<B: Backend> BriLlmTask<B> {
    /// A model for the learner.
    pub fn new(core: BriLlmState, device: &B::Device) -> Self {
        Self {
            place: Tensor::zeros([1], device),
            core: Arc::new(RwLock::new(core)),
        }
    }

    /// The model as it is; rows may have steps to catch up with, or be newer on a device.
    pub fn read(&self) -> RwLockReadGuard<'_, BriLlmState> {
        self.core.read().expect("no panic while it was held")
    }

    /// The model, to change it: [`brillm::training::RowAdamW::leave_device`] comes before a change of the table.
    pub fn write(&self) -> RwLockWriteGuard<'_, BriLlmState> {
        self.core.write().expect("no panic while it was held")
    }

    /// The model with every row brought to the last step; what its optimizer remembers may be newer on a device.
    pub fn settled(&self) -> RwLockReadGuard<'_, BriLlmState> {
        {
            let mut core = self.write();
            let BriLlmState {
                model, optimizer, ..
            } = &mut *core;
            optimizer.catch_up_values(model);
        }
        self.read()
    }
}

impl<B: Backend> LanguageModel<B> for BriLlmTask<B> {
    fn forward(
        &self,
        _: Tensor<B, 2, Int>,
        _: &Rules,
        _: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>) {
        unreachable!("a model with an optimizer of its own has no logits for all places")
    }

    /// As in training, whatever the recipe's decoding leaves out or counts otherwise.
    fn slots(&self, _: &Rules) -> Box<dyn Slots + '_> {
        Box::new(Signals::new(self.settled()))
    }

    fn own_optimizer(&self) -> Option<&dyn OwnOptimizer<B>> {
        Some(self)
    }

    fn device(&self) -> B::Device {
        self.place.device()
    }
}

impl<B: Backend> OwnOptimizer<B> for BriLlmTask<B> {
    fn learn(&self, batches: &[Batch], rate: f64) -> Learnt
    where
        B: AutodiffBackend,
    {
        let mut host = joined(batches);
        let mut core = self.write();
        let BriLlmState {
            model,
            optimizer,
            training,
            seed,
            last_edge,
            on_host,
            shared_out,
            ..
        } = &mut *core;
        if *last_edge == LastEdge::Left {
            let last = host.valid.iter_mut().skip(host.seq - 1).step_by(host.seq);
            last.for_each(|valid| *valid = false);
        }
        let paths = paths(&host);
        let key = random::key(*seed, "candidates", optimizer.rates.len() as u64);
        let groups = training.groups(&model.graph, &paths, &|place| random::uniform(key, place));
        let device = self.device();
        let learnt = optimizer.learn::<B>(model, &paths, &groups, rate, *on_host, &device);
        let spent = shared_out
            .as_ref()
            .map(|shared_out| shared_out.take_spent());
        let seconds = spent.map(|spent| ("exchange_seconds".to_string(), spent.as_secs_f64()));
        let measured = Measured {
            numbers: seconds.into_iter().collect(),
            nats: learnt.nats.iter().sum(),
            targets: paths.edges() as u64,
            bytes: batches.iter().map(|batch| batch.host.bytes).sum(),
            ..Measured::default()
        };
        Learnt {
            measured,
            gradient_norm: learnt.gradient_norm,
        }
    }

    fn measure(&self, batch: &Batch) -> (Measured, Vec<f64>) {
        let core = self.settled();
        let paths = paths(&batch.host);
        let nats = core.token_losses::<B>(&paths, &self.device());
        let mut coverage = Coverage::default();
        if let Some(counts) = &core.counts {
            for (place, nats) in nats
                .iter()
                .enumerate()
                .filter(|(place, _)| paths.valid[*place])
            {
                coverage.add(
                    counts.count(paths.sources[place], paths.targets[place]),
                    *nats,
                );
            }
        }
        let measured = Measured {
            nats: nats.iter().sum(),
            targets: batch.targets(),
            bytes: batch.host.bytes,
            coverage,
            ..Measured::default()
        };
        (measured, nats)
    }

    fn stream(
        &self,
        prompt: &mut (dyn Iterator<Item = u32> + Send),
        how: &Continuation,
        each: &mut (dyn FnMut(u32) -> bool + Send),
    ) -> Result<StopReason, NotFinite> {
        let core = self.settled();
        let core: &BriLlmState = &core;
        // Inside the pool, so that its threads stay awake between two tokens.
        rayon::scope(|_| core.stream(prompt, how, each))
    }

    fn n_parameters(&self) -> u64 {
        self.read().model.n_parameters()
    }

    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        tables::shapes_of(&self.read().model)
    }

    fn set_parameters(&self, tensors: TensorMap) -> Result<(), Problem> {
        let core = &mut *self.write();
        tables::set_parameters(&mut core.model, &mut core.optimizer, tensors)
    }

    fn set_moments(&self, tensors: TensorMap, file: &Path) -> Result<(), Problem> {
        let core = &mut *self.write();
        tables::set_moments(&mut core.model, &mut core.optimizer, tensors, file)
    }

    fn lend(
        &self,
        to: &mut dyn FnMut(TensorMap, TensorMap) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let core = &mut *self.write();
        let shared_out = core.shared_out.as_ref();
        tables::lend(&mut core.model, &mut core.optimizer, shared_out, to)
    }

    fn is_shared_out(&self) -> bool {
        self.read().shared_out.is_some()
    }

    fn assist(&self) {
        let core = &mut *self.write();
        let Some(shared_out) = &core.shared_out else {
            return;
        };
        let graph = core.model.graph.clone();
        let give = |mut weights: TensorMap, mut moments: TensorMap| {
            weights.append(&mut moments);
            give_rows(shared_out, &graph, &weights);
        };
        let (model, optimizer) = (&mut core.model, &mut core.optimizer);
        tables::lend(model, optimizer, Some(shared_out), give);
    }

    fn dismiss(&self) {
        if let Some(shared_out) = &self.read().shared_out {
            shared_out.dismiss();
        }
    }
}

impl BriLlmState {
    fn stream(
        &self,
        mut prompt: impl Iterator<Item = u32>,
        how: &Continuation,
        mut each: impl FnMut(u32) -> bool,
    ) -> Result<StopReason, NotFinite> {
        let model = &self.model;
        let decoding = model.config.decoding;
        let Some(first) = prompt.next() else {
            return Ok(StopReason::NoCandidate);
        };
        let mut state = SignalState::start(model, first);
        prompt.for_each(|token| state.advance(model, decoding, token));
        state.end_prompt(decoding);
        let sampling = Sampling {
            temperature: how.sampling.temperature,
            top_k: how.sampling.top_k,
            top_p: how.sampling.top_p,
            min_p: how.sampling.min_p,
        };
        let sampling = sampling.under(decoding);
        for place in 0..how.n_tokens {
            let mut candidates = state.candidates(model, &self.evaluation, decoding);
            check_scores(&candidates, place)?;
            candidates.retain(|candidate| !how.never.contains(&candidate.target));
            let at = random::uniform(how.sampling.seed, place as u64);
            let Some(next) = draw(&candidates, sampling, at) else {
                return Ok(StopReason::NoCandidate);
            };
            if !each(next.target) {
                return Ok(StopReason::Refused);
            }
            state.advance(model, decoding, next.target);
            match how.behind(next.target) {
                Next::GoOn => {}
                Next::BehindToo(symbol) => state.advance(model, decoding, symbol),
                Next::Stop => return Ok(StopReason::End),
            }
        }
        Ok(StopReason::Length)
    }

    /// `−ln p(target)` of every place over the whole vocabulary.
    fn token_losses<B: Backend>(&self, paths: &Paths<'_>, device: &B::Device) -> Vec<f64> {
        let groups = self.evaluation.groups(&self.model.graph, paths, &|_| 0.0);
        pass::token_losses::<B>(&self.model, paths, &groups, self.on_host, device)
    }
}

fn check_scores(candidates: &[Candidate], drawn: usize) -> Result<(), NotFinite> {
    let scores: Vec<f32> = candidates.iter().map(|candidate| candidate.score).collect();
    NotFinite::check(&scores, drawn).map_err(|found| NotFinite {
        id: candidates[found.id].target as usize,
        ..found
    })
}

/// The windows of all micro-batches below each other.
fn joined(batches: &[Batch]) -> HostBatch {
    let mut all = HostBatch::default();
    for Batch { host, .. } in batches {
        all.inputs.extend(&host.inputs);
        all.targets.extend(&host.targets);
        all.valid.extend(&host.valid);
        all.batch += host.batch;
        all.seq = host.seq;
    }
    all
}

fn paths(host: &HostBatch) -> Paths<'_> {
    Paths {
        sources: &host.inputs,
        targets: &host.targets,
        valid: &host.valid,
        seq: host.seq,
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::task::{AtEnd, RoutePlan, StepPlan};
    use brillm::candidate::{Candidates, Competition};
    use brillm::compat;
    use brillm::counts::PairCounts;
    use brillm::flow::{Bias, FlowConfig, Mix};
    use brillm::generate::{Decoding, strongest};
    use brillm::graph::BackOff;
    use brillm::model::{BackOffRows, Initial};
    use brillm::position::Encoding;
    use brillm::prior::{Prior, Weights};
    use brillm::row_adamw::{AdamW, Mode};
    use brillm::table::Storage;
    use brillm::training::RowAdamW;
    use brillm::{BriLlm, BriLlmConfig};

    type Cpu = crate::device::tests::Learning;
    const NODES: usize = 6;

    fn core(candidates: Candidates, last_edge: LastEdge, on_host: bool) -> BriLlmState {
        BriLlmState {
            last_edge,
            ..core_of(compat::NATIVE, candidates, on_host)
        }
    }

    fn core_of(flow: FlowConfig, candidates: Candidates, on_host: bool) -> BriLlmState {
        // 0 1 ten times, 1 0 nine times, 1 2 once; 2 3 was never seen.
        let text: Vec<u32> = (0..20).map(|place| place % 2).chain([2]).collect();
        let counts = PairCounts::of(NODES, [text]);
        let graph = counts.graph(1, BackOff::SharedRow);
        let config = BriLlmConfig {
            d_node: 4,
            flow,
            initial: Initial::Uniform { half_range: 0.5 },
            back_off_rows: BackOffRows::Trained,
            storage: Storage::F32,
            decoding: Decoding::NATIVE,
        };
        let draw = |stream: &str, place: u64| random::uniform(random::key(3, stream, 0), place);
        let parameters = config.init(NODES, graph.rows(), &draw);
        let weights = Weights::new(Prior::Bigram, Some(&counts), &graph);
        let training = Competition::new(candidates, weights, config.flow.bias, Some(&counts));
        let model = BriLlm {
            config,
            graph: Arc::new(graph),
            parameters,
        };
        let adamw = AdamW {
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay: 0.1,
        };
        BriLlmState {
            optimizer: RowAdamW::new(&model, Mode::Touched, adamw, None),
            model,
            evaluation: training.evaluation(),
            training,
            counts: Some(Arc::new(counts)),
            seed: 5,
            last_edge: LastEdge::Trained,
            on_host,
            shared_out: None,
        }
    }

    fn signal(core: BriLlmState) -> BriLlmTask<Cpu> {
        BriLlmTask::new(core, &Default::default())
    }

    /// Windows of three edges and seven bytes each.
    fn batch(windows: &[[u32; 4]]) -> Batch {
        let host = HostBatch {
            inputs: windows
                .iter()
                .flat_map(|window| window[..3].to_vec())
                .collect(),
            targets: windows
                .iter()
                .flat_map(|window| window[1..].to_vec())
                .collect(),
            valid: vec![true; 3 * windows.len()],
            bytes: 7 * windows.len() as u64,
            batch: windows.len(),
            seq: 3,
            ..HostBatch::default()
        };
        Batch {
            host,
            source: 0,
            plan: StepPlan::idle(RoutePlan::sequential()),
        }
    }

    const A: [u32; 4] = [0, 1, 0, 1];
    const C: [u32; 4] = [1, 2, 3, 0];
    const D: [u32; 4] = [1, 0, 4, 1];

    #[test]
    fn micro_batches_are_one_step_over_all_their_windows() {
        let of = |batches: &[Batch]| {
            let signal = signal(core(Candidates::Sampled { n: 3 }, LastEdge::Trained, true));
            let learnt = (0..3).map(|_| signal.learn(batches, 0.1));
            let learnt: Vec<Learnt> = learnt.collect();
            let norms: Vec<f64> = learnt.iter().map(|learnt| learnt.gradient_norm).collect();
            let last = learnt.into_iter().next_back().unwrap().measured;
            assert_eq!((last.targets, last.bytes), (9, 21));
            (signal.settled().model.clone(), norms, last.nats)
        };
        let together = of(&[batch(&[A, C, D])]);
        let apart = of(&[batch(&[A, C]), batch(&[D])]);
        assert!(together == apart);
        // Another seed draws others.
        let others = BriLlmState {
            seed: 6,
            ..core(Candidates::Sampled { n: 3 }, LastEdge::Trained, true)
        };
        let nats = signal(others)
            .learn(&[batch(&[A, C, D])], 0.1)
            .measured
            .nats;
        let first = signal(core(Candidates::Sampled { n: 3 }, LastEdge::Trained, true));
        assert_ne!(nats, first.learn(&[batch(&[A, C, D])], 0.1).measured.nats);
    }

    #[test]
    fn a_step_of_tensor_operations_has_the_gradients_of_the_one_on_the_host() {
        let decayed = FlowConfig {
            mix: Mix::Decay { initial: 0.7 },
            ..compat::PAPER
        };
        let learnt = FlowConfig {
            encoding: Encoding::Learnt { max_length: 3 },
            bias: Bias::EdgeAndNode,
            ..compat::REFERENCE
        };
        let windows = [A, C, D, [2, 1, 0, 3]];
        for flow in [
            compat::REFERENCE,
            compat::PAPER,
            compat::NATIVE,
            decayed,
            learnt,
        ] {
            for candidates in [
                Candidates::All,
                Candidates::Frequent { n: 2 },
                Candidates::Sampled { n: 3 },
            ] {
                let mut batch = batch(&windows);
                batch.host.valid[11] = false;
                let of = |on_host: bool| {
                    let signal = signal(core_of(flow, candidates, on_host));
                    let learnt = signal.learn(std::slice::from_ref(&batch), 0.0);
                    // A tenth of the gradients.
                    let core = signal.settled();
                    let optimizer = &core.optimizer;
                    let edges = &optimizer.edges.first;
                    let edges = edges.part(0..edges.len()).into_owned();
                    let [mix, _] = &optimizer.mix;
                    let [node_bias, _] = &optimizer.node_bias;
                    let [codes, _] = &optimizer.codes;
                    let lists = [edges, mix.clone(), node_bias.clone(), codes.clone()];
                    (lists, learnt.gradient_norm as f32)
                };
                let (found, length) = of(false);
                let (expected, expected_length) = of(true);
                assert!((length - expected_length).abs() < 1e-5 * expected_length);
                for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    for (found, expected) in found.iter().zip(expected) {
                        let far = (found - expected).abs();
                        // Sums in another order; the largest gradients are near 1.
                        assert!(
                            far < 1e-6,
                            "{flow:?} {candidates:?} {which}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_step_draws_candidates_anew() {
        let signal = signal(core(Candidates::Sampled { n: 3 }, LastEdge::Trained, true));
        // A rate of zero: only the draws differ.
        let nats = (0..6).map(|_| signal.learn(&[batch(&[A, C])], 0.0).measured.nats);
        let nats: Vec<f64> = nats.collect();
        assert!(
            nats.iter().any(|value| (value - nats[0]).abs() > 1e-3),
            "{nats:?}"
        );
    }

    #[test]
    fn the_last_edge_of_full_windows_can_be_left_out() {
        let mut short = batch(&[A, C]);
        (short.host.valid[2], short.host.valid[5]) = (false, false);
        let learn = |last_edge, batch: &Batch| {
            let signal = signal(core(Candidates::All, last_edge, true));
            let learnt = signal.learn(std::slice::from_ref(batch), 0.1);
            let model = signal.settled().model.clone();
            (model, learnt.measured.targets, learnt.measured.nats)
        };
        let left = learn(LastEdge::Left, &batch(&[A, C]));
        assert_eq!(left.1, 4);
        assert!(left == learn(LastEdge::Trained, &short));
        assert_eq!(learn(LastEdge::Trained, &batch(&[A, C])).1, 6);
    }

    #[test]
    fn what_is_measured_is_over_everybody_and_apart_by_how_often_pairs_were_seen() {
        let mut batch = batch(&[A, C, D]);
        batch.host.valid[8] = false;
        let mut found = Vec::new();
        for on_host in [true, false] {
            let signal = signal(core(Candidates::Frequent { n: 1 }, LastEdge::Left, on_host));
            let (measured, nats) = signal.measure(&batch);
            assert_eq!((measured.targets, measured.bytes), (8, 21));
            assert!((measured.nats - nats.iter().sum::<f64>()).abs() < 1e-9);
            // Never: 2 3, 3 0 and 0 4; nine times and once: 1 0 twice, 1 2; ten times: 0 1 twice.
            assert_eq!(measured.coverage.targets, [3, 3, 2, 0]);
            let never = [nats[4], nats[5], nats[7]].iter().sum::<f64>();
            assert!((measured.coverage.nats[0] - never).abs() < 1e-9);
            assert_eq!(nats[8], 0.0);
            // By the probabilities that decoding has.
            let core = signal.settled();
            let mut state = SignalState::start(&core.model, 1);
            for (&target, &nats) in batch.host.targets[3..6].iter().zip(&nats[3..6]) {
                let all = state.candidates(&core.model, &core.evaluation, Decoding::NATIVE);
                let shares = all.iter().map(|c| f64::from(c.score).exp());
                let expected = shares.sum::<f64>().ln() - f64::from(all[target as usize].score);
                assert!((nats - expected).abs() < 1e-4, "{on_host} {target}");
                state.advance(&core.model, Decoding::NATIVE, target);
            }
            found.push(measured.nats);
        }
        assert!((found[0] - found[1]).abs() < 1e-3, "{found:?}");
    }

    #[test]
    fn a_text_goes_on_as_asked_and_stops_for_its_reason() {
        let signal = signal(core(Candidates::All, LastEdge::Trained, true));
        let plain = Continuation {
            vocabulary: usize::MAX,
            n_tokens: 5,
            context: 9,
            sampling: brian::generate::Sampling {
                temperature: 0.0,
                ..brian::generate::Sampling::plain(1)
            },
            never: Vec::new(),
            ends: Vec::new(),
            at_end: AtEnd::Stop,
        };
        let stream = |prompt: &[u32], how: &Continuation, most: usize| {
            let mut tokens = Vec::new();
            let reason = signal.stream(&mut prompt.iter().copied(), how, &mut |token| {
                tokens.push(token);
                tokens.len() < most
            });
            (tokens, reason.unwrap())
        };
        // The strongest, one after the other, without `never` and with `symbol` behind an end.
        let expected = |never: &[u32], end: Option<(u32, u32)>| {
            let core = signal.settled();
            let mut state = SignalState::start(&core.model, 0);
            state.advance(&core.model, Decoding::NATIVE, 1);
            let mut tokens = Vec::new();
            for _ in 0..5 {
                let mut all = state.candidates(&core.model, &core.evaluation, Decoding::NATIVE);
                all.retain(|candidate| !never.contains(&candidate.target));
                let next = strongest(&all).unwrap().target;
                state.advance(&core.model, Decoding::NATIVE, next);
                let symbol = end.filter(|(end, _)| *end == next);
                symbol.iter().for_each(|(_, symbol)| {
                    state.advance(&core.model, Decoding::NATIVE, *symbol);
                });
                tokens.push(next);
            }
            tokens
        };
        let greedy = expected(&[], None);
        assert_eq!(
            stream(&[0, 1], &plain, 9),
            (greedy.clone(), StopReason::Length)
        );
        let refused = (greedy[..2].to_vec(), StopReason::Refused);
        assert_eq!(stream(&[0, 1], &plain, 2), refused);
        assert_eq!(stream(&[], &plain, 9), (vec![], StopReason::NoCandidate));
        let first = vec![greedy[0]];
        let without = Continuation {
            never: first.clone(),
            ..plain.clone()
        };
        assert_eq!(stream(&[0, 1], &without, 9).0, expected(&first, None));
        let nobody = Continuation {
            never: (0..6).collect(),
            ..plain.clone()
        };
        assert_eq!(
            stream(&[0, 1], &nobody, 9),
            (vec![], StopReason::NoCandidate)
        );
        let ending = Continuation {
            ends: first.clone(),
            ..plain.clone()
        };
        assert_eq!(
            stream(&[0, 1], &ending, 9),
            (first.clone(), StopReason::End)
        );
        let at_end = AtEnd::GoOn(Some(5));
        let beyond = Continuation { at_end, ..ending };
        assert_eq!(
            stream(&[0, 1], &beyond, 9).0,
            expected(&[], Some((greedy[0], 5)))
        );
        // One draw per place, from the key.
        let drawn = |seed: u64| {
            let sampling = brian::generate::Sampling::plain(seed);
            stream(
                &[0, 1],
                &Continuation {
                    sampling,
                    ..plain.clone()
                },
                9,
            )
            .0
        };
        assert_eq!(drawn(1), drawn(1));
        assert!((2..9).any(|seed| drawn(seed) != drawn(1)));
    }
}

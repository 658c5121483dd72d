//! A BriLLM as the learner sees it: it brings its own optimizer, because a step touches a few rows of a table that
//! may be larger than the memory of any device.
//!
//! The table lies on the host, behind a lock, and clones share it. Where the backend computes on the CPU a step is done
//! in place. On a GPU it is done on a copy that stays there, and the host's is old until somebody reads it
//! ([`Signal::settled`]); what has no kernels sends the rows that it uses to the device and back.

use super::{Batch, Continuation, Coverage, Measured, StopReason};
use crate::data::HostBatch;
use brian::generate::{Next, NotFinite};
use brian::random;
use brillm::candidate::{Competition, Group, LastEdge, Paths};
use brillm::counts::PairCounts;
use brillm::generate::{Candidate, Sampling, State, draw};
use brillm::training::RowAdamW;
use brillm::{BriLlm, composed};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use std::fmt;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A BriLLM, its optimizer, and what competes in training.
pub struct Core {
    /// The model.
    pub model: BriLlm,
    /// What AdamW remembers.
    pub optimizer: RowAdamW,
    /// Who competes in training.
    pub training: Competition,
    /// Everybody, with the same weights.
    pub evaluation: Competition,
    /// What the graph was made from.
    pub counts: Option<Arc<PairCounts>>,
    /// Decides the draws of candidates.
    pub seed: u64,
    /// Whether the last edge of a path is trained.
    pub last_edge: LastEdge,
    /// Whether passes run in place on the host.
    pub on_host: bool,
}

/// Shared by all clones.
#[derive(Module, Debug)]
pub struct Signal<B: Backend> {
    /// Says on which device passes run that are not done on the host; burn-train wants every model to be somewhere.
    place: Tensor<B, 1>,
    #[module(skip)]
    core: Arc<RwLock<Core>>,
}

// The module's display prints it: no table of numbers, please.
impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BriLlm { config, graph, .. } = &self.model;
        write!(
            f,
            "{} nodes, {} edges, d = {}",
            graph.nodes(),
            graph.edges(),
            config.d_node
        )
    }
}

/// What a step of a model with its own optimizer found.
pub struct Learnt {
    /// Its losses.
    pub measured: Measured,
    /// Length of the gradient.
    pub gradient_norm: f64,
}

impl<B: Backend> Signal<B> {
    /// A model for the learner.
    pub fn new(core: Core, device: &B::Device) -> Self {
        Self {
            place: Tensor::zeros([1], device),
            core: Arc::new(RwLock::new(core)),
        }
    }

    /// Where passes run that are not done on the host.
    pub fn device(&self) -> B::Device {
        self.place.device()
    }

    /// The model as it is; rows may have steps to catch up with, or be newer on a device.
    pub fn read(&self) -> RwLockReadGuard<'_, Core> {
        self.core.read().expect("no panic while it was held")
    }

    /// The model, to change it: [`RowAdamW::leave_device`] comes before a change of the table.
    pub fn write(&self) -> RwLockWriteGuard<'_, Core> {
        self.core.write().expect("no panic while it was held")
    }

    /// The model with every row brought to the last step; what its optimizer remembers may be newer on a device.
    pub fn settled(&self) -> RwLockReadGuard<'_, Core> {
        {
            let mut core = self.write();
            let Core {
                model, optimizer, ..
            } = &mut *core;
            optimizer.catch_up_values(model);
        }
        self.read()
    }

    /// One optimizer step over all micro-batches at once.
    pub fn learn(&self, batches: &[Batch], rate: f64) -> Learnt
    where
        B: AutodiffBackend,
    {
        let mut host = joined(batches);
        let mut core = self.write();
        let Core {
            model,
            optimizer,
            training,
            seed,
            last_edge,
            on_host,
            ..
        } = &mut *core;
        if *last_edge == LastEdge::Left {
            let last = host.valid.iter_mut().skip(host.seq - 1).step_by(host.seq);
            last.for_each(|valid| *valid = false);
        }
        let paths = paths(&host);
        let key = random::key(*seed, "candidates", optimizer.rates.len() as u64);
        let groups = training.groups(&model.graph, &paths, &|place| random::uniform(key, place));
        let learnt = match on_host {
            true => optimizer.step(model, &paths, &groups, rate),
            false => optimizer.step_on::<B>(model, &paths, &groups, rate, &self.device()),
        };
        let measured = Measured {
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

    /// Losses over the whole vocabulary, apart by how often the pair was seen, and those of every place of the batch: 0
    /// where nothing counts.
    pub fn measure(&self, batch: &Batch) -> (Measured, Vec<f64>) {
        let core = self.settled();
        let paths = paths(&batch.host);
        let nats = core.nats::<B>(&paths, &self.device());
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

    /// Reads a prompt, then hands over more tokens one by one until `each` says no; memory does not grow with what was read
    /// or written. Nothing follows an empty prompt.
    ///
    /// # Errors
    /// If a score is not finite.
    pub fn stream(
        &self,
        prompt: impl Iterator<Item = u32> + Send,
        how: &Continuation,
        each: impl FnMut(u32) -> bool + Send,
    ) -> Result<StopReason, NotFinite> {
        let core = self.settled();
        let core: &Core = &core;
        // Inside the pool, so that its threads stay awake between two tokens.
        rayon::scope(|_| core.stream(prompt, how, each))
    }

    /// The number of parameters.
    pub fn n_parameters(&self) -> u64 {
        self.read().model.n_parameters()
    }
}

impl Core {
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
        let mut state = State::start(model, first);
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
    fn nats<B: Backend>(&self, paths: &Paths<'_>, device: &B::Device) -> Vec<f64> {
        let groups = self.evaluation.groups(&self.model.graph, paths, &|_| 0.0);
        if self.on_host {
            return self.model.nats(paths, &groups);
        }
        let of_groups: Vec<f64> = composed::nats::<B>(&self.model, paths, &groups, device)
            .into_data()
            .iter()
            .collect();
        let places = groups.iter().flat_map(|group: &Group| &group.places);
        let mut nats = vec![0.0; paths.valid.len()];
        places
            .zip(of_groups)
            .for_each(|(&place, value)| nats[place] = value);
        nats
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

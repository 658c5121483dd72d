//! `Tracer` follows a text through a model; per token it returns the signal, weights of the mix, best candidates, the truth and
//! the parts of its energy. Chosen signals can be dropped from the mix.
//!
//! Signal `p` is what arrived at token `p`: the first signal at token 0, then one behind every edge. The first signal
//! decides what comes second and is in no mix after that.

use super::attribution::{ArrivedSignal, Attribution};
use super::odds::{Odds, Placed, Ranking};
use crate::candidate::Competition;
use crate::counts::PairCounts;
use crate::flow::Mixer;
use crate::generate::{Candidate, Decoding, SignalState};
use crate::model::BriLlm;
use crate::ops::host::numeric::norm;
use std::collections::BTreeSet;

/// Follows signals through a model.
#[derive(Clone, Copy)]
pub struct Tracer<'a> {
    /// The model.
    pub model: &'a BriLlm,
    /// Which targets compete for the next token.
    pub competition: &'a Competition,
    /// How often pairs were seen, where that is known.
    pub counts: Option<&'a PairCounts>,
    /// Settings of decoding.
    pub decoding: Decoding,
    /// How many of the best candidates a step keeps; at least 1.
    pub top: usize,
}

/// A signal at a token, and what comes next.
#[derive(Clone, Debug, PartialEq)]
pub struct TracedStep {
    /// Which token of the text, from 0.
    pub position: usize,
    /// That token.
    pub token: u32,
    /// How many edges of its own it has.
    pub degree: usize,
    /// The mix that the next token is predicted from, `[d]`.
    pub signal: Vec<f32>,
    /// Its length.
    pub norm: f32,
    /// The weight in that mix of the signal that arrived at each position, from position 0 to this one.
    pub shares: Vec<f64>,
    /// The best candidates.
    pub candidates: Vec<Placed>,
    /// Summary of all candidates.
    pub odds: Odds,
    /// The token that really came next, if there is one.
    pub truth: Option<Placed>,
    /// The parts of the truth's energy, then those of the best candidate's if it is another.
    pub attributions: Vec<Attribution>,
}

impl TracedStep {
    /// The best candidate; `None` if there is none.
    pub fn best(&self) -> Option<&Placed> {
        self.candidates.first()
    }
}

impl Tracer<'_> {
    /// One step per token. The signals that arrived at the `dropped` positions, counted from 0, are in no mix; the others
    /// take over their weight, and where no other is left the mix is the zero signal.
    pub fn trace(&self, tokens: &[u32], dropped: &BTreeSet<usize>) -> Vec<TracedStep> {
        let Some((&first, rest)) = tokens.split_first() else {
            return Vec::new();
        };
        let mut walk = Walk::start(self.model, first, dropped);
        let mut steps = Vec::with_capacity(tokens.len());
        for &next in rest {
            steps.push(self.step(&walk, Some(next)));
            walk.advance(self.model, self.decoding, next);
        }
        steps.push(self.step(&walk, None));
        steps
    }

    fn step(&self, walk: &Walk<'_>, next: Option<u32>) -> TracedStep {
        let Self {
            model,
            counts,
            decoding,
            ..
        } = *self;
        let state = &walk.state;
        let source = state.token;
        let competing = state.candidates(model, self.competition, decoding);
        let ranking = Ranking::new(&model.graph, counts, source, competing);
        let candidates = ranking.top(self.top.max(1));
        let shares = walk.shares();
        let arrival = |target| ArrivedSignal::new(model, decoding, state, target);
        let truth = next.map(|next| {
            let outside = || ranking.outside(self.unranked(source, next, &arrival(next)));
            ranking.of(next).unwrap_or_else(outside)
        });
        let best = candidates.first().map(|best| best.target);
        let mut targets: Vec<u32> = next.into_iter().chain(best).collect();
        targets.dedup();
        let attributions = targets
            .into_iter()
            .map(|target| arrival(target).attribution(target, &walk.signals, &shares));
        TracedStep {
            position: walk.signals.len() - 1,
            token: source,
            degree: model.graph.targets(source).len(),
            signal: state.mixed.clone(),
            norm: norm(&state.mixed),
            attributions: attributions.collect(),
            shares,
            candidates,
            odds: ranking.odds,
            truth,
        }
    }

    fn unranked(&self, source: u32, target: u32, arrival: &ArrivedSignal) -> Candidate {
        let energy = arrival.energy();
        let weight = self.competition.weights.of(source, target);
        Candidate {
            target,
            row: self.model.graph.row(source, target),
            energy: energy as f32,
            score: (energy + weight.ln()) as f32,
        }
    }
}

/// A signal on its way, and all that arrived before.
struct Walk<'a> {
    state: SignalState,
    /// What arrived at every position.
    signals: Vec<Vec<f32>>,
    /// Its weight in the mix, before they are normalised.
    weights: Vec<f64>,
    /// A mix of signals without components: it knows the weights.
    scale: Mixer,
    dropped: &'a BTreeSet<usize>,
}

impl<'a> Walk<'a> {
    fn start(model: &BriLlm, token: u32, dropped: &'a BTreeSet<usize>) -> Self {
        let state = SignalState::start(model, token);
        let mut walk = Self {
            signals: vec![state.arrived.clone()],
            state,
            weights: vec![1.0],
            scale: Mixer::new(model.config.flow.mix, 0),
            dropped,
        };
        walk.drop_signals();
        walk
    }

    fn advance(&mut self, model: &BriLlm, decoding: Decoding, token: u32) {
        self.state.advance(model, decoding, token);
        let step = self.scale.add(&model.parameters.mix, &[]);
        // The first signal is in no mix.
        self.weights[0] = 0.0;
        self.weights
            .iter_mut()
            .for_each(|weight| *weight *= step.keep);
        self.weights.push(step.take);
        self.signals.push(self.state.arrived.clone());
        self.drop_signals();
    }

    /// Makes the mix again without what was dropped.
    fn drop_signals(&mut self) {
        let last = self.weights.len() - 1;
        if self.dropped.contains(&last) {
            self.weights[last] = 0.0;
        }
        if self.dropped.iter().all(|&position| position > last) {
            return;
        }
        let shares = self.shares();
        for (component, value) in self.state.mixed.iter_mut().enumerate() {
            let parts = self.signals.iter().zip(&shares);
            let sum: f64 = parts
                .map(|(signal, share)| share * f64::from(signal[component]))
                .sum();
            *value = sum as f32;
        }
    }

    /// `A`: the weights of the mix. They sum to 1, or to 0 where nothing is left.
    fn shares(&self) -> Vec<f64> {
        let total: f64 = self.weights.iter().sum();
        let share = |weight: &f64| if total > 0.0 { weight / total } else { 0.0 };
        self.weights.iter().map(share).collect()
    }
}

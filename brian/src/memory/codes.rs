//! The codes that one pass wrote, and what its tokens read of them.
//!
//! A token that leaves at a step has read the slots before that step and writes no more. Its read behind the exit looks at
//! just these slots once again, whatever was written while others walked on: one group of columns for each number of
//! slots, so that not even the order of a sum depends on others.

use super::config::{Adapters, Lifecycle};
use super::hidden_code::{Found, HiddenCode};
use super::pass::{Start, Written};
use super::usage::{Read, Reads};
use crate::block::causal::MASKED;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use std::collections::BTreeSet;

/// A memory of codes during a pass.
pub(super) struct Codes<'a, B: Backend> {
    memory: &'a HiddenCode<B>,
    /// Added to scores, `[1, seq, seq]`.
    causal: Tensor<B, 3>,
    /// All that were written, for tokens that left long ago too.
    slots: Vec<Slot<B>>,
    /// The action each token took last.
    last: Vec<usize>,
    /// Which tokens are walking.
    walking: Vec<bool>,
    /// How many slots had been written when each token was walking.
    seen: Vec<usize>,
    reads: Option<Reads<B>>,
}

struct Slot<B: Backend> {
    /// `[batch, seq, d_code]`.
    codes: Tensor<B, 3>,
    /// Lowers the scores of tokens that had left, `[batch, 1, seq]`.
    gone: Option<Tensor<B, 3>>,
}

impl<'a, B: Backend> Codes<'a, B> {
    /// With the slot that is written before the first step.
    pub fn new(memory: &'a HiddenCode<B>, start: Start<'_, B>) -> Self {
        let [batch, seq, _] = start.entered.dims();
        let n_tokens = batch * seq;
        let mut codes = Self {
            memory,
            causal: start.causal.mask().reshape([1, seq, seq]),
            slots: Vec::new(),
            last: vec![start.out; n_tokens],
            walking: vec![true; n_tokens],
            seen: vec![0; n_tokens],
            reads: start.measures.then(Reads::new),
        };
        codes.append(start.entered);
        codes
    }

    /// Whether a token that has left stays what it is.
    pub fn rests(&self) -> bool {
        self.memory.config.lifecycle == Lifecycle::Frozen
    }

    /// The hidden states of the tokens that are walking, with what they read.
    pub fn read(&mut self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let readers = self.walking.clone();
        self.look(hidden, self.slots.len(), &readers)
    }

    /// Writes a step.
    pub fn write(&mut self, step: &Written<'_, B>) {
        self.last = step.actions.clone();
        if self.memory.config.lifecycle == Lifecycle::Frozen {
            self.walking.clone_from(&step.walking);
        }
        self.append(step.hidden);
    }

    /// The read behind the exit, of all tokens.
    pub fn read_last(&mut self, left: Tensor<B, 3>) -> Tensor<B, 3> {
        let numbers: BTreeSet<usize> = self.seen.iter().copied().collect();
        numbers.into_iter().fold(left, |left, number| {
            let readers: Vec<bool> = self.seen.iter().map(|&seen| seen == number).collect();
            self.look(left, number, &readers)
        })
    }

    /// What was read, as numbers.
    pub fn usage(&mut self) -> Option<Reads<B>> {
        self.reads.take()
    }

    fn append(&mut self, hidden: &Tensor<B, 3>) {
        let [batch, seq, _] = hidden.dims();
        let device = hidden.device();
        let write = |adapter: usize| self.memory.write[adapter].forward(hidden.clone());
        let everybody = vec![true; batch * seq];
        let mut codes: Option<Tensor<B, 3>> = None;
        for (adapter, here) in self.by_adapter(&everybody) {
            let written = write(adapter);
            codes = Some(match codes {
                Some(others) => keep(others, written, &here),
                None => written,
            });
        }
        let all_walk = self.walking.iter().all(|&walking| walking);
        let lowered = |&walking: &bool| if walking { 0.0 } else { MASKED };
        let gone = (!all_walk).then(|| {
            let values: Vec<f32> = self.walking.iter().map(lowered).collect();
            Tensor::from_data(TensorData::new(values, [batch, 1, seq]), &device)
        });
        self.slots.push(Slot {
            codes: codes.expect("every token has an adapter"),
            gone,
        });
        let written = self.slots.len();
        for (seen, _) in self.seen.iter_mut().zip(&self.walking).filter(|of| *of.1) {
            *seen = written;
        }
    }

    /// Lets some tokens read what was kept when `n_slots` were written.
    fn look(&mut self, hidden: Tensor<B, 3>, n_slots: usize, readers: &[bool]) -> Tensor<B, 3> {
        let (codes, mask) = self.columns(n_slots);
        let mut after = hidden.clone();
        for (adapter, here) in self.by_adapter(readers) {
            let reader = &self.memory.read[adapter];
            let found = reader.forward(hidden.clone(), codes.clone(), mask.clone());
            let measured = self
                .reads
                .is_some()
                .then(|| self.measured(&hidden, &found, n_slots, reader.open(), &here));
            if let (Some(reads), Some(read)) = (&mut self.reads, measured) {
                reads.add(read);
            }
            after = keep(after, hidden.clone() + found.change, &here);
        }
        after
    }

    /// Codes `[batch, n_kept * seq, d_code]` and their mask `[batch or 1, seq, n_kept * seq]`.
    fn columns(&self, n_slots: usize) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let window = self.memory.config.retention();
        let kept: Vec<&Slot<B>> = window
            .kept(n_slots)
            .map(|index| &self.slots[index])
            .collect();
        let codes = kept.iter().map(|slot| slot.codes.clone()).collect();
        let [batch, seq, _] = kept[0].codes.dims();
        let alike = kept.iter().all(|slot| slot.gone.is_none());
        let causal = match alike {
            true => self.causal.clone(),
            false => self.causal.clone().expand([batch, seq, seq]),
        };
        let mask = kept.iter().map(|slot| match &slot.gone {
            Some(gone) => causal.clone() + gone.clone(),
            None => causal.clone(),
        });
        (Tensor::cat(codes, 1), Tensor::cat(mask.collect(), 2))
    }

    /// The adapters in use, and which of some tokens use them.
    fn by_adapter(&self, tokens: &[bool]) -> Vec<(usize, Vec<bool>)> {
        let adapter = |token: usize| match self.memory.config.adapters {
            Adapters::Shared => 0,
            Adapters::PerBlock => self.last[token],
        };
        let chosen = (0..tokens.len()).filter(|&token| tokens[token]);
        let used: BTreeSet<usize> = chosen.map(adapter).collect();
        let of = |used: usize| {
            let here = |token: usize| tokens[token] && adapter(token) == used;
            (used, (0..tokens.len()).map(here).collect())
        };
        used.into_iter().map(of).collect()
    }

    fn measured(
        &self,
        hidden: &Tensor<B, 3>,
        found: &Found<B>,
        n_slots: usize,
        open: Tensor<B, 1>,
        here: &[bool],
    ) -> Read<B> {
        let [batch, seq, _] = hidden.dims();
        let kept = self.memory.config.retention().kept(n_slots);
        let ages: Vec<usize> = kept.map(|slot| n_slots - 1 - slot).collect();
        let by_slot = found
            .attention
            .clone()
            .reshape([batch, seq, ages.len(), seq]);
        let length = |x: Tensor<B, 3>| x.square().sum_dim(2).sqrt();
        let readers: Vec<f32> = here.iter().map(|&here| f32::from(here)).collect();
        Read {
            mass: by_slot.sum_dim(3).reshape([batch, seq, ages.len()]),
            ages,
            share: Some(length(found.change.clone()) / length(hidden.clone()).clamp_min(1e-12)),
            open,
            readers: Tensor::from_data(TensorData::new(readers, [batch, seq, 1]), &hidden.device()),
        }
    }
}

/// `kept` for the tokens that are `here`, else `others`.
fn keep<B: Backend>(others: Tensor<B, 3>, kept: Tensor<B, 3>, here: &[bool]) -> Tensor<B, 3> {
    if here.iter().all(|&here| here) {
        return kept;
    }
    let dims @ [batch, seq, _] = kept.dims();
    let data = TensorData::new(here.to_vec(), [batch, seq, 1]);
    let mask = Tensor::<B, 3, Bool>::from_data(data, &kept.device());
    others.mask_where(mask.expand(dims), kept)
}

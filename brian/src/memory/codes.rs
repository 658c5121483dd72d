//! The memory of codes during one pass: writes after every step, reads before every step and behind the exit.
//!
//! A token that leaves has read the slots before that step and writes no more. Its read behind the exit attends to the same
//! slots, whatever was written while others walked on. Tokens are grouped by their number of slots, so that not even the
//! order of a sum depends on others.
//!
//! The branches of a beam count as further sequences. Each attends to the codes of the best branch of every earlier token, and
//! to the codes that its own token wrote along its path.

use super::code_maps::CodeMaps;
use super::config::{Adapters, Lifecycle};
use super::custom::Found;
use super::record::{MemoryColumns, MemoryRead, ReadAt};
use super::step::{MemoryStart, Written};
use super::usage::{Read, Reads};
use super::window::Window;
use crate::block::causal::beside;
use crate::ops::attention_spans::MASKED;
use crate::ops::cat::cat;
use crate::ops::gather::{copies, rows};
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};
use std::collections::BTreeSet;

/// A memory of codes during a pass. Lists per token have an entry for every branch, the best branches first.
pub(crate) struct Codes<'a, B: Backend> {
    memory: &'a dyn CodeMaps<B>,
    window: Window,
    /// Sequences, without counting branches, and tokens of each.
    dims: [usize; 2],
    /// Added to scores, `[batch or 1, seq, seq]`.
    causal: Tensor<B, 3>,
    /// All slots that were written, which tokens that left long ago need too.
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
    /// The codes that later tokens attend to.
    found: Columns<B>,
    /// The codes of every branch along its path, `[n_branches * batch * seq, d_code]`.
    own: Tensor<B, 2>,
    /// Which of those were walking.
    walking: Vec<bool>,
}

struct Columns<B: Backend> {
    /// `[batch, seq, d_code]`.
    codes: Tensor<B, 3>,
    /// Lowers the scores of tokens that had left, `[batch, 1, seq]`.
    gone: Option<Tensor<B, 3>>,
}

impl<'a, B: Backend> Codes<'a, B> {
    /// Starts a pass and writes the first slot, before the first step.
    pub fn new(memory: &'a dyn CodeMaps<B>, start: MemoryStart<'_, B>) -> Self {
        let causal = start.causal.mask().squeeze_dim(1);
        let mut codes = Self::empty(memory, start.entered, start.out, causal);
        codes.reads = Reads::asked(start.measures);
        codes.append(start.entered);
        codes
    }

    fn empty(
        memory: &'a dyn CodeMaps<B>,
        entered: &Tensor<B, 3>,
        out: usize,
        causal: Tensor<B, 3>,
    ) -> Self {
        let [batch, seq, _] = entered.dims();
        let n_tokens = batch * seq;
        Self {
            memory,
            window: memory.retention(),
            dims: [batch, seq],
            causal,
            slots: Vec::new(),
            last: vec![out; n_tokens],
            walking: vec![true; n_tokens],
            seen: vec![0; n_tokens],
            reads: None,
        }
    }

    /// The reference's memory for a beam of sequences: a slot has one code, for the mean of a sequence. The first slot stays,
    /// of the others the last `window`, or all if that is 0.
    ///
    /// # Shapes
    /// `entered`: `[batch, d_model]`
    pub fn instead_of_tokens(self, entered: Tensor<B, 2>, out: usize) -> Self {
        let window = match self.window.window {
            0 => usize::MAX / 2,
            window => window,
        };
        let entered: Tensor<B, 3> = entered.unsqueeze_dim(1);
        let causal = Tensor::zeros([1, 1, 1], &entered.device());
        let mut codes = Self::empty(self.memory, &entered, out, causal);
        codes.window = Window { sink: 1, window };
        codes.append(&entered);
        codes
    }

    /// Whether the state of a token that has left no longer changes.
    pub fn rests(&self) -> bool {
        self.memory.lifecycle() == Lifecycle::Frozen
    }

    /// The hidden states after walking tokens have read the memory.
    ///
    /// # Shapes
    /// `[n_branches * batch, seq, d_model]` to the same
    pub fn read(&mut self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let readers = self.walking.clone();
        // There is a slot from before the walk, and one for each step that is over.
        let n_slots = self.slots.len();
        self.look(
            ReadAt::Decision { step: n_slots },
            hidden,
            n_slots,
            &readers,
        )
    }

    /// Writes the slot of a step.
    pub fn write(&mut self, step: &Written<'_, B>) {
        self.last = step.actions.clone();
        if self.memory.lifecycle() == Lifecycle::Frozen {
            self.walking.clone_from(&step.walking);
        }
        self.append(step.hidden);
    }

    /// Continues with other branches: `parents` are their rows before, `[n_branches * batch * seq]`.
    pub fn follow(&mut self, parents: &[usize]) {
        fn of<T: Copy>(all: &[T], parents: &[usize]) -> Vec<T> {
            parents.iter().map(|&parent| all[parent]).collect()
        }
        self.last = of(&self.last, parents);
        self.walking = of(&self.walking, parents);
        self.seen = of(&self.seen, parents);
        for slot in &mut self.slots {
            slot.own = rows(slot.own.clone(), parents);
            slot.walking = of(&slot.walking, parents);
        }
    }

    /// Ends a beam: keeps the best branch of every token, with its walk.
    pub fn settle(&mut self) {
        let [batch, seq] = self.dims;
        self.follow(&(0..batch * seq).collect::<Vec<_>>());
        for slot in &mut self.slots {
            slot.found = Columns::new(slot.own.clone(), &slot.walking, self.dims);
        }
    }

    /// The read behind the exit, for all tokens.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to the same
    pub fn read_last(&mut self, left: Tensor<B, 3>) -> Tensor<B, 3> {
        let numbers: BTreeSet<usize> = self.seen.iter().copied().collect();
        numbers.into_iter().fold(left, |left, number| {
            let readers: Vec<bool> = self.seen.iter().map(|&seen| seen == number).collect();
            self.look(ReadAt::Exit, left, number, &readers)
        })
    }

    /// The reads, if they are kept.
    pub(super) fn recorded(&mut self) -> Vec<MemoryRead> {
        self.reads.as_mut().map_or_else(Vec::new, Reads::recorded)
    }

    /// Statistics of all reads.
    pub(super) fn usage(&mut self) -> Option<Reads<B>> {
        self.reads.take()
    }

    fn append(&mut self, hidden: &Tensor<B, 3>) {
        let [n_sequences, seq, _] = hidden.dims();
        let write = |adapter: usize| self.memory.write(adapter, hidden.clone());
        let everybody = vec![true; n_sequences * seq];
        let mut codes: Option<Tensor<B, 3>> = None;
        for (adapter, here) in self.by_adapter(&everybody) {
            let written = write(adapter);
            codes = Some(match codes {
                Some(others) => keep(others, written, &here),
                None => written,
            });
        }
        let codes = codes.expect("every token has an adapter");
        let [_, _, d_code] = codes.dims();
        let own = codes.reshape([n_sequences * seq, d_code]);
        self.slots.push(Slot {
            found: Columns::new(own.clone(), &self.walking, self.dims),
            own,
            walking: self.walking.clone(),
        });
        let written = self.slots.len();
        for (seen, _) in self.seen.iter_mut().zip(&self.walking).filter(|of| *of.1) {
            *seen = written;
        }
    }

    /// Lets some tokens read what was kept when `n_slots` were written.
    fn look(
        &mut self,
        at: ReadAt,
        hidden: Tensor<B, 3>,
        n_slots: usize,
        readers: &[bool],
    ) -> Tensor<B, 3> {
        let (codes, mask) = self.columns(n_slots);
        let mut after = hidden.clone();
        for (adapter, here) in self.by_adapter(readers) {
            let (codes, mask) = (codes.clone(), mask.clone());
            let found = self.memory.read(adapter, hidden.clone(), codes, mask);
            let measured = self
                .reads
                .is_some()
                .then(|| self.measured(&hidden, &found, n_slots, &here));
            if let (Some(reads), Some(read)) = (&mut self.reads, measured) {
                let slots: Vec<usize> = self.window.kept(n_slots).collect();
                reads.record(
                    at,
                    &found.attention,
                    &read.readers,
                    MemoryColumns::Slots(&slots),
                );
                reads.add(read);
            }
            after = keep(after, hidden.clone() + found.change, &here);
        }
        after
    }

    /// Codes `[batch, n_kept * seq, d_code]` and their mask `[batch or 1, seq, n_kept * seq]`. With branches there are
    /// `n_branches * batch` of each, and twice as many columns: for each slot those of others, then their own.
    fn columns(&self, n_slots: usize) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let kept = self.window.kept(n_slots);
        let kept: Vec<&Slot<B>> = kept.map(|index| &self.slots[index]).collect();
        let [batch, seq] = self.dims;
        let n_branches = self.last.len() / (batch * seq);
        if n_branches > 1 {
            return self.columns_of_branches(&kept, n_branches);
        }
        let codes = kept.iter().map(|slot| slot.found.codes.clone()).collect();
        let alike = kept.iter().all(|slot| slot.found.gone.is_none());
        let causal = match alike {
            true => self.causal.clone(),
            false => self.causal.clone().expand([batch, seq, seq]),
        };
        let mask = kept.iter().map(|slot| slot.found.hide(causal.clone()));
        (cat(codes, 1), cat(mask.collect(), 2))
    }

    fn columns_of_branches(
        &self,
        kept: &[&Slot<B>],
        n_branches: usize,
    ) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let [batch, seq] = self.dims;
        let n_sequences = n_branches * batch;
        let [earlier, others] = beside(self.causal.clone());
        let earlier = earlier.expand([batch, seq, seq]);
        let others = others.expand([n_sequences, seq, seq]);
        let (mut codes, mut mask) = (Vec::new(), Vec::new());
        for slot in kept {
            let [_, _, d_code] = slot.found.codes.dims();
            codes.push(copies(slot.found.codes.clone(), n_branches));
            codes.push(slot.own.clone().reshape([n_sequences, seq, d_code]));
            mask.push(slot.found.hide(earlier.clone()).repeat_dim(0, n_branches));
            mask.push(others.clone());
        }
        (cat(codes, 1), cat(mask, 2))
    }

    /// The adapters in use, and which of some tokens use them.
    fn by_adapter(&self, tokens: &[bool]) -> Vec<(usize, Vec<bool>)> {
        let adapter = |token: usize| match self.memory.adapters() {
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
        here: &[bool],
    ) -> Read<B> {
        let [batch, seq, _] = hidden.dims();
        let kept = self.window.kept(n_slots);
        let ages: Vec<usize> = kept.map(|slot| n_slots - 1 - slot).collect();
        let [_, _, n_columns] = found.attention.dims();
        let of_slot = n_columns / ages.len();
        let by_slot = found
            .attention
            .clone()
            .reshape([batch, seq, ages.len(), of_slot]);
        let length = |x: Tensor<B, 3>| x.square().sum_dim(2).sqrt();
        let readers: Vec<f32> = here.iter().map(|&here| f32::from(here)).collect();
        Read {
            mass: by_slot.sum_dim(3).reshape([batch, seq, ages.len()]),
            ages,
            share: Some(length(found.change.clone()) / length(hidden.clone()).clamp_min(1e-12)),
            open: found.open.clone(),
            readers: Tensor::from_data(TensorData::new(readers, [batch, seq, 1]), &hidden.device()),
        }
    }
}

impl<B: Backend> Columns<B> {
    /// Of the best branches: the first rows.
    fn new(own: Tensor<B, 2>, walking: &[bool], [batch, seq]: [usize; 2]) -> Self {
        let [_, d_code] = own.dims();
        let n_tokens = batch * seq;
        let walking = &walking[..n_tokens];
        let all_walk = walking.iter().all(|&walking| walking);
        let lowered = |&walking: &bool| if walking { 0.0 } else { MASKED };
        let gone = (!all_walk).then(|| {
            let values: Vec<f32> = walking.iter().map(lowered).collect();
            Tensor::from_data(TensorData::new(values, [batch, 1, seq]), &own.device())
        });
        // Without branches these are all.
        let best = match own.dims()[0] == n_tokens {
            true => own,
            false => own.slice_dim(0, 0..n_tokens),
        };
        Self {
            codes: best.reshape([batch, seq, d_code]),
            gone,
        }
    }

    /// A mask that also hides who had left.
    fn hide(&self, mask: Tensor<B, 3>) -> Tensor<B, 3> {
        match &self.gone {
            Some(gone) => mask + gone.clone(),
            None => mask,
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

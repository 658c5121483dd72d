//! The memory of keys and values during one pass: its slots, and how blocks attend to them.

use super::config::Lifecycle;
use super::key_value_prefix::KeyValuePrefix;
use super::record::{MemoryColumns, MemoryRead, ReadAt};
use super::step::{MemoryStart, Written};
use super::usage::{Read, Reads};
use crate::block::attention::KeysValues;
use crate::block::causal::Causal;
use crate::block::routed::RoutedBlock;
use crate::ops::attention::for_each_head;
use crate::ops::attention_spans::MASKED;
use crate::ops::cat::cat;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// A memory of keys and values during a pass.
pub(super) struct Prefix<'a, B: Backend> {
    memory: &'a KeyValuePrefix<B>,
    /// Those that are kept, oldest first.
    slots: Vec<Slot<B>>,
    n_written: usize,
    /// Steps that are over; under the reference's rule more than slots.
    n_steps: usize,
    /// The slots as one, until the next is written.
    columns: Option<Columns<B>>,
    /// What the blocks of this step made.
    projected: Vec<Projected<B>>,
    reads: Option<Reads<B>>,
}

struct Slot<B: Backend> {
    /// Counted over all that were written.
    index: usize,
    /// The step at which it was written, from 1.
    step: usize,
    kept: KeysValues<B>,
    /// Added to scores, `[batch, 1, seq, seq]`.
    mask: Tensor<B, 4>,
}

struct Columns<B: Backend> {
    kept: KeysValues<B>,
    /// `[batch, 1, seq, n_slots * seq]`.
    mask: Tensor<B, 4>,
}

struct Projected<B: Backend> {
    block: usize,
    own: KeysValues<B>,
    /// The attention, where it is measured.
    found: Option<Attention<B>>,
}

/// The attention of every token, the mean over heads.
struct Attention<B: Backend> {
    /// To each slot, `[batch, seq, n_slots]`; of none there is one.
    mass: Tensor<B, 3>,
    /// To each token of each slot and then to those of this step, `[batch, seq, (n_slots + 1) * seq]`, where reads are kept.
    of_columns: Option<Tensor<B, 3>>,
}

impl<'a, B: Backend> Prefix<'a, B> {
    pub fn new(memory: &'a KeyValuePrefix<B>, start: MemoryStart<'_, B>) -> Self {
        Self {
            memory,
            slots: Vec::new(),
            n_written: 0,
            n_steps: 0,
            columns: None,
            projected: Vec::new(),
            reads: Reads::asked(start.measures),
        }
    }

    /// Executes a block of the pool on every token.
    ///
    /// # Shapes
    /// As [`RoutedBlock::forward`].
    pub fn execute(
        &mut self,
        block: usize,
        routed: &RoutedBlock<B>,
        told: Tensor<B, 3>,
        causal: &Causal<B>,
        factors: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 3> {
        let (queries, own) = routed.block.project(told.clone(), causal);
        let (among, mask) = self.among(block, own.clone(), causal.mask());
        let found = self.reads.as_ref();
        let found = found.map(|reads| self.attention(reads, &queries, &among.keys, &mask));
        self.projected.push(Projected { block, own, found });
        routed.block.finish(told, queries, among, mask, factors)
    }

    /// The keys and values that a block attends to, those of the memory first, and the mask of their scores.
    fn among(
        &self,
        block: usize,
        own: KeysValues<B>,
        causal: Tensor<B, 4>,
    ) -> (KeysValues<B>, Tensor<B, 4>) {
        let Some(columns) = &self.columns else {
            return (own, causal);
        };
        let of_block = &self.memory.blocks[block];
        let kept = of_block.read(columns.kept.clone());
        let [batch, _, seq, _] = columns.mask.dims();
        let bias = of_block.bias.val().reshape([1, 1, 1, 1]);
        let causal = causal.expand([batch, 1, seq, seq]);
        let among = KeysValues {
            keys: cat(vec![kept.keys, own.keys], 2),
            values: cat(vec![kept.values, own.values], 2),
        };
        let mask = cat(vec![columns.mask.clone() + bias, causal], 3);
        (among, mask)
    }

    /// Writes the slot of a step, from the keys and values of the blocks that ran. Under the reference's rule a step at which
    /// no token in the batch executed a block writes none.
    pub fn write(&mut self, step: &Written<'_, B>) {
        let [batch, seq, _] = step.hidden.dims();
        let device = step.hidden.device();
        let n_pool = self.memory.blocks.len();
        let projected = std::mem::take(&mut self.projected);
        let column = |of: &dyn Fn(usize) -> f32| -> Tensor<B, 2> {
            let values: Vec<f32> = step.actions.iter().map(|&action| of(action)).collect();
            Tensor::from_data(TensorData::new(values, [batch * seq, 1]), &device)
        };
        let executed = column(&|action| f32::from(action < n_pool));
        let share = |block: usize| match step.weights {
            Some(weights) => weights.clone().slice_dim(1, block..block + 1) * executed.clone(),
            None => column(&|action| f32::from(action == block)),
        };
        self.measure(&projected, |block| share(block).reshape([batch, seq, 1]));
        self.n_steps += 1;
        let nobody = step.actions.iter().all(|&action| action >= n_pool);
        if nobody && self.memory.config.lifecycle == Lifecycle::Reference {
            return;
        }
        let shape = [batch, self.memory.n_kv_heads, seq, self.memory.d_kept];
        let nothing = Tensor::zeros(shape, &device);
        let mut kept = KeysValues {
            keys: nothing.clone(),
            values: nothing,
        };
        for Projected { block, own, .. } in projected {
            let written = self.memory.blocks[block].written(own);
            let share = share(block).reshape([batch, 1, seq, 1]);
            kept = KeysValues {
                keys: kept.keys + written.keys * share.clone(),
                values: kept.values + written.values * share,
            };
        }
        let gone = column(&|action| if action < n_pool { 0.0 } else { MASKED });
        let causal = step.causal.mask().expand([batch, 1, seq, seq]);
        self.append(kept, causal + gone.reshape([batch, 1, 1, seq]));
    }

    fn append(&mut self, kept: KeysValues<B>, mask: Tensor<B, 4>) {
        let (index, step) = (self.n_written, self.n_steps);
        self.n_written += 1;
        self.slots.push(Slot {
            index,
            step,
            kept,
            mask,
        });
        let window = self.memory.config.retention();
        self.slots
            .retain(|slot| window.keeps(slot.index, self.n_written));
        let join = |of: &dyn Fn(&Slot<B>) -> Tensor<B, 4>, dim: usize| {
            cat(self.slots.iter().map(of).collect(), dim)
        };
        self.columns = Some(Columns {
            kept: KeysValues {
                keys: join(&|slot| slot.kept.keys.clone(), 2),
                values: join(&|slot| slot.kept.values.clone(), 2),
            },
            mask: join(&|slot| slot.mask.clone(), 3),
        });
    }

    /// The reads, if they are kept.
    pub fn recorded(&mut self) -> Vec<MemoryRead> {
        self.reads.as_mut().map_or_else(Vec::new, Reads::recorded)
    }

    /// Statistics of all reads.
    pub fn usage(&mut self) -> Option<Reads<B>> {
        self.reads.take()
    }

    /// What a block attends to, as it is measured: to slots, and to single columns where `reads` keeps them.
    fn attention(
        &self,
        reads: &Reads<B>,
        queries: &Tensor<B, 4>,
        keys: &Tensor<B, 4>,
        mask: &Tensor<B, 4>,
    ) -> Attention<B> {
        let [batch, n_heads, seq, _] = queries.dims();
        let n_slots = self.slots.len();
        let nothing = || Tensor::zeros([batch, seq, 1], &queries.device());
        if n_slots == 0 && !reads.records() {
            let (mass, of_columns) = (nothing(), None);
            return Attention { mass, of_columns };
        }
        let keys = for_each_head(keys.clone(), n_heads);
        let scores = queries.clone().matmul(keys.swap_dims(2, 3)) + mask.clone();
        let attention = softmax(scores, 3);
        let of_columns = reads.records().then(|| {
            let of_heads = attention.clone().mean_dim(1);
            of_heads.reshape([batch, seq, (n_slots + 1) * seq])
        });
        let mass = match n_slots {
            0 => nothing(),
            _ => {
                let of_memory = attention.slice_dim(3, 0..n_slots * seq);
                let by_slot = of_memory.mean_dim(1).reshape([batch, seq, n_slots, seq]);
                by_slot.sum_dim(3).reshape([batch, seq, n_slots])
            }
        };
        Attention { mass, of_columns }
    }

    fn measure(&mut self, projected: &[Projected<B>], readers: impl Fn(usize) -> Tensor<B, 3>) {
        let Some(reads) = &mut self.reads else {
            return;
        };
        let newest = self.n_written.saturating_sub(1);
        let mut ages: Vec<usize> = self.slots.iter().map(|slot| newest - slot.index).collect();
        if ages.is_empty() {
            ages.push(0);
        }
        let steps: Vec<usize> = self.slots.iter().map(|slot| slot.step).collect();
        let step = self.n_steps + 1;
        for Projected { block, found, .. } in projected {
            let Some(Attention { mass, of_columns }) = found else {
                continue;
            };
            let readers = readers(*block);
            if let Some(of_columns) = of_columns {
                let at = ReadAt::Block {
                    step,
                    block: *block,
                };
                reads.record(at, of_columns, &readers, MemoryColumns::Slots(&steps));
            }
            reads.add(Read {
                mass: mass.clone(),
                ages: ages.clone(),
                share: None,
                open: self.memory.blocks[*block].bias.val().exp(),
                readers,
            });
        }
    }
}

//! Codes that all blocks of the pool share, during one pass: which there are, and how blocks attend to them.
//!
//! A token has one code of an earlier step at most: that of the last step at which it ran a block, frozen when it leaves. So what a
//! token sees depends on its own walk and on those of earlier tokens, never on how long others walk.

use super::config::SharedCodes;
use super::record::{MemoryColumns, MemoryRead, ReadAt};
use super::shared_code::SharedCode;
use super::step::{MemoryStart, Written};
use super::usage::{Read, Reads};
use crate::block::attention::KeysValues;
use crate::block::causal::Causal;
use crate::block::routed::RoutedBlock;
use crate::ops::attention_spans::MASKED;
use crate::ops::cat::cat;
use crate::ops::reshape::{per_row, reshape};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};

/// Shared codes during a pass.
pub(super) struct Shared<'a, B: Backend> {
    memory: &'a SharedCode<B>,
    /// Those of the states before this step, made when the first block asks.
    current: Option<KeysValues<B>>,
    /// What each token's last block wrote, once there is any.
    last: Option<Last<B>>,
    /// What the blocks of this step made of all tokens.
    made: Vec<Made<B>>,
    /// Steps that are over.
    n_steps: usize,
    reads: Option<Reads<B>>,
}

/// A block's output from its input and what its heads found, `[batch * seq, n_heads * d_head]`.
fn end<B: Backend>(
    routed: &RoutedBlock<B>,
    told: Tensor<B, 3>,
    found: Tensor<B, 2>,
    factors: Option<&Tensor<B, 2>>,
) -> Tensor<B, 3> {
    let dims = told.dims();
    reshape(routed.block.end(per_row(told), found, factors), dims)
}

struct Last<B: Backend> {
    /// `[batch, 1, seq, d_code]` each; zeros where a token has run no block.
    codes: KeysValues<B>,
    /// The last step at which each token has run one, from 1.
    steps: Vec<Option<usize>>,
}

struct Made<B: Backend> {
    block: usize,
    codes: KeysValues<B>,
    /// The attention, where it is measured.
    found: Option<Attention<B>>,
}

/// The attention of every token, the mean over heads.
struct Attention<B: Backend> {
    /// To codes of earlier steps, `[batch, seq, 1]`.
    mass: Tensor<B, 3>,
    /// To every code, those of earlier steps first if there are any, `[batch, seq, n_codes]`, where reads are kept.
    of_columns: Option<Tensor<B, 3>>,
}

impl<'a, B: Backend> Shared<'a, B> {
    pub fn new(memory: &'a SharedCode<B>, start: MemoryStart<'_, B>) -> Self {
        Self {
            memory,
            current: None,
            last: None,
            made: Vec::new(),
            n_steps: 0,
            reads: Reads::asked(start.measures),
        }
    }

    /// Executes a block of the pool on every token: their states, and the same with their positions.
    ///
    /// # Shapes
    /// As [`RoutedBlock::forward`]
    pub fn execute(
        &mut self,
        block: usize,
        routed: &RoutedBlock<B>,
        [hidden, told]: [Tensor<B, 3>; 2],
        causal: &Causal<B>,
        factors: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 3> {
        let memory = self.memory;
        let normed = routed.block.attention_norm.forward(told.clone());
        let queries = memory.asked(block, routed, normed.clone());
        if memory.config.codes == SharedCodes::Current {
            let codes = self.current.get_or_insert_with(|| memory.written(hidden));
            let found = memory.find(block, routed, queries, codes.clone(), causal.mask());
            return end(routed, told, found, factors);
        }
        let own = memory.written(normed);
        let (among, mask) = self.among(block, own.clone(), causal.mask());
        let found = self.reads.as_ref();
        let found = found.map(|reads| self.attention(reads, &queries, &among.keys, &mask));
        self.made.push(Made {
            block,
            codes: own,
            found,
        });
        let found = memory.find(block, routed, queries, among, mask);
        end(routed, told, found, factors)
    }

    /// The codes that a block attends to, those of earlier steps first, and the mask of their scores.
    fn among(
        &self,
        block: usize,
        own: KeysValues<B>,
        causal: Tensor<B, 4>,
    ) -> (KeysValues<B>, Tensor<B, 4>) {
        let Some(Last { codes, steps }) = &self.last else {
            return (own, causal);
        };
        let [batch, _, seq, _] = own.keys.dims();
        let absent: Vec<f32> = steps
            .iter()
            .map(|step| if step.is_some() { 0.0 } else { MASKED })
            .collect();
        let absent = TensorData::new(absent, [batch, 1, 1, seq]);
        let absent = Tensor::<B, 4>::from_data(absent, &own.keys.device());
        let bias = self.memory.blocks[block].bias.as_ref();
        let bias = bias.expect("blocks that see earlier steps have one").val();
        let causal = causal.expand([batch, 1, seq, seq]);
        let earlier = causal.clone() + absent + bias.reshape([1, 1, 1, 1]);
        let among = KeysValues {
            keys: cat(vec![codes.keys.clone(), own.keys], 2),
            values: cat(vec![codes.values.clone(), own.values], 2),
        };
        (among, cat(vec![earlier, causal], 3))
    }

    /// Keeps what the tokens that ran a block wrote at a step, of a fused token the mixture.
    pub fn write(&mut self, step: &Written<'_, B>) {
        self.current = None;
        let made = std::mem::take(&mut self.made);
        let [batch, seq, _] = step.hidden.dims();
        let device = step.hidden.device();
        let n_pool = self.memory.blocks.len();
        let share = |block: usize| match step.weights {
            Some(weights) => weights.clone().slice_dim(1, block..block + 1),
            None => {
                let own = step
                    .actions
                    .iter()
                    .map(|&action| f32::from(action == block));
                let own = TensorData::new(own.collect::<Vec<_>>(), [batch * seq, 1]);
                Tensor::from_data(own, &device)
            }
        };
        self.measure(&made, |block| share(block).reshape([batch, seq, 1]));
        self.n_steps += 1;
        let wrote: Vec<bool> = step.actions.iter().map(|&action| action < n_pool).collect();
        if made.is_empty() || !wrote.contains(&true) {
            return;
        }
        let shape = [batch, 1, seq, self.memory.config.d_code];
        let nothing = || Tensor::<B, 4>::zeros(shape, &device);
        let (mut keys, mut values) = (nothing(), nothing());
        for Made { block, codes, .. } in made {
            let share = share(block).reshape([batch, 1, seq, 1]);
            keys = keys + codes.keys * share.clone();
            values = values + codes.values * share;
        }
        let here = TensorData::new(wrote.clone(), [batch, 1, seq, 1]);
        let here = Tensor::<B, 4, Bool>::from_data(here, &device).expand(shape);
        let (before, had) = match self.last.take() {
            Some(Last { codes, steps }) => (codes, steps),
            None => {
                let codes = KeysValues {
                    keys: nothing(),
                    values: nothing(),
                };
                (codes, vec![None; batch * seq])
            }
        };
        self.last = Some(Last {
            codes: KeysValues {
                keys: before.keys.mask_where(here.clone(), keys),
                values: before.values.mask_where(here, values),
            },
            steps: had
                .iter()
                .zip(wrote)
                .map(|(had, wrote)| if wrote { Some(self.n_steps) } else { *had })
                .collect(),
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

    /// What a block attends to, as it is measured: to codes of earlier steps, and to single codes where `reads` keeps them.
    fn attention(
        &self,
        reads: &Reads<B>,
        queries: &Tensor<B, 4>,
        keys: &Tensor<B, 4>,
        mask: &Tensor<B, 4>,
    ) -> Attention<B> {
        let [batch, _, seq, _] = queries.dims();
        let [_, _, n_codes, _] = keys.dims();
        let sees_earlier = n_codes > seq;
        let nothing = || Tensor::zeros([batch, seq, 1], &queries.device());
        if !sees_earlier && !reads.records() {
            let (mass, of_columns) = (nothing(), None);
            return Attention { mass, of_columns };
        }
        let scores = queries.clone().matmul(keys.clone().swap_dims(2, 3)) + mask.clone();
        let attention = softmax(scores, 3);
        let of_columns = reads.records().then(|| {
            let of_heads = attention.clone().mean_dim(1);
            of_heads.reshape([batch, seq, n_codes])
        });
        let mass = match sees_earlier {
            false => nothing(),
            true => {
                let earlier = attention.slice_dim(3, 0..seq).sum_dim(3);
                earlier.mean_dim(1).reshape([batch, seq, 1])
            }
        };
        Attention { mass, of_columns }
    }

    fn measure(&mut self, made: &[Made<B>], readers: impl Fn(usize) -> Tensor<B, 3>) {
        let Some(reads) = &mut self.reads else {
            return;
        };
        let step = self.n_steps + 1;
        let kept = match &self.last {
            Some(last) => MemoryColumns::Last(&last.steps),
            None => MemoryColumns::Slots(&[]),
        };
        for Made { block, found, .. } in made {
            let Some(Attention { mass, of_columns }) = found else {
                continue;
            };
            let bias = self.memory.blocks[*block].bias.as_ref();
            let readers = readers(*block);
            if let Some(of_columns) = of_columns {
                let at = ReadAt::Block {
                    step,
                    block: *block,
                };
                reads.record(at, of_columns, &readers, kept);
            }
            reads.add(Read {
                mass: mass.clone(),
                ages: vec![0],
                share: None,
                open: bias
                    .expect("blocks that see earlier steps have one")
                    .val()
                    .exp(),
                readers,
            });
        }
    }
}

//! Codes that all blocks of the pool share, during one pass: which there are, and how blocks attend to them.
//!
//! A token has one code of an earlier step at most: that of the last step at which it ran a block, frozen when it leaves. So what a
//! token sees depends on its own walk and on those of earlier tokens, never on how long others walk.

use super::config::SharedCodes;
use super::shared_code::SharedCode;
use super::step::{MemoryStart, Written};
use super::usage::{Read, Reads};
use crate::block::attention::KeysValues;
use crate::block::causal::Causal;
use crate::block::routed::RoutedBlock;
use crate::ops::attention_spans::MASKED;
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
    /// Which tokens have run one.
    has: Vec<bool>,
}

struct Made<B: Backend> {
    block: usize,
    codes: KeysValues<B>,
    /// Attention of every token to codes of earlier steps, `[batch, seq, 1]`, where it is measured.
    mass: Option<Tensor<B, 3>>,
}

impl<'a, B: Backend> Shared<'a, B> {
    pub fn new(memory: &'a SharedCode<B>, start: MemoryStart<'_, B>) -> Self {
        Self {
            memory,
            current: None,
            last: None,
            made: Vec::new(),
            reads: start.measures.then(Reads::default),
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
        let mass = self
            .reads
            .is_some()
            .then(|| self.mass(&queries, &among.keys, &mask));
        self.made.push(Made {
            block,
            codes: own,
            mass,
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
        let Some(Last { codes, has }) = &self.last else {
            return (own, causal);
        };
        let [batch, _, seq, _] = own.keys.dims();
        let absent: Vec<f32> = has
            .iter()
            .map(|&has| if has { 0.0 } else { MASKED })
            .collect();
        let absent = TensorData::new(absent, [batch, 1, 1, seq]);
        let absent = Tensor::<B, 4>::from_data(absent, &own.keys.device());
        let bias = self.memory.blocks[block].bias.as_ref();
        let bias = bias.expect("blocks that see earlier steps have one").val();
        let causal = causal.expand([batch, 1, seq, seq]);
        let earlier = causal.clone() + absent + bias.reshape([1, 1, 1, 1]);
        let among = KeysValues {
            keys: Tensor::cat(vec![codes.keys.clone(), own.keys], 2),
            values: Tensor::cat(vec![codes.values.clone(), own.values], 2),
        };
        (among, Tensor::cat(vec![earlier, causal], 3))
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
            Some(Last { codes, has }) => (codes, has),
            None => {
                let codes = KeysValues {
                    keys: nothing(),
                    values: nothing(),
                };
                (codes, vec![false; batch * seq])
            }
        };
        self.last = Some(Last {
            codes: KeysValues {
                keys: before.keys.mask_where(here.clone(), keys),
                values: before.values.mask_where(here, values),
            },
            has: had
                .iter()
                .zip(wrote)
                .map(|(had, wrote)| *had || wrote)
                .collect(),
        });
    }

    /// Statistics of all reads.
    pub fn usage(&mut self) -> Option<Reads<B>> {
        self.reads.take()
    }

    /// The attention of every token to codes of earlier steps, the mean over heads, `[batch, seq, 1]`.
    fn mass(
        &self,
        queries: &Tensor<B, 4>,
        keys: &Tensor<B, 4>,
        mask: &Tensor<B, 4>,
    ) -> Tensor<B, 3> {
        let [batch, _, seq, _] = queries.dims();
        let [_, _, n_codes, _] = keys.dims();
        if n_codes == seq {
            return Tensor::zeros([batch, seq, 1], &queries.device());
        }
        let scores = queries.clone().matmul(keys.clone().swap_dims(2, 3)) + mask.clone();
        let earlier = softmax(scores, 3).slice_dim(3, 0..seq).sum_dim(3);
        earlier.mean_dim(1).reshape([batch, seq, 1])
    }

    fn measure(&mut self, made: &[Made<B>], readers: impl Fn(usize) -> Tensor<B, 3>) {
        let Some(reads) = &mut self.reads else {
            return;
        };
        for Made { block, mass, .. } in made {
            let Some(mass) = mass else { continue };
            let bias = self.memory.blocks[*block].bias.as_ref();
            reads.add(Read {
                mass: mass.clone(),
                ages: vec![0],
                share: None,
                open: bias
                    .expect("blocks that see earlier steps have one")
                    .val()
                    .exp(),
                readers: readers(*block),
            });
        }
    }
}

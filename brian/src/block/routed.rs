//! A block of the pool: a Transformer block whose input also contains the position of the walk.
//!
//! `out = block(h + adapter P)`, or `block(h + P)` without an adapter. The block is residual, so the position stays in its
//! output. The adapter starts at zero: a fresh pool block with one is the plain block.

use super::BlockSizes;
use super::causal::Causal;
use super::matrix::{add_position, matrix};
use super::transformer::TransformerBlock;
use super::visits::Visits;
use crate::described::{Described, Description, Start};
use crate::ops::gather::some;
use crate::ops::groups::Group;
use crate::ops::linear::add_linear_each;
use crate::ops::reshape::{per_row, reshape};
use crate::ops::reuse::Packed;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// One block of the pool.
#[derive(Module, Debug)]
pub struct RoutedBlock<B: Backend> {
    /// `[d_position, d_model]`; `None` if the position is added directly.
    pub adapter: Option<Linear<B>>,
    /// The Transformer block.
    pub block: TransformerBlock<B>,
    /// What it does otherwise when a token executes it again.
    pub visits: Visits<B>,
}

impl<B: Backend> RoutedBlock<B> {
    /// `d_position` of the adapter, if there is one.
    pub(crate) fn new(
        sizes: &BlockSizes,
        d_position: Option<usize>,
        visits: Visits<B>,
        device: &B::Device,
    ) -> Self {
        Self {
            adapter: d_position.map(|d_position| matrix(d_position, sizes.d_model, device)),
            block: TransformerBlock::new(sizes, device),
            visits,
        }
    }

    /// Runs the block on every token; each token has its own position.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, d_model]`
    /// - `position`: `[batch, seq, d_position]`
    /// - `factors`, of what it adds to the stream: `[batch * seq, d_model or 1]`
    /// - returns `[batch, seq, d_model]`
    pub fn forward(
        &self,
        hidden: Tensor<B, 3>,
        position: Tensor<B, 3>,
        causal: &Causal<B>,
        factors: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 3> {
        let dims @ [batch, _, _] = hidden.dims();
        let told = add_position(per_row(hidden), self.adapter.as_ref(), per_row(position));
        let (attention, norm) = (&self.block.attention, &self.block.attention_norm);
        let found = attention.forward(&told, norm, batch, causal);
        reshape(self.block.end(told, found, factors), dims)
    }

    /// The block's input: the residual stream plus the position.
    ///
    /// # Shapes
    /// As [`Self::forward`]
    pub fn add_position(&self, hidden: Tensor<B, 3>, position: Tensor<B, 3>) -> Tensor<B, 3> {
        let dims = hidden.dims();
        let told = add_position(per_row(hidden), self.adapter.as_ref(), per_row(position));
        reshape(told, dims)
    }

    /// The inputs of several blocks, each for its own tokens.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` and `[n_tokens, d_position]` to `[tokens, d_model]`
    pub(crate) fn add_position_each<'a>(
        operators: &[Group<&'a Self>],
        tokens: &[usize],
        hidden: &Tensor<B, 2>,
        position: &Tensor<B, 2>,
        packed: &Packed,
    ) -> Tensor<B, 2> {
        let (hidden, position) = (hidden.clone(), some(position.clone(), tokens));
        let adapter = |&Group { of, n_rows }: &Group<&'a Self>| {
            let of = of.adapter.as_ref()?;
            Some(Group { of, n_rows })
        };
        let adapters: Option<Vec<_>> = operators.iter().map(adapter).collect();
        match adapters {
            Some(adapters) => add_linear_each(hidden, Some(tokens), position, &adapters, packed),
            None => some(hidden, tokens) + position,
        }
    }
}

impl<B: Backend> Described<B> for RoutedBlock<B> {
    fn describe(&self, to: &mut Description) {
        if let Some(adapter) = &self.adapter {
            to.starts(&adapter.weight, Start::Constant(0.0));
        }
        self.block.describe(to);
        self.visits.describe(to);
    }
}

//! The pre-norm block: `x ← x + attention(norm(x))`, then `x ← x + feed_forward(norm(x))`, with RMS norms. Where residuals are
//! scaled, by a factor `s`, it is `x ← x + s attention(norm(x))`, and the same of the feed-forward.

use super::BlockSizes;
use super::attention::{Attention, KeysValues};
use super::causal::Causal;
use super::feed_forward::FeedForward;
use crate::described::{Described, Description};
use crate::ops::groups::{Group, by_group, each};
use crate::ops::linear::add_linear_each;
use crate::ops::reshape::{per_row, reshape};
use crate::ops::reuse::Packed;
use crate::ops::swiglu::swiglu_residual;
use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// One layer of the baseline, and the body of every routed block.
#[derive(Module, Debug)]
pub struct TransformerBlock<B: Backend> {
    /// Norm before attention.
    pub attention_norm: RmsNorm<B>,
    /// Attention.
    pub attention: Attention<B>,
    /// Norm before the feed-forward.
    pub feed_forward_norm: RmsNorm<B>,
    /// Feed-forward.
    pub feed_forward: FeedForward<B>,
    #[module(skip)]
    pub(crate) residual_factor: Option<f64>,
}

impl<B: Backend> TransformerBlock<B> {
    pub(crate) fn new(sizes: &BlockSizes, device: &B::Device) -> Self {
        Self {
            attention_norm: norm(sizes, device),
            attention: Attention::new(sizes, device),
            feed_forward_norm: norm(sizes, device),
            feed_forward: FeedForward::new(sizes, device),
            residual_factor: sizes.residual_factor,
        }
    }

    /// The type of matrix products; see [`crate::precision`].
    pub fn products(&self) -> DType {
        self.attention.products()
    }

    /// Executes the block on every token.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to the same
    pub fn forward(&self, x: Tensor<B, 3>, causal: &Causal<B>) -> Tensor<B, 3> {
        let dims @ [batch, _, _] = x.dims();
        let x = per_row(x);
        let found = self
            .attention
            .forward(&x, &self.attention_norm, batch, causal);
        reshape(self.end(x, found, None), dims)
    }

    /// Queries, keys and values from the norm of `x`; see [`Attention::project`].
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, n_heads, seq, d_head]`, keys and values with `n_kv_heads`
    pub fn project(&self, x: Tensor<B, 3>, causal: &Causal<B>) -> (Tensor<B, 4>, KeysValues<B>) {
        self.attention
            .project(self.attention_norm.forward(x), causal)
    }

    /// The block's output from its input, queries, keys and values; see [`Attention::find`].
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    /// - `queries`, `among` and `mask` as in [`Attention::find`]
    /// - returns `[batch, seq, d_model]`
    pub fn finish(
        &self,
        x: Tensor<B, 3>,
        queries: Tensor<B, 4>,
        among: KeysValues<B>,
        mask: Tensor<B, 4>,
        factors: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 3> {
        let dims = x.dims();
        let found = self.attention.find(queries, among, mask);
        reshape(self.end(per_row(x), per_row(found), factors), dims)
    }

    /// The block's output from its input and the attention output of these tokens; `factors` multiply what the block adds to each.
    ///
    /// # Shapes
    /// - `x`: `[n_tokens, d_model]`, `found`: `[n_tokens, n_heads * d_head]`
    /// - `factors`: `[n_tokens, d_model or 1]`
    /// - returns `[n_tokens, d_model]`
    pub fn end(
        &self,
        x: Tensor<B, 2>,
        found: Tensor<B, 2>,
        factors: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 2> {
        let blocks = Group::only(self, &x);
        Self::end_each(&blocks, x, found, factors, &Packed::default())
    }

    /// [`Self::end`] for several blocks, each on its own tokens.
    pub(crate) fn end_each(
        blocks: &[Group<&Self>],
        x: Tensor<B, 2>,
        found: Tensor<B, 2>,
        factors: Option<&Tensor<B, 2>>,
        packed: &Packed,
    ) -> Tensor<B, 2> {
        let part = Part {
            of_all: blocks[0].of.residual_factor,
            of_each: factors,
        };
        let outputs = each(blocks, |block| &block.attention.output);
        let has_bias = blocks[0].of.attention.output.bias.is_some();
        let x = part.of(x, |x| {
            let x = add_linear_each(x, None, found, &outputs, packed);
            match has_bias {
                false => x,
                true => by_group([x], blocks, |[x], block, _| {
                    let bias = block.attention.output.bias.as_ref();
                    x + bias.expect("all or none have one").val().unsqueeze()
                }),
            }
        });
        let halves = each(blocks, |block| {
            let FeedForward { gate, up, down } = &block.feed_forward;
            (&block.feed_forward_norm, [gate, up, down])
        });
        part.of(x, |x| swiglu_residual(x, &halves, packed))
    }
}

/// The part of a change of the stream that is made.
struct Part<'a, B: Backend> {
    of_all: Option<f64>,
    /// `[n_tokens, d_model or 1]`
    of_each: Option<&'a Tensor<B, 2>>,
}

impl<B: Backend> Part<'_, B> {
    /// The stream after this part of a change. The change is what was added, found again by subtraction: fused operations add to the
    /// stream themselves, and its rounding is that of the stream.
    ///
    /// # Shapes
    /// `[n_tokens, d_model]` to the same
    fn of(
        &self,
        x: Tensor<B, 2>,
        change: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        if self.of_all.is_none() && self.of_each.is_none() {
            return change(x);
        }
        let mut added = change(x.clone()) - x.clone();
        if let Some(part) = self.of_all {
            added = added * part;
        }
        if let Some(parts) = self.of_each {
            added = added * parts.clone();
        }
        added + x
    }
}

impl<B: Backend> Described<B> for TransformerBlock<B> {
    fn describe(&self, to: &mut Description) {
        to.norm(&self.attention_norm);
        self.attention.describe(to);
        to.norm(&self.feed_forward_norm);
        self.feed_forward.describe(to);
    }
}

/// The RMS norm of a model's width.
pub(crate) fn norm<B: Backend>(sizes: &BlockSizes, device: &B::Device) -> RmsNorm<B> {
    RmsNormConfig::new(sizes.d_model)
        .with_epsilon(sizes.norm_epsilon)
        .init(device)
}

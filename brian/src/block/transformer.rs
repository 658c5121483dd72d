//! The pre-norm block: `x ← x + attention(norm(x))`, then `x ← x + feed_forward(norm(x))`, with RMS norms.

use super::BlockSizes;
use super::attention::Attention;
use super::causal::Causal;
use super::feed_forward::FeedForward;
use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

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
}

impl<B: Backend> TransformerBlock<B> {
    pub(crate) fn new(sizes: &BlockSizes, device: &B::Device) -> Self {
        Self {
            attention_norm: norm(sizes, device),
            attention: Attention::new(sizes, device),
            feed_forward_norm: norm(sizes, device),
            feed_forward: FeedForward::new(sizes, device),
        }
    }

    /// Executes the block on every position.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to the same
    pub fn forward(&self, x: Tensor<B, 3>, causal: &Causal<B>) -> Tensor<B, 3> {
        let attended = self
            .attention
            .forward(self.attention_norm.forward(x.clone()), causal);
        let x = x + attended;
        let fed = self
            .feed_forward
            .forward(self.feed_forward_norm.forward(x.clone()));
        x + fed
    }
}

/// The RMS norm of a model's width.
pub(crate) fn norm<B: Backend>(sizes: &BlockSizes, device: &B::Device) -> RmsNorm<B> {
    RmsNormConfig::new(sizes.d_model)
        .with_epsilon(sizes.norm_epsilon)
        .init(device)
}

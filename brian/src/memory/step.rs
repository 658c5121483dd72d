//! What a walk tells its memory: before the first step, and after each.

use crate::block::causal::Causal;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// What a pass begins with.
pub(crate) struct MemoryStart<'a, B: Backend> {
    /// Before the walk, `[batch, seq, d_model]`.
    pub entered: &'a Tensor<B, 3>,
    pub causal: &'a Causal<B>,
    /// The action that leaves.
    pub out: usize,
    /// Whether to count what is read.
    pub measures: bool,
}

/// What a step did; tokens in the order `[batch * seq]`.
pub(crate) struct Written<'a, B: Backend> {
    /// After the step, `[batch, seq, d_model]`.
    pub hidden: &'a Tensor<B, 3>,
    pub causal: &'a Causal<B>,
    pub actions: Vec<usize>,
    /// Who goes on.
    pub walking: Vec<bool>,
    /// How the outputs of blocks were mixed, `[batch * seq, n_pool]`, if any were.
    pub weights: Option<&'a Tensor<B, 2>>,
}

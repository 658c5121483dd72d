//! What a walk passes to its memory: `MemoryStart` at the start (entering states, causal mask), and `Written` after each step
//! (states, actions, which tokens go on, weights of mixed blocks).

use super::record::Measures;
use crate::block::causal::Causal;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The start of a pass.
pub(crate) struct MemoryStart<'a, B: Backend> {
    /// Before the walk, `[batch, seq, d_model]`.
    pub entered: &'a Tensor<B, 3>,
    pub causal: &'a Causal<B>,
    /// The action that leaves.
    pub out: usize,
    /// What to keep of reads.
    pub measures: Measures,
    /// Whether blocks run on some of their tokens, as rows: who runs them keeps what these write.
    pub by_rows: bool,
}

impl<B: Backend> Clone for MemoryStart<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for MemoryStart<'_, B> {}

/// The result of a step; tokens in the order `[batch * seq]`.
pub(crate) struct Written<'a, B: Backend> {
    /// After the step, `[batch, seq, d_model]`.
    pub hidden: &'a Tensor<B, 3>,
    pub causal: &'a Causal<B>,
    pub actions: Vec<usize>,
    /// Which tokens go on.
    pub walking: Vec<bool>,
    /// How the outputs of blocks were mixed, `[batch * seq, n_pool]`, if any were.
    pub weights: Option<&'a Tensor<B, 2>>,
}

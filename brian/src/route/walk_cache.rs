//! Cache for decoding: keeps the states of earlier tokens at every step, and runs a block on new tokens, which attend to them.
//!
//! A block that runs at step `s` attends to the states of all earlier tokens at step `s`; a token that has left keeps its last
//! state. So the states of every step are kept. When a token runs a block at a step, the keys and values of this (step, block)
//! are made from them, for all tokens since the last time at once.

use crate::block::cache::Cache;
use crate::block::causal::Rotary;
use crate::block::routed::RoutedBlock;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::collections::BTreeMap;

/// All walks so far of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct WalkCache<B: Backend> {
    rotary: Rotary<B>,
    n_tokens: usize,
    steps: Vec<PastStep<B>>,
}

/// The tokens at one step.
#[derive(Clone, Debug)]
struct PastStep<B: Backend> {
    /// Of every pass the states `[batch, seq, d_model]` and the positions `[batch, seq, d_position]` it came with.
    passes: Vec<[Tensor<B, 3>; 2]>,
    /// Of every block that ran what it keeps, and of how many passes.
    blocks: BTreeMap<usize, (Cache<B>, usize)>,
}

impl<B: Backend> WalkCache<B> {
    /// An empty cache.
    pub fn new(rotary: &Rotary<B>) -> Self {
        Self {
            rotary: rotary.clone(),
            n_tokens: 0,
            steps: Vec::new(),
        }
    }

    /// How many tokens have walked.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Keeps the states with which the tokens of a pass enter a step; `position` is as the blocks see it.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, d_model]`
    /// - `position`: `[batch, seq, d_position]`
    pub fn enter(&mut self, step: usize, hidden: Tensor<B, 3>, position: Tensor<B, 3>) {
        if step == self.steps.len() {
            self.steps.push(PastStep {
                passes: Vec::new(),
                blocks: BTreeMap::new(),
            });
        }
        self.steps[step].passes.push([hidden, position]);
    }

    /// Ends a pass of at most `n_steps` steps; at steps that it did not reach, its tokens keep the states with which they left.
    ///
    /// # Shapes
    /// As [`Self::enter`]
    pub fn end(&mut self, n_steps: usize, hidden: Tensor<B, 3>, position: Tensor<B, 3>) {
        let n_passes = self.steps.first().map_or(0, |step| step.passes.len());
        for step in 0..n_steps {
            let seen = self.steps.get(step).map_or(0, |step| step.passes.len());
            if seen < n_passes {
                self.enter(step, hidden.clone(), position.clone());
            }
        }
        self.n_tokens += hidden.dims()[1];
    }

    /// The output of a block for all tokens that entered the step last.
    ///
    /// # Shapes
    /// Returns `[batch, seq, d_model]`
    pub fn output(&mut self, step: usize, block: usize, routed: &RoutedBlock<B>) -> Tensor<B, 3> {
        let PastStep { passes, blocks } = &mut self.steps[step];
        let (cache, n_kept) = blocks.entry(block).or_default();
        let missing = &passes[*n_kept..];
        *n_kept = passes.len();
        let [hidden, position] = [0, 1].map(|part| {
            let tensors = missing.iter().map(|pass| pass[part].clone()).collect();
            Tensor::cat(tensors, 1)
        });
        let [_, n_new, _] = hidden.dims();
        let [_, seq, _] = passes[passes.len() - 1][0].dims();
        let causal = self.rotary.causal_after(cache.n_tokens(), n_new);
        let told = routed.add_position(hidden, position);
        cache.execute(&routed.block, told, &causal, seq)
    }
}

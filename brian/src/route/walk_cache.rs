//! Cache for decoding: keeps the states of a sequence's earlier tokens at every step of their walks, and runs a block on new
//! tokens of several sequences, which attend to them.
//!
//! A block that runs at step `s` attends to the states of all earlier tokens at step `s`; a token that has left keeps its last
//! state. So the states of every step are kept. When a token runs a block at a step, the keys and values of this (step, block)
//! are made from them, for all tokens since the last time at once.

use crate::block::cache::{Cache, NewTokens, execute};
use crate::block::causal::Rotary;
use crate::block::matrix::add_position;
use crate::block::routed::RoutedBlock;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::collections::BTreeMap;

/// All walks so far of one sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct WalkCache<B: Backend> {
    n_tokens: usize,
    steps: Vec<PastStep<B>>,
}

/// The tokens at one step.
#[derive(Clone, Debug)]
struct PastStep<B: Backend> {
    /// Of every pass the states `[n_new, d_model]` and the positions `[n_new, d_position]` it came with.
    passes: Vec<[Tensor<B, 2>; 2]>,
    /// Of every block that ran what it keeps, and of how many passes.
    blocks: BTreeMap<usize, (Cache<B>, usize)>,
}

/// What a block does not know yet of the tokens of a sequence at a step.
pub(crate) struct Unread<B: Backend> {
    /// Their states and positions, as they came.
    rows: Vec<[Tensor<B, 2>; 2]>,
    first: usize,
    tokens: NewTokens,
    cache: Cache<B>,
}

impl<B: Backend> WalkCache<B> {
    /// How many tokens have walked.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Keeps the states with which the tokens of a pass enter a step; `position` is as the blocks see it.
    ///
    /// # Shapes
    /// - `hidden`: `[n_new, d_model]`
    /// - `position`: `[n_new, d_position]`
    pub fn enter(&mut self, step: usize, hidden: Tensor<B, 2>, position: Tensor<B, 2>) {
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
    pub fn end(&mut self, n_steps: usize, hidden: Tensor<B, 2>, position: Tensor<B, 2>) {
        let n_passes = self.steps.first().map_or(0, |step| step.passes.len());
        for step in 0..n_steps {
            let seen = self.steps.get(step).map_or(0, |step| step.passes.len());
            if seen < n_passes {
                self.enter(step, hidden.clone(), position.clone());
            }
        }
        self.n_tokens += hidden.dims()[0];
    }

    /// Takes out what a block keeps at a step, with the tokens that it has not read, those of the last pass among them.
    /// [`output`] reads them, and [`Self::put_back`] keeps it again.
    pub fn take(&mut self, step: usize, block: usize) -> Unread<B> {
        let PastStep { passes, blocks } = &mut self.steps[step];
        let (cache, n_read) = blocks.entry(block).or_default();
        let rows = passes[*n_read..].to_vec();
        *n_read = passes.len();
        let n_rows = |[hidden, _]: &[Tensor<B, 2>; 2]| hidden.dims()[0];
        Unread {
            first: cache.n_tokens(),
            tokens: NewTokens {
                n_new: rows.iter().map(n_rows).sum(),
                n_wanted: rows.last().map_or(0, n_rows),
            },
            rows,
            cache: std::mem::take(cache),
        }
    }

    /// Keeps what a block keeps at a step.
    pub fn put_back(&mut self, step: usize, block: usize, cache: Cache<B>) {
        let blocks = &mut self.steps[step].blocks;
        blocks.get_mut(&block).expect("it was taken out").0 = cache;
    }
}

/// The output of a block for the last pass of some sequences, one behind the other, and what the block keeps of each.
///
/// # Shapes
/// Returns `[n_new, d_model]` of all last passes
pub(crate) fn output<B: Backend>(
    routed: &RoutedBlock<B>,
    rotary: &Rotary<B>,
    unread: Vec<Unread<B>>,
) -> (Tensor<B, 2>, Vec<Cache<B>>) {
    let [hidden, position] = [0, 1].map(|part| {
        let rows = unread.iter().flat_map(|of| &of.rows);
        Tensor::cat(rows.map(|rows| rows[part].clone()).collect(), 0)
    });
    let told = add_position(hidden, routed.adapter.as_ref(), position);
    let places = unread
        .iter()
        .flat_map(|of| of.first..of.first + of.tokens.n_new);
    let angles = rotary.angles(places.collect());
    let (tokens, mut caches): (Vec<_>, Vec<_>) =
        unread.into_iter().map(|of| (of.tokens, of.cache)).unzip();
    let output = execute(&routed.block, told, &angles, &tokens, &mut caches);
    (output, caches)
}

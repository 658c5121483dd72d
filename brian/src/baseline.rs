//! `Baseline` and its configuration: a decoder-only Transformer of fixed depth with the blocks of the routed model and no
//! router, the control for every claim about routing; also the tied head of both models.
//!
//! `logits = norm(block_n(… block_1(E[tokens]))) Eᵀ` with a tied head.

use crate::block::BlockSizes;
use crate::block::causal::Rotary;
use crate::block::transformer::{TransformerBlock, norm};
use crate::described::{Described, Description, Start};
use crate::error::{ConfigError, check_sizes};
use crate::initial::{Initial, draw};
use crate::ops::embedding::embed;
use crate::ops::linear::linear_transposed;
use crate::ops::reshape::{per_row, reshape};
use crate::ops::reuse::shared_module;
use crate::ops::rms_norm::rms_norm;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, RmsNorm};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};
use serde::Deserialize;

/// Sizes of a baseline; the vocabulary comes from the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct BaselineConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads.
    pub n_heads: usize,
    /// Hidden width of the feed-forward.
    pub d_ff: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Longest sequence.
    pub context: usize,
    /// Base of the rotary angles.
    pub rope_base: f64,
    /// Added to the mean square in every norm.
    pub norm_epsilon: f64,
    /// Initial values.
    pub initial: Initial,
}

impl BaselineConfig {
    /// A small model for examples and tests: five blocks of width 16.
    pub fn small() -> Self {
        Self {
            d_model: 16,
            n_heads: 2,
            d_ff: 24,
            n_layers: 5,
            context: 32,
            rope_base: 10_000.0,
            norm_epsilon: 1e-6,
            initial: Initial::Scaled { std: 0.1 },
        }
    }

    /// All fields with values that no model can be built from.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut problems = check_sizes(&self.sizes(), self.context, self.rope_base);
        problems.at_least_1("n_layers", self.n_layers);
        problems.0
    }

    /// A model with fresh parameters; the same seed gives the same bits on every backend.
    pub fn init<B: Backend>(
        &self,
        vocabulary: usize,
        seed: u64,
        device: &B::Device,
    ) -> Baseline<B> {
        let model = self.skeleton(vocabulary, device);
        draw(model, self.initial, self.n_layers, seed)
    }

    /// A model whose parameters have only shapes so far: for counting, and for loading a checkpoint into it.
    pub fn skeleton<B: Backend>(&self, vocabulary: usize, device: &B::Device) -> Baseline<B> {
        let sizes = self.sizes();
        let blocks = (0..self.n_layers).map(|_| TransformerBlock::new(&sizes, device));
        Baseline {
            embedding: embedding(vocabulary, self.d_model, device),
            blocks: blocks.collect(),
            norm: norm(&sizes, device),
            rotary: self.rotary(device),
        }
    }

    pub(crate) fn rotary<B: Backend>(&self, device: &B::Device) -> Rotary<B> {
        let d_head = self.d_model / self.n_heads;
        Rotary::new(self.context, d_head, self.rope_base, device)
    }

    pub(crate) fn sizes(&self) -> BlockSizes {
        BlockSizes {
            d_model: self.d_model,
            n_heads: self.n_heads,
            d_ff: self.d_ff,
            norm_epsilon: self.norm_epsilon,
        }
    }
}

/// A decoder of fixed depth.
#[derive(Module, Debug)]
pub struct Baseline<B: Backend> {
    /// Token embedding, `[vocabulary, d_model]`. The head is tied to it: one parameter, one gradient.
    pub embedding: Embedding<B>,
    /// The blocks, in order of execution.
    pub blocks: Vec<TransformerBlock<B>>,
    /// RMS norm before the head.
    pub norm: RmsNorm<B>,
    pub(crate) rotary: Rotary<B>,
}

impl<B: Backend> Baseline<B> {
    /// Logits of the next token behind every token.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, vocabulary]`
    ///
    /// # Panics
    /// If `seq` exceeds the context.
    pub fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let causal = self.rotary.causal(tokens.dims()[1]);
        let embedded = embed(&self.embedding, tokens);
        let execute = |hidden, block: &TransformerBlock<B>| {
            shared_module(block.clone()).forward(hidden, &causal)
        };
        let hidden = self.blocks.iter().fold(embedded, execute);
        self.head(hidden)
    }

    /// Logits from the output of the last block; see [`head`].
    pub(crate) fn head(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let first = self.blocks.first();
        let products = first.map_or(DType::F32, TransformerBlock::products);
        head(&self.norm, &self.embedding, hidden, products)
    }
}

impl<B: Backend> Described<B> for Baseline<B> {
    fn describe(&self, to: &mut Description) {
        to.starts(&self.embedding.weight, Start::Embedding);
        self.blocks.iter().for_each(|block| block.describe(to));
        to.norm(&self.norm);
    }
}

/// An embedding without values yet.
pub(crate) fn embedding<B: Backend>(
    vocabulary: usize,
    d_model: usize,
    device: &B::Device,
) -> Embedding<B> {
    EmbeddingConfig::new(vocabulary, d_model)
        .with_initializer(Initializer::Zeros)
        .init(device)
}

/// The tied head: `norm(hidden) Eᵀ`, with the product in the given type.
///
/// # Shapes
/// `[batch, seq, d_model]` to `[batch, seq, vocabulary]`
pub(crate) fn head<B: Backend>(
    norm: &RmsNorm<B>,
    embedding: &Embedding<B>,
    hidden: Tensor<B, 3>,
    products: DType,
) -> Tensor<B, 3> {
    let ([batch, seq, _], dtype) = (hidden.dims(), hidden.dtype());
    let weight = embedding.weight.val();
    let [vocabulary, _] = weight.dims();
    let normed = rms_norm(&per_row(hidden), norm, products);
    let logits = linear_transposed(normed, weight).cast(dtype);
    reshape(logits, [batch, seq, vocabulary])
}

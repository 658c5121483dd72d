//! `Baseline` and its configuration: a decoder-only Transformer of fixed depth with the blocks of the routed model and no
//! router, the control for every claim about routing; also the head of both models.
//!
//! `logits = norm(block_n(… block_1(E[tokens]))) E_outᵀ`, where `E_out` is `E` if the head is tied, divided by the width
//! where it is transferred (`crate::width_transfer`), and behind a soft cap where there is one.

use crate::block::causal::{Rope, RopeScaling, Rotary};
use crate::block::residual::ResidualScale;
use crate::block::transformer::{TransformerBlock, norm};
use crate::block::{AttentionBias, BlockSizes, Heads};
use crate::described::{Described, Description, Start};
use crate::error::{ConfigError, Problems};
use crate::initial::{Initial, draw};
use crate::ops::embedding::embed;
use crate::ops::linear::linear_transposed;
use crate::ops::recompute::Recompute;
use crate::ops::reshape::{per_row, reshape};
use crate::ops::reuse::shared_module;
use crate::ops::rms_norm::rms_norm;
use crate::ops::soft_cap::soft_cap;
use crate::segments::Segments;
use crate::width_transfer::{Ratios, UpdateScales, WidthTransfer};
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Initializer, RmsNorm};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};
use serde::Deserialize;
use std::ops::RangeInclusive;

/// What a soft cap may be: below, no text could be predicted with any certainty; beyond, single precision has no cap at all.
const CAPS: RangeInclusive<f64> = 1.0..=10_000.0;

/// Sizes of a baseline; the vocabulary comes from the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct BaselineConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads, of queries.
    pub n_heads: usize,
    /// Heads of keys and values, a divisor of `n_heads`; as many as `n_heads` if it is left out.
    pub n_kv_heads: Option<usize>,
    /// Width of a head; `d_model / n_heads` if it is left out.
    pub d_head: Option<usize>,
    /// Biases of attention; none if it is left out.
    pub attention_bias: Option<AttentionBias>,
    /// Whether queries and keys are normed, head by head; no if it is left out.
    pub query_key_norm: Option<bool>,
    /// Whether the head has an embedding of its own; no if it is left out.
    pub untied_head: Option<bool>,
    /// Soft cap of the logits, which become `cap * tanh(logits / cap)` (Gemma 2, Riviere et al. 2024); none if it is left out.
    pub logit_cap: Option<f64>,
    /// Hidden width of the feed-forward.
    pub d_ff: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Longest sequence.
    pub context: usize,
    /// Base of the rotary angles.
    pub rope_base: f64,
    /// How these are made smaller for a longer context; not at all if it is left out.
    pub rope_scaling: Option<RopeScaling>,
    /// Added to the mean square in every norm.
    pub norm_epsilon: f64,
    /// Multiplies what blocks add to the residual stream; nothing if it is left out. It comes beside what `initial` does.
    pub residual_scale: Option<ResidualScale>,
    /// The base whose settings hold at this width (Yang et al. 2022); the width is its own if it is left out.
    pub width_transfer: Option<WidthTransfer>,
    /// Initial values.
    pub initial: Initial,
}

impl BaselineConfig {
    /// A small model for examples and tests: five blocks of width 16.
    pub fn small() -> Self {
        Self {
            d_model: 16,
            n_heads: 2,
            n_kv_heads: None,
            d_head: None,
            attention_bias: None,
            query_key_norm: None,
            untied_head: None,
            logit_cap: None,
            d_ff: 24,
            n_layers: 5,
            context: 32,
            rope_base: 10_000.0,
            rope_scaling: None,
            norm_epsilon: 1e-6,
            residual_scale: None,
            width_transfer: None,
            initial: Initial::Scaled { std: 0.1 },
        }
    }

    /// All fields with values that no model can be built from.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut problems = check_sizes(self);
        problems.at_least_1("n_layers", self.n_layers);
        if let Some(scale) = self.residual_scale {
            scale.check(&mut problems);
        }
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
        draw(model, self.initial, self.n_layers, self.ratios(), seed)
    }

    /// A model whose parameters have only shapes so far: for counting, and for loading a checkpoint into it.
    pub fn skeleton<B: Backend>(&self, vocabulary: usize, device: &B::Device) -> Baseline<B> {
        let sizes = self.sizes();
        let blocks = (0..self.n_layers).map(|_| TransformerBlock::new(&sizes, device));
        Baseline {
            embedding: embedding(vocabulary, self.d_model, device),
            blocks: blocks.collect(),
            norm: norm(&sizes, device),
            unembedding: self.unembedding(vocabulary, device),
            rotary: self.rotary(device),
            logit_cap: self.logit_cap,
            recompute: None,
            ratios: self.ratios(),
        }
    }

    pub(crate) fn rotary<B: Backend>(&self, device: &B::Device) -> Rotary<B> {
        let rotary = Rotary::new(self.context, self.heads().d_head, self.rope(), device);
        rotary.with_query_factor(self.ratios().queries())
    }

    /// The rotary angles.
    pub fn rope(&self) -> Rope {
        Rope {
            base: self.rope_base,
            scaling: self.rope_scaling,
        }
    }

    pub(crate) fn unembedding<B: Backend>(
        &self,
        vocabulary: usize,
        device: &B::Device,
    ) -> Option<Embedding<B>> {
        let untied = self.untied_head == Some(true);
        untied.then(|| embedding(vocabulary, self.d_model, device))
    }

    /// The heads of attention.
    ///
    /// # Panics
    /// If there are no heads and `d_head` is left out; see [`Self::check`].
    pub fn heads(&self) -> Heads {
        Heads {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads.unwrap_or(self.n_heads),
            d_head: self.d_head.unwrap_or_else(|| self.d_model / self.n_heads),
        }
    }

    /// How much larger a model of these sizes is than the base of its width transfer.
    ///
    /// # Panics
    /// As [`Self::heads`].
    pub fn ratios(&self) -> Ratios {
        let of_base = |base: WidthTransfer| base.ratios(self.d_model, self.heads().d_head);
        self.width_transfer.map(of_base).unwrap_or_default()
    }

    pub(crate) fn sizes(&self) -> BlockSizes {
        BlockSizes {
            d_model: self.d_model,
            heads: self.heads(),
            attention_bias: self.attention_bias,
            query_key_norm: self.query_key_norm == Some(true),
            d_ff: self.d_ff,
            norm_epsilon: self.norm_epsilon,
            residual_factor: self.residual_scale.map(|scale| scale.factor(self.n_layers)),
        }
    }
}

/// A decoder of fixed depth.
#[derive(Module, Debug)]
pub struct Baseline<B: Backend> {
    /// Token embedding, `[vocabulary, d_model]`. A head without values of its own is tied to it: one parameter, one gradient.
    pub embedding: Embedding<B>,
    /// The blocks, in order of execution.
    pub blocks: Vec<TransformerBlock<B>>,
    /// RMS norm before the head.
    pub norm: RmsNorm<B>,
    /// The head's own values, `[vocabulary, d_model]`, if it is not tied.
    pub unembedding: Option<Embedding<B>>,
    pub(crate) rotary: Rotary<B>,
    #[module(skip)]
    pub(crate) logit_cap: Option<f64>,
    #[module(skip)]
    recompute: Option<Recompute>,
    #[module(skip)]
    pub(crate) ratios: Ratios,
}

impl<B: Backend> Baseline<B> {
    /// The same model, which computes this again in a backward pass.
    pub fn recomputing(mut self, recompute: Option<Recompute>) -> Self {
        self.recompute = recompute;
        self
    }

    /// Logits of the next token behind every token.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, vocabulary]`
    ///
    /// # Panics
    /// If `seq` exceeds the context.
    pub fn forward(&self, tokens: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        let [batch, seq] = tokens.dims();
        self.forward_segments(tokens, &Segments::whole(batch, seq))
    }

    /// The same of windows that may hold several texts: the logits of each are those of the text alone.
    ///
    /// # Shapes
    /// As [`Self::forward`]
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn forward_segments(&self, tokens: Tensor<B, 2, Int>, segments: &Segments) -> Tensor<B, 3> {
        let causal = self.rotary.causal_of(tokens.dims()[1], segments);
        let embedded = embed(&self.embedding, tokens);
        let execute = |hidden, block: &TransformerBlock<B>| {
            let run = || shared_module(block.clone()).forward(hidden, &causal);
            Recompute::block(self.recompute, run)
        };
        let hidden = self.blocks.iter().fold(embedded, execute);
        self.head(hidden)
    }

    /// Logits from the output of the last block; see [`head`].
    pub(crate) fn head(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let first = self.blocks.first();
        let products = first.map_or(DType::F32, TransformerBlock::products);
        let weights = self.unembedding.as_ref().unwrap_or(&self.embedding);
        let scale = LogitScale {
            factor: self.ratios.logits(),
            cap: self.logit_cap,
        };
        head(&self.norm, weights, hidden, products, scale)
    }

    /// What the settings of AdamW are multiplied by.
    pub fn update_scales(&self) -> UpdateScales {
        UpdateScales::of(self, self.ratios)
    }
}

impl<B: Backend> Described<B> for Baseline<B> {
    fn describe(&self, to: &mut Description) {
        to.starts(&self.embedding.weight, Start::Embedding);
        self.blocks.iter().for_each(|block| block.describe(to));
        to.norm(&self.norm);
        if let Some(head) = &self.unembedding {
            to.starts(&head.weight, Start::Embedding);
        }
    }
}

/// Checks what a baseline and a routed model share.
pub(crate) fn check_sizes(config: &BaselineConfig) -> Problems {
    let BaselineConfig {
        d_model, n_heads, ..
    } = *config;
    let mut problems = Problems::default();
    problems.at_least_1("d_model", d_model);
    problems.at_least_1("n_heads", n_heads);
    problems.at_least_1("d_ff", config.d_ff);
    problems.at_least_1("context", config.context);
    let pairs = 2 * n_heads;
    match config.d_head {
        Some(d_head) => problems.require(
            d_head > 0 && d_head.is_multiple_of(2),
            "d_head",
            d_head,
            "an even width for rotary pairs, at least 2",
        ),
        None => problems.require(
            pairs == 0 || d_model.is_multiple_of(pairs),
            "d_model",
            d_model,
            format!(
                "a multiple of 2 * n_heads = {pairs}, so that every head has an even width for its rotary pairs"
            ),
        ),
    }
    if let Some(n_kv_heads) = config.n_kv_heads {
        let divides = n_kv_heads > 0 && n_heads.is_multiple_of(n_kv_heads);
        let expected = format!("a divisor of n_heads = {n_heads}");
        problems.require(divides, "n_kv_heads", n_kv_heads, expected);
    }
    let above_1 = config.rope_base.is_finite() && config.rope_base > 1.0;
    problems.require(above_1, "rope_base", config.rope_base, "a number above 1");
    if let Some(scaling) = config.rope_scaling {
        scaling.check(&mut problems);
    }
    if let Some(transfer) = config.width_transfer {
        transfer.check(&mut problems);
        let scales = matches!(config.initial, Initial::Scaled { .. });
        let expected =
            "scaled with width_transfer: torch_default makes maps smaller by their width already";
        problems.require(scales, "initial", "torch_default", expected);
    }
    let epsilon = config.norm_epsilon;
    let above_0 = epsilon.is_finite() && epsilon > 0.0;
    problems.require(above_0, "norm_epsilon", epsilon, "a number above 0");
    if let Some(cap) = config.logit_cap {
        let expected = format!("a number from {} to {}", CAPS.start(), CAPS.end());
        problems.require(CAPS.contains(&cap), "logit_cap", cap, expected);
    }
    problems
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

/// What logits are multiplied by, and their soft cap.
#[derive(Clone, Copy)]
pub(crate) struct LogitScale {
    pub factor: f64,
    pub cap: Option<f64>,
}

/// The head: `factor * norm(hidden) Eᵀ`, with the product in the given type, behind the soft cap, if there is one. The cap is computed in
/// the type of the stream: half precision would tell few logits near the cap apart. The factor comes before the product, where
/// there are fewer numbers.
///
/// # Shapes
/// `[batch, seq, d_model]` to `[batch, seq, vocabulary]`
pub(crate) fn head<B: Backend>(
    norm: &RmsNorm<B>,
    embedding: &Embedding<B>,
    hidden: Tensor<B, 3>,
    products: DType,
    scale: LogitScale,
) -> Tensor<B, 3> {
    let ([batch, seq, _], dtype) = (hidden.dims(), hidden.dtype());
    let weight = embedding.weight.val();
    let [vocabulary, _] = weight.dims();
    let normed = rms_norm(&per_row(hidden), norm, products);
    let normed = match scale.factor {
        1.0 => normed,
        factor => normed * factor,
    };
    let logits = linear_transposed(normed, weight).cast(dtype);
    let logits = match scale.cap {
        Some(cap) => soft_cap(logits, cap),
        None => logits,
    };
    reshape(logits, [batch, seq, vocabulary])
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::block::tests::{
        Passes, SINGLE, Values, assert_gradients, assert_near, composed, found, gradients_of, loud,
        normed, rows_of, tensor, values_of, weighed, weighed_rows,
    };
    use crate::precision::with_matmul_dtype;
    use ndarray::Array2;

    /// So small that some logits lie far beyond it.
    const CAP: f64 = 2.0;

    fn small(logit_cap: Option<f64>) -> Baseline<Passes> {
        let config = BaselineConfig {
            d_model: 8,
            logit_cap,
            norm_epsilon: 0.3,
            ..BaselineConfig::small()
        };
        loud(config.skeleton(7, &Default::default()), |_| 0.8)
    }

    fn capped(at: &Values) -> Array2<f64> {
        let logits = normed(&at["hidden"], &at["norm.gamma"], 0.3).dot(&at["embedding.weight"].t());
        logits.mapv(|logit| CAP * (logit / CAP).tanh())
    }

    #[test]
    fn capped_logits_are_their_equation_and_so_is_their_gradient() {
        let check = || {
            let model = small(Some(CAP));
            let hidden: Tensor<Passes, 3> = tensor("hidden", [2, 5, 8]);
            let mut at = values_of("", &model);
            at.insert("hidden".to_string(), found(&hidden));
            let logits = model.head(hidden.clone());
            assert_near("logits", &found(&logits), &capped(&at), SINGLE);
            let gradients = weighed("logits", logits).backward();
            let mut of = gradients_of("", &model, &gradients);
            let of_hidden = hidden.grad(&gradients).expect("one").into_data();
            of.insert("hidden".to_string(), rows_of(&of_hidden));
            assert_eq!(of.len(), 3, "hidden states, gain and embedding");
            assert_gradients("capped", &of, &at, SINGLE, |at| {
                weighed_rows("logits", &capped(at))
            });
        };
        check();
        composed(check);
    }

    #[test]
    fn a_cap_bounds_the_logits_and_none_leaves_their_bits() {
        let hidden = || tensor::<Passes, 3>("hidden", [2, 5, 8]);
        let [plain, capped] = [None, Some(CAP)].map(|cap| found(&small(cap).head(hidden())));
        let most = |logits: &Array2<f64>| logits.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        assert!(most(&plain) > 1.5 * CAP && most(&capped) < CAP);
        let rows = per_row(hidden());
        let model = small(None);
        let normed = rms_norm(&rows, &model.norm, DType::F32);
        let product = linear_transposed(normed, model.embedding.weight.val());
        assert_eq!(found(&product), plain);
    }

    /// In float64, as this backend has no half precision: what counts is where the type changes.
    #[test]
    fn a_cap_is_computed_in_the_type_of_the_stream() {
        let hidden = || tensor::<Passes, 3>("hidden", [2, 5, 8]);
        let model = small(Some(CAP));
        let expected = found(&model.head(hidden()));
        let logits = with_matmul_dtype(model, DType::F64).head(hidden());
        assert_eq!(logits.dtype(), DType::F32);
        assert_near("capped", &found(&logits), &expected, 1e-5);
    }
}

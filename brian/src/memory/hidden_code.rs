//! `HiddenCode`, the parameters of a memory of codes, with the maps that write and read; what one pass keeps is in `codes`.
//! With `norm(x) = x / |x|`, hidden state `h`, codes `c` and a scalar gate `g`:
//!
//! ```text
//! write   c = norm(W h + 1/√n_heads Σ_n h_n D_n U_n)
//! read    a = softmax over all visible (slot, token) of (Q h) · c / √d_code
//!         h ← h + σ(g) (O r + [r D'_n U'_n]_n),   r = Σ a c
//! ```
//!
//! The sums over heads `n` exist only where `head_rank` is not 0.

use super::config::{Adapters, HiddenCodeConfig};
use super::custom::Found;
use crate::block::BlockSizes;
use crate::block::matrix::{matrix, per_token};
use crate::described::{Described, Description, FanIn, Start};
use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear};
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::backend::Backend;

/// A gate that lets 1.8 % through.
const CLOSED: f64 = -4.0;
/// Standard deviation of the first map of a head in the beginning; the second is zero.
const HEAD_STD: f64 = 0.02;
/// Codes shorter than this are not stretched.
const SHORTEST: f64 = 1e-12;

/// Writers and readers of codes: one of each, or one for every action.
#[derive(Module, Debug)]
pub struct HiddenCode<B: Backend> {
    /// From hidden states to codes.
    pub write: Vec<Writer<B>>,
    /// From codes to hidden states.
    pub read: Vec<Reader<B>>,
    #[module(skip)]
    pub(super) config: HiddenCodeConfig,
}

impl<B: Backend> HiddenCode<B> {
    pub(crate) fn new(
        config: HiddenCodeConfig,
        sizes: &BlockSizes,
        n_actions: usize,
        device: &B::Device,
    ) -> Self {
        let n_adapters = match config.adapters {
            Adapters::Shared => 1,
            Adapters::PerBlock => n_actions,
        };
        let adapters = 0..n_adapters;
        Self {
            write: adapters
                .clone()
                .map(|_| Writer::new(&config, sizes, device))
                .collect(),
            read: adapters
                .map(|_| Reader::new(&config, sizes, device))
                .collect(),
            config,
        }
    }
}

impl<B: Backend> Described<B> for HiddenCode<B> {
    fn describe(&self, to: &mut Description) {
        for reader in &self.read {
            to.starts(&reader.gate, Start::Constant(CLOSED));
            to.sums(&reader.query.weight, FanIn::Scores);
        }
        for writer in &self.write {
            to.sums(&writer.code.weight, FanIn::Width);
            // Together they sum over the stream, a head each and then over heads.
            if let Some(heads) = &writer.heads {
                to.sums(&heads.down, FanIn::Width);
                to.sums(&heads.up, FanIn::Width);
            }
        }
        let writers = self.write.iter().flat_map(|writer| &writer.heads);
        let readers = self.read.iter().flat_map(|reader| &reader.heads);
        for heads in writers.chain(readers) {
            to.starts(&heads.down, Start::Normal { std: HEAD_STD });
            to.starts(&heads.up, Start::Constant(0.0));
        }
    }
}

/// Writes codes.
#[derive(Module, Debug)]
pub struct Writer<B: Backend> {
    /// `[d_model, d_code]`.
    pub code: Linear<B>,
    /// Low-rank maps from each head's part of the hidden state to the code.
    pub heads: Option<HeadMaps<B>>,
}

impl<B: Backend> Writer<B> {
    fn new(config: &HiddenCodeConfig, sizes: &BlockSizes, device: &B::Device) -> Self {
        let n_heads = sizes.heads.n_heads;
        let d_head = sizes.d_model / n_heads;
        Self {
            code: matrix(sizes.d_model, config.d_code, device),
            heads: HeadMaps::new(config, n_heads, [d_head, config.d_code], device),
        }
    }

    /// Codes of unit length.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, seq, d_code]`
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, seq, d_model] = hidden.dims();
        let mut code = per_token(&self.code, hidden.clone());
        if let Some(heads) = &self.heads {
            let n_heads = heads.n_heads();
            let parts = hidden
                .reshape([batch * seq, n_heads, d_model / n_heads])
                .swap_dims(0, 1);
            let added = heads.forward(parts).sum_dim(0) / (n_heads as f64).sqrt();
            code = code.clone() + added.reshape(code.dims());
        }
        let squared = code.clone().square().sum_dim(2);
        code / squared.clamp_min(SHORTEST * SHORTEST).sqrt()
    }
}

/// Reads codes.
#[derive(Module, Debug)]
pub struct Reader<B: Backend> {
    /// `[d_model, d_code]`.
    pub query: Linear<B>,
    /// `[d_code, d_model]`.
    pub output: Linear<B>,
    /// Before the sigmoid, `[1]`.
    pub gate: Param<Tensor<B, 1>>,
    /// Low-rank maps from what was read to each head's part of the hidden state.
    pub heads: Option<HeadMaps<B>>,
}

impl<B: Backend> Reader<B> {
    fn new(config: &HiddenCodeConfig, sizes: &BlockSizes, device: &B::Device) -> Self {
        let n_heads = sizes.heads.n_heads;
        let d_head = sizes.d_model / n_heads;
        Self {
            query: matrix(sizes.d_model, config.d_code, device),
            output: matrix(config.d_code, sizes.d_model, device),
            gate: Initializer::Zeros.init([1], device),
            heads: HeadMaps::new(config, n_heads, [config.d_code, d_head], device),
        }
    }

    /// Attention of every token to the codes.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, d_model]`
    /// - `codes`: `[batch, n_codes, d_code]`
    /// - `mask`, added to the scores: `[batch or 1, seq, n_codes]`
    pub fn forward(
        &self,
        hidden: Tensor<B, 3>,
        codes: Tensor<B, 3>,
        mask: Tensor<B, 3>,
    ) -> Found<B> {
        let [batch, seq, d_model] = hidden.dims();
        let [_, _, d_code] = codes.dims();
        let query = per_token(&self.query, hidden) * (d_code as f64).powf(-0.5);
        let attention = softmax(query.matmul(codes.clone().swap_dims(1, 2)) + mask, 2);
        let read = attention.clone().matmul(codes);
        let mut out = per_token(&self.output, read.clone());
        if let Some(heads) = &self.heads {
            let read = read.reshape([1, batch * seq, d_code]);
            let parts = heads.forward(read.expand([heads.n_heads(), batch * seq, d_code]));
            out = out + parts.swap_dims(0, 1).reshape([batch, seq, d_model]);
        }
        let open = self.open();
        Found {
            change: out * open.clone().reshape([1, 1, 1]),
            attention,
            open,
        }
    }

    /// How far the gate is open, between 0 and 1.
    ///
    /// # Shapes
    /// Returns `[1]`
    pub fn open(&self) -> Tensor<B, 1> {
        sigmoid(self.gate.val())
    }
}

/// A map of low rank for every head.
#[derive(Module, Debug)]
pub struct HeadMaps<B: Backend> {
    /// `[n_heads, d_in, rank]`.
    pub down: Param<Tensor<B, 3>>,
    /// `[n_heads, rank, d_out]`; zero in the beginning.
    pub up: Param<Tensor<B, 3>>,
}

impl<B: Backend> HeadMaps<B> {
    /// None for rank 0.
    fn new(
        config: &HiddenCodeConfig,
        n_heads: usize,
        [d_in, d_out]: [usize; 2],
        device: &B::Device,
    ) -> Option<Self> {
        let rank = config.head_rank;
        (rank > 0).then(|| Self {
            down: Initializer::Zeros.init([n_heads, d_in, rank], device),
            up: Initializer::Zeros.init([n_heads, rank, d_out], device),
        })
    }

    /// # Shapes
    /// `[n_heads, n_tokens, d_in]` to `[n_heads, n_tokens, d_out]`
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        x.matmul(self.down.val()).matmul(self.up.val())
    }

    fn n_heads(&self) -> usize {
        self.down.lazy_shape().as_slice()[0]
    }
}

//! `SharedCode`, the parameters of codes that all blocks of the pool share: one map to codes of keys and one to codes of values for
//! all of them, and in every block maps of each head's query to a code, and of a code to its output. What one pass keeps is in `shared`.
//!
//! With queries `q` of a head, which are not rotated, and codes of keys `k` and of values `v` of width `c`:
//!
//! ```text
//! current             k = K h,                v = V h                  of the states before the step, whichever block runs
//! current_and_last    k = K norm(h + bias),   v = V norm(h + bias)     of the input of the block that runs, and, with scores + β,
//!                     what a token's last block made so of its own input
//! block               a = softmax over all visible codes of (q R) · k / √c,      head = (Σ a v) O
//! ```
//!
//! `current` is the reference's `cache_only`, whose codes are at every step those of the states at that step, and `current_and_last` its
//! `pure_factorized` (`docs/brian.md`). Codes have no positions: a block of the pool knows the order of tokens only by their states.

use super::config::{SharedCodeConfig, SharedCodes};
use crate::block::BlockSizes;
use crate::block::attention::KeysValues;
use crate::block::matrix::{matrix, per_token};
use crate::block::routed::RoutedBlock;
use crate::described::{Described, Description, FanIn, Start};
use crate::ops::attention::attention;
use crate::ops::cat::cat;
use crate::ops::linear::linear;
use crate::ops::reshape::reshape;
use crate::random;
use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Parameters of codes that all blocks share.
#[derive(Module, Debug)]
pub struct SharedCode<B: Backend> {
    /// `[d_model, d_code]`.
    pub key_write: Linear<B>,
    /// `[d_model, d_code]`.
    pub value_write: Linear<B>,
    /// One entry per block of the pool.
    pub blocks: Vec<ReadersOfBlock<B>>,
    #[module(skip)]
    pub(super) config: SharedCodeConfig,
    #[module(skip)]
    query_factor: f64,
}

/// The parameters of one block.
#[derive(Module, Debug)]
pub struct ReadersOfBlock<B: Backend> {
    /// From each head's query to a code, `[n_heads, d_head, d_code]`.
    pub key_head_read: Param<Tensor<B, 3>>,
    /// From a code to each head's output, `[n_heads, d_code, d_head]`.
    pub value_head_read: Param<Tensor<B, 3>>,
    /// Added to the scores of codes of earlier steps, `[1]`; none where there are no others, for then it cancels.
    pub bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> SharedCode<B> {
    pub(crate) fn new(
        config: SharedCodeConfig,
        sizes: &BlockSizes,
        n_pool: usize,
        device: &B::Device,
    ) -> Self {
        let (n_heads, d_head, d_code) = (sizes.heads.n_heads, sizes.heads.d_head, config.d_code);
        let zeros = |dims: [usize; 3]| Initializer::Zeros.init(dims, device);
        let block = |_| ReadersOfBlock {
            key_head_read: zeros([n_heads, d_head, d_code]),
            value_head_read: zeros([n_heads, d_code, d_head]),
            bias: config
                .codes
                .bias()
                .map(|_| Initializer::Zeros.init([1], device)),
        };
        Self {
            key_write: matrix(sizes.d_model, d_code, device),
            value_write: matrix(sizes.d_model, d_code, device),
            blocks: (0..n_pool).map(block).collect(),
            config,
            query_factor: 1.0,
        }
    }

    /// The same beside blocks whose queries are multiplied by a factor.
    pub(crate) fn with_query_factor(self, query_factor: f64) -> Self {
        Self {
            query_factor,
            ..self
        }
    }

    /// The codes of some states, `[batch, seq, d_model]` to `[batch, 1, seq, d_code]` each.
    pub(super) fn written(&self, states: Tensor<B, 3>) -> KeysValues<B> {
        let [batch, seq, _] = states.dims();
        let of_map = |map: &Linear<B>| {
            let codes = per_token(map, states.clone());
            codes.reshape([batch, 1, seq, self.config.d_code])
        };
        KeysValues {
            keys: of_map(&self.key_write),
            values: of_map(&self.value_write),
        }
    }

    /// What the heads of a block find in codes.
    ///
    /// # Shapes
    /// - `queries`: `[batch, n_heads, seq, d_code]`
    /// - `among`: `[batch, 1, n_codes, d_code]`, `mask`: `[batch or 1, 1, seq, n_codes]`
    /// - returns `[batch * seq, n_heads * d_head]`
    pub(super) fn find(
        &self,
        block: usize,
        routed: &RoutedBlock<B>,
        queries: Tensor<B, 4>,
        among: KeysValues<B>,
        mask: Tensor<B, 4>,
    ) -> Tensor<B, 2> {
        let [batch, _, seq, _] = queries.dims();
        let readers = &self.blocks[block];
        let [n_heads, d_code, d_head] = readers.value_head_read.dims();
        let found = attention(queries, among, mask, routed.block.products());
        let found = found.reshape([batch, seq, n_heads, d_code]).swap_dims(1, 2);
        let found = found.matmul(readers.value_head_read.val().unsqueeze());
        found
            .swap_dims(1, 2)
            .reshape([batch * seq, n_heads * d_head])
    }

    /// What the heads of a block ask codes, `[batch, n_heads, seq, d_code]`, from its input behind the norm, `[batch, seq, d_model]`.
    pub(super) fn asked(
        &self,
        block: usize,
        routed: &RoutedBlock<B>,
        normed: Tensor<B, 3>,
    ) -> Tensor<B, 4> {
        let read = self.blocks[block].key_head_read.val();
        let queries = routed.block.attention.plain_queries(normed);
        queries.matmul(read.unsqueeze()) * (self.config.d_code as f64).powf(-0.5)
    }
}

/// The same for tokens as rows.
impl<B: Backend> SharedCode<B> {
    /// Which codes blocks attend to.
    pub(crate) fn codes(&self) -> SharedCodes {
        self.config.codes
    }

    /// Width of a code.
    pub(crate) fn d_code(&self) -> usize {
        self.config.d_code
    }

    /// Codes of keys and values side by side.
    ///
    /// # Shapes
    /// `[n, d_model]` to `[n, 2 * d_code]`
    pub(crate) fn codes_of(&self, states: Tensor<B, 2>) -> Tensor<B, 2> {
        let maps = [&self.key_write, &self.value_write];
        cat(maps.map(|map| linear(states.clone(), map)).into(), 1)
    }

    /// What the heads of a block ask codes, from queries that are scaled by the width of a head and by the factor of a width transfer.
    ///
    /// # Shapes
    /// `[n, n_heads * d_head]` to `[n, n_heads * d_code]`
    pub(crate) fn asked_rows(&self, block: usize, queries: Tensor<B, 2>) -> Tensor<B, 2> {
        let read = self.blocks[block].key_head_read.val();
        let [_, d_head, d_code] = read.dims();
        of_heads(queries, read) * ((d_head as f64 / d_code as f64).sqrt() / self.query_factor)
    }

    /// The outputs of a block's heads, from the codes that they found.
    ///
    /// # Shapes
    /// `[n, n_heads * d_code]` to `[n, n_heads * d_head]`
    pub(crate) fn found_rows(&self, block: usize, found: Tensor<B, 2>) -> Tensor<B, 2> {
        of_heads(found, self.blocks[block].value_head_read.val())
    }
}

/// Applies a map of its own to each head.
///
/// # Shapes
/// `[n, n_heads * d_in]` and `[n_heads, d_in, d_out]` to `[n, n_heads * d_out]`
fn of_heads<B: Backend>(rows: Tensor<B, 2>, maps: Tensor<B, 3>) -> Tensor<B, 2> {
    let [n, _] = rows.dims();
    let [n_heads, d_in, d_out] = maps.dims();
    let heads = reshape::<_, 2, 3>(rows, [n, n_heads, d_in]).swap_dims(0, 1);
    let mapped = heads.matmul(maps).swap_dims(0, 1);
    mapped.reshape([n, n_heads * d_out])
}

impl<B: Backend> Described<B> for SharedCode<B> {
    fn describe(&self, to: &mut Description) {
        for map in [&self.key_write, &self.value_write] {
            to.sums(&map.weight, FanIn::Width);
        }
        for (index, block) in (0..).zip(&self.blocks) {
            to.sums(&block.key_head_read, FanIn::Head);
            // Every head has a map of its own: the bound is that of one, not of all together (Glorot and Bengio 2010).
            for (stream, map) in [
                ("shared_code.key_head_read", &block.key_head_read),
                ("shared_code.value_head_read", &block.value_head_read),
            ] {
                let [n_heads, d_in, d_out] = map.dims();
                let bound = (6.0 / (d_in + d_out) as f64).sqrt();
                let values = move |seed: u64| {
                    let key = random::key(seed, stream, index);
                    let value = |place| ((2.0 * random::uniform(key, place) - 1.0) * bound) as f32;
                    (0..(n_heads * d_in * d_out) as u64).map(value).collect()
                };
                to.starts(map, Start::Own(Box::new(values)));
            }
            if let (Some(param), Some(bias)) = (&block.bias, self.config.codes.bias()) {
                to.starts(param, Start::Constant(bias));
            }
        }
    }
}

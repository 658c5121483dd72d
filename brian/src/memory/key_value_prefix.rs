//! `KeyValuePrefix`, the parameters of a memory of keys and values: for every block of the pool a bias and, with a compression,
//! maps to codes and back, applied here. What one pass keeps is in `prefix`.
//!
//! A block attends with its usual queries to the kept keys, which are already rotated, and to its own. The scores of the
//! memory get the block's bias, one number, and one softmax goes over both. With a compression, all heads of a block
//! share four maps: keys and values to codes where it writes, codes to keys and values where it reads.

use super::config::{Compression, KeyValuePrefixConfig, Lifecycle};
use super::window::Window;
use crate::block::BlockSizes;
use crate::block::attention::KeysValues;
use crate::block::matrix::matrix;
use crate::described::{Described, Description, FanIn, Start};
use crate::ops::cat::cat;
use crate::ops::linear::linear;
use crate::ops::reshape::reshape;
use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Parameters of a memory of keys and values.
#[derive(Module, Debug)]
pub struct KeyValuePrefix<B: Backend> {
    /// One entry per block of the pool.
    pub blocks: Vec<PrefixOfBlock<B>>,
    pub(super) n_kv_heads: usize,
    /// Width of what is kept of a head's key or value.
    pub(super) d_kept: usize,
    #[module(skip)]
    pub(super) config: KeyValuePrefixConfig,
}

/// The parameters of one block.
#[derive(Module, Debug)]
pub struct PrefixOfBlock<B: Backend> {
    /// Added to the scores of the memory, `[1]`.
    pub bias: Param<Tensor<B, 1>>,
    /// The maps of a compression.
    pub maps: Option<CodeMaps<B>>,
}

/// Maps from keys and values to codes, and back.
#[derive(Module, Debug)]
pub struct CodeMaps<B: Backend> {
    /// `[d_head, d_code]`.
    pub key_write: Linear<B>,
    /// `[d_head, d_code]`.
    pub value_write: Linear<B>,
    /// `[d_code, d_head]`.
    pub key_read: Linear<B>,
    /// `[d_code, d_head]`.
    pub value_read: Linear<B>,
}

impl<B: Backend> KeyValuePrefix<B> {
    pub(crate) fn new(
        config: KeyValuePrefixConfig,
        sizes: &BlockSizes,
        n_pool: usize,
        device: &B::Device,
    ) -> Self {
        let d_head = sizes.heads.d_head;
        let maps = || match config.compression {
            Compression::None => None,
            Compression::Code { d_code } => Some(CodeMaps {
                key_write: matrix(d_head, d_code, device),
                value_write: matrix(d_head, d_code, device),
                key_read: matrix(d_code, d_head, device),
                value_read: matrix(d_code, d_head, device),
            }),
        };
        let block = |_| PrefixOfBlock {
            bias: Initializer::Zeros.init([1], device),
            maps: maps(),
        };
        Self {
            blocks: (0..n_pool).map(block).collect(),
            n_kv_heads: sizes.heads.n_kv_heads,
            d_kept: match config.compression {
                Compression::None => d_head,
                Compression::Code { d_code } => d_code,
            },
            config,
        }
    }
}

impl<B: Backend> KeyValuePrefix<B> {
    /// Which slots blocks see.
    pub(crate) fn retention(&self) -> Window {
        self.config.retention()
    }

    /// What exists of a token that has left.
    pub(crate) fn lifecycle(&self) -> Lifecycle {
        self.config.lifecycle
    }

    /// Whether codes are kept in the place of keys and values.
    pub(crate) fn is_compressed(&self) -> bool {
        self.config.compression != Compression::None
    }
}

impl<B: Backend> Described<B> for KeyValuePrefix<B> {
    fn describe(&self, to: &mut Description) {
        for block in &self.blocks {
            to.starts(&block.bias, Start::Constant(self.config.bias));
            if let Some(maps) = &block.maps {
                to.sums(&maps.key_write.weight, FanIn::Head);
                to.sums(&maps.value_write.weight, FanIn::Head);
            }
        }
    }
}

impl<B: Backend> PrefixOfBlock<B> {
    /// Encodes the keys and values of this block for the memory.
    ///
    /// # Shapes
    /// `[batch, n_kv_heads, seq, d_head]` to `[batch, n_kv_heads, seq, d_code]`, or the same without a compression
    pub fn written(&self, own: KeysValues<B>) -> KeysValues<B> {
        match &self.maps {
            None => own,
            Some(maps) => KeysValues {
                keys: per_head(&maps.key_write, own.keys),
                values: per_head(&maps.value_write, own.values),
            },
        }
    }

    /// Decodes kept keys and values for this block; the inverse shapes of [`Self::written`].
    pub fn read(&self, kept: KeysValues<B>) -> KeysValues<B> {
        match &self.maps {
            None => kept,
            Some(maps) => KeysValues {
                keys: per_head(&maps.key_read, kept.keys),
                values: per_head(&maps.value_read, kept.values),
            },
        }
    }
}

impl<B: Backend> PrefixOfBlock<B> {
    /// [`Self::written`] for keys and values side by side.
    ///
    /// # Shapes
    /// `[n, 2 * n_kv_heads * d_head]` to `[n, 2 * n_kv_heads * d_code]`, or the same without a compression
    pub(crate) fn written_rows(&self, own: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.maps {
            None => own,
            Some(maps) => side_by_side([&maps.key_write, &maps.value_write], own),
        }
    }

    /// [`Self::read`] for keys and values side by side; the inverse shapes of [`Self::written_rows`].
    pub(crate) fn read_rows(&self, kept: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.maps {
            None => kept,
            Some(maps) => side_by_side([&maps.key_read, &maps.value_read], kept),
        }
    }
}

/// Applies one map to every head of keys, and another to those of values.
///
/// # Shapes
/// `[n, 2 * n_heads * d_in]` to `[n, 2 * n_heads * d_out]`
fn side_by_side<B: Backend>(maps: [&Linear<B>; 2], rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let [n, width] = rows.dims();
    let [d_in, d_out] = maps[0].weight.dims();
    let n_heads = width / 2 / d_in;
    let parts = rows.chunk(2, 1).into_iter().zip(maps).map(|(part, map)| {
        let of_heads = linear(reshape(part, [n * n_heads, d_in]), map);
        reshape(of_heads, [n, n_heads * d_out])
    });
    cat(parts.collect(), 1)
}

/// # Shapes
/// `[batch, n_heads, n_keys, d_in]` to `[batch, n_heads, n_keys, d_out]`
fn per_head<B: Backend>(map: &Linear<B>, x: Tensor<B, 4>) -> Tensor<B, 4> {
    let [batch, n_heads, n_keys, d_in] = x.dims();
    let y = map.forward(x.reshape([batch * n_heads * n_keys, d_in]));
    let [_, d_out] = y.dims();
    y.reshape([batch, n_heads, n_keys, d_out])
}

//! Modules of the blocks and their parts (attention, feed-forward, Transformer block, routed block, exit, key-value cache), and
//! `BlockSizes`, the sizes that the blocks of a model share.

pub mod attention;
pub(crate) mod cache;
pub mod causal;
pub mod exit;
pub mod feed_forward;
pub mod matrix;
pub mod residual;
pub mod routed;
#[cfg(all(test, feature = "ndarray"))]
pub(crate) mod tests;
pub mod transformer;
pub mod visits;

pub use crate::ops::attention::Heads;

use serde::Deserialize;

/// Which maps of attention have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionBias {
    /// That of queries, keys and values.
    QueryKeyValue,
    /// That one and the output's.
    All,
}

/// The sizes that every block of a model shares.
#[derive(Clone, Copy, Debug)]
pub struct BlockSizes {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads.
    pub heads: Heads,
    /// Biases of attention; `None` for no bias.
    pub attention_bias: Option<AttentionBias>,
    /// Whether queries and keys are normed, head by head.
    pub query_key_norm: bool,
    /// Hidden width of the feed-forward.
    pub d_ff: usize,
    /// Added to the mean square before the root in every norm.
    pub norm_epsilon: f64,
    /// What multiplies the outputs of attention and of feed-forward; `None` for nothing.
    pub residual_factor: Option<f64>,
}

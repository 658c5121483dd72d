//! Modules of the blocks and their parts (attention, feed-forward, Transformer block, routed block, exit, key-value cache), and
//! `BlockSizes`, the sizes that the blocks of a model share.

pub mod attention;
pub(crate) mod cache;
pub mod causal;
pub mod exit;
pub mod feed_forward;
pub mod matrix;
pub mod routed;
#[cfg(all(test, feature = "ndarray"))]
pub(crate) mod tests;
pub mod transformer;

/// The sizes that every block of a model shares.
#[derive(Clone, Copy, Debug)]
pub struct BlockSizes {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads; `d_head = d_model / n_heads`.
    pub n_heads: usize,
    /// Hidden width of the feed-forward.
    pub d_ff: usize,
    /// Added to the mean square before the root in every norm.
    pub norm_epsilon: f64,
}

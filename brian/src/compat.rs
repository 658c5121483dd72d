//! What reproduces the reference implementation, as values of the same configurations. The only place that names it.

use crate::baseline::BaselineConfig;
use crate::block::exit::Exit;
use crate::initial::Initial;
use crate::model::BrianConfig;
use crate::route::position::{Layout, PositionConfig};

/// The reference's feed-forward width: four times the model's, rounded up to 256 from a width of 256 on.
pub fn d_ff(d_model: usize) -> usize {
    match d_model {
        0..256 => 4 * d_model,
        _ => (4 * d_model).next_multiple_of(256),
    }
}

/// The reference's plain decoder.
pub fn baseline(d_model: usize, n_heads: usize, n_layers: usize, context: usize) -> BaselineConfig {
    BaselineConfig {
        d_model,
        n_heads,
        d_ff: d_ff(d_model),
        n_layers,
        context,
        rope_base: 10_000.0,
        norm_epsilon: 1e-6,
        initial: Initial::TorchDefault,
    }
}

/// The reference's routed model over the blocks of its plain decoder; `n_post` takes what pre blocks and pool leave.
///
/// # Panics
/// If the decoder has fewer blocks than pre blocks and pool.
pub fn brian(
    baseline: BaselineConfig,
    n_pre: usize,
    n_pool: usize,
    d_position: usize,
) -> BrianConfig {
    let n_post = baseline.n_layers.checked_sub(n_pre + n_pool);
    BrianConfig {
        d_model: baseline.d_model,
        n_heads: baseline.n_heads,
        d_ff: baseline.d_ff,
        n_pre,
        n_pool,
        n_post: n_post.expect("pre blocks and pool are part of the decoder"),
        context: baseline.context,
        rope_base: baseline.rope_base,
        norm_epsilon: baseline.norm_epsilon,
        initial: baseline.initial,
        position: PositionConfig {
            d_position,
            layout: Layout::OpenArc,
        },
        exit: Exit::Projection,
    }
}

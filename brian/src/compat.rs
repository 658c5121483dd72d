//! Reproduces the reference implementation: configurations of its plain decoder and its routed model, its feed-forward width,
//! and its difficulty of sequences (0, 1 or 2), which it takes from their token ids.

use crate::baseline::BaselineConfig;
use crate::block::exit::Exit;
use crate::initial::Initial;
use crate::memory::MemoryConfig;
use crate::model::BrianConfig;
use crate::route::parallel::Parallel;
use crate::route::position::{Injection, Layout, PositionConfig, Reach, StartPosition};
use crate::route::rules::{Attends, Execution, RouteConfig, Sees};

/// The reference's feed-forward width: `multiple` times `d_model` (its default is 4), rounded up to a multiple of 256 if
/// `d_model` is at least 256.
pub fn d_ff(d_model: usize, multiple: f64) -> usize {
    let wanted = multiple * d_model as f64;
    match d_model {
        0..256 => wanted as usize,
        _ => (wanted / 256.0).ceil() as usize * 256,
    }
}

/// The reference's plain decoder.
pub fn baseline(d_model: usize, n_heads: usize, n_layers: usize, context: usize) -> BaselineConfig {
    BaselineConfig {
        d_model,
        n_heads,
        n_kv_heads: None,
        d_head: None,
        attention_bias: None,
        query_key_norm: None,
        untied_head: None,
        logit_cap: None,
        d_ff: d_ff(d_model, 4.0),
        n_layers,
        context,
        rope_base: 10_000.0,
        rope_scaling: None,
        norm_epsilon: 1e-6,
        residual_scale: None,
        width_transfer: None,
        initial: Initial::TorchDefault,
    }
}

/// The reference's routed model with the blocks of its plain decoder and its default route; the blocks that are left over by
/// pre blocks and pool become post blocks.
///
/// # Panics
/// If the decoder has fewer blocks than pre blocks and pool.
pub fn brian(
    baseline: BaselineConfig,
    n_pre: usize,
    n_pool: usize,
    d_position: usize,
    max_steps: usize,
) -> BrianConfig {
    let n_post = baseline.n_layers.checked_sub(n_pre + n_pool);
    BrianConfig {
        d_model: baseline.d_model,
        n_heads: baseline.n_heads,
        n_kv_heads: baseline.n_kv_heads,
        d_head: baseline.d_head,
        attention_bias: baseline.attention_bias,
        query_key_norm: baseline.query_key_norm,
        untied_head: baseline.untied_head,
        logit_cap: baseline.logit_cap,
        d_ff: baseline.d_ff,
        n_pre,
        n_pool,
        d_ff_pool: baseline.d_ff,
        n_post: n_post.expect("pre blocks and pool are part of the decoder"),
        context: baseline.context,
        rope_base: baseline.rope_base,
        rope_scaling: baseline.rope_scaling,
        norm_epsilon: baseline.norm_epsilon,
        residual_scale: baseline.residual_scale,
        width_transfer: baseline.width_transfer,
        visits: None,
        initial: baseline.initial,
        position: PositionConfig {
            d_position,
            layout: Layout::OpenArc,
            start: StartPosition::FirstBlock,
            injection: Injection::Adapter,
            into: Reach::Both,
        },
        route: RouteConfig {
            max_steps,
            top_k_first: 1,
            top_k: 2,
            sees: Sees::Token,
            attends: Attends::All,
            execution: Execution::Dense,
            parallel: Parallel::None,
        },
        exit: Exit::Projection,
        memory: MemoryConfig::None,
    }
}

/// Difficulty as in the reference: 0, 1 or 2 by the rank of a sequence's token ids within the batch, in thirds. It does not
/// depend on how hard the text is; equal scores keep their order.
pub fn difficulty(rows: &[Vec<i64>]) -> Vec<u8> {
    let score = |row: &Vec<i64>| {
        let n = row.len() as f64;
        let mean = row.iter().sum::<i64>() as f64 / n;
        let squares = row.iter().map(|&id| (id as f64 - mean).powi(2));
        mean + 0.01 * (squares.sum::<f64>() / n).sqrt()
    };
    let scores: Vec<f64> = rows.iter().map(score).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut difficulty = vec![0; rows.len()];
    for (rank, row) in order.into_iter().enumerate() {
        difficulty[row] = (3 * rank / rows.len()).min(2) as u8;
    }
    difficulty
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difficulty_follows_the_tokens_and_not_their_place_in_the_batch() {
        let rows = [vec![2; 4], vec![24; 4], vec![48; 4]];
        assert_eq!(difficulty(&rows), [0, 1, 2]);
        assert_eq!(
            difficulty(&[rows[2].clone(), rows[0].clone(), rows[1].clone()]),
            [2, 0, 1]
        );
        assert_eq!(difficulty(&rows[2..]), [0]);
    }

    #[test]
    fn the_feed_forward_is_rounded_up_where_the_model_is_wide() {
        assert_eq!(
            [d_ff(64, 4.0), d_ff(960, 4.0), d_ff(768, 1.25)],
            [256, 3840, 1024]
        );
    }

    #[test]
    fn difficulty_is_the_third_of_a_rank_by_the_mean_and_a_hundredth_of_the_deviation() {
        // Means of 2 with the deviations 2, 0 and 1; then 20 and a fifth against 21.
        assert_eq!(difficulty(&[vec![0, 4], vec![2, 2], vec![1, 3]]), [2, 0, 1]);
        assert_eq!(
            difficulty(&[vec![21, 21], vec![0, 40], vec![90, 90]]),
            [1, 0, 2]
        );
        let rows: Vec<Vec<i64>> = (0..7).map(|id| vec![id; 3]).collect();
        assert_eq!(difficulty(&rows), [0, 0, 0, 1, 1, 2, 2]);
        // Equals keep their order.
        assert_eq!(difficulty(&vec![vec![5, 5]; 3]), [0, 1, 2]);
    }

    #[test]
    fn the_reference_routes_over_what_its_decoder_leaves() {
        let baseline = baseline(64, 4, 7, 32);
        let config = brian(baseline, 2, 3, 16, 5);
        assert_eq!((config.n_pre, config.n_pool, config.n_post), (2, 3, 2));
        assert_eq!(
            (config.d_ff, config.d_ff_pool, config.context),
            (256, 256, 32)
        );
        assert_eq!(
            (
                config.route.max_steps,
                config.route.top_k_first,
                config.route.top_k
            ),
            (5, 1, 2)
        );
        assert_eq!(config.baseline(), baseline);
        assert_eq!(config.check(), []);
    }
}

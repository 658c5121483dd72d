//! The signals along the true paths: the mix `h_i` at every place, from which it is predicted (`docs/brillm.md`, section 2).
//!
//! The host's is `host/trail.rs`, forward and backward, the GPU's `resident/trail.rs`.

use super::first_signal::first_signal;
use super::gather::Used;
use super::hop::hop;
use super::mix::Sums;
use crate::flow::Hop;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The mix at every place.
///
/// # Shapes
/// Returns `[batch * seq, d]`
pub(super) fn mixed<B: Backend>(used: &Used<'_, B>) -> Tensor<B, 2> {
    let seq = used.paths.seq;
    let mut mixed = first_signal(used);
    let mut arrived: Option<Tensor<B, 2>> = None;
    let mut sums = None;
    let mut all = Vec::with_capacity(seq);
    for edge in 0..seq {
        all.push(mixed.clone().unsqueeze_dim::<3>(1));
        let travels = match (used.model.config.flow.hop, arrived) {
            (Hop::Previous, Some(arrived)) => arrived,
            _ => mixed,
        };
        let signal = hop(used, travels, edge);
        let with_it = Sums::with(sums, used, signal.clone(), edge);
        mixed = with_it.read();
        (sums, arrived) = (Some(with_it), Some(signal));
    }
    let [batch, d] = mixed.dims();
    Tensor::cat(all, 1).reshape([batch * seq, d])
}

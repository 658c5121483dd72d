//! A pass over a batch: `−ln p(truth)` of every place among the candidates of its group
//! (`docs/brillm.md`, section 2).

use super::competition::nats;
use super::energy::energies;
use super::fused;
use super::gather::Used;
use super::path::mixed;
use crate::candidate::{Group, Paths, at_places};
use crate::model::BriLlm;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// `−ln p(truth)` per place of the paths; 0 where there is no edge. With `on_host` the version of the host may answer.
pub fn token_losses<B: Backend>(
    model: &BriLlm,
    paths: &Paths<'_>,
    groups: &[Group],
    on_host: bool,
    device: &B::Device,
) -> Vec<f64> {
    let in_place = |_: &mut ()| on_host.then(|| model.token_losses(paths, groups));
    fused(&mut (), &[&in_place]).unwrap_or_else(|| {
        let found = defined::<B>(&Used::new(model, paths, groups, device), groups);
        at_places(groups, found.into_data().iter(), paths)
    })
}

/// `−ln p(truth)` of every token of every group, in their order.
///
/// # Shapes
/// Returns `[tokens]`, the tokens of all groups
pub(super) fn defined<B: Backend>(used: &Used<'_, B>, groups: &[Group]) -> Tensor<B, 1> {
    let mixed = mixed(used);
    let of_group = |group: &Group| nats(used, energies(used, mixed.clone(), group), group);
    Tensor::cat(groups.iter().map(of_group).collect(), 0)
}

//! A training step of the edge table: `row ← AdamW(row, ∂ mean loss / ∂ row)` for the rows that a pass used, after they have
//! caught up (`docs/brillm.md`, section 2; AdamW by Loshchilov and Hutter 2019).
//!
//! The host updates a row while it is in the cache, and a GPU where it lies: so pass and update are one operation.

use super::gather::{Used, rows_of};
use super::pass::defined;
use super::{fused, host};
use crate::candidate::{Group, Paths, at_places};
use crate::model::{BriLlm, Gradients, Learnt};
use crate::resident::{Resident, What};
use crate::row_adamw::{Clock, Moments, Replay, Rows};
use burn::tensor::backend::AutodiffBackend;
use std::any::Any;

/// A step that is to be done: what it changes, and what it learns from.
pub(crate) struct Step<'a> {
    pub model: &'a mut BriLlm,
    pub moments: &'a mut Moments,
    pub resident: &'a mut Resident,
    pub paths: &'a Paths<'a>,
    pub groups: &'a [Group],
    pub clock: &'a Clock<'a>,
}

impl Step<'_> {
    /// Does it, with `on_host` in place on the host and otherwise on the device; the gradients of what is not in the table are
    /// for the caller's own AdamW.
    pub fn learn<B: AutodiffBackend>(
        mut self,
        on_host: bool,
        device: &B::Device,
    ) -> (Learnt, Gradients) {
        let in_place = |step: &mut Self| on_host.then(|| step.in_place());
        let there = |step: &mut Self| if on_host { None } else { step.there(device) };
        fused(&mut self, &[&in_place, &there]).unwrap_or_else(|| self.defined::<B>(device))
    }

    /// In place on the host.
    pub fn in_place(&mut self) -> (Learnt, Gradients) {
        self.resident.leave(self.model, self.moments);
        host::pass::learn(
            self.model,
            self.moments,
            self.paths,
            self.groups,
            self.clock,
        )
    }

    /// By kernels, on a table that stays on a device, if it can.
    pub fn there(&mut self, device: &dyn Any) -> Option<(Learnt, Gradients)> {
        let Self {
            model,
            moments,
            resident,
            ..
        } = self;
        let table = resident.on(device, model, moments)?;
        let found = table.learn(model, moments, self.paths, self.groups, self.clock);
        if found.is_none() {
            table.download(What::All, model, moments);
            **resident = Resident::Nowhere;
        }
        found
    }

    fn defined<B: AutodiffBackend>(&mut self, device: &B::Device) -> (Learnt, Gradients) {
        self.resident.leave(self.model, self.moments);
        let Self {
            model,
            moments,
            paths,
            groups,
            clock,
            ..
        } = self;
        let row_len = model.config.row_len();
        let weights = model.config.d_node * model.config.d_node;
        let before = clock.time() - 1;
        let mut replay = Replay::default();
        let mut table = Rows::all(&mut model.parameters.edges, moments, row_len);
        for row in rows_of(&model.graph, paths, groups) {
            table.catch_up(row, before, clock, &mut replay);
        }
        let used = Used::<B>::new(model, paths, groups, device).tracked();
        let losses = defined(&used, groups);
        let nats = at_places(groups, losses.clone().into_data().iter(), paths);
        let (mut edges, rest) = used.gradients(&losses.mean().backward());
        let rows = used.rows;
        let mut square = rest.square();
        let mut table = Rows::all(&mut model.parameters.edges, moments, row_len);
        for (&row, gradient) in rows.iter().zip(edges.chunks_exact_mut(row_len)) {
            if !model.config.flow.bias.of_edge() {
                gradient[weights..].fill(0.0);
            }
            square += table.update(row, gradient, clock);
        }
        let gradient_norm = square.sqrt();
        let learnt = Learnt {
            nats,
            gradient_norm,
        };
        (learnt, rest)
    }
}

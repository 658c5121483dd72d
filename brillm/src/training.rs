//! `RowAdamW`: the optimizer of a BriLLM. It runs a training step on the host, on a GPU or by tensor operations, keeps all
//! moments, and brings rows up to date that no batch used for some steps.

use crate::candidate::{Group, Paths};
use crate::model::{BriLlm, Gradients, Learnt};
use crate::ops::host::numeric::vectorised;
use crate::ops::step::Step;
use crate::resident::{Resident, What};
use crate::row_adamw::{AdamW, Clock, FADED, Mode, Moments, Replay, Rows};
use crate::table::Storage;
use burn::tensor::backend::AutodiffBackend;
use rayon::prelude::*;

/// AdamW over a BriLLM: row by row for the edge table, at every step for the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct RowAdamW {
    /// What happens to rows that a step did not use.
    pub mode: Mode,
    /// The settings.
    pub adamw: AdamW,
    /// The longest gradient of a row.
    pub clip: Option<f32>,
    /// Moments of the edge table.
    pub edges: Moments,
    /// Moments of the mix.
    pub mix: [Vec<f32>; 2],
    /// Moments of the biases of nodes.
    pub node_bias: [Vec<f32>; 2],
    /// Moments of the learnt codes of positions.
    pub codes: [Vec<f32>; 2],
    /// The learning rate of every step so far.
    pub rates: Vec<f32>,
    /// [`AdamW::corrections`] of every step so far; filled from `rates` when needed.
    corrections: Vec<[f64; 2]>,
    /// [`AdamW::fades`] of every number of steps that moves anything.
    fades: Vec<[f64; 2]>,
    /// The table on a GPU, where [`Self::step_on`] brought it there; what lies on the host is old then, until
    /// [`Self::catch_up`].
    resident: Resident,
}

impl RowAdamW {
    /// A fresh optimizer for a model.
    ///
    /// # Panics
    /// If the table is stored as bf16 and rows are to catch up: the steps of that are too small for it.
    pub fn new(model: &BriLlm, mode: Mode, adamw: AdamW, clip: Option<f32>) -> Self {
        let storage = model.parameters.edges.storage();
        assert!(
            storage == Storage::F32 || mode == Mode::Touched,
            "{storage:?} and {mode:?}"
        );
        let zeros = |n: usize| [vec![0.0; n], vec![0.0; n]];
        Self {
            mode,
            adamw,
            clip,
            edges: Moments::new(storage, model.graph.rows_here(), model.config.row_len()),
            mix: zeros(model.parameters.mix.len()),
            node_bias: zeros(model.parameters.node_bias.len()),
            codes: zeros(model.parameters.codes.len()),
            rates: Vec::new(),
            corrections: Vec::new(),
            fades: (0..=FADED).map(|steps| adamw.fades(steps)).collect(),
            resident: Resident::default(),
        }
    }

    /// One step at the learning rate `rate`, on the mean loss over all edges: with `on_host` in place on the host, otherwise by
    /// kernels on a table that stays on the device; composed of tensor operations where that has no version.
    pub fn learn<B: AutodiffBackend>(
        &mut self,
        model: &mut BriLlm,
        paths: &Paths<'_>,
        groups: &[Group],
        rate: f64,
        on_host: bool,
        device: &B::Device,
    ) -> Learnt {
        let learn = |step: Step<'_>| Some(step.learn::<B>(on_host, device));
        self.advance(model, paths, groups, rate, learn)
            .expect("the definition runs everywhere")
    }

    /// The step in place on the host, whatever the environment asks for.
    pub fn step(
        &mut self,
        model: &mut BriLlm,
        paths: &Paths<'_>,
        groups: &[Group],
        rate: f64,
    ) -> Learnt {
        let in_place = |mut step: Step<'_>| Some(step.in_place());
        self.advance(model, paths, groups, rate, in_place)
            .expect("the host knows every model")
    }

    /// [`Self::learn`] on a device.
    pub fn step_on<B: AutodiffBackend>(
        &mut self,
        model: &mut BriLlm,
        paths: &Paths<'_>,
        groups: &[Group],
        rate: f64,
        device: &B::Device,
    ) -> Learnt {
        self.learn::<B>(model, paths, groups, rate, false, device)
    }

    /// A step on a table that stays on a device; nothing where there is none, and what is learnt is then not to be used.
    #[cfg(all(test, any(feature = "wgpu", feature = "cuda")))]
    pub(crate) fn step_by_kernels(
        &mut self,
        model: &mut BriLlm,
        paths: &Paths<'_>,
        groups: &[Group],
        rate: f64,
        device: &dyn std::any::Any,
    ) -> Option<Learnt> {
        self.advance(model, paths, groups, rate, |mut step| step.there(device))
    }

    /// A step by one of its versions, and AdamW for what is not in the table.
    fn advance(
        &mut self,
        model: &mut BriLlm,
        paths: &Paths<'_>,
        groups: &[Group],
        rate: f64,
        learn: impl FnOnce(Step<'_>) -> Option<(Learnt, Gradients)>,
    ) -> Option<Learnt> {
        self.rates.push(rate as f32);
        let (clock, moments, resident) = self.parts(model.frozen_rows());
        let (learnt, gradients) = learn(Step {
            model,
            moments,
            resident,
            paths,
            groups,
            clock: &clock,
        })?;
        self.update_rest(model, &gradients, rate);
        if self.mode == Mode::Dense {
            self.settle(What::Nothing, model);
        }
        Some(learnt)
    }

    /// The clock after the last step, and what a step changes; rows before `frozen` are not trained.
    fn parts(&mut self, frozen: usize) -> (Clock<'_>, &mut Moments, &mut Resident) {
        let known = self.corrections.len() as u32;
        let times = known + 1..=self.rates.len() as u32;
        let corrections = times.map(|time| self.adamw.corrections(time));
        self.corrections.extend(corrections);
        let clock = Clock {
            mode: self.mode,
            adamw: self.adamw,
            rates: &self.rates,
            corrections: &self.corrections,
            fades: &self.fades,
            clip: self.clip,
            frozen,
        };
        (clock, &mut self.edges, &mut self.resident)
    }

    /// Brings what has changed on a device to the host, and drops the device's copy of the table, if there is one. It is needed
    /// before the host's table is changed by anything but a step.
    pub fn leave_device(&mut self, model: &mut BriLlm) {
        self.resident.leave(model, &mut self.edges);
    }

    /// Brings every row to what dense AdamW would have made of it by now. The run goes on with the same bits as without this
    /// call, whenever it is made.
    pub fn catch_up(&mut self, model: &mut BriLlm) {
        self.settle(What::All, model);
    }

    /// The same for the values of the model only: the moments may stay on a device.
    pub fn catch_up_values(&mut self, model: &mut BriLlm) {
        self.settle(What::Values, model);
    }

    fn settle(&mut self, what: What, model: &mut BriLlm) {
        const ROWS_AT_ONCE: usize = 1024;
        let time = self.rates.len() as u32;
        let (clock, moments, resident) = self.parts(model.frozen_rows());
        if resident.settle(what, model, moments, &clock) {
            return;
        }
        let n = model.graph.rows_here();
        let pieces = (0..n)
            .step_by(ROWS_AT_ONCE)
            .map(|start| start..(start + ROWS_AT_ONCE).min(n));
        let row_len = model.config.row_len();
        let rows = Rows::all(&mut model.parameters.edges, moments, row_len);
        rows.parts(pieces).into_par_iter().for_each(|mut part| {
            let rows = part.start..part.start + part.touched.len();
            let mut replay = Replay::default();
            vectorised!({
                rows.for_each(|row| part.catch_up(row, time, &clock, &mut replay));
            });
        });
    }

    fn update_rest(&mut self, model: &mut BriLlm, gradients: &Gradients, rate: f64) {
        let corrections = self.corrections[self.rates.len() - 1];
        let rate = f64::from(rate as f32);
        let mix: Vec<f32> = gradients.mix.iter().map(|&value| value as f32).collect();
        let d = model.config.d_node;
        let parameters = &mut model.parameters;
        let mut node_bias = vec![0.0; parameters.node_bias.len()];
        for (&node, gradient) in &gradients.node_bias {
            node_bias[node as usize * d..][..d].copy_from_slice(gradient);
        }
        let adamw = self.adamw;
        let update = |values: &mut [f32], moments: &mut [Vec<f32>; 2], gradient: &[f32]| {
            let moments = moments.each_mut().map(Vec::as_mut_slice);
            vectorised!(adamw.update(rate, corrections, adamw.betas, values, moments, gradient));
        };
        update(&mut parameters.mix, &mut self.mix, &mix);
        update(&mut parameters.node_bias, &mut self.node_bias, &node_bias);
        update(&mut parameters.codes, &mut self.codes, &gradients.codes);
    }
}

//! `OnePassAdamW` updates one tensor and its moments in one pass over memory: on the host equal to Burn's AdamW to the bit,
//! on a GPU by a kernel that may be launched later together with others; where neither applies, by Burn's own AdamW.

use super::gpu;
use super::rate::{DecayBy, Rate, Scale};
use super::step::{Step, Update};
use burn::optim::{AdamWConfig, AdamWState, AdaptiveMomentumState, SimpleOptimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

/// So many numbers are worth a task.
const TASK: usize = 1 << 15;

/// AdamW (Loshchilov, Hutter 2019).
#[derive(Clone)]
pub struct OnePassAdamW {
    betas: [f32; 2],
    epsilon: f32,
    weight_decay: f32,
    decay_by: DecayBy,
}

impl OnePassAdamW {
    /// An optimizer with these settings, rounded to f32, in which Burn computes.
    pub fn new(betas: [f64; 2], epsilon: f64, weight_decay: f64, decay_by: DecayBy) -> Self {
        let betas = betas.map(|beta| beta as f32);
        let (epsilon, weight_decay) = (epsilon as f32, weight_decay as f32);
        Self {
            betas,
            epsilon,
            weight_decay,
            decay_by,
        }
    }

    /// Weights, gradient and both moments to weights and moments after the tensor's `time`-th step, with settings scaled for it; the
    /// moments are 0 before the first. What a GPU is still to do goes to `waiting`.
    pub fn step<B: Backend, const D: usize>(
        &self,
        (rate, scale): (Rate, Scale),
        time: u64,
        given: [Tensor<B, D>; 4],
        waiting: &mut Vec<Update<B>>,
    ) -> [Tensor<B, D>; 3] {
        let step = self.at(rate, scale, time);
        let updated = match given[0].dtype() {
            DType::F32 if B::name(&given[0].device()) == "ndarray" => {
                Ok(step.update_on_host(given))
            }
            DType::F32 => gpu::update(step, given, waiting),
            _ => Err(given),
        };
        updated.unwrap_or_else(|[weights, gradient, first, second]| {
            let before = time as usize - 1;
            let momentum = AdaptiveMomentumState::new(before, first, second);
            let state = (before > 0).then(|| AdamWState::new(momentum));
            let weights = match self.taken(rate) {
                0.0 => weights,
                taken => weights.mul_scalar(1.0 - taken),
            };
            let composed = AdamWConfig::new()
                .with_beta_1(self.betas[0])
                .with_beta_2(self.betas[1])
                .with_epsilon(step.epsilon)
                // Weights were decayed as Burn would decay them, because it knows no other factor than the rate.
                .with_weight_decay(0.0)
                .build();
            let (weights, state) = composed.step(rate.now * scale.rate, weights, gradient, state);
            let AdamWState { momentum } = state.expect("AdamW keeps moments");
            [weights, momentum.moment_1, momentum.moment_2]
        })
    }

    /// The share of a weight that a step takes away.
    fn taken(&self, rate: Rate) -> f64 {
        self.decay_by.factor(rate) * f64::from(self.weight_decay)
    }

    /// The numbers of a tensor's step, its `time`-th.
    fn at(&self, rate: Rate, scale: Scale, time: u64) -> Step {
        let [beta_1, beta_2] = self.betas;
        Step {
            betas: self.betas,
            from: [1.0 - beta_1, 1.0 - beta_2],
            whole: self.betas.map(|beta| 1.0 - beta.powi(time as i32)),
            epsilon: self.epsilon * scale.epsilon as f32,
            keep: (1.0 - self.taken(rate)) as f32,
            rate: (rate.now * scale.rate) as f32,
        }
    }
}

impl Step {
    /// Updates weights and moments on the host.
    fn update(&self, weights: &mut [f32], gradient: &[f32], moments: [&mut [f32]; 2]) {
        let Self {
            betas: [beta_1, beta_2],
            from: [from_1, from_2],
            whole: [whole_1, whole_2],
            epsilon,
            keep,
            rate,
        } = *self;
        let [first, second] = moments;
        let chunks = weights.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK));
        let moments = first.par_chunks_mut(TASK).zip(second.par_chunks_mut(TASK));
        chunks
            .zip(moments)
            .for_each(|((weights, gradient), (first, second))| {
                let numbers = weights.iter_mut().zip(gradient);
                let moments = first.iter_mut().zip(second);
                for ((weight, &gradient), (first, second)) in numbers.zip(moments) {
                    *first = *first * beta_1 + gradient * from_1;
                    *second = *second * beta_2 + gradient * gradient * from_2;
                    let change = *first / whole_1 / ((*second / whole_2).sqrt() + epsilon);
                    *weight = *weight * keep - change * rate;
                }
            });
    }

    /// The same for a tensor whose memory the host has: what has one owner moves out and back in.
    fn update_on_host<B: Backend, const D: usize>(
        &self,
        given: [Tensor<B, D>; 4],
    ) -> [Tensor<B, D>; 3] {
        let device = given[0].device();
        let [mut weights, gradient, mut first, mut second] = given.map(Tensor::into_data);
        self.update(
            weights.as_mut_slice().expect("single precision"),
            gradient.as_slice().expect("single precision"),
            [&mut first, &mut second].map(|moment| moment.as_mut_slice().expect("as weights")),
        );
        [weights, first, second].map(|data| Tensor::from_data(data, &device))
    }
}

//! `OnePassAdamW` updates one tensor and its moments in one pass over memory: on the host equal to Burn's AdamW to the bit,
//! on a GPU by a kernel that may be launched later together with others; where neither applies, by Burn's own AdamW.

use super::gpu;
use super::step::{Step, Update};
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, SimpleOptimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

/// So many numbers are worth a task.
const TASK: usize = 1 << 15;

/// AdamW (Loshchilov, Hutter 2019).
#[derive(Clone)]
pub struct OnePassAdamW {
    composed: AdamW,
    betas: [f32; 2],
    epsilon: f32,
    weight_decay: f32,
}

impl OnePassAdamW {
    /// An optimizer with these settings, rounded to f32, in which Burn computes.
    pub fn new(betas: [f64; 2], epsilon: f64, weight_decay: f64) -> Self {
        let betas = betas.map(|beta| beta as f32);
        let (epsilon, weight_decay) = (epsilon as f32, weight_decay as f32);
        let composed = AdamWConfig::new()
            .with_beta_1(betas[0])
            .with_beta_2(betas[1])
            .with_epsilon(epsilon)
            .with_weight_decay(weight_decay);
        Self {
            composed: composed.build(),
            betas,
            epsilon,
            weight_decay,
        }
    }

    /// Weights, their gradient and what the last step left, if there was one, to weights and what this step leaves. What a GPU
    /// is still to do goes to `waiting`.
    pub fn step<B: Backend, const D: usize>(
        &self,
        rate: f64,
        (weights, gradient, state): (Tensor<B, D>, Tensor<B, D>, Option<AdamWState<B, D>>),
        waiting: &mut Vec<Update<B>>,
    ) -> (Tensor<B, D>, Option<AdamWState<B, D>>) {
        if weights.dtype() != DType::F32 {
            return self.composed.step(rate, weights, gradient, state);
        }
        let (before, [first, second]) = match state {
            Some(AdamWState { momentum }) => {
                (momentum.time, [momentum.moment_1, momentum.moment_2])
            }
            None => (0, [(); 2].map(|()| gradient.zeros_like())),
        };
        let step = self.at(rate, before + 1);
        let given = [weights, gradient, first, second];
        let updated = match B::name(&given[0].device()) == "ndarray" {
            true => Ok(step.update_on_host(given)),
            false => gpu::update(step, given, waiting),
        };
        match updated {
            Ok([weights, first, second]) => {
                let momentum = AdaptiveMomentumState::new(before + 1, first, second);
                (weights, Some(AdamWState::new(momentum)))
            }
            Err([weights, gradient, first, second]) => {
                let momentum = AdaptiveMomentumState::new(before, first, second);
                let state = (before > 0).then(|| AdamWState::new(momentum));
                self.composed.step(rate, weights, gradient, state)
            }
        }
    }

    /// The numbers of a tensor's step, its `time`-th.
    fn at(&self, rate: f64, time: usize) -> Step {
        let [beta_1, beta_2] = self.betas;
        Step {
            betas: self.betas,
            from: [1.0 - beta_1, 1.0 - beta_2],
            whole: self.betas.map(|beta| 1.0 - beta.powi(time as i32)),
            epsilon: self.epsilon,
            keep: (1.0 - rate * f64::from(self.weight_decay)) as f32,
            rate: rate as f32,
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

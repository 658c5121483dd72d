//! AdamW in one pass over memory where tensors lie in the host's; elsewhere Burn's own, which is the definition: the same bits.

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, SimpleOptimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
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
    /// From settings in double precision; Burn computes in single.
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

    /// Updates weights and moments.
    fn update(
        &self,
        rate: f64,
        time: i32,
        weights: &mut [f32],
        gradient: &[f32],
        moments: [&mut [f32]; 2],
    ) {
        let [beta_1, beta_2] = self.betas;
        let [from_1, from_2] = [1.0 - beta_1, 1.0 - beta_2];
        let [whole_1, whole_2] = self.betas.map(|beta| 1.0 - beta.powi(time));
        let (epsilon, stays) = (
            self.epsilon,
            (1.0 - rate * f64::from(self.weight_decay)) as f32,
        );
        let rate = rate as f32;
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
                    *weight = *weight * stays - change * rate;
                }
            });
    }
}

impl<B: Backend> SimpleOptimizer<B> for OnePassAdamW {
    type State<const D: usize> = AdamWState<B, D>;

    fn step<const D: usize>(
        &self,
        rate: f64,
        weights: Tensor<B, D>,
        gradient: Tensor<B, D>,
        state: Option<AdamWState<B, D>>,
    ) -> (Tensor<B, D>, Option<AdamWState<B, D>>) {
        let device = weights.device();
        let on_host = B::name(&device) == "ndarray";
        if !(on_host && weights.dtype() == DType::F32) {
            return self.composed.step(rate, weights, gradient, state);
        }
        let (time, moments) = match state {
            Some(AdamWState { momentum }) => {
                let moments = [momentum.moment_1, momentum.moment_2];
                (momentum.time + 1, moments.map(Tensor::into_data))
            }
            None => {
                let zeros = || vec![0.0f32; gradient.shape().num_elements()];
                let shape = gradient.shape();
                let moments = [zeros(), zeros()];
                (
                    1,
                    moments.map(|zeros| TensorData::new(zeros, shape.clone())),
                )
            }
        };
        // Memory that has one owner moves out and back in.
        let [mut first, mut second] = moments;
        let (mut weights, gradient) = (weights.into_data(), gradient.into_data());
        self.update(
            rate,
            time as i32,
            weights.as_mut_slice().expect("single precision"),
            gradient.as_slice().expect("single precision"),
            [&mut first, &mut second].map(|moment| moment.as_mut_slice().expect("as weights")),
        );
        let [weights, first, second] =
            [weights, first, second].map(|data| Tensor::from_data(data, &device));
        let momentum = AdaptiveMomentumState::new(time, first, second);
        (weights, Some(AdamWState::new(momentum)))
    }

    fn to_device<const D: usize>(state: AdamWState<B, D>, device: &B::Device) -> AdamWState<B, D> {
        <AdamW as SimpleOptimizer<B>>::to_device(state, device)
    }
}

//! Tests that `ParameterOptimizer`, which updates in one pass over host memory, gives the weights of Burn's AdamW to the bit.

use crate::support::TestAutodiff;
use burn::module::{Module, Param};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use train::learner::{Decay, OptimizerConfig, ParameterOptimizer, Rate};

#[derive(Module, Debug)]
struct Weights<B: Backend> {
    matrix: Param<Tensor<B, 2>>,
    gain: Param<Tensor<B, 1>>,
}

fn values<const D: usize>(dims: [usize; D], seed: usize) -> Tensor<TestAutodiff, D> {
    let value = |index: usize| ((index * 31 + seed * 57) as f32).sin();
    let values: Vec<f32> = (0..dims.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, dims), &Default::default())
}

#[test]
fn one_pass_gives_the_bits_of_the_composed_adamw() {
    let (betas, epsilon, weight_decay) = ([0.9, 0.95], 1e-8, 0.1);
    let start = Weights {
        matrix: Param::from_tensor(values([70, 900], 1)),
        gain: Param::from_tensor(values([13], 2)),
    };
    let mut ours = ParameterOptimizer::new(&OptimizerConfig::Adamw {
        betas,
        epsilon,
        weight_decay,
        decay: Decay::All,
        decay_by: None,
        clip_norm: 1.0,
    });
    let mut burns = AdamWConfig::new()
        .with_beta_1(betas[0] as f32)
        .with_beta_2(betas[1] as f32)
        .with_epsilon(epsilon as f32)
        .with_weight_decay(weight_decay as f32)
        .init::<TestAutodiff, Weights<TestAutodiff>>();
    let (mut one, mut other) = (start.clone(), start);
    for step in 0..5 {
        let gradients = |weights: &Weights<TestAutodiff>| {
            let matrix = (weights.matrix.val() * values([70, 900], step + 3))
                .powi_scalar(2)
                .sum();
            let gain = (weights.gain.val() * values([13], step + 4))
                .powi_scalar(2)
                .sum();
            GradientsParams::from_grads((matrix + gain).backward(), weights)
        };
        let rate = 1e-2 / (step + 1) as f64;
        let (of_one, of_other) = (gradients(&one), gradients(&other));
        one = ours.step(Rate::at_peak(rate), one, of_one);
        other = burns.step(rate, other, of_other);
        assert_eq!(one.matrix.val().into_data(), other.matrix.val().into_data());
        assert_eq!(one.gain.val().into_data(), other.gain.val().into_data());
    }
}

//! `Step`: the scalars of one AdamW update of a tensor (betas, bias corrections, epsilon, decay, rate), shared by host and GPU;
//! `Update`: a step with its four tensors, waiting for a launch. The computation is in `one_pass` and `gpu`.

use burn::tensor::ops::FloatTensor;

/// An update that waits: its scalars, and weights, gradient and moments.
pub type Update<B> = (Step, [FloatTensor<B>; 4]);

/// The scalars of one update.
#[derive(Clone, Copy, PartialEq)]
pub struct Step {
    /// Decay of the moments.
    pub betas: [f32; 2],
    /// The weight of the gradient in the moments: 1 − beta.
    pub from: [f32; 2],
    /// The bias correction of the moments: 1 − beta^time.
    pub whole: [f32; 2],
    /// Keeps the division finite.
    pub epsilon: f32,
    /// The share of a weight that weight decay leaves.
    pub keep: f32,
    /// Learning rate.
    pub rate: f32,
}

//! Muon (Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"): momentum whose step is made nearly orthogonal, for the
//! maps of blocks. With a gradient `G` of a map `[d_in, d_out]`, momentum `μ` and rate `η`:
//!
//! ```text
//! M ← μ M + G                       U = G + μ M  (Nesterov), or M
//! X = U / ‖U‖, five times X ← a X + (b A + c A²) X with A = X Xᵀ       (Newton and Schulz; a, b, c = 3.4445, −4.775, 2.0315)
//! W ← (1 − η λ) W − η s X           s = √max(1, d_out / d_in), or 0.2 √max(d_in, d_out)
//! ```
//!
//! The second `s` makes steps as long as AdamW's are (Liu et al. 2025, "Muon is scalable for LLM training"), so that its rates and weight
//! decay can be kept. Burn's own Muon takes a map's rows for its outputs, as PyTorch has them; ours are its inputs.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Deserialize;

/// The coefficients of the iteration: steep at zero, so that small singular values grow fast.
const QUINTIC: [f64; 3] = [3.4445, -4.775, 2.0315];
const ITERATIONS: usize = 5;
/// Keeps the division finite.
const SHORTEST: f64 = 1e-7;

/// How long steps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepLength {
    /// By the shape alone: `√max(1, d_out / d_in)` (Jordan 2024).
    Original,
    /// As long as AdamW's: `0.2 √max(d_in, d_out)` (Liu et al. 2025).
    LikeAdamw,
}

/// Muon's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// How much of the momentum stays.
    pub momentum: f64,
    /// Whether the step looks ahead.
    pub nesterov: bool,
    /// How long steps are.
    pub step_length: StepLength,
    /// Share of a weight that is taken away per unit of learning rate.
    pub weight_decay: f64,
}

impl Muon {
    /// A map after an update, and its momentum.
    ///
    /// # Shapes
    /// `[d_in, d_out]` each
    pub fn update<B: Backend>(
        &self,
        rate: f64,
        weights: Tensor<B, 2>,
        gradient: Tensor<B, 2>,
        momentum: Tensor<B, 2>,
    ) -> [Tensor<B, 2>; 2] {
        let momentum = momentum * self.momentum + gradient.clone();
        let step = match self.nesterov {
            true => gradient + momentum.clone() * self.momentum,
            false => momentum.clone(),
        };
        let length = self.length(weights.dims());
        let kept = weights * (1.0 - rate * self.weight_decay);
        [kept - orthogonal(step) * (rate * length), momentum]
    }

    fn length(&self, [d_in, d_out]: [usize; 2]) -> f64 {
        let (d_in, d_out) = (d_in as f64, d_out as f64);
        match self.step_length {
            StepLength::Original => (d_out / d_in).max(1.0).sqrt(),
            StepLength::LikeAdamw => 0.2 * d_in.max(d_out).sqrt(),
        }
    }
}

/// Nearly the nearest matrix whose rows or columns, whichever are fewer, are orthonormal: singular values come out between 0.7 and 1.2.
fn orthogonal<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, columns] = x.dims();
    let is_tall = rows > columns;
    let x = if is_tall { x.transpose() } else { x };
    let length = (x.clone() * x.clone()).sum().sqrt().clamp_min(SHORTEST);
    let mut x = x / length.unsqueeze();
    let [a, b, c] = QUINTIC;
    for _ in 0..ITERATIONS {
        let square = x.clone().matmul(x.clone().transpose());
        let change = square.clone() * b + square.clone().matmul(square) * c;
        x = x.clone() * a + change.matmul(x);
    }
    if is_tall { x.transpose() } else { x }
}

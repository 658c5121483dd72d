//! Gradients of the exit, two ways: `StraightThrough` says whether a token still walks, 0 or 1 with the gradient of a
//! probability; `Mixture` sums the states of all steps, weighted by the probability to leave there.
//!
//! With `λ_s` the router's probability to leave at step `s`:
//! - straight through: the value of `Π_s [goes on at s]` is 0 or 1, its gradient that of `Π_s (1 − λ_s)` with every other
//!   factor at its value. What a step adds is multiplied by it.
//! - mixture: `π_s = λ_s Π_{r<s} (1 − λ_r)`, and what leaves the walk is `Σ_s π_s h_s` plus the rest at the last state
//!   (Banino, Balaguer, Blundell 2021, with states in the place of losses).

use super::action::Action;
use super::choose::Chosen;
use super::context::WalkState;
use super::trace::Origin;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// One number per token, `[n_tokens, 1]`.
fn column<B: Backend>(
    chosen: &[Chosen],
    device: &B::Device,
    of: impl Fn(&Chosen) -> bool,
) -> Tensor<B, 2> {
    let values: Vec<f32> = chosen.iter().map(|chosen| f32::from(of(chosen))).collect();
    Tensor::from_data(TensorData::new(values, [chosen.len(), 1]), device)
}

/// Whether each token is still walking: 0 or 1, with the gradient of a probability.
#[derive(Default)]
pub(crate) struct StraightThrough<B: Backend> {
    alive: Option<Tensor<B, 2>>,
}

impl<B: Backend> StraightThrough<B> {
    /// Whether each token is still walking after the choices of a step: 0 or 1, with a gradient.
    ///
    /// # Shapes
    /// `[n_tokens, 1]` to the same
    pub fn alive(&mut self, out_probability: Tensor<B, 2>, chosen: &[Chosen]) -> Tensor<B, 2> {
        let device = out_probability.device();
        let by_router = column(chosen, &device, |chosen| chosen.origin == Origin::Router);
        let goes_on = column(chosen, &device, |chosen| chosen.action != Action::Out);
        let probability = out_probability.neg() * by_router;
        let factor = goes_on + (probability.clone() - probability.detach());
        let alive = match self.alive.take() {
            Some(alive) => alive * factor,
            None => factor,
        };
        self.alive = Some(alive.clone());
        alive
    }
}

/// The states of tokens that have left so far, mixed, and how much of each token is still walking.
pub(crate) struct Mixture<B: Backend> {
    hidden: Tensor<B, 3>,
    alive: Tensor<B, 2>,
}

impl<B: Backend> Mixture<B> {
    /// No token has left yet; `entered` are the states before the first step.
    ///
    /// # Shapes
    /// `entered`: `[batch, seq, d_model]`
    pub fn new(entered: &Tensor<B, 3>) -> Self {
        let [batch, seq, _] = entered.dims();
        Self {
            hidden: entered.zeros_like(),
            alive: Tensor::ones([batch * seq, 1], &entered.device()),
        }
    }

    /// Lets a part of each token leave with its current state.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, d_model]`
    /// - `out_probability`: `[batch * seq, 1]`
    pub fn leave(
        &mut self,
        hidden: &Tensor<B, 3>,
        out_probability: Tensor<B, 2>,
        chosen: &[Chosen],
    ) {
        let [batch, seq, _] = hidden.dims();
        let device = hidden.device();
        let by_router = column(chosen, &device, |chosen| chosen.origin == Origin::Router);
        // A mixing router chooses blocks only; whoever else says OUT means all of the token.
        let put_out = column(chosen, &device, |chosen| chosen.action == Action::Out);
        let leaving = out_probability * by_router + put_out;
        let share = (self.alive.clone() * leaving.clone()).reshape([batch, seq, 1]);
        self.hidden = self.hidden.clone() + hidden.clone() * share;
        self.alive = self.alive.clone() * (leaving.neg() + 1.0);
    }

    /// The states and positions that leave the walk; `out` is the position of OUT.
    ///
    /// # Shapes
    /// `out`: `[batch * seq, d_position]`
    pub fn end(self, last: WalkState<B>, out: Tensor<B, 2>) -> WalkState<B> {
        let [batch, seq, _] = last.hidden.dims();
        let rest = self.alive.clone().reshape([batch, seq, 1]);
        WalkState {
            hidden: self.hidden + last.hidden * rest,
            position: last.position * self.alive.clone() + out * (self.alive.neg() + 1.0),
        }
    }
}

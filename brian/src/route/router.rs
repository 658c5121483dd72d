//! The router: `(hidden, position) → action logits`, for every token on its own and therefore causal.
//!
//! `W2 silu(W1 [h, P] + b1) + b2` with hidden width `d_model`. It sees nothing pooled over the
//! sequence: a mean over positions would show it the future.
//!
//! With a width transfer `P` is multiplied by how much wider the stream is, for the map learns as much more slowly
//! (`docs/brian.md`, section 5).

use super::position::Injection;
use crate::described::{Described, Description, FanIn, Start};
use crate::ops::reuse::Packed;
use crate::ops::router_scores::router_scores;
use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Scores the actions of every token.
#[derive(Module, Debug)]
pub struct Router<B: Backend> {
    /// `[d_model + d_position, d_model]` with bias.
    pub input: Linear<B>,
    /// `[d_model, n_actions]` with bias.
    pub output: Linear<B>,
    #[module(skip)]
    position_factor: Option<f64>,
    /// Rows of the first map for a position that is as wide at every width of the stream.
    #[module(skip)]
    fixed_rows: usize,
}

impl<B: Backend> Router<B> {
    pub(crate) fn new(
        d_model: usize,
        d_position: usize,
        n_actions: usize,
        device: &B::Device,
    ) -> Self {
        let linear = |d_in, d_out| {
            LinearConfig::new(d_in, d_out)
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        Self {
            input: linear(d_model + d_position, d_model),
            output: linear(d_model, n_actions),
            position_factor: None,
            fixed_rows: 0,
        }
    }

    /// For a stream that is `width` times as wide as that of the base, and positions that are so too or not.
    pub(crate) fn beside_base(self, width: f64, injection: Injection) -> Self {
        let [d_in, d_model] = self.input.weight.lazy_shape().dims();
        let (factor, fixed_rows) = match injection {
            Injection::Adapter => (width, d_in - d_model),
            // At unit length each of its numbers is smaller already.
            Injection::Direct => (width.sqrt(), 0),
        };
        Self {
            position_factor: (factor != 1.0).then_some(factor),
            fixed_rows,
            ..self
        }
    }

    /// Action logits.
    ///
    /// # Shapes
    /// - `hidden`: `[n_tokens, d_model]`
    /// - `position`: `[n_tokens, d_position]`
    /// - returns `[n_tokens, n_actions]`
    pub fn forward(&self, hidden: Tensor<B, 2>, position: Tensor<B, 2>) -> Tensor<B, 2> {
        self.forward_packed(hidden, position, &Packed::default())
    }

    /// [`Self::forward`] where the weights stay packed.
    pub(crate) fn forward_packed(
        &self,
        hidden: Tensor<B, 2>,
        position: Tensor<B, 2>,
        packed: &Packed,
    ) -> Tensor<B, 2> {
        let position = match self.position_factor {
            Some(factor) => position * factor,
            None => position,
        };
        router_scores(hidden, position, &self.input, &self.output, packed)
    }
}

impl<B: Backend> Described<B> for Router<B> {
    fn describe(&self, to: &mut Description) {
        let maps = [(&self.input, FanIn::Width), (&self.output, FanIn::Scores)];
        for (map, fan_in) in maps {
            to.sums(&map.weight, fan_in);
            let d_in = map.weight.lazy_shape().as_slice()[0];
            let bias = map.bias.as_ref().expect("both have one");
            to.starts(bias, Start::Bias { d_in });
        }
        let rows = self.fixed_rows;
        to.starts(&self.input.weight, Start::MapBeside { rows });
    }
}

//! Where an operator lies: one vector per action, unit length at the start, in a space of its own.
//!
//! A layout places action `i` at an angle `θ_i` and writes it as `[cos θ, sin θ, cos 2θ, sin 2θ, …]`, normalised.
//! `open_arc`: `θ_i = π i / n_actions`. `circle`: `θ_i = 2π i / n_actions`; the reference divides by `n_actions − 1`, which
//! puts OUT on block 0. `random`: normal draws. `none`: there is no geometry, every position is the zero vector.

use crate::random;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Deserialize;
use std::f64::consts::PI;

/// Smallest length a vector is divided by.
const SHORTEST: f64 = 1e-12;

/// How the space of operators looks at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Along half a circle, OUT last.
    OpenArc,
    /// Around the whole circle.
    Circle,
    /// Anywhere.
    Random,
    /// Nowhere; the table stays as ballast, so that parameter counts are equal.
    None,
}

/// The space of operators.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct PositionConfig {
    /// Its dimension.
    pub d_position: usize,
    /// Where the operators start.
    pub layout: Layout,
}

/// The table of operator positions.
#[derive(Module, Debug)]
pub struct Positions<B: Backend> {
    /// `[n_actions, d_position]`; the last row is OUT.
    pub embeddings: Param<Tensor<B, 2>>,
    #[module(skip)]
    layout: Layout,
}

impl<B: Backend> Positions<B> {
    pub(crate) fn new(config: &PositionConfig, n_actions: usize, device: &B::Device) -> Self {
        Self {
            embeddings: Initializer::Zeros.init([n_actions, config.d_position], device),
            layout: config.layout,
        }
    }

    /// Where every walk starts, `[d_position]`: the raw position of block 0, without a gradient.
    pub fn start(&self) -> Tensor<B, 1> {
        match self.layout {
            Layout::None => self.nowhere(),
            _ => self.row(0).detach(),
        }
    }

    /// Where an action leads, `[d_position]`, of unit length.
    pub fn after(&self, action: usize) -> Tensor<B, 1> {
        match self.layout {
            Layout::None => self.nowhere(),
            _ => normalize(self.row(action)),
        }
    }

    fn row(&self, action: usize) -> Tensor<B, 1> {
        self.embeddings
            .val()
            .slice_dim(0, action..action + 1)
            .squeeze_dim(0)
    }

    fn nowhere(&self) -> Tensor<B, 1> {
        let embeddings = self.embeddings.val();
        Tensor::zeros([embeddings.dims()[1]], &embeddings.device())
    }
}

/// `x / max(|x|, 1e-12)`, with a zero gradient where the vector is shorter than that.
fn normalize<B: Backend>(x: Tensor<B, 1>) -> Tensor<B, 1> {
    let length = x
        .clone()
        .square()
        .sum()
        .clamp_min(SHORTEST * SHORTEST)
        .sqrt();
    x / length
}

/// The rows of a fresh table, `[n_actions * d_position]`.
pub(crate) fn layout(config: &PositionConfig, n_actions: usize, seed: u64) -> Vec<f32> {
    let row = |action: usize| -> Vec<f64> {
        let turn = action as f64 / n_actions as f64;
        match config.layout {
            Layout::OpenArc => harmonics(PI * turn, config.d_position),
            Layout::Circle => harmonics(2.0 * PI * turn, config.d_position),
            Layout::Random => {
                let key = random::key(seed, "position.embeddings", action as u64);
                (0..config.d_position as u64)
                    .map(|i| random::normal(key, i))
                    .collect()
            }
            Layout::None => vec![0.0; config.d_position],
        }
    };
    (0..n_actions)
        .flat_map(|action| unit(row(action)))
        .collect()
}

/// `[cos θ, sin θ, cos 2θ, sin 2θ, …]`; an odd last entry is zero.
fn harmonics(angle: f64, d_position: usize) -> Vec<f64> {
    let entry = |index: usize| {
        let multiple = (index / 2 + 1) as f64 * angle;
        match (index % 2, index + 1 == d_position) {
            (0, true) => 0.0,
            (0, false) => multiple.cos(),
            _ => multiple.sin(),
        }
    };
    (0..d_position).map(entry).collect()
}

fn unit(row: Vec<f64>) -> impl Iterator<Item = f32> {
    let length = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(SHORTEST);
    row.into_iter().map(move |x| (x / length) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(layout_kind: Layout, d_position: usize) -> Vec<Vec<f32>> {
        let config = PositionConfig {
            d_position,
            layout: layout_kind,
        };
        let flat = layout(&config, 4, 1);
        flat.chunks(d_position).map(<[f32]>::to_vec).collect()
    }

    #[test]
    fn rows_have_unit_length_also_in_odd_dimensions() {
        for layout_kind in [Layout::OpenArc, Layout::Circle, Layout::Random] {
            for d_position in [5, 16] {
                for row in rows(layout_kind, d_position) {
                    let length: f32 = row.iter().map(|x| x * x).sum();
                    assert!((length - 1.0).abs() < 1e-6, "{layout_kind:?} {row:?}");
                }
            }
        }
        assert!(rows(Layout::OpenArc, 5).iter().all(|row| row[4] == 0.0));
    }

    #[test]
    fn out_never_lies_on_block_0() {
        for layout_kind in [Layout::OpenArc, Layout::Circle, Layout::Random] {
            let rows = rows(layout_kind, 16);
            let product: f32 = rows[0].iter().zip(&rows[3]).map(|(a, b)| a * b).sum();
            assert!(product < 0.9, "{layout_kind:?}: cosine {product}");
        }
    }
}

//! Positions of the actions, one vector each in a space of its own: settings, initial layouts, the learned table (`Positions`),
//! and the position of a token after an action (`Table`). The index of a token in its sequence is its *place*, not a position.
//!
//! A layout puts action `i` at an angle `θ_i` and writes it as `[cos θ, sin θ, cos 2θ, sin 2θ, …]`, normalised.
//! `open_arc`: `θ_i = π i / n_actions`. `circle`: `θ_i = 2π i / n_actions`. `closed_circle`: the same over `n_actions − 1`,
//! which puts OUT on block 0. `random`: normal draws. `none`: there is no geometry, every position is the zero vector.

use crate::described::{Described, Description, Start};
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
    /// Around the circle until OUT meets block 0; for parity only.
    ClosedCircle,
    /// Anywhere.
    Random,
    /// Nowhere; the table stays as ballast, so that parameter counts are equal.
    None,
}

/// Where a walk starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartPosition {
    /// At a learned vector of its own, used at unit length.
    Learned,
    /// At the raw position of block 0, without a gradient: as if the walk just came from there.
    FirstBlock,
}

/// How a position enters a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Injection {
    /// Through a matrix of the block's own.
    Adapter,
    /// As it is: `d_position` is `d_model`.
    Direct,
}

/// Who is told the position; the others get zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The router and the blocks.
    Both,
    /// The router alone.
    Router,
    /// The blocks and the exit alone.
    Blocks,
    /// Nobody.
    Neither,
}

impl Reach {
    /// The position as the router sees it: zeros if it is not told.
    pub(crate) fn tell_router<B: Backend>(self, position: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Both | Self::Router => position,
            Self::Blocks | Self::Neither => position.zeros_like(),
        }
    }

    /// The position as the blocks and the exit see it.
    pub(crate) fn tell_blocks<B: Backend>(self, position: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Both | Self::Blocks => position,
            Self::Router | Self::Neither => position.zeros_like(),
        }
    }
}

/// The space of operators.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct PositionConfig {
    /// Its dimension.
    pub d_position: usize,
    /// Where the operators start.
    pub layout: Layout,
    /// Where a walk starts.
    pub start: StartPosition,
    /// How a position enters a block.
    pub injection: Injection,
    /// Who is told.
    pub into: Reach,
}

/// The table of the actions' positions.
#[derive(Module, Debug)]
pub struct Positions<B: Backend> {
    /// `[n_actions, d_position]`; the last row is OUT.
    pub embeddings: Param<Tensor<B, 2>>,
    /// Learned start of a walk, `[d_position]`; without it a walk starts at the position of block 0.
    pub start: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    config: PositionConfig,
}

impl<B: Backend> Positions<B> {
    pub(crate) fn new(config: &PositionConfig, n_actions: usize, device: &B::Device) -> Self {
        let learned = config.start == StartPosition::Learned;
        Self {
            embeddings: Initializer::Zeros.init([n_actions, config.d_position], device),
            start: learned.then(|| Initializer::Zeros.init([config.d_position], device)),
            config: *config,
        }
    }

    /// Who is told the position.
    pub(crate) fn reach(&self) -> Reach {
        self.config.into
    }

    /// The positions that a walk looks up, made once per pass.
    pub fn table(&self) -> Table<B> {
        let nowhere = self.config.layout == Layout::None;
        let raw = match nowhere {
            true => self.embeddings.val().zeros_like(),
            false => self.embeddings.val(),
        };
        let start = match &self.start {
            _ if nowhere => Tensor::zeros([1, raw.dims()[1]], &raw.device()),
            Some(start) => normalize(start.val().unsqueeze()),
            None => raw.clone().slice_dim(0, 0..1).detach(),
        };
        Table {
            unit: normalize(raw.clone()),
            raw,
            start,
            nowhere,
        }
    }
}

impl<B: Backend> Described<B> for Positions<B> {
    fn describe(&self, to: &mut Description) {
        let config = self.config;
        let n_actions = self.embeddings.lazy_shape().as_slice()[0];
        let rows = move |seed| layout(&config, n_actions, seed);
        to.starts(&self.embeddings, Start::Own(Box::new(rows)));
        if let Some(vector) = &self.start {
            let direction = move |seed| start(&config, seed);
            to.starts(vector, Start::Own(Box::new(direction)));
        }
    }
}

/// Positions of one pass.
#[derive(Clone, Debug)]
pub struct Table<B: Backend> {
    raw: Tensor<B, 2>,
    unit: Tensor<B, 2>,
    start: Tensor<B, 2>,
    nowhere: bool,
}

impl<B: Backend> Table<B> {
    /// The position at which every walk starts.
    ///
    /// # Shapes
    /// Returns `[n_tokens, d_position]`
    pub fn start(&self, n_tokens: usize) -> Tensor<B, 2> {
        let [_, d_position] = self.raw.dims();
        self.start.clone().expand([n_tokens, d_position])
    }

    /// The position after one action, the same for every token, at unit length.
    ///
    /// # Shapes
    /// Returns `[n_tokens, d_position]`
    pub fn after(&self, action: usize, n_tokens: usize) -> Tensor<B, 2> {
        let [_, d_position] = self.raw.dims();
        match self.nowhere {
            true => self.start(n_tokens),
            false => {
                let row = self.unit.clone().slice_dim(0, action..action + 1);
                row.expand([n_tokens, d_position])
            }
        }
    }

    /// The position of each token after its action; `chosen` is one-hot.
    ///
    /// # Shapes
    /// `[n_tokens, n_actions]` to `[n_tokens, d_position]`
    pub fn after_each(&self, chosen: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.nowhere {
            true => self.start(chosen.dims()[0]),
            false => chosen.matmul(self.unit.clone()),
        }
    }

    /// The position of each token after a mixture of actions, at unit length.
    ///
    /// # Shapes
    /// `[n_tokens, n_actions]` to `[n_tokens, d_position]`
    pub fn after_mixture(&self, weights: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.nowhere {
            true => self.start(weights.dims()[0]),
            false => normalize(weights.matmul(self.raw.clone())),
        }
    }

    pub(crate) fn device(&self) -> B::Device {
        self.raw.device()
    }

    /// The positions of all actions, not normalised.
    ///
    /// # Shapes
    /// Returns `[n_actions, d_position]`
    pub fn of_actions(&self) -> Tensor<B, 2> {
        self.raw.clone()
    }
}

/// Squared distances: `[n_tokens, d_position]` and `[n_actions, d_position]` to `[n_tokens, n_actions]`.
pub(crate) fn distances<B: Backend>(
    position: Tensor<B, 2>,
    of_actions: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let own = position.clone().square().sum_dim(1);
    let others = of_actions.clone().square().sum_dim(1).transpose();
    own + others - position.matmul(of_actions.transpose()) * 2.0
}

/// `x / max(|x|, 1e-12)` per row, with a zero gradient where a row is shorter than that.
pub(crate) fn normalize<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let squared = x.clone().square().sum_dim(1);
    x / squared.clamp_min(SHORTEST * SHORTEST).sqrt()
}

/// The rows of a fresh table, `[n_actions * d_position]`.
pub(crate) fn layout(config: &PositionConfig, n_actions: usize, seed: u64) -> Vec<f32> {
    let row = |action: usize| -> Vec<f64> {
        let turn = |n: usize| action as f64 / n.max(1) as f64;
        match config.layout {
            Layout::OpenArc => harmonics(PI * turn(n_actions), config.d_position),
            Layout::Circle => harmonics(2.0 * PI * turn(n_actions), config.d_position),
            Layout::ClosedCircle => harmonics(2.0 * PI * turn(n_actions - 1), config.d_position),
            Layout::Random => normal(
                random::key(seed, "position.embeddings", action as u64),
                config,
            ),
            Layout::None => vec![0.0; config.d_position],
        }
    };
    (0..n_actions)
        .flat_map(|action| unit(row(action)))
        .collect()
}

/// Initial value of the learned start: a random direction, `[d_position]`.
pub(crate) fn start(config: &PositionConfig, seed: u64) -> Vec<f32> {
    unit(normal(random::key(seed, "position.start", 0), config)).collect()
}

fn normal(key: u64, config: &PositionConfig) -> Vec<f64> {
    let indices = 0..config.d_position as u64;
    indices.map(|index| random::normal(key, index)).collect()
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
            start: StartPosition::Learned,
            injection: Injection::Adapter,
            into: Reach::Both,
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
    fn on_the_closed_circle_out_lies_on_block_0() {
        let rows = rows(Layout::ClosedCircle, 6);
        for (first, last) in rows[0].iter().zip(&rows[3]) {
            assert!((first - last).abs() < 1e-6, "{rows:?}");
        }
    }

    #[test]
    fn out_never_lies_on_block_0() {
        for layout_kind in [Layout::OpenArc, Layout::Circle, Layout::Random] {
            let rows = rows(layout_kind, 16);
            let product: f32 = rows[0].iter().zip(&rows[3]).map(|(a, b)| a * b).sum();
            assert!(product < 0.9, "{layout_kind:?}: cosine {product}");
        }
    }

    /// With four actions and four entries: `θ` is a multiple of 45 degrees on the arc and of 90 on the circle, and both pairs of
    /// entries have length one.
    #[test]
    fn angles_are_those_of_the_layout() {
        let half = 0.5f32.sqrt();
        let entries = |angle: f64| {
            let angles = [
                angle.cos(),
                angle.sin(),
                (2.0 * angle).cos(),
                (2.0 * angle).sin(),
            ];
            angles.map(|x| (x / 2f64.sqrt()) as f32).to_vec()
        };
        let expected = [
            (Layout::OpenArc, PI / 4.0),
            (Layout::Circle, PI / 2.0),
            (Layout::ClosedCircle, 2.0 * PI / 3.0),
        ];
        for (kind, turn) in expected {
            for (action, row) in rows(kind, 4).iter().enumerate() {
                for (found, expected) in row.iter().zip(entries(turn * action as f64)) {
                    assert!(
                        (found - expected).abs() < 1e-6,
                        "{kind:?} {action}: {row:?}"
                    );
                }
            }
        }
        assert_eq!(rows(Layout::OpenArc, 4)[0], [half, 0.0, half, 0.0]);
        assert!(rows(Layout::None, 4).concat().iter().all(|&x| x == 0.0));
        // Half a turn: OUT of a pool of one lies across on the circle, and at a right angle on the arc.
        let config = |layout| PositionConfig {
            d_position: 2,
            layout,
            start: StartPosition::Learned,
            injection: Injection::Adapter,
            into: Reach::Both,
        };
        let near = |found: Vec<f32>, expected: [f32; 4]| {
            let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-6, "{found:?}");
        };
        near(layout(&config(Layout::Circle), 2, 1), [1.0, 0.0, -1.0, 0.0]);
        near(layout(&config(Layout::OpenArc), 2, 1), [1.0, 0.0, 0.0, 1.0]);
        near(
            layout(&config(Layout::ClosedCircle), 2, 1),
            [1.0, 0.0, 1.0, 0.0],
        );
    }

    #[test]
    fn a_random_layout_and_a_start_depend_on_the_seed_and_on_nothing_else() {
        let config = PositionConfig {
            d_position: 7,
            layout: Layout::Random,
            start: StartPosition::Learned,
            injection: Injection::Adapter,
            into: Reach::Both,
        };
        assert_eq!(layout(&config, 4, 1), layout(&config, 4, 1));
        assert_ne!(layout(&config, 4, 1), layout(&config, 4, 2));
        assert_eq!(
            layout(&config, 5, 1)[..28],
            layout(&config, 4, 1),
            "a larger pool keeps its first places"
        );
        assert_ne!(start(&config, 1), start(&config, 2));
        assert_ne!(start(&config, 1), layout(&config, 4, 1)[..7]);
        let length: f32 = start(&config, 1).iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-6);
    }
}

//! Initial values: one table from a parameter's path to its distribution, drawn on the host.
//!
//! Each value is a function of (seed, path, index), so it depends neither on the backend nor on the order in which the
//! parameters are created. Burn's own initialisation is lazy and draws in the order of access.

use crate::parameter;
use crate::random;
use burn::module::Module;
use burn::tensor::backend::Backend;
use serde::Deserialize;

/// How a model starts.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    /// Normal with this deviation; what is added to the residual stream is smaller by `1/sqrt(2 * n_layers)`, so that
    /// the stream keeps its size over depth. Biases start at zero.
    Scaled {
        /// Standard deviation of embeddings and matrices.
        std: f64,
    },
    /// PyTorch's defaults, as the reference has them: embeddings N(0, 1), matrices and biases uniform in
    /// `±1/sqrt(d_in)`. With a tied head the first loss is in the hundreds of nats; for parity only.
    TorchDefault,
}

/// Draws every parameter of a model.
///
/// `n_layers` is the number of residual blocks that one token passes; `fixed` overrules the table for single paths.
pub(crate) fn draw<B: Backend, M: Module<B>>(
    module: M,
    initial: Initial,
    n_layers: usize,
    seed: u64,
    fixed: impl Fn(&str, &[usize]) -> Option<Vec<f32>>,
) -> M {
    let shapes = parameter::shapes(&module);
    // Burn's linear layers are [d_in, d_out]; a bias starts as wide as the matrix beside it.
    let d_in = |path: &str| shapes[&path.replace(".bias", ".weight")][0];
    parameter::assign(module, |path, shape| {
        fixed(path, shape).unwrap_or_else(|| {
            let distribution = Distribution::of(path, d_in(path), initial, n_layers);
            distribution.sample(random::key(seed, path, 0), shape.iter().product())
        })
    })
}

/// Draws all parameters of a model that this table does not know: with two or more dimensions normal with standard deviation
/// `std`, gains (`.gamma`) one, all other vectors zero.
pub fn scaled<B: Backend, M: Module<B>>(module: M, std: f64, seed: u64) -> M {
    parameter::assign(module, |path, shape| {
        let distribution = match shape.len() {
            1 if path.ends_with(".gamma") || path == "gamma" => Distribution::Constant(1.0),
            1 => Distribution::Constant(0.0),
            _ => Distribution::Normal { std },
        };
        distribution.sample(random::key(seed, path, 0), shape.iter().product())
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Distribution {
    Constant(f64),
    Normal { std: f64 },
    Uniform { bound: f64 },
}

impl Distribution {
    fn of(path: &str, d_in: usize, initial: Initial, n_layers: usize) -> Self {
        let is_gain = path.ends_with(".gamma");
        let is_bias = path.ends_with(".bias");
        let is_embedding = path.starts_with("embedding.");
        let feeds_residual =
            path.ends_with("attention.output.weight") || path.ends_with("feed_forward.down.weight");
        match initial {
            _ if is_gain => Self::Constant(1.0),
            Initial::Scaled { .. } if is_bias => Self::Constant(0.0),
            Initial::Scaled { std } if feeds_residual => Self::Normal {
                std: std / (2.0 * n_layers as f64).sqrt(),
            },
            Initial::Scaled { std } => Self::Normal { std },
            Initial::TorchDefault if is_embedding => Self::Normal { std: 1.0 },
            Initial::TorchDefault => Self::Uniform {
                bound: 1.0 / (d_in as f64).sqrt(),
            },
        }
    }

    fn sample(self, key: u64, n: usize) -> Vec<f32> {
        let draw = |position: u64| match self {
            Self::Constant(value) => value,
            Self::Normal { std } => std * random::normal(key, position),
            Self::Uniform { bound } => bound * (2.0 * random::uniform(key, position) - 1.0),
        };
        (0..n as u64)
            .map(|position| draw(position) as f32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_feeds_the_residual_stream_starts_smaller_with_depth() {
        let scaled = Initial::Scaled { std: 0.02 };
        let of = |path, n_layers| Distribution::of(path, 64, scaled, n_layers);
        let inner = of("blocks.0.feed_forward.up.weight", 8);
        assert_eq!(inner, Distribution::Normal { std: 0.02 });
        let output = of("blocks.0.attention.output.weight", 8);
        assert_eq!(output, Distribution::Normal { std: 0.005 });
    }

    #[test]
    fn gains_start_at_one_under_every_initialisation() {
        for initial in [Initial::Scaled { std: 0.02 }, Initial::TorchDefault] {
            let gain = Distribution::of("norm.gamma", 64, initial, 4);
            assert_eq!(gain, Distribution::Constant(1.0));
        }
    }

    #[test]
    fn each_parameter_has_its_distribution() {
        let scaled = Initial::Scaled { std: 0.1 };
        let of = |initial, path: &str| Distribution::of(path, 16, initial, 2);
        // 0.1 / √(2 · 2) where something is added to the stream, and nowhere else.
        for path in [
            "pre.0.attention.output.weight",
            "pool.1.block.feed_forward.down.weight",
        ] {
            assert_eq!(of(scaled, path), Distribution::Normal { std: 0.05 });
        }
        for path in [
            "embedding.weight",
            "pool.0.block.feed_forward.gate.weight",
            "router.output.weight",
        ] {
            assert_eq!(of(scaled, path), Distribution::Normal { std: 0.1 });
        }
        assert_eq!(of(scaled, "router.input.bias"), Distribution::Constant(0.0));
        let torch = Initial::TorchDefault;
        assert_eq!(
            of(torch, "embedding.weight"),
            Distribution::Normal { std: 1.0 }
        );
        for path in [
            "router.input.bias",
            "router.input.weight",
            "pre.0.attention.output.weight",
        ] {
            assert_eq!(of(torch, path), Distribution::Uniform { bound: 0.25 });
        }
    }

    #[test]
    fn values_have_the_spread_that_was_asked_for() {
        let n = 20_000;
        let moments = |distribution: Distribution| {
            let values = distribution.sample(7, n);
            assert_eq!(values.len(), n);
            let mean = |of: &dyn Fn(f32) -> f32| {
                values.iter().map(|&x| f64::from(of(x))).sum::<f64>() / n as f64
            };
            let largest = values.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
            (mean(&|x| x), mean(&|x| x * x).sqrt(), largest)
        };
        let (mean, std, largest) = moments(Distribution::Normal { std: 0.2 });
        assert!(
            mean.abs() < 0.006 && (std - 0.2).abs() < 0.004 && largest > 0.6,
            "{mean} {std} {largest}"
        );
        // The deviation of a uniform draw is its bound over √3.
        let (mean, std, largest) = moments(Distribution::Uniform { bound: 0.3 });
        assert!(
            mean.abs() < 0.006 && (std - 0.3 / 3f64.sqrt()).abs() < 0.003,
            "{mean} {std}"
        );
        assert!((0.299..=0.3).contains(&largest), "{largest}");
        assert_eq!(moments(Distribution::Constant(1.5)), (1.5, 1.5, 1.5));
        // A longer list begins like a shorter one: values belong to their place.
        let normal = Distribution::Normal { std: 1.0 };
        assert_eq!(normal.sample(7, 5), normal.sample(7, 9)[..5]);
        assert_ne!(normal.sample(7, 5), normal.sample(8, 5));
    }
}

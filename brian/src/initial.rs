//! Draws a model's initial values on the host, under `Initial` (scaled normal, or PyTorch's defaults), from what its modules
//! say of their parameters in `described`.
//!
//! Each value is a function of (seed, path, index), so it depends neither on the backend nor on the order in which the
//! parameters are created. Burn's own initialisation is lazy and draws in the order of access.

use crate::described::{Described, Description, FanIn, Start};
use crate::parameter::{self, Change};
use crate::random;
use crate::width_transfer::Ratios;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
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

/// Draws every parameter of a model as its modules say; `n_layers` is the number of residual blocks that one token passes, and
/// `ratios` are how much larger the model is than its base.
pub(crate) fn draw<B: Backend, M: Described<B>>(
    model: M,
    initial: Initial,
    n_layers: usize,
    ratios: Ratios,
    seed: u64,
) -> M {
    let description = Description::of(&model);
    let draw = Draw {
        description,
        initial,
        n_layers,
        ratios,
        seed,
    };
    parameter::change(model, draw)
}

struct Draw {
    description: Description,
    initial: Initial,
    n_layers: usize,
    ratios: Ratios,
    seed: u64,
}

impl<B: Backend> Change<B> for Draw {
    fn change<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>> {
        let shape = param.lazy_shape();
        let values = match self.description.start(param.id) {
            Start::Own(values) => values(self.seed),
            start => {
                let d_in = shape.as_slice()[0];
                let factor = self.ratios.initial(self.description.fan_in(param.id));
                let distribution = Distribution::of(start, d_in, self.initial, self.n_layers);
                let distribution = distribution.scaled(factor);
                let n_values = shape.num_elements();
                let mut values = distribution.sample(random::key(self.seed, path, 0), n_values);
                if let &Start::MapBeside { rows } = start {
                    // What they are multiplied by is `m`: together with the map's own factor theirs is `1/m`.
                    let beside = self.ratios.initial(FanIn::Width) as f32;
                    let first = n_values / d_in * (d_in - rows);
                    values[first..]
                        .iter_mut()
                        .for_each(|value| *value *= beside);
                }
                values
            }
        };
        parameter::with_values(path, &param, values)
    }
}

/// Draws all parameters of a model that says nothing of them: with two or more dimensions normal with standard deviation
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
    /// Of a parameter with `d_in` rows; one with values of its own has no distribution.
    fn of(start: &Start, d_in: usize, initial: Initial, n_layers: usize) -> Self {
        let uniform = |d_in: usize| Self::Uniform {
            bound: 1.0 / (d_in as f64).sqrt(),
        };
        match (initial, start) {
            (_, &Start::Constant(value)) => Self::Constant(value),
            (_, &Start::Normal { std }) => Self::Normal { std },
            (Initial::Scaled { .. }, Start::Bias { .. }) => Self::Constant(0.0),
            (Initial::Scaled { std }, Start::IntoStream) => Self::Normal {
                std: std / (2.0 * n_layers as f64).sqrt(),
            },
            (Initial::Scaled { std }, _) => Self::Normal { std },
            (Initial::TorchDefault, Start::Embedding) => Self::Normal { std: 1.0 },
            (Initial::TorchDefault, &Start::Bias { d_in }) => uniform(d_in),
            (Initial::TorchDefault, _) => uniform(d_in),
        }
    }

    /// With another deviation; constants stay.
    fn scaled(self, by: f64) -> Self {
        match self {
            Self::Constant(_) => self,
            Self::Normal { std } => Self::Normal { std: std * by },
            Self::Uniform { bound } => Self::Uniform { bound: bound * by },
        }
    }

    fn sample(self, key: u64, n: usize) -> Vec<f32> {
        let draw = |index: u64| match self {
            Self::Constant(value) => value,
            Self::Normal { std } => std * random::normal(key, index),
            Self::Uniform { bound } => bound * (2.0 * random::uniform(key, index) - 1.0),
        };
        (0..n as u64).map(|index| draw(index) as f32).collect()
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::ops::tests::Learning;
    use crate::{BaselineConfig, compat};

    /// The distributions of the parameters of a model of width 12 and four more for positions, by path; maps have `d_in` rows.
    fn distributions(d_in: usize) -> impl Fn(Initial, &str, usize) -> Distribution {
        let baseline = BaselineConfig {
            initial: Initial::TorchDefault,
            ..compat::baseline(12, 2, 4, 6)
        };
        let config = compat::brian(baseline, 1, 2, 4, 2);
        // Behind this, ids are those of paths.
        let model = config.skeleton::<Learning>(7, &Default::default());
        let description = Description::of(&parameter::identify(model));
        move |initial, path, n_layers| {
            let start = description.start(parameter::id(path));
            Distribution::of(start, d_in, initial, n_layers)
        }
    }

    #[test]
    fn what_feeds_the_residual_stream_starts_smaller_with_depth() {
        let scaled = Initial::Scaled { std: 0.02 };
        let distribution = distributions(64);
        let of = |path, n_layers| distribution(scaled, path, n_layers);
        let inner = of("pre.0.feed_forward.up.weight", 8);
        assert_eq!(inner, Distribution::Normal { std: 0.02 });
        let output = of("pre.0.attention.output.weight", 8);
        assert_eq!(output, Distribution::Normal { std: 0.005 });
    }

    #[test]
    fn gains_start_at_one_under_every_initialisation() {
        let of = distributions(64);
        for initial in [Initial::Scaled { std: 0.02 }, Initial::TorchDefault] {
            for path in [
                "norm.gamma",
                "exit.norm.gamma",
                "pre.0.attention_norm.gamma",
                "pool.1.block.feed_forward_norm.gamma",
            ] {
                assert_eq!(of(initial, path, 4), Distribution::Constant(1.0));
            }
        }
    }

    #[test]
    fn each_parameter_has_its_distribution() {
        let scaled = Initial::Scaled { std: 0.1 };
        let distribution = distributions(16);
        let of = |initial, path: &str| distribution(initial, path, 2);
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

    /// A model that has a map called `output` in a part called `attention`, and says nothing of either.
    #[test]
    fn a_name_says_nothing() {
        #[derive(Module, Debug)]
        struct Own<B: Backend> {
            attention: Inner<B>,
        }

        #[derive(Module, Debug)]
        struct Inner<B: Backend> {
            output: burn::nn::Linear<B>,
        }

        impl<B: Backend> Described<B> for Own<B> {
            fn describe(&self, _: &mut Description) {}
        }

        let output = crate::block::matrix::matrix(3, 5, &Default::default());
        let attention = Inner::<Learning> { output };
        let scaled = Initial::Scaled { std: 0.3 };
        let model = draw(Own { attention }, scaled, 50, Ratios::default(), 1);
        let key = random::key(1, "attention.output.weight", 0);
        let expected = Distribution::Normal { std: 0.3 }.sample(key, 15);
        let weight = model.attention.output.weight.val().into_data();
        assert_eq!(weight.iter::<f32>().collect::<Vec<_>>(), expected);
        let cast = crate::precision::with_matmul_dtype(model, burn::tensor::DType::F64);
        let kept = cast.attention.output.weight.val().dtype();
        assert_eq!(kept, burn::tensor::DType::F32);
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

//! Measures the gradient of a step over all parameters (global norm, norm of each, first one that is not finite), and
//! clips it by the global norm.
//!
//! Burn clips every tensor by its own norm, which changes the direction of the step.

use super::gpu;
use brian::parameter::Path;
use burn::module::{AutodiffModule, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use std::collections::BTreeMap;

/// The norms of a gradient, and whether it is finite.
pub struct Norm {
    /// Euclidean norm over all parameters.
    pub length: f64,
    /// The first parameter whose gradient is not finite.
    pub not_finite: Option<String>,
    /// The norm of each parameter's gradient alone, by path.
    pub by_path: BTreeMap<String, f64>,
}

/// Measures a gradient with one read-back.
pub fn norm<B: AutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    gradients: &GradientsParams,
) -> Norm {
    let mut visitor = All::<B> {
        path: Path::default(),
        gradients,
        paths: Vec::new(),
        all: Vec::new(),
    };
    model.visit(&mut visitor);
    if visitor.all.is_empty() {
        return Norm {
            length: 0.0,
            not_finite: None,
            by_path: BTreeMap::new(),
        };
    }
    let squares = gpu::squares(&visitor.all).unwrap_or_else(|| {
        let squares = visitor
            .all
            .into_iter()
            .map(|gradient| gradient.square().sum());
        Tensor::cat(squares.collect(), 0)
            .into_data()
            .iter()
            .collect()
    });
    let bad = squares.iter().position(|square| !square.is_finite());
    Norm {
        length: squares.iter().sum::<f64>().sqrt(),
        not_finite: bad.map(|index| visitor.paths[index].clone()),
        by_path: visitor
            .paths
            .into_iter()
            .zip(squares)
            .map(|(path, square)| (path, square.sqrt()))
            .collect(),
    }
}

/// Clips a gradient: one of norm `length` is scaled down to at most `longest`.
pub fn clip<B: AutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    gradients: GradientsParams,
    length: f64,
    longest: f64,
) -> GradientsParams {
    match length > longest {
        true => scale(model, gradients, longest / length),
        false => gradients,
    }
}

/// Multiplies a gradient by a number.
fn scale<B: AutodiffBackend, M: AutodiffModule<B>>(
    model: &M,
    gradients: GradientsParams,
    factor: f64,
) -> GradientsParams {
    let mut visitor = Scale {
        from: gradients,
        to: GradientsParams::new(),
        factor,
    };
    model.visit(&mut visitor);
    visitor.to
}

struct All<'a, B: AutodiffBackend> {
    path: Path,
    gradients: &'a GradientsParams,
    paths: Vec<String>,
    all: Vec<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for All<'_, B> {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.get::<B::InnerBackend, D>(param.id) {
            self.paths.push(self.path.join());
            let n = gradient.shape().num_elements();
            self.all.push(gradient.reshape([n]));
        }
    }
}

struct Scale {
    from: GradientsParams,
    to: GradientsParams,
    factor: f64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.from.remove::<B::InnerBackend, D>(param.id) {
            self.to.register(param.id, gradient.mul_scalar(self.factor));
        }
    }
}

//! `OptimizerConfig`, the `[optimizer]` table of a recipe; `GroupedAdamW`: AdamW (Loshchilov, Hutter 2019)
//! that decays matrices only (all, if the recipe says so); exports and imports its moments by parameter path.
//!
//! Norm gains and biases are not decayed: it would only pull them off the scale they have to keep.

use super::gpu;
use super::one_pass::OnePassAdamW;
use super::step::Update;
use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap, Values, require_finite};
use brian::parameter::{self, Path};
use brillm::row_adamw::{AdamW as RowSettings, Mode};
use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::record::AdaptorRecord;
use burn::optim::{AdamW, AdamWState, AdaptiveMomentumState, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The moments of what was updated, and how often it was.
type Records<M, B> = <OptimizerAdaptor<AdamW, M, B> as Optimizer<M, B>>::Record;

const MOMENT_1: &str = ".moment_1";
const MOMENT_2: &str = ".moment_2";

/// The optimizer of a recipe.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerConfig {
    /// AdamW (Loshchilov and Hutter 2019).
    Adamw {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Keeps the division finite.
        epsilon: f64,
        /// Share of a weight that is taken away per unit of learning rate.
        weight_decay: f64,
        /// Which weights that holds for.
        decay: Decay,
        /// The longest global gradient; longer ones are scaled to it.
        clip_norm: f64,
    },
    /// AdamW of a BriLLM, row by row of its edge table.
    RowAdamw {
        /// What happens to rows that a step did not use.
        mode: Mode,
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Keeps the division finite.
        epsilon: f64,
        /// Share of a weight that is taken away per unit of learning rate.
        weight_decay: f64,
        /// The longest gradient of a row; longer ones are scaled to it.
        clip_row: f64,
    },
}

impl OptimizerConfig {
    /// The word in `optimizer.kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Adamw { .. } => "adamw",
            Self::RowAdamw { .. } => "row_adamw",
        }
    }

    /// The longest global gradient.
    pub fn clip_norm(&self) -> f64 {
        match self {
            Self::Adamw { clip_norm, .. } => *clip_norm,
            Self::RowAdamw { .. } => f64::INFINITY,
        }
    }

    /// The settings that both kinds have: betas, epsilon and weight decay.
    pub fn adamw(&self) -> RowSettings {
        match self {
            Self::Adamw {
                betas,
                epsilon,
                weight_decay,
                ..
            }
            | Self::RowAdamw {
                betas,
                epsilon,
                weight_decay,
                ..
            } => RowSettings {
                betas: *betas,
                epsilon: *epsilon,
                weight_decay: *weight_decay,
            },
        }
    }
}

/// Which weights are decayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Those with two or more dimensions: no gains, no biases.
    Matrices,
    /// All.
    All,
}

impl Decay {
    fn applies_to(self, dimensions: usize) -> bool {
        match self {
            Self::Matrices => dimensions >= 2,
            Self::All => true,
        }
    }
}

/// Whether moments and times are those of parameters of these shapes.
fn check(
    shapes: &BTreeMap<String, Vec<usize>>,
    tensors: &TensorMap,
    times: &BTreeMap<String, u64>,
    file: &std::path::Path,
) -> Result<(), Problem> {
    let wrong = |place: String, found: String, expected: String| {
        let problem = Problem::new(file, place, found, expected);
        Err(problem.advise("the recipe and the checkpoint do not belong together"))
    };
    let mut expected = BTreeMap::new();
    for path in times.keys() {
        let Some(shape) = shapes.get(path) else {
            let place = format!("optimizer_times.{path}");
            return wrong(place, "updates".into(), "those of a parameter".into());
        };
        expected.extend([MOMENT_1, MOMENT_2].map(|suffix| (format!("{path}{suffix}"), shape)));
    }
    for (name, shape) in &expected {
        let found = tensors.get(name).map(|tensor| &tensor.shape);
        if found != Some(*shape) {
            let found = found.map_or("nothing".to_string(), |found| format!("shape {found:?}"));
            return wrong(format!("tensor {name}"), found, format!("shape {shape:?}"));
        }
    }
    if let Some(name) = tensors.keys().find(|name| !expected.contains_key(*name)) {
        let place = format!("tensor {name}");
        return wrong(
            place,
            "a tensor".into(),
            "moments of what was updated".into(),
        );
    }
    check_moments(tensors, file)
}

/// Checks that moments are finite, and those of squares not negative, because their root is taken.
///
/// # Errors
/// The first tensor that is not so.
pub fn check_moments(tensors: &TensorMap, file: &std::path::Path) -> Result<(), Problem> {
    require_finite(tensors, file)?;
    let squares = tensors.iter().filter(|(name, _)| name.ends_with(MOMENT_2));
    for (name, tensor) in squares {
        let negative = match &*tensor.values {
            Values::F32(values) => values.iter().position(|value| *value < 0.0),
            Values::Bf16(values) => values.iter().position(|value| value.to_f32() < 0.0),
        };
        if let Some(index) = negative {
            let found = format!("a negative number at index {index}");
            let place = format!("tensor {name}");
            return Err(Problem::new(file, place, found, "means of squares"));
        }
    }
    Ok(())
}

/// One AdamW for decayed parameters and one for the others; every parameter belongs to one of them.
#[derive(Clone)]
pub struct GroupedAdamW<M: AutodiffModule<B>, B: AutodiffBackend> {
    decayed: OnePassAdamW,
    plain: OnePassAdamW,
    decay: Decay,
    records: Records<M, B>,
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> GroupedAdamW<M, B> {
    /// A fresh optimizer.
    pub fn new(config: &OptimizerConfig) -> Self {
        let RowSettings {
            betas,
            epsilon,
            weight_decay,
        } = config.adamw();
        let decay = match config {
            OptimizerConfig::Adamw { decay, .. } => *decay,
            // Its model has no parameters that this optimizer knows.
            OptimizerConfig::RowAdamw { .. } => Decay::All,
        };
        let adamw = |weight_decay: f64| OnePassAdamW::new(betas, epsilon, weight_decay);
        Self {
            decayed: adamw(weight_decay),
            plain: adamw(0.0),
            decay,
            records: Default::default(),
        }
    }

    /// Moments as `PATH.moment_1` and `PATH.moment_2`, and how often each path was updated.
    pub fn export(&self, model: &M) -> (TensorMap, BTreeMap<String, u64>) {
        let mut visitor = Export::<M, B> {
            path: Path::default(),
            records: self.records.clone(),
            tensors: TensorMap::new(),
            times: BTreeMap::new(),
        };
        model.visit(&mut visitor);
        (visitor.tensors, visitor.times)
    }

    /// The inverse of [`Self::export`]; parameters without a time start fresh.
    ///
    /// # Errors
    /// `Invalid`, naming `file`, if a parameter with a time lacks a moment of its shape, or there is a moment or time of
    /// anything else.
    pub fn import(
        self,
        model: &M,
        tensors: TensorMap,
        times: &BTreeMap<String, u64>,
        file: &std::path::Path,
    ) -> Result<Self, Error> {
        check(&parameter::shapes(model), &tensors, times, file).map_err(Error::Invalid)?;
        let mut visitor = Import::<M, B> {
            path: Path::default(),
            records: Default::default(),
            tensors,
            times,
        };
        model.visit(&mut visitor);
        Ok(Self {
            records: visitor.records,
            ..self
        })
    }

    /// The model after a step with these gradients.
    pub fn step(&mut self, rate: f64, module: M, gradients: GradientsParams) -> M {
        let mut step = OptimizerStep {
            optimizer: self,
            rate,
            gradients,
            waiting: Vec::new(),
        };
        let module = module.map(&mut step);
        gpu::launch::<B::InnerBackend>(step.waiting);
        module
    }
}

/// Updates the parameters that have a gradient.
struct OptimizerStep<'a, M: AutodiffModule<B>, B: AutodiffBackend> {
    optimizer: &'a mut GroupedAdamW<M, B>,
    rate: f64,
    gradients: GradientsParams,
    /// Updates that are launched together at the end of the step.
    waiting: Vec<Update<B::InnerBackend>>,
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> ModuleMapper<B> for OptimizerStep<'_, M, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, weights, mapper) = param.consume();
        let Some(gradient) = self.gradients.remove::<B::InnerBackend, D>(id) else {
            return Param::from_mapped_value(id, weights, mapper);
        };
        let learns = weights.is_require_grad();
        let adamw = match self.optimizer.decay.applies_to(D) {
            true => &self.optimizer.decayed,
            false => &self.optimizer.plain,
        };
        let records = &mut self.optimizer.records;
        let state = records.remove(&id).map(AdaptorRecord::into_state);
        let given = (weights.inner(), gradient, state);
        let (weights, state) = adamw.step(self.rate, given, &mut self.waiting);
        if let Some(state) = state {
            records.insert(id, AdaptorRecord::from_state(state));
        }
        let weights = Tensor::from_inner(weights).set_require_grad(learns);
        Param::from_mapped_value(id, weights, mapper)
    }
}

struct Export<M: AutodiffModule<B>, B: AutodiffBackend> {
    path: Path,
    records: Records<M, B>,
    tensors: TensorMap,
    times: BTreeMap<String, u64>,
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> ModuleVisitor<B> for Export<M, B> {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(record) = self.records.remove(&param.id) else {
            return;
        };
        let path = self.path.join();
        let momentum = record.into_state::<D>().momentum;
        for (suffix, moment) in [(MOMENT_1, momentum.moment_1), (MOMENT_2, momentum.moment_2)] {
            let shape = moment.dims().to_vec();
            let values = moment.into_data().iter().collect();
            self.tensors
                .insert(format!("{path}{suffix}"), HostTensor::new(shape, values));
        }
        self.times.insert(path, momentum.time as u64);
    }
}

struct Import<'a, M: AutodiffModule<B>, B: AutodiffBackend> {
    path: Path,
    records: Records<M, B>,
    tensors: TensorMap,
    times: &'a BTreeMap<String, u64>,
}

impl<M: AutodiffModule<B>, B: AutodiffBackend> ModuleVisitor<B> for Import<'_, M, B> {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let path = self.path.join();
        let Some(&time) = self.times.get(&path) else {
            return;
        };
        let device = param.device();
        let mut moment = |suffix| -> Tensor<B::InnerBackend, D> {
            let tensor = self.tensors.remove(&format!("{path}{suffix}"));
            let tensor = tensor.expect("moments were checked against the model");
            Tensor::from_data(
                TensorData::new(tensor.floats().into_owned(), tensor.shape),
                &device,
            )
        };
        let momentum =
            AdaptiveMomentumState::new(time as usize, moment(MOMENT_1), moment(MOMENT_2));
        let record = AdaptorRecord::from_state(AdamWState::new(momentum));
        self.records.insert(param.id, record);
    }
}

//! `OptimizerConfig`, the `[optimizer]` table of a recipe; `ParameterOptimizer`: AdamW (Loshchilov, Hutter 2019)
//! that decays matrices only (all, if the recipe says so), or Muon for the maps of blocks and AdamW for the rest; exports and imports its
//! moments by parameter path.
//!
//! Norm gains and biases are not decayed: it would only pull them off the scale they have to keep.

use super::custom_optimizer::{OptimizerTable, Tensors, UpdateInfo};
use super::gpu;
use super::muon::{self, Muon, StepLength};
use super::one_pass::OnePassAdamW;
use super::rate::{DecayBy, Rate, Scale};
use super::step::Update;
use super::weights;
use crate::error::{Error, Problem};
use crate::run::{TensorMap, Values, require_finite};
use brian::parameter::{self, Path};
use brian::width_transfer::UpdateScales;
use brillm::row_adamw::{AdamW as RowSettings, Mode};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// What the optimizer keeps of a parameter.
#[derive(Clone)]
struct Record<B: Backend> {
    /// How often it was updated.
    time: u64,
    /// In the order of [`OptimizerConfig::moments`].
    moments: Vec<FloatTensor<B>>,
}

const MOMENTS: [&str; 2] = ["moment_1", "moment_2"];

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
        /// Share of a weight that is taken away per unit of what `decay_by` names.
        weight_decay: f64,
        /// Which weights that holds for.
        decay: Decay,
        /// What weight decay is multiplied by at a step; the learning rate if it is left out.
        decay_by: Option<DecayBy>,
        /// The longest global gradient; longer ones are scaled to it.
        clip_norm: f64,
    },
    /// Muon (Jordan 2024) for the maps of attention and feed-forward, AdamW for everything else.
    Muon {
        /// How much of Muon's momentum stays.
        momentum: f64,
        /// Whether Muon's step looks ahead.
        nesterov: bool,
        /// How long Muon's steps are.
        step_length: StepLength,
        /// The learning rate of what AdamW updates, as a share of the stage's.
        adamw_rate: f64,
        /// Decay of AdamW's two moments.
        betas: [f64; 2],
        /// Keeps AdamW's division finite.
        epsilon: f64,
        /// Share of a weight that is taken away per unit of what `decay_by` names.
        weight_decay: f64,
        /// Which weights that holds for.
        decay: Decay,
        /// What weight decay is multiplied by at a step; the learning rate if it is left out.
        decay_by: Option<DecayBy>,
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
    /// One of the program.
    #[serde(skip)]
    Custom(OptimizerTable),
}

impl OptimizerConfig {
    /// The kinds that come with the program.
    pub const BUILT_IN: [&str; 3] = ["adamw", "muon", "row_adamw"];

    /// The word in `optimizer.kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Adamw { .. } => "adamw",
            Self::Muon { .. } => "muon",
            Self::RowAdamw { .. } => "row_adamw",
            Self::Custom(table) => table.kind(),
        }
    }

    /// The longest global gradient.
    pub fn clip_norm(&self) -> f64 {
        match self {
            Self::Adamw { clip_norm, .. } | Self::Muon { clip_norm, .. } => *clip_norm,
            Self::RowAdamw { .. } => f64::INFINITY,
            Self::Custom(table) => table.clip_norm(),
        }
    }

    /// What is kept of every parameter: the words behind its path in checkpoints. Of a map that Muon updates only the first is.
    pub fn moments(&self) -> &'static [&'static str] {
        match self {
            Self::Adamw { .. } | Self::Muon { .. } | Self::RowAdamw { .. } => &MOMENTS,
            Self::Custom(table) => table.moments(),
        }
    }

    /// What weight decay is multiplied by at a step.
    pub fn decay_by(&self) -> DecayBy {
        match self {
            Self::Adamw { decay_by, .. } | Self::Muon { decay_by, .. } => {
                decay_by.unwrap_or_default()
            }
            Self::RowAdamw { .. } | Self::Custom(_) => DecayBy::LearningRate,
        }
    }

    /// The settings of AdamW that all kinds of it have: betas, epsilon and weight decay.
    ///
    /// # Panics
    /// If it is one of the program.
    pub fn adamw(&self) -> RowSettings {
        match self {
            Self::Adamw {
                betas,
                epsilon,
                weight_decay,
                ..
            }
            | Self::Muon {
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
            Self::Custom(_) => unreachable!("no AdamW"),
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
    words: impl Fn(&str) -> &'static [&'static str],
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
        let words = words(path).iter();
        expected.extend(words.map(|word| (format!("{path}.{word}"), shape)));
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
    Ok(())
}

/// Checks that moments are finite, and those of squares not negative, because their root is taken.
///
/// # Errors
/// The first tensor that is not so.
pub fn check_moments(tensors: &TensorMap, file: &std::path::Path) -> Result<(), Problem> {
    require_finite(tensors, file)?;
    let squares = tensors
        .iter()
        .filter(|(name, _)| name.ends_with(".moment_2"));
    for (name, tensor) in squares {
        tensor.in_pieces(&mut |start, values| {
            let negative = match values {
                Values::F32(values) => values.iter().position(|value| *value < 0.0),
                Values::Bf16(values) => values.iter().position(|value| value.to_f32() < 0.0),
                Values::Elsewhere(_) => unreachable!("pieces lie in memory"),
            };
            let Some(index) = negative else {
                return Ok(());
            };
            let found = format!("a negative number at index {}", start + index);
            let place = format!("tensor {name}");
            Err(Problem::new(file, place, found, "means of squares"))
        })?;
    }
    Ok(())
}

/// How a parameter is updated.
#[derive(Clone)]
enum Rule {
    /// AdamW, for decayed parameters and for the others.
    Adamw {
        decayed: OnePassAdamW,
        plain: OnePassAdamW,
        decay: Decay,
    },
    /// Muon for the maps of blocks, AdamW for the others.
    Muon {
        muon: Muon,
        adamw_rate: f64,
        decayed: OnePassAdamW,
        plain: OnePassAdamW,
        decay: Decay,
    },
    /// That of a program.
    Custom(OptimizerTable),
}

/// Updates the parameters of a model that have gradients, and keeps their moments.
#[derive(Clone)]
pub struct ParameterOptimizer<B: AutodiffBackend> {
    rule: Rule,
    moments: &'static [&'static str],
    scales: UpdateScales,
    records: HashMap<ParamId, Record<B::InnerBackend>>,
}

impl<B: AutodiffBackend> ParameterOptimizer<B> {
    /// A fresh optimizer.
    pub fn new(config: &OptimizerConfig) -> Self {
        let pair = || {
            let RowSettings {
                betas,
                epsilon,
                weight_decay,
            } = config.adamw();
            let by = config.decay_by();
            [weight_decay, 0.0].map(|decay| OnePassAdamW::new(betas, epsilon, decay, by))
        };
        let adamw = |decay| {
            let [decayed, plain] = pair();
            Rule::Adamw {
                decayed,
                plain,
                decay,
            }
        };
        Self {
            rule: match config {
                OptimizerConfig::Adamw { decay, .. } => adamw(*decay),
                OptimizerConfig::Muon {
                    momentum,
                    nesterov,
                    step_length,
                    adamw_rate,
                    weight_decay,
                    decay,
                    ..
                } => {
                    let [decayed, plain] = pair();
                    Rule::Muon {
                        muon: Muon {
                            momentum: *momentum,
                            nesterov: *nesterov,
                            step_length: *step_length,
                            weight_decay: *weight_decay,
                            decay_by: config.decay_by(),
                        },
                        adamw_rate: *adamw_rate,
                        decayed,
                        plain,
                        decay: *decay,
                    }
                }
                // Its model has no parameters that this optimizer knows.
                OptimizerConfig::RowAdamw { .. } => adamw(Decay::All),
                OptimizerConfig::Custom(table) => Rule::Custom(table.clone()),
            },
            moments: config.moments(),
            scales: UpdateScales::default(),
            records: HashMap::new(),
        }
    }

    /// Says by how much AdamW's settings are multiplied in the model that is updated.
    pub fn scale_by(&mut self, scales: UpdateScales) {
        self.scales = scales;
    }

    /// What is kept of a parameter: the words behind its path.
    fn words(&self, path: &str, dimensions: usize) -> &'static [&'static str] {
        match self.rule {
            Rule::Muon { .. } if muon::is_of_a_block(path, dimensions) => &self.moments[..1],
            _ => self.moments,
        }
    }

    /// Moments as `PATH.moment_1` and so on, and how often each path was updated.
    pub fn export<M: Module<B>>(&self, model: &M) -> (TensorMap, BTreeMap<String, u64>) {
        let mut visitor = Export {
            path: Path::default(),
            optimizer: self,
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
    /// anything else, or one that no training can have left.
    pub fn import<M: Module<B>>(
        mut self,
        model: &M,
        tensors: TensorMap,
        times: &BTreeMap<String, u64>,
        file: &std::path::Path,
    ) -> Result<Self, Error> {
        let shapes = parameter::shapes(model);
        let words = |path: &str| self.words(path, shapes[path].len());
        check(&shapes, &tensors, times, words, file).map_err(Error::Invalid)?;
        match self.rule {
            Rule::Adamw { .. } | Rule::Muon { .. } => check_moments(&tensors, file),
            Rule::Custom(_) => require_finite(&tensors, file),
        }
        .map_err(Error::Invalid)?;
        let mut visitor = Import {
            path: Path::default(),
            optimizer: &mut self,
            tensors,
            times,
        };
        model.visit(&mut visitor);
        Ok(self)
    }

    /// The model after a step with these gradients.
    pub fn step<M: Module<B>>(&mut self, rate: Rate, module: M, gradients: GradientsParams) -> M {
        let maps = match self.rule {
            Rule::Muon { .. } => muon::maps_of(&module),
            _ => HashMap::new(),
        };
        let mut step = OptimizerStep {
            optimizer: self,
            maps,
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
struct OptimizerStep<'a, B: AutodiffBackend> {
    optimizer: &'a mut ParameterOptimizer<B>,
    /// Those that Muon updates, with the columns of each that are a map of their own.
    maps: HashMap<ParamId, Vec<Range<usize>>>,
    rate: Rate,
    gradients: GradientsParams,
    /// Updates that are launched together at the end of the step.
    waiting: Vec<Update<B::InnerBackend>>,
}

impl<B: AutodiffBackend> ModuleMapper<B> for OptimizerStep<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, weights, mapper) = param.consume();
        let Some(gradient) = self.gradients.remove::<B::InnerBackend, D>(id) else {
            return Param::from_mapped_value(id, weights, mapper);
        };
        let learns = weights.is_require_grad();
        let ParameterOptimizer {
            rule,
            moments: words,
            scales,
            records,
        } = &mut *self.optimizer;
        let scale = Scale {
            rate: scales.rate(id),
            epsilon: scales.epsilon,
        };
        let record = records.remove(&id);
        let time = 1 + record.as_ref().map_or(0, |record| record.time);
        let moments: Vec<_> = match record {
            Some(record) => record.moments.into_iter().map(of_primitive).collect(),
            None => {
                let words = match self.maps.contains_key(&id) {
                    true => &words[..1],
                    false => &words[..],
                };
                words.iter().map(|_| gradient.zeros_like()).collect()
            }
        };
        let weights = weights.inner();
        let waiting = &mut self.waiting;
        // Nobody else may hold what it is given: what has one owner is not copied.
        let mut by_adamw = |adamw: &OnePassAdamW, rate, tensors: [_; 2], moments: Vec<_>| {
            let [weights, gradient] = tensors;
            let [first, second] = moments.try_into().expect("two moments");
            let given = [weights, gradient, first, second];
            let [weights, first, second] = adamw.step((rate, scale), time, given, waiting);
            (weights, vec![first, second])
        };
        let (weights, moments) = match rule {
            Rule::Adamw {
                decayed,
                plain,
                decay,
            } => {
                let adamw = if decay.applies_to(D) { decayed } else { plain };
                by_adamw(adamw, self.rate, [weights, gradient], moments)
            }
            Rule::Muon { muon, .. } if let Some(columns) = self.maps.get(&id) => {
                let [momentum] = moments.try_into().expect("one moment");
                let [weights, momentum] =
                    muon.update_maps(self.rate, [weights, gradient, momentum], columns);
                (weights, vec![momentum])
            }
            Rule::Muon {
                adamw_rate,
                decayed,
                plain,
                decay,
                ..
            } => {
                let adamw = if decay.applies_to(D) { decayed } else { plain };
                by_adamw(
                    adamw,
                    self.rate.scaled(*adamw_rate),
                    [weights, gradient],
                    moments,
                )
            }
            Rule::Custom(table) => {
                let at = UpdateInfo {
                    rate: self.rate.now,
                    time,
                };
                let tensors = Tensors {
                    weights,
                    gradient,
                    moments,
                };
                table.update(at, tensors)
            }
        };
        let primitive = |moment: Tensor<B::InnerBackend, D>| moment.into_primitive().tensor();
        let moments = moments.into_iter().map(primitive).collect();
        records.insert(id, Record { time, moments });
        let weights = Tensor::from_inner(weights).set_require_grad(learns);
        Param::from_mapped_value(id, weights, mapper)
    }
}

fn of_primitive<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

struct Export<'a, B: AutodiffBackend> {
    path: Path,
    optimizer: &'a ParameterOptimizer<B>,
    tensors: TensorMap,
    times: BTreeMap<String, u64>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Export<'_, B> {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(record) = self.optimizer.records.get(&param.id) else {
            return;
        };
        let path = self.path.join();
        for (word, moment) in self.optimizer.moments.iter().zip(&record.moments) {
            let moment: Tensor<B::InnerBackend, D> = of_primitive(moment.clone());
            let moment = weights::on_host(parameter::numbers(moment));
            self.tensors.insert(format!("{path}.{word}"), moment);
        }
        self.times.insert(path, record.time);
    }
}

struct Import<'a, B: AutodiffBackend> {
    path: Path,
    optimizer: &'a mut ParameterOptimizer<B>,
    tensors: TensorMap,
    times: &'a BTreeMap<String, u64>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Import<'_, B> {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let path = self.path.join();
        let Some(&time) = self.times.get(&path) else {
            return;
        };
        let device = param.device();
        let mut moment = |word: &&str| {
            let tensor = self.tensors.remove(&format!("{path}.{word}"));
            let tensor = tensor.expect("moments were checked against the model");
            let data = TensorData::new(tensor.floats().into_owned(), tensor.shape);
            let moment = Tensor::<B::InnerBackend, D>::from_data(data, &device);
            moment.into_primitive().tensor()
        };
        let words = self.optimizer.words(&path, D);
        let moments = words.iter().map(&mut moment).collect();
        self.optimizer
            .records
            .insert(param.id, Record { time, moments });
    }
}

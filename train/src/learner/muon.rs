//! Muon (Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"): momentum whose step is made nearly orthogonal, for the
//! maps of blocks. With a gradient `G` of a map `[d_in, d_out]`, momentum `μ` and rate `η`:
//!
//! ```text
//! M ← μ M + G                       U = G + μ M  (Nesterov), or M
//! X = U / ‖U‖, five times X ← a X + (b A + c A²) X with A = X Xᵀ       (Newton and Schulz; a, b, c = 3.4445, −4.775, 2.0315)
//! W ← (1 − η λ) W − η s X           s = √max(1, d_out / d_in), or 0.2 √max(d_in, d_out)
//! ```
//!
//! Where decay goes by the schedule, `1 − η λ` is `1 − (η / η_peak) λ`.
//!
//! The second `s` makes steps as long as AdamW's are (Liu et al. 2025, "Muon is scalable for LLM training"), so that its rates and weight
//! decay can be kept. Burn's own Muon takes a map's rows for its outputs, as PyTorch has them; ours are its inputs.

use super::rate::{DecayBy, Rate};
use brian::parameter::Path;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::Deserialize;
use std::collections::HashMap;
use std::ops::Range;

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
    /// Share of a weight that is taken away per unit of what `decay_by` names.
    pub weight_decay: f64,
    /// What weight decay is multiplied by.
    pub decay_by: DecayBy,
}

impl Muon {
    /// A map after an update, and its momentum.
    ///
    /// # Shapes
    /// `[d_in, d_out]` each
    pub fn update<B: Backend>(
        &self,
        rate: Rate,
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
        let kept = weights * (1.0 - self.decay_by.factor(rate) * self.weight_decay);
        [kept - orthogonal(step) * (rate.now * length), momentum]
    }

    /// The same for maps that lie side by side in one, each by itself.
    ///
    /// # Shapes
    /// Weights, gradient and momentum: `[d_in, d_out]` each, of which `columns` are those of each map
    pub(super) fn update_maps<B: Backend, const D: usize>(
        &self,
        rate: Rate,
        all: [Tensor<B, D>; 3],
        columns: &[Range<usize>],
    ) -> [Tensor<B, D>; 2] {
        let dims = all[0].dims();
        let all = all.map(|tensor| tensor.reshape([dims[0] as i32, -1]));
        let update = |columns: &Range<usize>| {
            let part = |tensor: &Tensor<B, 2>| tensor.clone().slice_dim(1, columns.clone());
            let [weights, gradient, momentum] = all.each_ref().map(part);
            self.update(rate, weights, gradient, momentum)
        };
        let updated: Vec<[Tensor<B, 2>; 2]> = columns.iter().map(update).collect();
        [0, 1].map(|which| {
            let parts = updated.iter().map(|parts| parts[which].clone());
            Tensor::cat(parts.collect(), 1).reshape(dims)
        })
    }

    fn length(&self, [d_in, d_out]: [usize; 2]) -> f64 {
        let (d_in, d_out) = (d_in as f64, d_out as f64);
        match self.step_length {
            StepLength::Original => (d_out / d_in).max(1.0).sqrt(),
            StepLength::LikeAdamw => 0.2 * d_in.max(d_out).sqrt(),
        }
    }
}

/// Whether a parameter is a map of attention or feed-forward, by its path and its number of dimensions.
pub(super) fn is_of_a_block(path: &str, dimensions: usize) -> bool {
    let is_in = |part: &str| path.split('.').any(|name| name == part);
    dimensions == 2 && (is_in("attention") || is_in("feed_forward")) && path.ends_with(".weight")
}

/// The maps of a model that Muon updates, each with the columns of those that lie side by side in it: queries, keys and values do.
pub(super) fn maps_of<B: Backend, M: Module<B>>(model: &M) -> HashMap<ParamId, Vec<Range<usize>>> {
    struct Maps {
        path: Path,
        found: Vec<(String, ParamId, Vec<usize>)>,
    }

    impl<B: Backend> ModuleVisitor<B> for Maps {
        keeps_path!();

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let path = self.path.join();
            if is_of_a_block(&path, D) {
                let dims = param.lazy_shape().to_vec();
                self.found.push((path, param.id, dims));
            }
        }
    }

    let mut maps = Maps {
        path: Path::default(),
        found: Vec::new(),
    };
    model.visit(&mut maps);
    let width_of_queries = |path: &str| {
        let output = path.replace("query_key_value", "output");
        let found = maps.found.iter().find(|(path, ..)| *path == output);
        found.map(|(_, _, dims)| dims[0])
    };
    let columns = |(path, id, dims): &(String, ParamId, Vec<usize>)| {
        let width = dims[1];
        let queries = match path.contains("query_key_value") {
            true => width_of_queries(path).filter(|&queries| queries < width),
            false => None,
        };
        let borders = match queries {
            None => vec![0, width],
            Some(queries) => vec![0, queries, (queries + width) / 2, width],
        };
        let columns = borders.windows(2).map(|two| two[0]..two[1]).collect();
        (*id, columns)
    };
    maps.found.iter().map(columns).collect()
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

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::device::tests::{Learning as Single, LearningInDouble as Double};
    use crate::learner::{Decay, OptimizerConfig, ParameterOptimizer, Schedule};
    use brian::random;
    use burn::optim::GradientsParams;
    use burn::tensor::backend::AutodiffBackend;
    use burn::tensor::{Element, TensorData};
    use std::path::Path as File;

    #[derive(Module, Debug)]
    struct Map<B: Backend> {
        weight: Param<Tensor<B, 2>>,
    }

    #[derive(Module, Debug)]
    struct Attention<B: Backend> {
        query_key_value: Map<B>,
        output: Map<B>,
    }

    #[derive(Module, Debug)]
    struct Toy<B: Backend> {
        attention: Attention<B>,
        feed_forward: Map<B>,
        embedding: Map<B>,
    }

    /// A gain by the name of a map, as models of a program may have it.
    #[derive(Module, Debug)]
    struct Gain<B: Backend> {
        weight: Param<Tensor<B, 1>>,
    }

    #[derive(Module, Debug)]
    struct Gains<B: Backend> {
        attention: Gain<B>,
    }

    /// Queries of 6 columns, keys and values of 3 each.
    const SHAPES: [[usize; 2]; 4] = [[5, 12], [6, 5], [5, 8], [7, 5]];
    const STEPS: u64 = 8;
    const RATE: f64 = 0.02;
    const ADAMW_RATE: f64 = 0.5;
    const BETAS: [f64; 2] = [0.9, 0.95];
    const EPSILON: f64 = 1e-8;
    const WEIGHT_DECAY: f64 = 0.1;

    fn drawn(name: &str, number: u64, [rows, columns]: [usize; 2]) -> Vec<f64> {
        let key = random::key(11, name, number);
        (0..(rows * columns) as u64)
            .map(|place| random::normal(key, place))
            .collect()
    }

    fn tensor<B: Backend>(values: Vec<f64>, shape: [usize; 2]) -> Tensor<B, 2> {
        let device = B::Device::default();
        // Both precisions share a device, whose own would be that of whoever came first.
        Tensor::from_data(
            TensorData::new(values, shape),
            (&device, B::FloatElem::dtype()),
        )
    }

    impl<B: Backend> Toy<B> {
        fn new() -> Self {
            let map = |index: usize| {
                let values = drawn("weights", index as u64, SHAPES[index]);
                Map {
                    weight: Param::from_tensor(tensor(values, SHAPES[index])),
                }
            };
            Self {
                attention: Attention {
                    query_key_value: map(0),
                    output: map(1),
                },
                feed_forward: map(2),
                embedding: map(3),
            }
        }

        fn maps(&self) -> [&Param<Tensor<B, 2>>; 4] {
            let Attention {
                query_key_value,
                output,
            } = &self.attention;
            [query_key_value, output, &self.feed_forward, &self.embedding].map(|map| &map.weight)
        }

        fn values(&self) -> Vec<Vec<f64>> {
            let values = |map: &Param<Tensor<B, 2>>| map.val().into_data().iter().collect();
            self.maps().map(values).into()
        }
    }

    /// The gradient of a map at a step.
    fn slope(step: u64, index: usize) -> Vec<f64> {
        drawn("slope", 10 * step + index as u64, SHAPES[index])
    }

    fn config(nesterov: bool, step_length: StepLength) -> OptimizerConfig {
        decayed_by(None, nesterov, step_length)
    }

    fn decayed_by(
        decay_by: Option<DecayBy>,
        nesterov: bool,
        step_length: StepLength,
    ) -> OptimizerConfig {
        OptimizerConfig::Muon {
            momentum: 0.95,
            nesterov,
            step_length,
            adamw_rate: ADAMW_RATE,
            betas: BETAS,
            epsilon: EPSILON,
            weight_decay: WEIGHT_DECAY,
            decay: Decay::Matrices,
            decay_by,
            clip_norm: 1.0,
        }
    }

    fn step<B: AutodiffBackend>(
        optimizer: &mut ParameterOptimizer<B>,
        toy: Toy<B>,
        at: u64,
    ) -> Toy<B> {
        step_at(Rate::at_peak(RATE), optimizer, toy, at)
    }

    fn step_at<B: AutodiffBackend>(
        rate: Rate,
        optimizer: &mut ParameterOptimizer<B>,
        toy: Toy<B>,
        at: u64,
    ) -> Toy<B> {
        let products = toy.maps().into_iter().enumerate();
        let sums = products
            .map(|(index, map)| (map.val() * tensor(slope(at, index), SHAPES[index])).sum());
        let loss = sums.reduce(|a, b| a + b).unwrap();
        let gradients = GradientsParams::from_grads(loss.backward(), &toy);
        optimizer.step(rate, toy, gradients)
    }

    /// A matrix as rows of numbers.
    type Rows = Vec<Vec<f64>>;

    fn product(a: &Rows, b: &Rows) -> Rows {
        let entry =
            |row: &Vec<f64>, column: usize| row.iter().zip(b).map(|(a, b)| a * b[column]).sum();
        let columns = b[0].len();
        a.iter()
            .map(|row| (0..columns).map(|column| entry(row, column)).collect())
            .collect()
    }

    fn turned(a: &Rows) -> Rows {
        (0..a[0].len())
            .map(|column| a.iter().map(|row| row[column]).collect())
            .collect()
    }

    fn sum(parts: &[(f64, &Rows)]) -> Rows {
        let entry = |row: usize, column: usize| {
            parts
                .iter()
                .map(|(factor, rows)| factor * rows[row][column])
                .sum()
        };
        let first = parts[0].1;
        (0..first.len())
            .map(|row| {
                (0..first[0].len())
                    .map(|column| entry(row, column))
                    .collect()
            })
            .collect()
    }

    /// The equations, number by number.
    fn plain(nesterov: bool, step_length: StepLength) -> Vec<Vec<f64>> {
        let same = [(RATE, RATE); STEPS as usize];
        plain_with(&same, nesterov, step_length)
    }

    /// The same with the rate of every step, and the factor of weight decay.
    fn plain_with(course: &[(f64, f64)], nesterov: bool, step_length: StepLength) -> Vec<Vec<f64>> {
        let mut all = Vec::new();
        for (index, &[n_rows, n_columns]) in SHAPES.iter().enumerate() {
            let rows =
                |flat: Vec<f64>| -> Rows { flat.chunks(n_columns).map(<[f64]>::to_vec).collect() };
            let mut weights = rows(drawn("weights", index as u64, [n_rows, n_columns]));
            if index == 3 {
                let (mut first, mut second) =
                    (vec![0.0; n_rows * n_columns], vec![0.0; n_rows * n_columns]);
                for at in 0..STEPS {
                    let power = at as i32 + 1;
                    for (place, slope) in slope(at, index).into_iter().enumerate() {
                        first[place] = BETAS[0] * first[place] + (1.0 - BETAS[0]) * slope;
                        second[place] = BETAS[1] * second[place] + (1.0 - BETAS[1]) * slope * slope;
                        let [m, v] = [(first[place], BETAS[0]), (second[place], BETAS[1])]
                            .map(|(moment, beta)| moment / (1.0 - beta.powi(power)));
                        let weight = &mut weights[place / n_columns][place % n_columns];
                        let (now, factor) = course[at as usize];
                        let rate = now * ADAMW_RATE;
                        // By the rate, it is that of AdamW; by the schedule, the schedule's.
                        let factor = if factor == now { rate } else { factor };
                        *weight -=
                            factor * WEIGHT_DECAY * *weight + rate * m / (v.sqrt() + EPSILON);
                    }
                }
                all.push(weights.concat());
                continue;
            }
            let borders = if index == 0 {
                vec![0, 6, 9, 12]
            } else {
                vec![0, n_columns]
            };
            let mut momentum = rows(vec![0.0; n_rows * n_columns]);
            for at in 0..STEPS {
                let slope = rows(slope(at, index));
                momentum = sum(&[(0.95, &momentum), (1.0, &slope)]);
                let ahead = match nesterov {
                    true => sum(&[(1.0, &slope), (0.95, &momentum)]),
                    false => momentum.clone(),
                };
                for border in borders.windows(2) {
                    let part: Rows = ahead
                        .iter()
                        .map(|row| row[border[0]..border[1]].to_vec())
                        .collect();
                    let (d_in, d_out) = (part.len(), part[0].len());
                    let length = part.concat().iter().map(|x| x * x).sum::<f64>().sqrt();
                    let mut x = sum(&[(1.0 / length, &part)]);
                    for _ in 0..5 {
                        // X (a + b XᵀX + c (XᵀX)²), the same for either side.
                        let square = product(&turned(&x), &x);
                        let change = product(
                            &x,
                            &sum(&[(-4.775, &square), (2.0315, &product(&square, &square))]),
                        );
                        x = sum(&[(3.4445, &x), (1.0, &change)]);
                    }
                    let factor = match step_length {
                        StepLength::Original => (d_out as f64 / d_in as f64).max(1.0).sqrt(),
                        StepLength::LikeAdamw => 0.2 * (d_in.max(d_out) as f64).sqrt(),
                    };
                    for (row, step) in weights.iter_mut().zip(&x) {
                        for (weight, step) in row[border[0]..border[1]].iter_mut().zip(step) {
                            let (now, decays) = course[at as usize];
                            *weight = *weight * (1.0 - decays * WEIGHT_DECAY) - now * factor * step;
                        }
                    }
                }
            }
            all.push(weights.concat());
        }
        all
    }

    fn trained<B: AutodiffBackend>(config: &OptimizerConfig) -> Toy<B> {
        let mut optimizer = ParameterOptimizer::<B>::new(config);
        (0..STEPS).fold(Toy::new(), |toy, at| step(&mut optimizer, toy, at))
    }

    #[test]
    fn maps_of_blocks_go_the_way_of_muon_and_the_rest_that_of_adamw() {
        for nesterov in [false, true] {
            for step_length in [StepLength::Original, StepLength::LikeAdamw] {
                let expected = plain(nesterov, step_length);
                let config = config(nesterov, step_length);
                let double = trained::<Double>(&config).values();
                let single = trained::<Single>(&config).values();
                for (found, tolerance) in [(double, 1e-9), (single, 1e-4)] {
                    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        // Burn's AdamW has its settings and their powers in single precision whatever the numbers are in.
                        let tolerance = if index == 3 { 1e-5 } else { tolerance };
                        let numbers = found.iter().zip(expected);
                        let far = numbers.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                        assert!(
                            far < tolerance,
                            "{nesterov} {step_length:?} {index}: {far:e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn decay_by_the_schedule_takes_the_same_share_of_all_maps_at_any_peak() {
        for peak in [0.04, 0.0004] {
            let schedule = Schedule::WarmupCosine {
                peak,
                warmup_steps: Some(3),
                warmup_share: None,
                floor: 0.0,
            };
            let rates: Vec<f64> = (0..STEPS).map(|step| schedule.rate(step, STEPS)).collect();
            let course: Vec<(f64, f64)> = rates.iter().map(|&now| (now, now / peak)).collect();
            let expected = plain_with(&course, true, StepLength::LikeAdamw);
            let config = decayed_by(Some(DecayBy::Schedule), true, StepLength::LikeAdamw);
            let mut optimizer = ParameterOptimizer::<Double>::new(&config);
            let steps = (0..STEPS).zip(rates);
            let trained = steps.fold(Toy::new(), |toy, (at, now)| {
                step_at(Rate::of(now, peak), &mut optimizer, toy, at)
            });
            for (index, (found, expected)) in trained.values().iter().zip(&expected).enumerate() {
                // As above: Burn's AdamW has its settings in single precision.
                let tolerance = if index == 3 { 1e-5 } else { 1e-9 };
                let numbers = found.iter().zip(expected);
                let far = numbers.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(far < tolerance, "{peak} {index}: {far:e}");
            }
        }
    }

    #[test]
    fn a_step_is_nearly_orthogonal_whichever_side_is_longer() {
        for shape in [[4, 9], [9, 4], [6, 6]] {
            let x = orthogonal(tensor::<Double>(drawn("x", 0, shape), shape));
            let x = if shape[0] > shape[1] {
                x.transpose()
            } else {
                x
            };
            let square = x.clone().matmul(x.transpose());
            let [n, _] = square.dims();
            let values: Vec<f64> = square.into_data().iter().collect();
            for (place, value) in values.into_iter().enumerate() {
                let expected = f64::from(u8::from(place / n == place % n));
                // Squares of singular values between 0.7 and 1.2.
                assert!(
                    (value - expected).abs() < 0.55,
                    "{shape:?} {place}: {value}"
                );
            }
        }
        assert_eq!(
            orthogonal(tensor::<Double>(vec![0.0; 6], [2, 3]))
                .into_data()
                .iter::<f64>()
                .sum::<f64>(),
            0.0
        );
    }

    #[test]
    fn momentum_is_saved_under_one_word_and_a_run_goes_on_from_it_to_the_bit() {
        let config = config(true, StepLength::Original);
        let mut optimizer = ParameterOptimizer::<Single>::new(&config);
        let toy = (0..3).fold(Toy::new(), |toy, at| step(&mut optimizer, toy, at));
        let (tensors, times) = optimizer.export(&toy);
        let names: Vec<&str> = tensors.keys().map(String::as_str).collect();
        let expected = [
            "attention.output.weight.moment_1",
            "attention.query_key_value.weight.moment_1",
            "embedding.weight.moment_1",
            "embedding.weight.moment_2",
            "feed_forward.weight.moment_1",
        ];
        assert_eq!(names, expected);
        assert!(times.values().all(|&time| time == 3));
        let fresh = ParameterOptimizer::<Single>::new(&config);
        let mut resumed = fresh
            .import(&toy, tensors, &times, File::new("optim"))
            .unwrap();
        let (on, other) = (toy.clone(), toy);
        let [on, other] = [(on, &mut optimizer), (other, &mut resumed)]
            .map(|(toy, optimizer)| (3..6).fold(toy, |toy, at| step(optimizer, toy, at)));
        assert_eq!(on.values(), other.values());
    }

    #[test]
    fn a_gain_by_the_name_of_a_map_is_a_matter_of_adamw_also_after_a_resume() {
        let config = config(true, StepLength::Original);
        let mut optimizer = ParameterOptimizer::<Single>::new(&config);
        let row = |step: u64| tensor::<Single>(drawn("gain", step, [1, 3]), [1, 3]).reshape([3]);
        let step = |optimizer: &mut ParameterOptimizer<Single>, gains: Gains<Single>, at| {
            let loss = (gains.attention.weight.val() * row(at)).sum();
            let gradients = GradientsParams::from_grads(loss.backward(), &gains);
            optimizer.step(Rate::at_peak(RATE), gains, gradients)
        };
        let weight = Param::from_tensor(row(0));
        let attention = Gain { weight };
        let gains = step(&mut optimizer, Gains { attention }, 1);
        let (tensors, times) = optimizer.export(&gains);
        let names: Vec<&str> = tensors.keys().map(String::as_str).collect();
        let expected = ["attention.weight.moment_1", "attention.weight.moment_2"];
        assert_eq!(names, expected);
        let fresh = ParameterOptimizer::<Single>::new(&config);
        let mut resumed = fresh
            .import(&gains, tensors, &times, File::new("optim"))
            .unwrap();
        let values = |gains: Gains<Single>| gains.attention.weight.val().into_data();
        let on = values(step(&mut optimizer, gains.clone(), 2));
        assert_eq!(on, values(step(&mut resumed, gains, 2)));
    }
}

//! Tests of AdamW, its saved moments, norm and clipping of a gradient, frozen groups, stored weights and learning rate
//! schedules, against numbers computed by hand.

use super::custom_optimizer::{OptimizerEntry, OptimizerTable};
use super::freeze::freeze;
use super::{
    CustomOptimizer, Decay, DecayBy, OptimizerConfig, ParameterOptimizer, Rate, Schedule, Tensors,
    UpdateInfo, gradient, load_model, store_model,
};
use crate::device::tests::{Host, Learning as Single, LearningInDouble as Double};
use crate::run::{HostTensor, TensorMap};
use brian::random;
use brian::width_transfer::UpdateScales;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Element, Tensor, TensorData};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[derive(Module, Debug)]
struct Weights<B: Backend> {
    matrix: Param<Tensor<B, 2>>,
    gain: Param<Tensor<B, 1>>,
}

impl<B: Backend> Weights<B> {
    fn new(matrix: [f64; 2], gain: [f64; 2]) -> Self {
        Self {
            matrix: Param::from_tensor(tensor([1, 2], matrix)),
            gain: Param::from_tensor(tensor([2], gain)),
        }
    }

    /// The matrix's two values and the gain's two.
    fn values(&self) -> [f64; 4] {
        let matrix = self.matrix.val().into_data().iter().collect::<Vec<f64>>();
        let gain = self.gain.val().into_data().iter().collect::<Vec<f64>>();
        [matrix[0], matrix[1], gain[0], gain[1]]
    }
}

fn tensor<B: Backend, const D: usize>(shape: [usize; D], values: [f64; 2]) -> Tensor<B, D> {
    let device = B::Device::default();
    // Both precisions share a device, whose own would be that of whoever came first.
    let place = (&device, B::FloatElem::dtype());
    Tensor::from_data(TensorData::new(values.to_vec(), shape), place)
}

/// The gradient of `Σ slope · weight` is the slope.
fn slopes<B: AutodiffBackend>(weights: &Weights<B>, [a, b, c, d]: [f64; 4]) -> GradientsParams {
    let matrix = (weights.matrix.val() * tensor([1, 2], [a, b])).sum();
    let gain = (weights.gain.val() * tensor([2], [c, d])).sum();
    GradientsParams::from_grads((matrix + gain).backward(), weights)
}

fn config(betas: [f64; 2], epsilon: f64, weight_decay: f64, decay: Decay) -> OptimizerConfig {
    OptimizerConfig::Adamw {
        betas,
        epsilon,
        weight_decay,
        decay,
        decay_by: None,
        clip_norm: 1.0,
    }
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (one, other) in found.iter().zip(expected) {
        assert!(
            (one - other).abs() < tolerance,
            "{found:?} and {expected:?}"
        );
    }
}

fn on_paper<B: AutodiffBackend>() {
    // Betas 0.5 and 0.75, epsilon 0.1, weight decay 0.1, rates 0.1, 0.2, 0.1, gradients 1, −2, 3:
    // step 1: moments 0.5, 0.25; corrected 1, 1; 1 / (1 + 0.1) = 0.909091; 1 · 0.99 − 0.090909 = 0.899091
    // step 2: −0.75, 1.1875; −1, 1.1875 / 0.4375 = 2.714286; −1 / 1.747509; 0.899091 · 0.98 + 0.114449 = 0.995558
    // step 3: 1.125, 3.140625; 1.285714, 3.140625 / 0.578125 = 5.432432; 0.528936; 0.995558 · 0.99 − 0.052894
    // The gain goes the same ways without the factors 0.99, 0.98, 0.99.
    let steps = [
        (1.0, 0.1, 0.899_090_909, 0.909_090_909),
        (-2.0, 0.2, 0.995_557_718, 1.023_539_537),
        (3.0, 0.1, 0.932_708_586, 0.970_645_981),
    ];
    let mut weights = Weights::<B>::new([1.0, 1.0], [1.0, 1.0]);
    let mut optimizer = ParameterOptimizer::new(&config([0.5, 0.75], 0.1, 0.1, Decay::Matrices));
    for (slope, rate, matrix, gain) in steps {
        let gradients = slopes(&weights, [slope; 4]);
        weights = optimizer.step(Rate::at_peak(rate), weights, gradients);
        close(&weights.values(), &[matrix, matrix, gain, gain], 1e-6);
    }
    let (moments, times) = optimizer.export(&weights);
    for path in ["matrix", "gain"] {
        let of = |which: u32| moments[&format!("{path}.moment_{which}")].floats()[0];
        assert_eq!((of(1), of(2)), (1.125, 3.140_625));
        assert_eq!(times[path], 3);
    }
}

#[test]
fn three_steps_of_adamw_are_those_on_paper_in_single_and_in_double_precision() {
    on_paper::<Single>();
    on_paper::<Double>();
}

fn scaled_on_paper<B: AutodiffBackend>(decay_by: Option<DecayBy>, kept: f64) {
    // As above, the first step, with a quarter of the rate for the matrix and half of epsilon for both:
    // 1 / (1 + 0.05) = 0.952381; kept − 0.1 / 4 · 0.952381 and 1 − 0.1 · 0.952381.
    let mut weights = Weights::<B>::new([1.0, 1.0], [1.0, 1.0]);
    let mut config = config([0.5, 0.75], 0.1, 0.1, Decay::Matrices);
    if let OptimizerConfig::Adamw { decay_by: by, .. } = &mut config {
        *by = decay_by;
    }
    let mut optimizer = ParameterOptimizer::new(&config);
    optimizer.scale_by(UpdateScales {
        rates: [(weights.matrix.id, 0.25)].into(),
        epsilon: 0.5,
    });
    let gradients = slopes(&weights, [1.0; 4]);
    weights = optimizer.step(Rate::of(0.1, 0.2), weights, gradients);
    let (matrix, gain) = (kept - 0.023_809_524, 0.904_761_905);
    close(&weights.values(), &[matrix, matrix, gain, gain], 1e-6);
}

#[test]
fn a_scaled_parameter_learns_at_its_own_rate_and_decays_at_that_of_the_step() {
    for (decay_by, kept) in [(None, 0.99), (Some(DecayBy::Schedule), 0.95)] {
        scaled_on_paper::<Single>(decay_by, kept);
        scaled_on_paper::<Double>(decay_by, kept);
    }
}

/// AdamW of one number in double precision (Loshchilov and Hutter 2019, algorithm 2).
#[derive(Clone, Copy)]
struct Scalar {
    value: f64,
    moments: [f64; 2],
    time: i32,
}

impl Scalar {
    fn step(&mut self, slope: f64, rate: f64, betas: [f64; 2], epsilon: f64, decay: f64) {
        self.time += 1;
        let powers = [slope, slope * slope];
        let corrected = [0, 1].map(|which| {
            let beta = betas[which];
            self.moments[which] = beta * self.moments[which] + (1.0 - beta) * powers[which];
            self.moments[which] / (1.0 - beta.powi(self.time))
        });
        let change = corrected[0] / (corrected[1].sqrt() + epsilon);
        self.value -= rate * (change + decay * self.value);
    }
}

#[test]
fn any_setting_of_adamw_is_that_of_the_paper_and_decays_what_it_should() {
    for case in 0..12 {
        let key = random::key(case, "adamw", 0);
        let draw = |place: u64| random::uniform(key, place);
        let betas = [0.95 * draw(0), 0.9 + 0.099 * draw(1)];
        let (epsilon, decay) = (10f64.powf(-8.0 * draw(2)), draw(3));
        let of = [Decay::Matrices, Decay::All][case as usize % 2];
        let start = [0, 1, 2, 3].map(|place| 2.0 * draw(10 + place) - 1.0);
        let mut scalars = start.map(|value| Scalar {
            value,
            moments: [0.0; 2],
            time: 0,
        });
        let mut weights = Weights::<Single>::new([start[0], start[1]], [start[2], start[3]]);
        let mut optimizer = ParameterOptimizer::new(&config(betas, epsilon, decay, of));
        for step in 0..6 {
            let rate = 0.1 * draw(100 + step);
            let slope = [0, 1, 2, 3].map(|place| 4.0 * draw(200 + 4 * step + place) - 2.0);
            let gradients = slopes(&weights, slope);
            weights = optimizer.step(Rate::at_peak(rate), weights, gradients);
            for (place, scalar) in scalars.iter_mut().enumerate() {
                let decays = place < 2 || of == Decay::All;
                let decay = if decays { decay } else { 0.0 };
                scalar.step(slope[place], rate, betas, epsilon, decay);
            }
            // Six steps of a few roundings to 24 bits, of numbers near 1; a second moment near its start loses some more.
            close(&weights.values(), &scalars.map(|scalar| scalar.value), 2e-5);
        }
    }
}

/// A schedule whose rate is another one at every step.
fn waning(peak: f64) -> Schedule {
    Schedule::WarmupCosine {
        peak,
        warmup_steps: Some(3),
        warmup_share: None,
        floor: peak / 8.0,
    }
}

#[test]
fn decay_by_the_schedule_is_multiplied_by_the_share_of_the_peak_and_not_by_the_rate() {
    // Single precision, in which Burn has its settings, holds these to the bit, and their powers.
    let (betas, epsilon, weight_decay, steps) = ([0.5, 0.75], 0.125, 0.0625, 8);
    let start = [0.9, -0.7, 0.4, 1.3];
    for peak in [0.3, 0.003] {
        for decay_by in [DecayBy::LearningRate, DecayBy::Schedule] {
            let config = OptimizerConfig::Adamw {
                betas,
                epsilon,
                weight_decay,
                decay: Decay::Matrices,
                decay_by: Some(decay_by),
                clip_norm: 1.0,
            };
            let mut optimizer = ParameterOptimizer::new(&config);
            let mut weights = Weights::<Double>::new([start[0], start[1]], [start[2], start[3]]);
            let mut expected = start;
            let (mut first, mut second) = ([0.0; 4], [0.0; 4]);
            for step in 0..steps {
                let key = random::key(step, "waning", 0);
                let slope = [0, 1, 2, 3].map(|place| random::normal(key, place));
                let rate = waning(peak).rate(step, steps);
                let gradients = slopes(&weights, slope);
                weights = optimizer.step(Rate::of(rate, peak), weights, gradients);
                let factor = match decay_by {
                    DecayBy::LearningRate => rate,
                    DecayBy::Schedule => rate / peak,
                };
                for place in 0..4 {
                    first[place] = 0.5 * first[place] + 0.5 * slope[place];
                    second[place] = 0.75 * second[place] + 0.25 * slope[place] * slope[place];
                    let power = step as i32 + 1;
                    let m = first[place] / (1.0 - 0.5f64.powi(power));
                    let v = second[place] / (1.0 - 0.75f64.powi(power));
                    let taken = if place < 2 {
                        factor * weight_decay
                    } else {
                        0.0
                    };
                    expected[place] -= taken * expected[place] + rate * m / (v.sqrt() + epsilon);
                }
                // A few roundings to 53 bits a step.
                close(&weights.values(), &expected, 1e-9);
            }
        }
    }
}

#[test]
fn with_a_gradient_of_zero_what_decay_by_the_schedule_leaves_does_not_depend_on_the_peak() {
    // Shares of the peak 1/2 and 1 with a decay of 1/4: 7/8 and 3/4 are left.
    for peak in [0.5, 0.001] {
        let config = OptimizerConfig::Adamw {
            betas: [0.9, 0.95],
            epsilon: 1e-8,
            weight_decay: 0.25,
            decay: Decay::Matrices,
            decay_by: Some(DecayBy::Schedule),
            clip_norm: 1.0,
        };
        let mut optimizer = ParameterOptimizer::new(&config);
        let mut weights = Weights::<Single>::new([64.0, -32.0], [1.0, 2.0]);
        for rate in [peak / 2.0, peak] {
            let gradients = slopes(&weights, [0.0; 4]);
            weights = optimizer.step(Rate::of(rate, peak), weights, gradients);
        }
        assert_eq!(weights.values(), [42.0, -21.0, 1.0, 2.0]);
    }
}

#[test]
fn without_a_gradient_in_it_decay_takes_its_share_of_matrices_and_nothing_of_gains() {
    // 1 − 0.5 · 0.2 = 0.9 at every step.
    let mut optimizer = ParameterOptimizer::new(&config([0.9, 0.95], 1e-8, 0.2, Decay::Matrices));
    let mut weights = Weights::<Single>::new([2.0, -3.0], [0.7, 1.0]);
    let gains = weights.gain.val().into_data();
    for _ in 0..2 {
        let gradients = slopes(&weights, [0.0; 4]);
        weights = optimizer.step(Rate::at_peak(0.5), weights, gradients);
    }
    close(&weights.values()[..2], &[1.62, -2.43], 1e-6);
    assert_eq!(weights.gain.val().into_data(), gains);
}

#[test]
fn what_has_no_gradient_is_left_as_it_is_and_keeps_its_own_time() {
    let mut optimizer = ParameterOptimizer::new(&config([0.9, 0.95], 1e-8, 0.5, Decay::All));
    let mut weights = Weights::<Single>::new([1.0, 2.0], [3.0, 4.0]);
    for step in 0..3 {
        let gain = (weights.gain.val() * tensor([2], [1.0, -1.0])).sum();
        let all = match step {
            1 => gain + (weights.matrix.val() * tensor([1, 2], [1.0, 1.0])).sum(),
            _ => gain,
        };
        let before = weights.values();
        let gradients = GradientsParams::from_grads(all.backward(), &weights);
        weights = optimizer.step(Rate::at_peak(0.1), weights, gradients);
        let same = [0, 1, 2, 3].map(|place| before[place] == weights.values()[place]);
        assert_eq!(same, [step != 1, step != 1, false, false]);
    }
    let times = optimizer.export(&weights).1;
    assert_eq!((times["matrix"], times["gain"]), (1, 3));
}

/// Momentum: `m ← m / 2 + g`, `w ← w − rate m / time`.
struct Momentum;

#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
struct MomentumConfig {
    share: f64,
}

impl CustomOptimizer for Momentum {
    const KIND: &'static str = "momentum";
    const MOMENTS: &'static [&'static str] = &["velocity"];
    type Config = MomentumConfig;

    fn update<B: Backend, const D: usize>(
        config: &MomentumConfig,
        at: UpdateInfo,
        mut tensors: Tensors<B, D>,
    ) -> (Tensor<B, D>, Vec<Tensor<B, D>>) {
        let velocity = tensors.moments.remove(0) * config.share + tensors.gradient;
        let change = velocity.clone() * (at.rate / at.time as f64);
        (tensors.weights - change, vec![velocity])
    }
}

fn momentum() -> OptimizerConfig {
    let entry = Box::leak(Box::new(OptimizerEntry::of::<Momentum>()));
    let config = Box::new(MomentumConfig { share: 0.5 });
    OptimizerConfig::Custom(OptimizerTable::new(entry, config))
}

fn momentum_on_paper<B: AutodiffBackend>() {
    // Rate 0.5. Slopes 1, 2: velocities 1 and 0.5 + 2 = 2.5; changes 0.5 · 1 / 1 = 0.5 and 0.5 · 2.5 / 2 = 0.625.
    let mut optimizer = ParameterOptimizer::new(&momentum());
    let mut weights = Weights::<B>::new([1.0, 2.0], [3.0, 4.0]);
    let steps = [
        (1.0, [0.5, 1.5, 2.5, 3.5]),
        (2.0, [-0.125, 0.875, 1.875, 2.875]),
    ];
    for (slope, expected) in steps {
        let gradients = slopes(&weights, [slope; 4]);
        weights = optimizer.step(Rate::at_peak(0.5), weights, gradients);
        assert_eq!(weights.values(), expected);
    }
    let (moments, times) = optimizer.export(&weights);
    let names: Vec<_> = moments.keys().collect();
    assert_eq!(names, ["gain.velocity", "matrix.velocity"]);
    assert_eq!(moments["gain.velocity"].floats()[..], [2.5, 2.5]);
    assert_eq!(times["matrix"], 2);
    let read = |moments: &TensorMap| {
        let fresh = ParameterOptimizer::<B>::new(&momentum());
        fresh.import(&weights, moments.clone(), &times, Path::new("optim"))
    };
    let whole = (moments.clone(), times.clone());
    assert_eq!(read(&moments).unwrap().export(&weights), whole);
    // Moments of another optimizer are not taken for its own.
    let mut others = moments;
    let values = others.remove("gain.velocity").unwrap();
    others.insert("gain.moment_1".to_string(), values);
    let refused = read(&others).err().unwrap().to_string();
    let expected = "tensor gain.velocity: found nothing";
    assert!(refused.contains(expected), "{refused}");
}

#[test]
fn an_optimizer_of_a_program_updates_every_parameter_and_its_moments_are_read_back() {
    momentum_on_paper::<Single>();
    momentum_on_paper::<Double>();
}

/// An optimizer after two steps, and what it stepped.
fn stepped() -> (Weights<Single>, ParameterOptimizer<Single>, OptimizerConfig) {
    let config = config([0.9, 0.95], 1e-8, 0.1, Decay::Matrices);
    let mut optimizer = ParameterOptimizer::new(&config);
    let mut weights = Weights::new([1.0, 2.0], [3.0, 4.0]);
    for slope in [[1.0, -1.0, 0.5, 2.0], [0.3, 0.7, -0.2, 0.1]] {
        let gradients = slopes(&weights, slope);
        weights = optimizer.step(Rate::at_peak(0.1), weights, gradients);
    }
    (weights, optimizer, config)
}

#[test]
fn an_optimizer_that_was_written_down_and_read_goes_on_to_the_bit() {
    let (weights, mut whole, config) = stepped();
    let (moments, times) = whole.export(&weights);
    let fresh = ParameterOptimizer::<Single>::new(&config);
    let mut read = fresh
        .import(&weights, moments, &times, Path::new("optim"))
        .unwrap();
    let (mut one, mut other) = (weights.clone(), weights);
    for slope in [[0.1, 0.2, 0.3, 0.4], [-2.0, 1.0, 1.0, 0.0]] {
        let (of_one, of_other) = (slopes(&one, slope), slopes(&other, slope));
        one = whole.step(Rate::at_peak(0.05), one, of_one);
        other = read.step(Rate::at_peak(0.05), other, of_other);
        assert_eq!(one.values(), other.values());
    }
    assert_eq!(whole.export(&one), read.export(&other));
}

#[test]
fn moments_that_are_not_those_of_the_model_are_refused_by_name() {
    let (weights, optimizer, config) = stepped();
    let (moments, times) = optimizer.export(&weights);
    let refused = |change: &dyn Fn(&mut TensorMap, &mut BTreeMap<String, u64>)| {
        let (mut moments, mut times) = (moments.clone(), times.clone());
        change(&mut moments, &mut times);
        let fresh = ParameterOptimizer::<Single>::new(&config);
        let read = fresh.import(&weights, moments, &times, Path::new("optim"));
        read.err().map_or("".to_string(), |error| error.to_string())
    };
    let of = |values: [f32; 2]| HostTensor::new(vec![2], values.to_vec());
    assert_eq!(refused(&|_, _| ()), "");
    type Change<'a> = &'a dyn Fn(&mut TensorMap, &mut BTreeMap<String, u64>);
    let cases: [(Change<'_>, &str); 6] = [
        (
            &|moments, _| drop(moments.remove("gain.moment_2")),
            "tensor gain.moment_2: found nothing, expected shape [2]",
        ),
        (
            &|moments, _| drop(moments.insert("matrix.moment_1".into(), of([0.0; 2]))),
            "tensor matrix.moment_1: found shape [2], expected shape [1, 2]",
        ),
        (
            &|moments, _| drop(moments.insert("other.moment_1".into(), of([0.0; 2]))),
            "tensor other.moment_1: found a tensor",
        ),
        (
            &|_, times| _ = times.insert("other".into(), 1),
            "optimizer_times.other: found updates",
        ),
        (
            &|moments, _| drop(moments.insert("gain.moment_2".into(), of([1.0, -1e-30]))),
            "tensor gain.moment_2: found a negative number at index 1",
        ),
        (
            &|moments, _| drop(moments.insert("gain.moment_1".into(), of([f32::NAN, 0.0]))),
            "gain.moment_1",
        ),
    ];
    for (change, expected) in cases {
        let found = refused(change);
        assert!(found.contains(expected), "{found:?} and {expected:?}");
    }
    // A first moment may be negative, and a parameter without a time starts anew.
    assert_eq!(
        refused(&|moments, _| drop(moments.insert("gain.moment_1".into(), of([-1.0, 0.0])))),
        ""
    );
    assert_eq!(
        refused(&|moments, times| {
            moments.retain(|name, _| name.starts_with("matrix"));
            times.remove("gain");
        }),
        ""
    );
}

#[test]
fn the_length_of_a_gradient_is_taken_over_all_parameters_and_the_first_bad_one_is_named() {
    let weights = Weights::<Single>::new([1.0, 1.0], [1.0, 1.0]);
    let norm = |slope: [f64; 4]| gradient::norm(&weights, &slopes(&weights, slope));
    // √(1 + 4 + 4 + 16) = 5.
    let whole = norm([1.0, -2.0, 2.0, 4.0]);
    assert_eq!((whole.length, whole.not_finite), (5.0, None));
    // The matrix has the first two numbers, the gain the others.
    let parts: Vec<(&str, f64)> = whole
        .by_path
        .iter()
        .map(|(path, length)| (path.as_str(), length * length))
        .collect();
    assert_eq!(
        parts.iter().map(|part| part.0).collect::<Vec<_>>(),
        ["gain", "matrix"]
    );
    close(&[parts[0].1, parts[1].1], &[20.0, 5.0], 1e-6);
    assert_eq!(norm([0.0, 0.0, 3.0, 0.0]).length, 3.0);
    let bad = |slope| norm(slope).not_finite;
    assert_eq!(bad([1.0, 1.0, f64::NAN, 1.0]).as_deref(), Some("gain"));
    assert_eq!(
        bad([f64::INFINITY, 1.0, f64::NAN, 1.0]).as_deref(),
        Some("matrix")
    );
    let none = gradient::norm(&weights, &GradientsParams::new());
    assert_eq!((none.length, none.not_finite), (0.0, None));
}

#[test]
fn a_gradient_is_cut_to_the_longest_one_and_not_before() {
    let weights = Weights::<Single>::new([1.0, 1.0], [1.0, 1.0]);
    let slope = [1.0, -2.0, 2.0, 4.0];
    let clipped = |longest: f64| {
        let gradients = slopes(&weights, slope);
        let length = gradient::norm(&weights, &gradients).length;
        let gradients = gradient::clip(&weights, gradients, length, longest);
        let matrix = gradients.get::<Host, 2>(weights.matrix.id).unwrap();
        let gain = gradients.get::<Host, 1>(weights.gain.id).unwrap();
        let [matrix, gain] = [matrix.into_data(), gain.into_data()];
        matrix.iter().chain(gain.iter()).collect::<Vec<f64>>()
    };
    // At its length of 5 and above nothing happens; below, every part is scaled alike: 4 / 5, 1 / 50.
    assert_eq!(clipped(f64::INFINITY), slope);
    assert_eq!(clipped(5.1), slope);
    assert_eq!(clipped(5.0), slope);
    close(&clipped(4.0), &slope.map(|part| 0.8 * part), 1e-6);
    close(&clipped(0.1), &slope.map(|part| 0.02 * part), 1e-6);
}

#[test]
fn exactly_the_named_groups_rest_and_learn_again() {
    let weights = Weights::<Single>::new([1.0, 1.0], [1.0, 1.0]);
    let learns = |weights: &Weights<Single>| {
        let [matrix, gain] = [
            weights.matrix.val().is_require_grad(),
            weights.gain.val().is_require_grad(),
        ];
        (matrix, gain)
    };
    let of = |groups: &[&str]| BTreeSet::from_iter(groups.iter().map(|group| group.to_string()));
    let weights = freeze(weights, &of(&["matrix"]));
    assert_eq!(learns(&weights), (false, true));
    let weights = freeze(weights, &of(&["gain", "mat"]));
    assert_eq!(learns(&weights), (true, false));
    assert_eq!(learns(&freeze(weights, &of(&[]))), (true, true));
    assert_eq!(super::group_of("pool.0.attention.output.weight"), "pool");
    assert_eq!(super::group_of("norm"), "norm");
}

#[test]
fn a_model_is_the_same_after_it_was_stored_and_loaded_and_takes_nothing_else() {
    let weights = Weights::<Single>::new([0.1, -2.5], [1e-20, 3.0]);
    let stored = store_model(&weights);
    let loaded = load_model(
        Weights::<Single>::new([0.0; 2], [0.0; 2]),
        stored.clone(),
        Path::new("m"),
    );
    assert_eq!(loaded.unwrap().values(), weights.values());
    let refused = |tensors: TensorMap| {
        let error = load_model(weights.clone(), tensors, Path::new("m")).unwrap_err();
        error.to_string()
    };
    let mut fewer = stored.clone();
    fewer.remove("gain");
    assert!(refused(fewer).contains("tensor gain: found nothing, expected shape [2]"));
    let mut more = stored.clone();
    more.insert("bias".into(), HostTensor::new(vec![2], vec![0.0; 2]));
    assert!(refused(more).contains("tensor bias: found a tensor"));
    let mut other = stored;
    other.insert("gain".into(), HostTensor::new(vec![2, 1], vec![0.0; 2]));
    assert!(refused(other).contains("tensor gain: found shape [2, 1], expected shape [2]"));
}

#[test]
fn every_schedule_rises_in_equal_steps_to_its_peak_and_falls_along_half_a_cosine() {
    for case in 0..200 {
        let key = random::key(case, "schedule", 0);
        let draw = |place: u64| random::uniform(key, place);
        let steps = 2 + (60.0 * draw(0)) as u64;
        let warmup = (draw(1) * steps as f64) as u64;
        let (peak, floor) = (1e-3 * (1.0 + draw(2)), 1e-3 * draw(3));
        let given = [
            (Some(warmup), None),
            (None, Some(warmup as f64 / steps as f64)),
        ];
        let (warmup_steps, warmup_share) = given[case as usize % 2];
        let cosine = Schedule::WarmupCosine {
            peak,
            warmup_steps,
            warmup_share,
            floor,
        };
        let constant = Schedule::Constant {
            peak,
            warmup_steps,
            warmup_share,
        };
        for step in 0..2 * steps {
            // The places of the warm-up and of the decay, counted by hand.
            let rising = (step + 1) as f64 / warmup.max(1) as f64;
            let last = steps - 1 - warmup;
            let fallen = match (step.min(steps - 1) - warmup.min(step), last) {
                (_, 0) => 1.0,
                (done, last) => done as f64 / last as f64,
            };
            let falling =
                floor + (peak - floor) * (std::f64::consts::PI * fallen).cos().mul_add(0.5, 0.5);
            let expected = match step < warmup {
                true => [peak * rising; 2],
                false => [falling, peak],
            };
            let found = [&cosine, &constant].map(|schedule| schedule.rate(step, steps));
            close(&found, &expected, 1e-15);
        }
    }
}

//! Tests of training steps on a GPU: losses, parameters and moments are those of the host for every optimizer mode, also when
//! rows are copied back midway or host and device take turns; models without kernels get no table.

use super::Resident;
use crate::candidate::{Candidates, Competition, Group, Paths};
use crate::compat;
use crate::counts::PairCounts;
use crate::flow::{Bias, First, FlowConfig, Hop, Mix};
use crate::generate::Decoding;
use crate::graph::{BackOff, Graph};
use crate::model::{BackOffRows, BriLlm, BriLlmConfig, Initial, Learnt};
use crate::position::Encoding;
use crate::prior::{Prior, Weights};
use crate::row_adamw::{AdamW, Mode};
use crate::table::Storage;
use crate::training::RowAdamW;
#[cfg(feature = "cuda")]
use burn::backend::cuda::CudaDevice as GpuDevice;
#[cfg(not(feature = "cuda"))]
use burn::backend::wgpu::WgpuDevice as GpuDevice;
use std::sync::Arc;

const NODES: usize = 13;

/// Sums in another order; CUDA rounds a product that is added to something once, not twice.
const BAND: f32 = if cfg!(feature = "cuda") { 5e-5 } else { 2e-5 };

fn adamw(weight_decay: f64) -> AdamW {
    AdamW {
        betas: [0.9, 0.999],
        // Large enough that a gradient of nearly zero, the rounding of a sum, does not make a step as long as others.
        epsilon: 1e-4,
        weight_decay,
    }
}

/// A number in `[0, 1)` for every place.
fn uniform(stream: &str, place: u64) -> f64 {
    let phase = stream.len() as f64 + 1.7 * place as f64;
    (phase.sin() * 43_758.545).rem_euclid(1.0)
}

/// Paths of different lengths, one of them empty; what follows the last edge is padding.
struct Text {
    sources: Vec<u32>,
    targets: Vec<u32>,
    valid: Vec<bool>,
    seq: usize,
}

impl Text {
    fn new(seed: u64, batch: usize, seq: usize) -> Self {
        let mut text = Self {
            sources: Vec::new(),
            targets: Vec::new(),
            valid: Vec::new(),
            seq,
        };
        for row in 0..batch {
            let token = |place: usize| {
                let at = uniform("text", seed * 7919 + (row * (seq + 1) + place) as u64);
                (at * at * NODES as f64) as u32
            };
            let length = if row == 3 { 0 } else { seq - row % 3 };
            for edge in 0..seq {
                text.sources.push(token(edge));
                text.targets.push(token(edge + 1));
                text.valid.push(edge < length);
            }
        }
        text
    }

    fn paths(&self) -> Paths<'_> {
        Paths {
            sources: &self.sources,
            targets: &self.targets,
            valid: &self.valid,
            seq: self.seq,
        }
    }
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
struct Case {
    flow: FlowConfig,
    d: usize,
    back_off: BackOff,
    back_off_rows: BackOffRows,
    candidates: Candidates,
    mode: Mode,
    clip: Option<f32>,
    weight_decay: f64,
}

const PLAIN: Case = Case {
    flow: compat::REFERENCE,
    d: 8,
    back_off: BackOff::SharedRow,
    back_off_rows: BackOffRows::Trained,
    candidates: Candidates::Frequent { n: 4 },
    mode: Mode::Exact,
    clip: None,
    weight_decay: 0.0,
};

fn cases() -> Vec<Case> {
    let classes = BackOff::Classes { n_classes: 3 };
    vec![
        PLAIN,
        Case {
            d: 32,
            clip: Some(1e-3),
            ..PLAIN
        },
        Case {
            d: 5,
            weight_decay: 0.1,
            ..PLAIN
        },
        Case {
            d: 32,
            candidates: Candidates::All,
            mode: Mode::Touched,
            ..PLAIN
        },
        Case {
            d: 8,
            back_off: classes,
            weight_decay: 0.1,
            clip: Some(1e-3),
            mode: Mode::Touched,
            ..PLAIN
        },
        // The matrix does not fit into the strip.
        Case {
            d: 100,
            candidates: Candidates::All,
            ..PLAIN
        },
        Case { d: 130, ..PLAIN },
        Case {
            flow: compat::NATIVE,
            back_off: BackOff::Hash { n_rows: 4 },
            candidates: Candidates::All,
            ..PLAIN
        },
        Case {
            flow: compat::PAPER,
            back_off: classes,
            back_off_rows: BackOffRows::Frozen,
            ..PLAIN
        },
        Case {
            flow: FlowConfig {
                bias: Bias::None,
                first: First::Even,
                ..compat::NATIVE
            },
            mode: Mode::Dense,
            candidates: Candidates::Sampled { n: 5 },
            ..PLAIN
        },
        Case {
            flow: FlowConfig {
                hop: Hop::Previous,
                mix: Mix::Absolute { max_length: 4 },
                encoding: Encoding::Learnt { max_length: 5 },
                ..compat::REFERENCE
            },
            d: 6,
            weight_decay: 0.1,
            ..PLAIN
        },
    ]
}

/// A model, its optimizer, and who competes.
struct World {
    case: Case,
    model: BriLlm,
    optimizer: RowAdamW,
    competition: Competition,
}

impl World {
    fn new(case: Case) -> Self {
        let text = Text::new(1, 6, 20);
        let rows = text.sources.chunks(20).zip(text.targets.chunks(20));
        let counts = PairCounts::of(NODES, rows.map(|(from, to)| [from, &to[19..]].concat()));
        let graph: Graph = counts.graph(2, case.back_off);
        let config = BriLlmConfig {
            d_node: case.d,
            flow: case.flow,
            // Signals of one length at every width: energies of hundreds would leave f32 few digits of a nat.
            initial: Initial::Uniform {
                half_range: (2.0 / case.d as f64).sqrt(),
            },
            back_off_rows: case.back_off_rows,
            storage: Storage::F32,
            decoding: Decoding::NATIVE,
        };
        let mut parameters = config.init(graph.nodes(), graph.rows(), &uniform);
        for (place, value) in parameters.mix.iter_mut().enumerate() {
            *value += (place as f32).sin();
        }
        let weights = Weights::new(Prior::Bigram, Some(&counts), &graph);
        let competition = Competition::new(case.candidates, weights, case.flow.bias, Some(&counts));
        let model = BriLlm {
            config,
            graph: Arc::new(graph),
            parameters,
        };
        let optimizer = RowAdamW::new(&model, case.mode, adamw(case.weight_decay), case.clip);
        Self {
            case,
            model,
            optimizer,
            competition,
        }
    }

    /// Texts of every step differ, so that rows rest and come back.
    fn batch(&self, step: u64) -> (Text, Vec<Group>) {
        let text = Text::new(step % 7 + 10, 5, 6);
        let draw = |place: u64| uniform("draw", place + 31 * step);
        let groups = self
            .competition
            .groups(&self.model.graph, &text.paths(), &draw);
        (text, groups)
    }

    fn rate(step: u64) -> f64 {
        0.02 / (1.0 + step as f64 / 10.0)
    }

    fn on_host(&mut self, step: u64) -> Learnt {
        let (text, groups) = self.batch(step);
        self.optimizer
            .step(&mut self.model, &text.paths(), &groups, Self::rate(step))
    }

    fn on_device(&mut self, step: u64) -> Learnt {
        let (text, groups) = self.batch(step);
        let device = GpuDevice::default();
        let learnt = self.optimizer.step_by_kernels(
            &mut self.model,
            &text.paths(),
            &groups,
            Self::rate(step),
            &device,
        );
        learnt.unwrap_or_else(|| panic!("{:?} has kernels", self.case))
    }

    fn settle(&mut self) {
        self.optimizer.catch_up(&mut self.model);
    }

    /// Everything that is learnt, by name.
    fn numbers(&self) -> [(&'static str, Vec<f32>); 8] {
        let whole = |table: &crate::table::Table| table.part(0..table.len()).into_owned();
        let parameters = &self.model.parameters;
        [
            ("edges", whole(&parameters.edges)),
            ("first", whole(&self.optimizer.edges.first)),
            ("second", whole(&self.optimizer.edges.second)),
            ("mix", parameters.mix.clone()),
            ("node bias", parameters.node_bias.clone()),
            ("codes", parameters.codes.clone()),
            ("mix, first", self.optimizer.mix[0].clone()),
            ("node bias, second", self.optimizer.node_bias[1].clone()),
        ]
    }
}

/// Whether there is a device to run on.
fn is_there() -> bool {
    let there = std::panic::catch_unwind(|| World::new(PLAIN).on_device(0)).is_ok();
    if !there {
        let note = "not run: no device\n";
        print!("{note}");
    }
    there
}

/// The largest difference, in units of the largest number.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a
        .iter()
        .fold(0.0f32, |largest, value| largest.max(value.abs()));
    let distances = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    let far = distances.fold(
        0.0f32,
        |far, distance| if distance <= far { far } else { distance },
    );
    if far == 0.0 { 0.0 } else { far / largest }
}

#[test]
fn steps_on_a_device_are_those_of_the_host() {
    if !is_there() {
        return;
    }
    for case in cases() {
        let (mut host, mut device) = (World::new(case), World::new(case));
        let mut worst = 0.0f64;
        for step in 0..12 {
            let (a, b) = (host.on_host(step), device.on_device(step));
            let norm = (a.gradient_norm / b.gradient_norm - 1.0).abs();
            let nats = a.nats.iter().zip(&b.nats).map(|(a, b)| (a - b).abs());
            worst = nats.fold(worst.max(norm), f64::max);
        }
        assert_eq!(host.optimizer.edges.touched, device.optimizer.edges.touched);
        host.settle();
        device.settle();
        assert_eq!(host.optimizer.edges.current, device.optimizer.edges.current);
        let pairs = host.numbers().into_iter().zip(device.numbers());
        let found: Vec<(&str, f32)> = pairs
            .map(|((name, a), (_, b))| (name, distance(&a, &b)))
            .collect();
        let note = format!("{case:?}\n  nats and norm {worst:.1e}, {found:?}\n");
        print!("{note}");
        // The kernels sum in another order, and every step carries the difference on.
        assert!(worst < f64::from(BAND), "{case:?}: {worst}");
        for (name, distance) in found {
            assert!(distance < BAND, "{case:?}, {name}: {distance}");
        }
    }
}

#[test]
fn a_run_that_the_host_looks_at_goes_on_as_if_it_had_not() {
    if !is_there() {
        return;
    }
    for case in cases() {
        let (mut plain, mut watched) = (World::new(case), World::new(case));
        for step in 0..9 {
            plain.on_device(step);
            watched.on_device(step);
            if step % 3 == 1 {
                let World {
                    model, optimizer, ..
                } = &mut watched;
                optimizer.catch_up_values(model);
                let seen = model.clone();
                if step != 7 {
                    watched.settle();
                }
                assert!(seen == watched.model, "{case:?}");
            }
            if step == 4 {
                // A new start from what the host has.
                watched.optimizer = watched.optimizer.clone();
                watched.model = watched.model.clone();
            }
        }
        plain.settle();
        watched.settle();
        assert!(plain.model == watched.model, "{case:?}");
        assert!(plain.optimizer == watched.optimizer, "{case:?}");
    }
}

#[test]
fn a_step_may_have_more_pairs_than_a_row_of_cubes() {
    if !is_there() {
        return;
    }
    let case = Case {
        d: 2,
        candidates: Candidates::All,
        ..PLAIN
    };
    let (mut host, mut there) = (World::new(case), World::new(case));
    let text = Text::new(10, 2000, 10);
    let paths = text.paths();
    let groups = host.competition.groups(&host.model.graph, &paths, &|_| 0.0);
    let pairs: usize = groups.iter().map(Group::pairs).sum();
    assert!(pairs > 1 << 16, "{pairs}");
    let a = host.optimizer.step(&mut host.model, &paths, &groups, 0.02);
    let device = GpuDevice::default();
    let World {
        model, optimizer, ..
    } = &mut there;
    let b = optimizer.step_by_kernels(model, &paths, &groups, 0.02, &device);
    for (a, b) in a.nats.iter().zip(&b.expect("it has kernels").nats) {
        assert!((a - b).abs() < 2e-5, "{a} {b}");
    }
    host.settle();
    there.settle();
    for ((name, a), (_, b)) in host.numbers().into_iter().zip(there.numbers()) {
        let distance = distance(&a, &b);
        assert!(distance < BAND, "{name}: {distance}");
    }
}

#[test]
fn host_and_device_may_take_turns() {
    if !is_there() {
        return;
    }
    let case = Case {
        weight_decay: 0.1,
        ..PLAIN
    };
    let (mut host, mut turns) = (World::new(case), World::new(case));
    for step in 0..8 {
        host.on_host(step);
        match step % 4 {
            2 => turns.on_host(step),
            _ => turns.on_device(step),
        };
    }
    host.settle();
    turns.settle();
    for ((name, a), (_, b)) in host.numbers().into_iter().zip(turns.numbers()) {
        let distance = distance(&a, &b);
        assert!(distance < BAND, "{name}: {distance}");
    }
}

#[test]
#[should_panic(expected = "comes before a copy")]
fn numbers_that_are_old_are_not_copied() {
    let mut world = World::new(PLAIN);
    if !is_there() {
        panic!("comes before a copy: not run");
    }
    world.on_device(0);
    let _ = world.optimizer.clone();
}

#[test]
fn what_has_no_kernels_is_left_to_others() {
    if !is_there() {
        return;
    }
    let with = |change: &dyn Fn(&mut BriLlmConfig)| {
        let mut world = World::new(PLAIN);
        change(&mut world.model.config);
        let BriLlm {
            config, parameters, ..
        } = &mut world.model;
        parameters.edges = std::mem::take(&mut parameters.edges).stored_as(config.storage);
        let mut optimizer = RowAdamW::new(&world.model, Mode::Touched, adamw(0.0), None);
        let device = GpuDevice::default();
        let mut resident = Resident::default();
        let there = resident.on(&device, &mut world.model, &mut optimizer.edges);
        there.is_some()
    };
    assert!(with(&|_| {}));
    assert!(!with(&|config| config.flow.bias = Bias::Node));
    assert!(!with(&|config| config.storage = Storage::Bf16));
    let mut world = World::new(PLAIN);
    let nothing = Resident::default()
        .on(&"no device", &mut world.model, &mut world.optimizer.edges)
        .is_none();
    assert!(nothing);
}

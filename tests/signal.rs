//! Tests of BriLLM against golden numbers of the reference: energies, losses, gradients, training and decoding, on the host and
//! composed of tensor operations; and that the two ways agree. `parity` calls `check` for a folder.

use crate::support::{GOLDEN, GOLDEN_GRADIENT, TestAutodiff};
use brillm::candidate::{Candidates, Competition, Group, Paths, given};
use brillm::compat;
use brillm::generate::{Decoding, Positions, SignalState, strongest};
use brillm::graph::Graph;
use brillm::model::{BackOffRows, Initial};
use brillm::prior::Weights;
use brillm::row_adamw::{AdamW, Mode};
use brillm::table::Storage;
use brillm::training::RowAdamW;
use brillm::{BriLlm, BriLlmConfig, Parameters};
use burn::tensor::Device;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use train::import;
use train::run::TensorMap;

/// The bar of losses along a trajectory.
const TRAJECTORY: f64 = 2e-4;

/// How a step is executed.
#[derive(Clone, Copy, Debug)]
enum Execution {
    Host,
    Composed,
}

/// Sequences with their candidates.
pub struct Batch {
    sources: Vec<u32>,
    targets: Vec<u32>,
    valid: Vec<bool>,
    seq: usize,
    candidates: Vec<Vec<u32>>,
}

impl Batch {
    /// From pairs `[batch][edges][1 + k][2]`, the true one first.
    fn new(batch: &[Vec<Vec<[u32; 2]>>]) -> Self {
        let edges: Vec<&Vec<[u32; 2]>> = batch.iter().flatten().collect();
        Self {
            sources: edges.iter().map(|pairs| pairs[0][0]).collect(),
            targets: edges.iter().map(|pairs| pairs[0][1]).collect(),
            valid: vec![true; edges.len()],
            seq: batch[0].len(),
            candidates: edges
                .iter()
                .map(|pairs| pairs.iter().map(|pair| pair[1]).collect())
                .collect(),
        }
    }

    fn paths(&self) -> Paths<'_> {
        Paths {
            sources: &self.sources,
            targets: &self.targets,
            valid: &self.valid,
            seq: self.seq,
        }
    }

    fn groups(&self, graph: &Graph) -> Vec<Group> {
        given(graph, &self.paths(), &self.candidates)
    }
}

fn step(
    optimizer: &mut RowAdamW,
    model: &mut BriLlm,
    batch: &Batch,
    rate: f64,
    how: Execution,
) -> f64 {
    let groups = batch.groups(&model.graph);
    let paths = batch.paths();
    let learnt = match how {
        Execution::Host => optimizer.step(model, &paths, &groups, rate),
        Execution::Composed => {
            let device = Device::<TestAutodiff>::default();
            optimizer.step_on::<TestAutodiff>(model, &paths, &groups, rate, &device)
        }
    };
    learnt.nats.iter().sum::<f64>() / batch.valid.len() as f64
}

fn competition(model: &BriLlm) -> Competition {
    let weights = Weights::One;
    assert_eq!(model.graph.back_off_rows(), 1);
    Competition::new(Candidates::All, weights, model.config.flow.bias, None)
}

/// Greedy continuation of a prompt, `n` tokens.
fn decode(model: &BriLlm, prompt: &[u32], n: usize, decoding: Decoding) -> Vec<u32> {
    let competition = competition(model);
    let mut state = SignalState::start(model, prompt[0]);
    prompt[1..]
        .iter()
        .for_each(|&token| state.advance(model, decoding, token));
    state.end_prompt(decoding);
    let mut all = prompt.to_vec();
    for _ in 0..n {
        let candidates = state.candidates(model, &competition, decoding);
        let next = strongest(&candidates).unwrap().target;
        state.advance(model, decoding, next);
        all.push(next);
    }
    all
}

/// Energies of the candidates along the true paths.
pub fn energies(model: &BriLlm, batch: &Batch) -> Vec<Vec<f32>> {
    let competition = competition(model);
    let mut all = Vec::new();
    let mut state = SignalState::start(model, 0);
    for (place, candidates) in batch.candidates.iter().enumerate() {
        if place % batch.seq == 0 {
            state = SignalState::start(model, batch.sources[place]);
        }
        let reached = state.candidates(model, &competition, Decoding::NATIVE);
        all.push(
            candidates
                .iter()
                .map(|&target| reached[target as usize].energy)
                .collect(),
        );
        state.advance(model, Decoding::NATIVE, batch.targets[place]);
    }
    all
}

fn close(what: &str, found: f64, expected: f64, bar: f64) {
    assert!(
        (found - expected).abs() <= bar,
        "{what}: found {found}, expected {expected}"
    );
}

/// The gradient of the first step, from what AdamW remembers of it.
fn first_gradient(moment: &[f32]) -> Vec<f64> {
    moment
        .iter()
        .map(|&value| f64::from(value) / f64::from(1.0 - 0.9f32))
        .collect()
}

fn adamw(weight_decay: f64) -> AdamW {
    AdamW {
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weight_decay,
    }
}

/// A case in a folder.
pub fn check(folder: &Path) -> String {
    let case = json(&folder.join("case.json"));
    let d = case["d"].as_u64().unwrap() as usize;
    let graph = graph_of(folder, case["mode"].as_str().unwrap());
    assert_eq!(graph.rows() as u64, case["rows"].as_u64().unwrap());
    let graph = Arc::new(graph);
    let model_of = |file: &str| model(d, graph.clone(), import::read(&folder.join(file)).unwrap());
    let model = model_of("weights.safetensors");
    assert_eq!(model, model_of("weights.bin"));
    let batch = inputs(&folder.join("inputs.safetensors"));
    let expected = import::read(&folder.join("expected.safetensors")).unwrap();
    let found = energies(&model, &batch).into_iter().flatten();
    for (found, expected) in found.zip(expected["energies"].floats().iter()) {
        close(
            "energy",
            f64::from(found),
            f64::from(*expected),
            GOLDEN as f64,
        );
    }
    let gradients = import::read(&folder.join("grads.safetensors")).unwrap();
    let mut worst = 0.0f64;
    for how in [Execution::Host, Execution::Composed] {
        let mut optimizer = RowAdamW::new(&model, Mode::Exact, adamw(0.0), None);
        let mut after = model.clone();
        let loss = step(&mut optimizer, &mut after, &batch, 0.0, how);
        optimizer.catch_up(&mut after);
        close(
            "loss",
            loss,
            f64::from(expected["loss"].floats()[0]),
            GOLDEN as f64,
        );
        worst = worst.max(check_gradients(&optimizer, d, &gradients, how));
    }
    for decode in case["decode"].as_array().unwrap() {
        check_decode(&model, decode);
    }
    let after = import::read(&folder.join("weights_after_training.safetensors")).unwrap();
    let training = &case["training"];
    for (how, mode) in [
        (Execution::Host, Mode::Exact),
        (Execution::Host, Mode::Dense),
        (Execution::Composed, Mode::Exact),
    ] {
        check_training(model.clone(), &batch, training, &after, how, mode);
    }
    format!("energies, gradients (worst {worst:.1e}), decodes, trajectory")
}

pub fn check_decode(model: &BriLlm, decode_case: &Value) {
    let ids = |name: &str| -> Vec<u32> {
        let ids = decode_case[name].as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let (prompt, expected) = (ids("prompt_ids"), ids("output_ids"));
    let n = expected.len() - prompt.len();
    assert_eq!(decode(model, &prompt, n, Decoding::REFERENCE), expected);
}

fn check_gradients(optimizer: &RowAdamW, d: usize, expected: &TensorMap, how: Execution) -> f64 {
    let first = &optimizer.edges.first;
    let edges = first_gradient(&first.part(0..first.len()));
    let rows = || edges.chunks(d * (d + 1));
    let found = [
        (
            "weights",
            rows()
                .flat_map(|row| row[..d * d].to_vec())
                .collect::<Vec<f64>>(),
        ),
        (
            "biases",
            rows().flat_map(|row| row[d * d..].to_vec()).collect(),
        ),
        ("node_bias", first_gradient(&optimizer.node_bias[0])),
        ("positions", first_gradient(&optimizer.mix[0])),
    ];
    let mut worst = 0.0f64;
    for (name, found) in found {
        let expected = expected[name].floats();
        assert_eq!(found.len(), expected.len(), "{name}");
        let largest = expected
            .iter()
            .fold(0.0f64, |largest, value| largest.max(f64::from(value.abs())));
        for (found, expected) in found.iter().zip(expected.iter()) {
            let difference = (found - f64::from(*expected)).abs();
            // A gradient that is zero everywhere has no scale: it must be zero here too.
            let relative = match largest {
                0.0 => difference,
                _ => difference / largest,
            };
            assert!(
                relative <= GOLDEN_GRADIENT as f64,
                "{how:?} {name}: {found} instead of {expected}"
            );
            worst = worst.max(relative);
        }
    }
    worst
}

fn check_training(
    mut model: BriLlm,
    batch: &Batch,
    training: &Value,
    after: &TensorMap,
    how: Execution,
    mode: Mode,
) {
    let number = |name: &str| training[name].as_f64().unwrap();
    let mut optimizer = RowAdamW::new(&model, mode, adamw(number("weight_decay")), None);
    let samples = batch.valid.len() / batch.seq;
    for (index, expected) in training["losses"].as_array().unwrap().iter().enumerate() {
        let sample = (index % samples) * batch.seq..(index % samples + 1) * batch.seq;
        let batch = Batch {
            sources: batch.sources[sample.clone()].to_vec(),
            targets: batch.targets[sample.clone()].to_vec(),
            valid: batch.valid[sample.clone()].to_vec(),
            seq: batch.seq,
            candidates: batch.candidates[sample].to_vec(),
        };
        let loss = step(&mut optimizer, &mut model, &batch, number("lr"), how);
        close("trajectory", loss, expected.as_f64().unwrap(), TRAJECTORY);
    }
    optimizer.catch_up(&mut model);
    let d = model.config.d_node;
    let edges = model.parameters.edges.part(0..model.parameters.edges.len());
    let rows = || edges.chunks(d * (d + 1));
    let found = [
        (
            "weights",
            rows()
                .flat_map(|row| row[..d * d].to_vec())
                .collect::<Vec<f32>>(),
        ),
        (
            "biases",
            rows().flat_map(|row| row[d * d..].to_vec()).collect(),
        ),
        ("node_bias", model.parameters.node_bias.clone()),
        ("positions", model.parameters.mix.clone()),
    ];
    for (name, found) in found {
        let expected = after[name].floats();
        let difference = |(a, b): (&f32, &f32)| f64::from(a - b);
        let squares: f64 = found
            .iter()
            .zip(expected.iter())
            .map(difference)
            .map(|x| x * x)
            .sum();
        let rms = (squares / found.len() as f64).sqrt();
        let largest = found
            .iter()
            .zip(expected.iter())
            .map(difference)
            .fold(0.0f64, |a, b| a.max(b.abs()));
        assert!(rms <= 1e-3, "{how:?} {mode:?} {name}: {rms}");
        assert!(
            largest <= if name == "positions" { 1e-4 } else { 5e-2 },
            "{how:?} {mode:?} {name}: {largest}"
        );
    }
}

pub fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Rows by the vocabulary file's order; a pair that the counts do not mention counts as seen.
pub fn graph_of(folder: &Path, mode: &str) -> Graph {
    let vocabulary = json(&folder.join("vocab.json"));
    let vocabulary = vocabulary.as_object().unwrap();
    let n = vocabulary.len();
    if mode == "ref-dense" {
        return Graph::full(n);
    }
    let mut tokens = vec![""; n];
    vocabulary
        .iter()
        .for_each(|(token, id)| tokens[id.as_u64().unwrap() as usize] = token);
    let counts = json(&folder.join("word_frequency.json"));
    let seen = |source: &str, target: &str| counts[source][target].as_u64() != Some(0);
    let of = |source: &&str| {
        let targets = (0..n as u32).filter(|&target| seen(source, tokens[target as usize]));
        targets.collect()
    };
    Graph::new(n, tokens.iter().map(of))
}

fn model(d: usize, graph: Arc<Graph>, tensors: TensorMap) -> BriLlm {
    let floats = |name: &str| tensors[name].floats().into_owned();
    let (weights, biases) = (floats("weights"), floats("biases"));
    let rows = weights.chunks(d * d).zip(biases.chunks(d));
    BriLlm {
        config: config(d),
        graph,
        parameters: Parameters {
            mix: floats("positions"),
            node_bias: floats("node_bias"),
            codes: Vec::new(),
            edges: rows
                .flat_map(|(matrix, bias)| [matrix, bias].concat())
                .collect::<Vec<f32>>()
                .into(),
        },
    }
}

fn config(d: usize) -> BriLlmConfig {
    let initial = Initial::Uniform { half_range: 0.5 };
    BriLlmConfig {
        d_node: d,
        flow: compat::REFERENCE,
        initial,
        back_off_rows: BackOffRows::Trained,
        storage: Storage::F32,
        decoding: Decoding::NATIVE,
    }
}

pub fn inputs(path: &Path) -> Batch {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("neighbor_ids").unwrap();
    let &[batch, edges, candidates, 2] = view.shape() else {
        panic!("{:?}", view.shape())
    };
    let (values, _) = view.data().as_chunks::<8>();
    let mut values = values.iter().map(|bytes| i64::from_le_bytes(*bytes) as u32);
    let mut next = || values.next().unwrap();
    let pairs: Vec<Vec<Vec<[u32; 2]>>> = (0..batch)
        .map(|_| {
            (0..edges)
                .map(|_| (0..candidates).map(|_| [next(), next()]).collect())
                .collect()
        })
        .collect();
    Batch::new(&pairs)
}

/// The cases of `golden.json`, whose parameters are a formula.
#[test]
fn the_golden_numbers_of_small_graphs() {
    let golden = json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/brillm/golden.json"));
    for name in [
        "A_dense_d8",
        "B_sparse_d8",
        "C_sparse_d32",
        "D_single_edge_prompt",
    ] {
        check_small(name, &golden[name]);
    }
    for name in [
        "T1_train_B_adamw_lr0.05",
        "T2_train_B_adamw_lr0.01_wd0.1",
        "T3_train_B_alternating_adamw_lr0.05",
    ] {
        check_small_training(&golden["B_sparse_d8"], &golden[name]);
    }
    check_scalar(&golden["O1_scalar_adamw"]);
}

fn small(case: &Value) -> (BriLlm, Batch) {
    let (n, d) = (
        case["V"].as_u64().unwrap() as usize,
        case["d"].as_u64().unwrap() as usize,
    );
    let missing: Vec<(u32, u32)> = match case["zero_edges"].is_null() {
        true => Vec::new(),
        false => serde_json::from_value(case["zero_edges"].clone()).unwrap(),
    };
    let of = |source| {
        (0..n as u32)
            .filter(|&target| !missing.contains(&(source, target)))
            .collect()
    };
    let graph = Graph::new(n, (0..n as u32).map(of));
    let rows = graph.rows();
    assert_eq!(rows as u64, case["n_params_edges"].as_u64().unwrap());
    let fill = |c: f64, amplitude: f64, len: usize| -> Vec<f32> {
        (0..len)
            .map(|n| (amplitude * (c + 0.7 * n as f64).sin()) as f32)
            .collect()
    };
    let (weights, biases) = (fill(0.1, 0.5, rows * d * d), fill(0.2, 0.5, rows * d));
    let edges = weights.chunks(d * d).zip(biases.chunks(d));
    let parameters = Parameters {
        mix: fill(0.4, 1.0, 512),
        node_bias: fill(0.3, 0.5, n * d),
        codes: Vec::new(),
        edges: edges
            .flat_map(|(matrix, bias)| [matrix, bias].concat())
            .collect::<Vec<f32>>()
            .into(),
    };
    let pairs: Vec<Vec<Vec<[u32; 2]>>> =
        serde_json::from_value(case["neighbor_ids"].clone()).unwrap();
    (
        BriLlm {
            config: config(d),
            graph: Arc::new(graph),
            parameters,
        },
        Batch::new(&pairs),
    )
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(list) => list.iter().flat_map(numbers).collect(),
        number => number.as_f64().into_iter().collect(),
    }
}

fn check_small(name: &str, case: &Value) {
    let (model, batch) = small(case);
    let d = model.config.d_node;
    let by_position: Vec<Vec<Vec<f64>>> = serde_json::from_value(case["energies"].clone()).unwrap();
    for (place, found) in energies(&model, &batch).iter().enumerate() {
        let expected = &by_position[place % batch.seq][place / batch.seq];
        for (found, expected) in found.iter().zip(expected) {
            close(name, f64::from(*found), *expected, 1e-5);
        }
    }
    let first = SignalState::start(&model, 0).mixed;
    for (found, expected) in first.iter().zip(numbers(&case["initial_tensor_row0"])) {
        close(name, f64::from(*found), expected, 1e-5);
    }
    for how in [Execution::Host, Execution::Composed] {
        let mut optimizer = RowAdamW::new(&model, Mode::Exact, adamw(0.0), None);
        let mut after = model.clone();
        let loss = step(&mut optimizer, &mut after, &batch, 0.0, how);
        optimizer.catch_up(&mut after);
        close(name, loss, case["loss"].as_f64().unwrap(), 1e-5);
        let first = &optimizer.edges.first;
        let edges = first_gradient(&first.part(0..first.len()));
        let rows: Vec<&[f64]> = edges.chunks(d * (d + 1)).collect();
        let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let found = [
            (
                "grad_weights_norm_per_edge",
                rows.iter().map(|row| norm(&row[..d * d])).collect(),
            ),
            (
                "grad_weights_edge_sums",
                rows.iter().map(|row| row[..d * d].iter().sum()).collect(),
            ),
            (
                "grad_biases_norm_per_edge",
                rows.iter().map(|row| norm(&row[d * d..])).collect(),
            ),
            ("grad_node_bias", first_gradient(&optimizer.node_bias[0])),
            (
                "grad_positions_first8",
                first_gradient(&optimizer.mix[0][..8]),
            ),
        ];
        for (what, found) in found {
            let found: Vec<f64> = found;
            let expected = numbers(&case[what]);
            assert_eq!(found.len(), expected.len(), "{name} {what}");
            for (found, expected) in found.iter().zip(expected) {
                close(&format!("{how:?} {name} {what}"), *found, expected, 1e-5);
            }
        }
        let sum: f64 = first_gradient(&optimizer.mix[0]).iter().sum();
        close("softmax does not see a constant", sum, 0.0, 1e-6);
    }
    let start: Vec<[u32; 2]> = serde_json::from_value(case["decode_start"].clone()).unwrap();
    let prompt: Vec<u32> = [start[0][0]]
        .into_iter()
        .chain(start.iter().map(|pair| pair[1]))
        .collect();
    let n = case["decode_gen"].as_u64().unwrap() as usize;
    let consistent = Decoding {
        positions: Positions::AsTrained,
        ..Decoding::REFERENCE
    };
    for (what, decoding) in [
        ("decode_ret", Decoding::REFERENCE),
        ("decode_ret_train_consistent_pe", consistent),
    ] {
        let pairs: Vec<[u32; 2]> = serde_json::from_value(case[what].clone()).unwrap();
        let expected: Vec<u32> = pairs.iter().map(|pair| pair[1]).collect();
        assert_eq!(
            decode(&model, &prompt, n, decoding)[1..],
            expected,
            "{name} {what}"
        );
    }
}

fn check_small_training(case: &Value, training: &Value) {
    let opt = |name: &str| training["opt"][name].as_f64().unwrap();
    let alternate = training["alternate_single_samples"].as_bool().unwrap();
    for (how, mode) in [
        (Execution::Host, Mode::Exact),
        (Execution::Host, Mode::Dense),
        (Execution::Composed, Mode::Exact),
    ] {
        let (mut model, batch) = small(case);
        let pairs: Vec<Vec<Vec<[u32; 2]>>> =
            serde_json::from_value(case["neighbor_ids"].clone()).unwrap();
        let mut optimizer = RowAdamW::new(&model, mode, adamw(opt("weight_decay")), None);
        for (index, expected) in numbers(&training["losses"]).into_iter().enumerate() {
            let single = Batch::new(&pairs[index % 2..index % 2 + 1]);
            let batch = if alternate { &single } else { &batch };
            let loss = step(&mut optimizer, &mut model, batch, opt("lr"), how);
            close("loss", loss, expected, TRAJECTORY);
        }
        optimizer.catch_up(&mut model);
        let d = model.config.d_node;
        let norm = |values: &[f32]| {
            values
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let edges = model.parameters.edges.part(0..model.parameters.edges.len());
        let rows = edges.chunks(d * (d + 1)).map(|row| norm(&row[..d * d]));
        for (found, expected) in rows.zip(numbers(&training["final_row_norms"])) {
            close("row", found, expected, 5e-3);
        }
        let mix = model.parameters.mix.iter();
        for (found, expected) in mix.zip(numbers(&training["final_positions_first4"])) {
            close("positions", f64::from(*found), expected, 1e-3);
        }
        let node_bias = norm(&model.parameters.node_bias);
        close(
            "node bias",
            node_bias,
            training["final_node_bias_norm"].as_f64().unwrap(),
            1e-2,
        );
    }
}

fn check_scalar(case: &Value) {
    let number = |name: &str| case[name].as_f64().unwrap();
    let adamw = adamw(number("wd"));
    let (mut value, mut first, mut second) = ([number("init") as f32], [0.0], [0.0]);
    for (step, expected) in numbers(&case["values_after_step_1_to_20"])
        .into_iter()
        .enumerate()
    {
        let time = step as u32 + 1;
        let gradient = case["touches"][time.to_string()].as_f64().unwrap_or(0.0) as f32;
        adamw.update(
            number("lr"),
            adamw.corrections(time),
            adamw.betas,
            &mut value,
            [&mut first, &mut second],
            &[gradient],
        );
        close("O1", f64::from(value[0]), expected, 5e-6);
    }
}

/// The composed pass is the definition of the one on the host, whatever the way of a signal and the candidates.
#[test]
fn both_executions_are_one_function() {
    use brillm::counts::PairCounts;
    use brillm::flow::{Bias, FlowConfig, Mix};
    use brillm::graph::BackOff;
    use brillm::position::Encoding;
    use brillm::prior::Prior;
    let token = |place: usize| ((place * place * 7 + place / 3) % 11) as u32;
    let sequences: Vec<Vec<u32>> = (0..4)
        .map(|row| (0..9).map(|at| token(row * 31 + at)).collect())
        .collect();
    let counts = PairCounts::of(12, &sequences);
    let sources: Vec<u32> = sequences.iter().flat_map(|row| row[..8].to_vec()).collect();
    let targets: Vec<u32> = sequences.iter().flat_map(|row| row[1..].to_vec()).collect();
    let valid: Vec<bool> = (0..32).map(|place| place % 8 < 5 + place / 8).collect();
    let paths = Paths {
        sources: &sources,
        targets: &targets,
        valid: &valid,
        seq: 8,
    };
    let decayed = FlowConfig {
        mix: Mix::Decay { initial: 0.7 },
        ..compat::PAPER
    };
    let learnt = FlowConfig {
        encoding: Encoding::Learnt { max_length: 4 },
        bias: Bias::EdgeAndNode,
        ..compat::NATIVE
    };
    let of_nodes = FlowConfig {
        bias: Bias::Node,
        ..compat::PAPER
    };
    let classes = BackOff::Classes { n_classes: 3 };
    for (flow, back_off) in [
        (compat::REFERENCE, BackOff::SharedRow),
        (compat::DENSE_2025, classes),
        (compat::PAPER, classes),
        (compat::NATIVE, BackOff::Hash { n_rows: 5 }),
        (decayed, classes),
        (learnt, classes),
        (of_nodes, BackOff::Hash { n_rows: 3 }),
    ] {
        for candidates in [
            Candidates::All,
            Candidates::Frequent { n: 3 },
            Candidates::Sampled { n: 5 },
        ] {
            let graph = counts.graph(2, back_off);
            let config = BriLlmConfig {
                d_node: 8,
                flow,
                initial: Initial::Uniform { half_range: 0.5 },
                back_off_rows: BackOffRows::Trained,
                storage: Storage::F32,
                decoding: Decoding::NATIVE,
            };
            let draw = |stream: &str, place: u64| {
                ((stream.len() as f64 + place as f64).sin() * 997.0).rem_euclid(1.0)
            };
            let parameters = config.init(12, graph.rows(), &draw);
            let weights = Weights::new(Prior::Bigram, Some(&counts), &graph);
            let competition = Competition::new(candidates, weights, flow.bias, Some(&counts));
            let start = BriLlm {
                config,
                graph: Arc::new(graph),
                parameters,
            };
            let groups = competition.groups(&start.graph, &paths, &|place| draw("draw", place));
            let device = Device::<TestAutodiff>::default();
            let (mut host, mut composed) = (start.clone(), start.clone());
            let fresh = || RowAdamW::new(&start, Mode::Exact, adamw(0.1), Some(0.3));
            let (mut on_host, mut elsewhere) = (fresh(), fresh());
            for _ in 0..5 {
                let a = on_host.step(&mut host, &paths, &groups, 1e-3);
                let b = elsewhere.step_on::<TestAutodiff>(
                    &mut composed,
                    &paths,
                    &groups,
                    1e-3,
                    &device,
                );
                close("gradient", a.gradient_norm, b.gradient_norm, 1e-4);
                for (a, b) in a.nats.iter().zip(&b.nats) {
                    close("nats", *a, *b, 1e-4);
                }
            }
        }
    }
}

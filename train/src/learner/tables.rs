//! The tables of a graph and of its optimizer ↔ the tensors of a checkpoint, without a copy of either.

use super::optimizer::moments;
use crate::error::Problem;
use crate::run::{HostTensor, TensorMap, Values};
use crate::task::{Core, Signal};
use brillm::table::Table;
use brillm::{BriLlm, Parameters};
use burn::tensor::backend::Backend;
use std::collections::BTreeMap;
use std::mem;
use std::path::Path;
use std::sync::Arc;

/// Numbers that are lent to a writer and come back.
#[derive(Default)]
struct Lent(Vec<Arc<Values>>);

impl Lent {
    fn lend(&mut self, name: &str, shape: Vec<usize>, values: Values) -> (String, HostTensor) {
        let tensor = HostTensor::of(shape, values);
        self.0.push(tensor.values.clone());
        (name.to_string(), tensor)
    }

    fn list(&mut self, name: &str, shape: Vec<usize>, list: &mut Vec<f32>) -> (String, HostTensor) {
        self.lend(name, shape, Values::F32(mem::take(list)))
    }

    fn table(&mut self, name: &str, shape: Vec<usize>, table: &mut Table) -> (String, HostTensor) {
        self.lend(name, shape, values_of(mem::take(table)))
    }
}

/// Lends the parameters and the optimizer's moments to a writer, as tensors that share the memory.
pub fn lend<B: Backend, T>(signal: &Signal<B>, to: impl FnOnce(TensorMap, TensorMap) -> T) -> T {
    let mut core = signal.write();
    let Core {
        model, optimizer, ..
    } = &mut *core;
    optimizer.catch_up(model);
    let shapes = shapes_of(model);
    let shape = |name: &str| shapes[name].clone();
    let parameters = &mut model.parameters;
    let mut touched: Vec<f32> = optimizer
        .edges
        .touched
        .iter()
        .map(|&step| step as f32)
        .collect();
    let learnt_codes = !parameters.codes.is_empty();
    let mut lent = Lent::default();
    let mut weights = TensorMap::from([
        lent.table("edges", shape("edges"), &mut parameters.edges),
        lent.list("mix", shape("mix"), &mut parameters.mix),
        lent.list("node_bias", shape("node_bias"), &mut parameters.node_bias),
    ]);
    let [mix_1, mix_2] = &mut optimizer.mix;
    let [node_1, node_2] = &mut optimizer.node_bias;
    let [codes_1, codes_2] = &mut optimizer.codes;
    let rates = optimizer.rates.len();
    let mut moments = TensorMap::from([
        lent.table("edges.moment_1", shape("edges"), &mut optimizer.edges.first),
        lent.table(
            "edges.moment_2",
            shape("edges"),
            &mut optimizer.edges.second,
        ),
        lent.list("mix.moment_1", shape("mix"), mix_1),
        lent.list("mix.moment_2", shape("mix"), mix_2),
        lent.list("node_bias.moment_1", shape("node_bias"), node_1),
        lent.list("node_bias.moment_2", shape("node_bias"), node_2),
        lent.list("edges.touched", vec![touched.len()], &mut touched),
        lent.list("rates", vec![rates], &mut optimizer.rates),
    ]);
    if learnt_codes {
        weights.extend([lent.list("codes", shape("codes"), &mut parameters.codes)]);
        moments.extend([
            lent.list("codes.moment_1", shape("codes"), codes_1),
            lent.list("codes.moment_2", shape("codes"), codes_2),
        ]);
    }
    let result = to(weights, moments);
    let mut back = lent.0.into_iter().map(Arc::unwrap_or_clone).map(table_of);
    let mut table = || back.next().expect("as many as were lent");
    parameters.edges = table();
    let mut list = || list_of(table());
    parameters.mix = list();
    parameters.node_bias = list();
    optimizer.edges.first = table();
    optimizer.edges.second = table();
    let mut list = || list_of(table());
    optimizer.mix = [list(), list()];
    optimizer.node_bias = [list(), list()];
    list();
    optimizer.rates = list();
    if learnt_codes {
        parameters.codes = list();
        optimizer.codes = [list(), list()];
    }
    result
}

fn table_of(values: Values) -> Table {
    match values {
        Values::F32(values) => Table::F32(values),
        Values::Bf16(values) => Table::Bf16(values),
    }
}

fn values_of(table: Table) -> Values {
    match table {
        Table::F32(values) => Values::F32(values),
        Table::Bf16(values) => Values::Bf16(values),
    }
}

fn list_of(table: Table) -> Vec<f32> {
    match table {
        Table::F32(values) => values,
        Table::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
    }
}

fn shapes_of(model: &BriLlm) -> BTreeMap<String, Vec<usize>> {
    let d = model.config.d_node;
    let parameters = &model.parameters;
    let mut shapes = BTreeMap::from([
        ("edges".to_string(), vec![model.graph.rows(), d + 1, d]),
        ("mix".to_string(), vec![parameters.mix.len()]),
        ("node_bias".to_string(), vec![model.graph.nodes(), d]),
    ]);
    if !parameters.codes.is_empty() {
        shapes.insert("codes".to_string(), vec![parameters.codes.len() / d, d]);
    }
    shapes
}

/// Shapes of the parameters, by name.
pub fn shapes<B: Backend>(signal: &Signal<B>) -> BTreeMap<String, Vec<usize>> {
    shapes_of(&signal.read().model)
}

/// Takes over parameters; the caller has checked their shapes.
pub fn set_parameters<B: Backend>(signal: &Signal<B>, mut tensors: TensorMap) {
    let mut take = |name: &str| {
        let tensor = tensors.remove(name);
        tensor.map_or_else(Table::default, |tensor| {
            table_of(Arc::unwrap_or_clone(tensor.values))
        })
    };
    let edges = take("edges");
    let mut list = |name: &str| list_of(take(name));
    let mut core = signal.write();
    let Core {
        model, optimizer, ..
    } = &mut *core;
    optimizer.leave_device(model);
    model.parameters = Parameters {
        edges: edges.stored_as(model.config.storage),
        mix: list("mix"),
        node_bias: list("node_bias"),
        codes: list("codes"),
    };
}

/// Takes over what AdamW remembers.
///
/// # Errors
/// The first tensor that is missing, superfluous, of another shape or out of range, naming `file`.
pub fn set_moments<B: Backend>(
    signal: &Signal<B>,
    mut tensors: TensorMap,
    file: &Path,
) -> Result<(), Problem> {
    let mut core = signal.write();
    let Core {
        model, optimizer, ..
    } = &mut *core;
    check_moments(model, &tensors, file)?;
    optimizer.leave_device(model);
    let mut take = |name: &str| {
        let tensor = tensors.remove(name).expect("every name was checked");
        table_of(Arc::unwrap_or_clone(tensor.values))
    };
    let storage = model.config.storage;
    optimizer.edges.first = take("edges.moment_1").stored_as(storage);
    optimizer.edges.second = take("edges.moment_2").stored_as(storage);
    let mut list = |name: &str| list_of(take(name));
    let mut pair = |name: &str| ["1", "2"].map(|which| list(&format!("{name}.moment_{which}")));
    optimizer.mix = pair("mix");
    optimizer.node_bias = pair("node_bias");
    if !model.parameters.codes.is_empty() {
        optimizer.codes = pair("codes");
    }
    optimizer.rates = list("rates");
    let time = optimizer.rates.len() as u32;
    let touched = list("edges.touched");
    optimizer.edges.touched = touched.into_iter().map(|step| step as u32).collect();
    optimizer.edges.current = vec![time; model.graph.rows()];
    Ok(())
}

/// Whether these are the moments of a model, and its rows were touched at steps that there were.
fn check_moments(model: &BriLlm, tensors: &TensorMap, file: &Path) -> Result<(), Problem> {
    let wrong = |name: &str, found: String, expected: String| {
        let problem = Problem::new(file, format!("tensor {name}"), found, expected);
        Err(problem.advise("the recipe and the checkpoint do not belong together"))
    };
    let steps = tensors.get("rates").map_or(0, HostTensor::len);
    let shapes = shapes_of(model).into_iter();
    let mut expected: BTreeMap<String, Vec<usize>> = shapes
        .flat_map(|(name, shape)| {
            ["1", "2"].map(|which| (format!("{name}.moment_{which}"), shape.clone()))
        })
        .collect();
    expected.insert("edges.touched".to_string(), vec![model.graph.rows()]);
    expected.insert("rates".to_string(), vec![steps]);
    for (name, shape) in &expected {
        let found = tensors.get(name).map(|tensor| &tensor.shape);
        if found != Some(shape) {
            let found = found.map_or("nothing".to_string(), |found| format!("shape {found:?}"));
            return wrong(name, found, format!("shape {shape:?}"));
        }
    }
    if let Some(name) = tensors.keys().find(|name| !expected.contains_key(*name)) {
        let expected = "only what the optimizer of this model remembers";
        return wrong(name, "a tensor".to_string(), expected.to_string());
    }
    moments(tensors, file)?;
    let touched = tensors["edges.touched"].floats();
    let is_step = |value: f32| value >= 0.0 && value <= steps as f32 && value.fract() == 0.0;
    if let Some(row) = touched.iter().position(|&value| !is_step(value)) {
        let found = format!("{} at row {row}", touched[row]);
        return wrong("edges.touched", found, format!("a step from 0 to {steps}"));
    }
    let rates = tensors["rates"].floats();
    if let Some(step) = rates.iter().position(|rate| *rate < 0.0) {
        let found = format!("{} at index {step}", rates[step]);
        return wrong("rates", found, "learning rates, at least 0".to_string());
    }
    Ok(())
}

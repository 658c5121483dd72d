//! The tables of a graph and of its optimizer ↔ the tensors of a checkpoint, without a copy of either.

use crate::run::{HostTensor, TensorMap};
use crate::task::{Core, Signal};
use brillm::Parameters;
use burn::tensor::backend::Backend;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

/// Lends the parameters and the optimizer's moments to a writer, as tensors that share the memory.
pub fn lend<B: Backend, T>(signal: &Signal<B>, to: impl FnOnce(TensorMap, TensorMap) -> T) -> T {
    drop(signal.settled());
    let mut core = signal.write();
    let Core {
        model, optimizer, ..
    } = &mut *core;
    let d = model.config.d_node;
    let (nodes, rows) = (model.graph.nodes(), model.graph.rows());
    let mut lent = Vec::new();
    let mut lend = |name: &'static str, shape: Vec<usize>, values: &mut Vec<f32>| {
        let tensor = HostTensor::new(shape, mem::take(values));
        lent.push(tensor.values.clone());
        (name.to_string(), tensor)
    };
    let table = || vec![rows, d + 1, d];
    let parameters = &mut model.parameters;
    let weights = TensorMap::from([
        lend("edges", table(), &mut parameters.edges),
        lend("mix", vec![parameters.mix.len()], &mut parameters.mix),
        lend("node_bias", vec![nodes, d], &mut parameters.node_bias),
    ]);
    let mut touched: Vec<f32> = optimizer
        .edges
        .touched
        .iter()
        .map(|&step| step as f32)
        .collect();
    let [mix_1, mix_2] = &mut optimizer.mix;
    let [node_1, node_2] = &mut optimizer.node_bias;
    let moments = TensorMap::from([
        lend("edges.moment_1", table(), &mut optimizer.edges.first),
        lend("edges.moment_2", table(), &mut optimizer.edges.second),
        lend("mix.moment_1", vec![mix_1.len()], mix_1),
        lend("mix.moment_2", vec![mix_2.len()], mix_2),
        lend("node_bias.moment_1", vec![nodes, d], node_1),
        lend("node_bias.moment_2", vec![nodes, d], node_2),
        lend("edges.touched", vec![rows], &mut touched),
        lend("rates", vec![optimizer.rates.len()], &mut optimizer.rates),
    ]);
    let result = to(weights, moments);
    let mut back = lent.into_iter().map(Arc::unwrap_or_clone);
    let mut give_back = || back.next().expect("as many as were lent");
    parameters.edges = give_back();
    parameters.mix = give_back();
    parameters.node_bias = give_back();
    optimizer.edges.first = give_back();
    optimizer.edges.second = give_back();
    optimizer.mix = [give_back(), give_back()];
    optimizer.node_bias = [give_back(), give_back()];
    give_back();
    optimizer.rates = give_back();
    result
}

/// Shapes of the parameters, by name.
pub fn shapes<B: Backend>(signal: &Signal<B>) -> BTreeMap<String, Vec<usize>> {
    let core = signal.read();
    let model = &core.model;
    let d = model.config.d_node;
    BTreeMap::from([
        ("edges".to_string(), vec![model.graph.rows(), d + 1, d]),
        ("mix".to_string(), vec![model.parameters.mix.len()]),
        ("node_bias".to_string(), vec![model.graph.nodes(), d]),
    ])
}

/// Takes over parameters; the caller has checked their shapes.
pub fn set_parameters<B: Backend>(signal: &Signal<B>, mut tensors: TensorMap) {
    let mut take = |name: &str| {
        tensors
            .remove(name)
            .map_or_else(Vec::new, HostTensor::into_values)
    };
    signal.write().model.parameters = Parameters {
        edges: take("edges"),
        mix: take("mix"),
        node_bias: take("node_bias"),
    };
}

/// Takes over what AdamW remembers. Returns the name of the first tensor that is missing or of another size.
pub fn set_moments<B: Backend>(signal: &Signal<B>, mut tensors: TensorMap) -> Result<(), String> {
    let mut core = signal.write();
    let Core {
        model, optimizer, ..
    } = &mut *core;
    let mut take = |name: &str, length: Option<usize>| {
        let tensor = tensors
            .remove(name)
            .filter(|tensor| length.is_none_or(|n| tensor.values.len() == n));
        tensor
            .map(HostTensor::into_values)
            .ok_or_else(|| name.to_string())
    };
    let parameters = &model.parameters;
    let (edges, mix) = (Some(parameters.edges.len()), Some(parameters.mix.len()));
    let nodes = Some(parameters.node_bias.len());
    optimizer.rates = take("rates", None)?;
    let time = optimizer.rates.len() as u32;
    let touched = take("edges.touched", Some(model.graph.rows()))?;
    optimizer.edges.touched = touched.into_iter().map(|step| step as u32).collect();
    optimizer.edges.current = vec![time; model.graph.rows()];
    optimizer.edges.first = take("edges.moment_1", edges)?;
    optimizer.edges.second = take("edges.moment_2", edges)?;
    optimizer.mix = [take("mix.moment_1", mix)?, take("mix.moment_2", mix)?];
    optimizer.node_bias = [
        take("node_bias.moment_1", nodes)?,
        take("node_bias.moment_2", nodes)?,
    ];
    Ok(())
}

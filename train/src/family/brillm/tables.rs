//! Lends a BriLLM's parameters and AdamW moments to a checkpoint writer without a copy; checks and restores loaded moments.
//! It also sets loaded parameters, whose shapes the caller has checked.

use super::shards::{RowsOfRanks, SharedOut, TABLES, rows_here};
use crate::error::Problem;
use crate::learner::check_moments as check_finite_moments;
use crate::run::{Elsewhere, HostTensor, TensorMap, Values};
use brillm::shard::Peers;
use brillm::table::Table;
use brillm::training::RowAdamW;
use brillm::{BriLlm, Parameters};
use std::collections::BTreeMap;
use std::mem;
use std::path::Path;
use std::sync::Arc;

type OfRanks<'a> = dyn Fn(usize, Arc<Values>) -> Arc<dyn Elsewhere> + 'a;

/// Numbers that are lent to a writer and come back.
struct Lent<'a> {
    lent: Vec<Arc<Values>>,
    /// Makes of the rows of the first rank, by the place in [`TABLES`], what a writer reads of all ranks.
    of_ranks: Option<&'a OfRanks<'a>>,
}

impl Lent<'_> {
    fn lend(&mut self, name: &str, shape: Vec<usize>, values: Values) -> (String, HostTensor) {
        let values = Arc::new(values);
        self.lent.push(values.clone());
        let table = TABLES.iter().position(|table| *table == name);
        let values = match (table, self.of_ranks) {
            (Some(table), Some(of_ranks)) => Arc::new(Values::Elsewhere(of_ranks(table, values))),
            _ => values,
        };
        (name.to_string(), HostTensor { shape, values })
    }

    fn list(&mut self, name: &str, shape: Vec<usize>, list: &mut Vec<f32>) -> (String, HostTensor) {
        self.lend(name, shape, Values::F32(mem::take(list)))
    }

    fn table(&mut self, name: &str, shape: Vec<usize>, table: &mut Table) -> (String, HostTensor) {
        self.lend(name, shape, values_of(mem::take(table)))
    }
}

/// Lends the parameters and the optimizer's moments to a writer, as tensors that share the memory. Of a table that ranks share out,
/// the first lends all of it, whose other rows it asks for when they are read, and the others what they hold.
pub fn lend<T>(
    model: &mut BriLlm,
    optimizer: &mut RowAdamW,
    shared_out: Option<&Arc<SharedOut>>,
    to: impl FnOnce(TensorMap, TensorMap) -> T,
) -> T {
    optimizer.catch_up(model);
    let mut shapes = shapes_of(model);
    let (graph, row_len) = (model.graph.clone(), model.config.row_len());
    let rows_of_ranks = |table: usize, own: Arc<Values>| -> Arc<dyn Elsewhere> {
        Arc::new(RowsOfRanks {
            shared_out: shared_out.expect("asked only then").clone(),
            graph: graph.clone(),
            table,
            own,
            row_len: if TABLES[table] == "edges.touched" {
                1
            } else {
                row_len
            },
        })
    };
    let is_first = shared_out.is_some_and(|shared_out| shared_out.rank() == 0);
    if shared_out.is_some() && !is_first {
        shapes.get_mut("edges").expect("the table")[0] = graph.rows_here();
    }
    let n_rows = shapes["edges"][0];
    let shape = |name: &str| shapes[name].clone();
    let parameters = &mut model.parameters;
    let mut touched: Vec<f32> = optimizer
        .edges
        .touched
        .iter()
        .map(|&step| step as f32)
        .collect();
    let learnt_codes = !parameters.codes.is_empty();
    let mut lent = Lent {
        lent: Vec::new(),
        of_ranks: is_first.then_some(&rows_of_ranks),
    };
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
        lent.list("edges.touched", vec![n_rows], &mut touched),
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
    let mut back = lent
        .lent
        .into_iter()
        .map(Arc::unwrap_or_clone)
        .map(table_of);
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
        Values::Elsewhere(_) => unreachable!("{IN_MEMORY}"),
    }
}

const IN_MEMORY: &str = "what is lent and taken over lies in memory";

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

/// Shapes of the parameters, by name.
pub fn shapes_of(model: &BriLlm) -> BTreeMap<String, Vec<usize>> {
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

/// Takes over parameters, of a table in shards the rows of this process; the caller has checked their shapes.
///
/// # Errors
/// Where the table lies, if it cannot be read.
pub fn set_parameters(
    model: &mut BriLlm,
    optimizer: &mut RowAdamW,
    mut tensors: TensorMap,
) -> Result<(), Problem> {
    let edges = match tensors.remove("edges") {
        Some(edges) => table_of(rows_here(&model.graph, edges)?),
        None => Table::default(),
    };
    let mut take = |name: &str| {
        let tensor = tensors.remove(name);
        tensor.map_or_else(Table::default, |tensor| {
            table_of(Arc::unwrap_or_clone(tensor.values))
        })
    };
    let mut list = |name: &str| list_of(take(name));
    optimizer.leave_device(model);
    model.parameters = Parameters {
        edges: edges.stored_as(model.config.storage),
        mix: list("mix"),
        node_bias: list("node_bias"),
        codes: list("codes"),
    };
    Ok(())
}

/// Takes over what AdamW remembers.
///
/// # Errors
/// The first tensor that is missing, superfluous, of another shape or out of range, naming `file`.
pub fn set_moments(
    model: &mut BriLlm,
    optimizer: &mut RowAdamW,
    mut tensors: TensorMap,
    file: &Path,
) -> Result<(), Problem> {
    check_moments(model, &tensors, file)?;
    optimizer.leave_device(model);
    let graph = model.graph.clone();
    let mut rows = |name: &str| {
        let tensor = tensors.remove(name).expect("every name was checked");
        rows_here(&graph, tensor).map(table_of)
    };
    let storage = model.config.storage;
    optimizer.edges.first = rows("edges.moment_1")?.stored_as(storage);
    optimizer.edges.second = rows("edges.moment_2")?.stored_as(storage);
    let touched = list_of(rows("edges.touched")?);
    let mut take = |name: &str| {
        let tensor = tensors.remove(name).expect("every name was checked");
        table_of(Arc::unwrap_or_clone(tensor.values))
    };
    let mut list = |name: &str| list_of(take(name));
    let mut pair = |name: &str| ["1", "2"].map(|which| list(&format!("{name}.moment_{which}")));
    optimizer.mix = pair("mix");
    optimizer.node_bias = pair("node_bias");
    if !model.parameters.codes.is_empty() {
        optimizer.codes = pair("codes");
    }
    optimizer.rates = list("rates");
    let time = optimizer.rates.len() as u32;
    optimizer.edges.touched = touched.into_iter().map(|step| step as u32).collect();
    optimizer.edges.current = vec![time; graph.rows_here()];
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
    check_finite_moments(tensors, file)?;
    let is_step = |value: f32| value >= 0.0 && value <= steps as f32 && value.fract() == 0.0;
    tensors["edges.touched"].in_pieces(&mut |start, values| {
        let touched = list_of(table_of(values.clone()));
        let Some(row) = touched.iter().position(|&value| !is_step(value)) else {
            return Ok(());
        };
        let found = format!("{} at row {}", touched[row], start + row);
        wrong("edges.touched", found, format!("a step from 0 to {steps}"))
    })?;
    let rates = tensors["rates"].floats();
    if let Some(step) = rates.iter().position(|rate| *rate < 0.0) {
        let found = format!("{} at index {step}", rates[step]);
        return wrong("rates", found, "learning rates, at least 0".to_string());
    }
    Ok(())
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::collective::Ranks;
    use crate::collective::threads::on_ranks;
    use crate::data::HostBatch;
    use crate::device::tests::Learning as B;
    use crate::family::brillm::BriLlmTask;
    use crate::ladder::Blueprint;
    use crate::model::{Model, OwnOptimizer};
    use crate::recipe::bundled::BUNDLED;
    use crate::recipe::load::from_text;
    use crate::recipe::{Checked, Policy};
    use crate::task::{Batch, RoutePlan, StepPlan};

    /// A graph of all pairs of four tokens, with codes that are learnt and a decay, so that no row stands still.
    fn recipe() -> Checked {
        let tiny = BUNDLED
            .iter()
            .find(|one| (one.kind, one.size) == ("brillm", "tiny"))
            .unwrap();
        let sets = [
            "model.d_node=2",
            "model.prior='none'",
            "model.flow.encoding={kind='learnt',max_length=8}",
            "optimizer.weight_decay=0.1",
        ];
        let (model, rest) = tiny.text.split_once("[model.edges]").unwrap();
        let (_, flow) = rest.split_once("[model.flow]").unwrap();
        let text = format!("{model}[model.edges]\nkind = \"full\"\n\n[model.flow]{flow}");
        from_text("r.toml", text, &sets.map(str::to_string)).unwrap()
    }

    fn signal(recipe: &Checked, fresh: bool) -> BriLlmTask<B> {
        signal_on(None, recipe, fresh)
    }

    fn signal_on(ranks: Option<&Ranks>, recipe: &Checked, fresh: bool) -> BriLlmTask<B> {
        let blueprint = Blueprint {
            recipe,
            vocabulary: 4,
            counts: None,
            ranks,
        };
        let device = Default::default();
        let model = match fresh {
            true => blueprint.fresh::<B>(&Policy::None, &device),
            false => blueprint.skeleton::<B>(&Policy::None, &device),
        };
        model
            .downcast()
            .unwrap_or_else(|_: Model<B>| panic!("a graph"))
    }

    /// A path along four tokens, some of which other paths leave out.
    fn path(tokens: [u32; 4]) -> Vec<Batch> {
        let host = HostBatch {
            inputs: tokens[..3].to_vec(),
            targets: tokens[1..].to_vec(),
            valid: vec![true; 3],
            batch: 1,
            seq: 3,
            sequences: vec![0],
            parts: Vec::new(),
            difficulty: vec![None],
            ids: vec![(0, 0)],
            bytes: 3,
        };
        vec![Batch {
            host,
            source: 0,
            plan: StepPlan::idle(RoutePlan::sequential()),
        }]
    }

    fn learnt(recipe: &Checked) -> BriLlmTask<B> {
        learnt_on(None, recipe)
    }

    fn learnt_on(ranks: Option<&Ranks>, recipe: &Checked) -> BriLlmTask<B> {
        let signal = signal_on(ranks, recipe, true);
        for tokens in [[0, 1, 2, 1], [1, 1, 0, 3], [0, 1, 2, 2]] {
            signal.learn(&path(tokens), 0.1);
        }
        signal
    }

    /// Copies of what is lent.
    fn lent(signal: &BriLlmTask<B>) -> [TensorMap; 2] {
        let copy = |tensors: TensorMap| -> TensorMap {
            let copied = tensors.iter().map(|(name, tensor)| {
                let of = match &*tensor.values {
                    // In odd pieces, as a writer reads them.
                    Values::Elsewhere(values) => {
                        let mut all = Values::with_room(values.dtype(), values.len());
                        let starts = (0..values.len()).step_by(5);
                        let piece = |start: usize| start..(start + 5).min(values.len());
                        starts.for_each(|start| all.extend(&values.read(piece(start)).unwrap()));
                        all
                    }
                    values => values.clone(),
                };
                (name.clone(), HostTensor::of(tensor.shape.clone(), of))
            });
            copied.collect()
        };
        let core = &mut *signal.write();
        let both = |weights, moments| [copy(weights), copy(moments)];
        let shared_out = core.shared_out.as_ref();
        lend(&mut core.model, &mut core.optimizer, shared_out, both)
    }

    /// The same of a table that ranks share out; on the first of them.
    fn lent_by_all(signal: &BriLlmTask<B>) -> Option<[TensorMap; 2]> {
        let is_first = signal.read().shared_out.as_ref()?.rank() == 0;
        match is_first {
            true => {
                let lent = lent(signal);
                signal.dismiss();
                Some(lent)
            }
            false => {
                signal.assist();
                None
            }
        }
    }

    #[test]
    fn a_table_that_ranks_share_out_is_lent_whole_and_goes_on_from_what_was_lent_on_any_number() {
        let recipe = recipe();
        let alone = learnt(&recipe);
        let [weights, moments] = lent(&alone);
        alone.learn(&path([2, 1, 1, 0]), 0.05);
        let after = lent(&alone);
        for size in 2..=4 {
            let found = on_ranks(size, |ranks| {
                let shown = learnt_on(Some(&ranks), &recipe);
                assert!(shown.is_shared_out());
                let begun = lent_by_all(&shown);
                let read = signal_on(Some(&ranks), &recipe, false);
                read.set_parameters(weights.clone()).unwrap();
                read.set_moments(moments.clone(), Path::new("optim"))
                    .unwrap();
                let goes_on = [shown, read].map(|signal| {
                    signal.learn(&path([2, 1, 1, 0]), 0.05);
                    lent_by_all(&signal)
                });
                (begun, goes_on)
            });
            let (begun, goes_on) = &found[0];
            assert_eq!(begun.as_ref(), Some(&[weights.clone(), moments.clone()]));
            for goes_on in goes_on {
                assert_eq!(goes_on.as_ref(), Some(&after), "{size}");
            }
        }
    }

    #[test]
    fn a_graph_goes_on_after_it_was_lent_and_from_what_was_lent_as_if_nothing_had_been() {
        let recipe = recipe();
        let (alone, shown, read) = (learnt(&recipe), learnt(&recipe), signal(&recipe, false));
        let [weights, moments] = lent(&shown);
        let names: Vec<&str> = weights.keys().map(String::as_str).collect();
        assert_eq!(names, ["codes", "edges", "mix", "node_bias"]);
        // Of 16 pairs and a row that others share; a row is a matrix of 2 by 2 and a bias.
        assert_eq!(
            (&weights["edges"].shape[..], &weights["node_bias"].shape[..]),
            (&[17, 3, 2][..], &[4, 2][..])
        );
        assert_eq!(moments["rates"].floats()[..], [0.1f32; 3]);
        assert_eq!((moments.len(), moments["edges.touched"].len()), (10, 17));
        let shapes = shown.shapes();
        assert!(
            weights
                .iter()
                .all(|(name, tensor)| shapes[name] == tensor.shape)
        );
        read.set_parameters(weights).unwrap();
        read.set_moments(moments, Path::new("optim")).unwrap();
        for tokens in [[2, 1, 1, 0], [0, 1, 2, 3]] {
            for signal in [&alone, &shown, &read] {
                signal.learn(&path(tokens), 0.05);
            }
        }
        let [expected, ..] = [lent(&alone), lent(&shown)];
        assert!(lent(&shown) == expected && lent(&read) == expected);
    }

    #[test]
    fn moments_of_another_graph_or_of_steps_that_never_were_are_refused() {
        let recipe = recipe();
        let shown = learnt(&recipe);
        let [_, moments] = lent(&shown);
        let refused = |name: &str, shape: Vec<usize>, values: Vec<f32>| {
            let mut moments = moments.clone();
            match values.is_empty() {
                true => drop(moments.remove(name)),
                false => drop(moments.insert(name.to_string(), HostTensor::new(shape, values))),
            }
            let read = shown.set_moments(moments, Path::new("optim"));
            read.err()
                .map_or(String::new(), |problem| problem.to_string())
        };
        let touched = |value: f32| {
            let mut all = vec![3.0; 17];
            all[5] = value;
            refused("edges.touched", vec![17], all)
        };
        assert_eq!([3.0, 0.0].map(touched), [""; 2]);
        for value in [4.0, 1.5, -1.0] {
            let text = touched(value);
            assert!(
                text.contains(&format!(
                    "found {value} at row 5, expected a step from 0 to 3"
                )),
                "{text}"
            );
        }
        let rates = refused("rates", vec![3], vec![0.1, 0.0, -0.1]);
        assert!(
            rates.contains("tensor rates: found -0.1 at index 2"),
            "{rates}"
        );
        assert_eq!(refused("rates", vec![3], vec![0.1, 0.0, 0.1]), "");
        let missing = refused("mix.moment_2", Vec::new(), Vec::new());
        assert!(
            missing.contains("tensor mix.moment_2: found nothing"),
            "{missing}"
        );
        let other = refused("node_bias.moment_1", vec![8], vec![0.0; 8]);
        assert!(
            other.contains("found shape [8], expected shape [4, 2]"),
            "{other}"
        );
        let more = refused("other", vec![1], vec![0.0]);
        assert!(more.contains("tensor other: found a tensor"), "{more}");
        let negative = refused(
            "node_bias.moment_2",
            vec![4, 2],
            vec![0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0],
        );
        assert!(
            negative.contains("a negative number at index 3"),
            "{negative}"
        );
    }
}

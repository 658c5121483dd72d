//! `model.kind = "brillm"`: builds a graph of tokens and its optimizer from a recipe and pair counts; checks the recipe.

mod config;
mod shards;
mod slots;
mod state;
pub mod tables;
mod task;

pub use config::{Edges, SignalConfig};
use shards::SharedOut;
pub use state::BriLlmState;
pub use task::BriLlmTask;

use crate::error::{Error, Problem};
use crate::learner::OptimizerConfig;
use crate::model::{Account, Given, Model, ModelFamily, Start};
use crate::recipe::section::{MOST, Section};
use crate::recipe::stage::Policy;
use crate::run::TensorMap;
use brian::{Recompute, random};
use brillm::BriLlm;
use brillm::candidate::{Candidates, Competition};
use brillm::flow::Mix;
use brillm::graph::{BackOff, Graph};
use brillm::model::{Initial, Parameters};
use brillm::position::Encoding;
use brillm::prior::{Prior, Weights};
use brillm::row_adamw::Mode;
use brillm::training::RowAdamW;
use burn::tensor::backend::AutodiffBackend;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `model.kind = "brillm"`.
pub struct BriLlmFamily;

impl ModelFamily for BriLlmFamily {
    const KIND: &'static str = "brillm";
    const OPTIMIZERS: &'static [&'static str] = &["row_adamw"];
    const TABLES: &'static [&'static str] = &["edges"];

    type Config = SignalConfig;

    /// A running sum has no end.
    fn context(_: &SignalConfig) -> usize {
        usize::MAX
    }

    fn skeleton<B: AutodiffBackend>(
        config: &SignalConfig,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B> {
        make(config, given, Start::Skeleton, device)
    }

    fn fresh<B: AutodiffBackend>(
        config: &SignalConfig,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B> {
        make(config, given, Start::Fresh, device)
    }

    fn check(config: &SignalConfig, section: &Section<'_>) {
        check(config, section);
    }

    fn describe(config: &SignalConfig, _: &Policy) -> String {
        format!("brillm, a graph of tokens, d_node {}", config.d_node)
    }

    fn files(config: &mut SignalConfig) -> Vec<&mut PathBuf> {
        match &mut config.edges {
            Edges::Counted { counts, .. } => vec![counts],
            Edges::Full => Vec::new(),
        }
    }

    fn counts(config: &SignalConfig) -> Option<&Path> {
        config.counts()
    }

    fn counted_parameters(config: &SignalConfig, given: &Given<'_>) -> Option<u64> {
        let rows = rows(config, given);
        Some(config.model().n_parameters(given.vocabulary, rows))
    }

    /// A few rows and signals; the table is what counts, and no gradient of its size is ever made.
    fn account(config: &SignalConfig, _: usize, _: usize, _: Option<Recompute>) -> Account {
        Account {
            bytes_per_parameter: config.storage.bytes(),
            has_gradients: false,
            activation_bytes_per_token: 0,
        }
    }

    /// Before a graph and tables of the recipe's size are made: a file may be smaller by any factor.
    fn check_tensors(
        config: &SignalConfig,
        given: &Given<'_>,
        tensors: &TensorMap,
        file: &Path,
    ) -> Result<(), Error> {
        let d = config.d_node;
        let expected = vec![rows(config, given), d + 1, d];
        let found = tensors.get("edges").map(|edges| &edges.shape);
        if found == Some(&expected) {
            return Ok(());
        }
        let found = found.map_or("nothing".to_string(), |found| format!("shape {found:?}"));
        let problem = Problem::new(file, "tensor edges", found, format!("shape {expected:?}"));
        Err(Error::Invalid(problem.advise(
            "recipe, counts and checkpoint do not belong together",
        )))
    }
}

fn make<B: AutodiffBackend>(
    config: &SignalConfig,
    given: &Given<'_>,
    start: Start,
    device: &B::Device,
) -> Model<B> {
    let mut graph = graph(config, given);
    let ranks = given.ranks.filter(|ranks| !ranks.is_alone());
    let ranks = ranks.filter(|_| given.on_cpu && brillm::ops::know_shards());
    let shared_out = ranks.map(|ranks| Arc::new(SharedOut::new(ranks)));
    if let Some(shared_out) = &shared_out {
        graph = graph.shared_among(shared_out.clone());
    }
    let parameters = match start {
        Start::Fresh => {
            let uniform = |stream: &str, place: u64| {
                random::uniform(random::key(given.seed, stream, 0), place)
            };
            let rows = graph.numbers_here();
            config.model().init_rows(graph.nodes(), &rows, &uniform)
        }
        Start::Skeleton => config.model().skeleton(graph.nodes(), graph.rows_here()),
    };
    let state = BriLlmState {
        shared_out,
        ..state(config, given, graph, parameters)
    };
    Model::trainable(BriLlmTask::new(state, device))
}

/// Rows of the edge table, counted without a graph.
fn rows(config: &SignalConfig, given: &Given<'_>) -> usize {
    match (&config.edges, given.counts) {
        (
            Edges::Counted {
                min_count,
                back_off,
                ..
            },
            Some(counts),
        ) => counts.rows(*min_count, *back_off),
        _ => given
            .vocabulary
            .saturating_mul(given.vocabulary)
            .saturating_add(1),
    }
}

fn graph(config: &SignalConfig, given: &Given<'_>) -> Graph {
    match (&config.edges, given.counts) {
        (
            Edges::Counted {
                min_count,
                back_off,
                ..
            },
            Some(counts),
        ) => counts.graph(*min_count, *back_off),
        _ => Graph::full(given.vocabulary),
    }
}

fn state(
    config: &SignalConfig,
    given: &Given<'_>,
    graph: Graph,
    parameters: Parameters,
) -> BriLlmState {
    let counts = given.counts.map(Arc::as_ref);
    let weights = Weights::new(config.prior, counts, &graph);
    let training = Competition::new(config.candidates, weights, config.flow.bias, counts);
    let model = BriLlm {
        config: config.model(),
        graph: Arc::new(graph),
        parameters,
    };
    let (mode, clip) = match given.optimizer {
        OptimizerConfig::RowAdamw { mode, clip_row, .. } => (*mode, Some(*clip_row as f32)),
        OptimizerConfig::Adamw { .. }
        | OptimizerConfig::Muon { .. }
        | OptimizerConfig::Custom(_) => (Mode::Exact, None),
    };
    BriLlmState {
        optimizer: RowAdamW::new(&model, mode, given.optimizer.adamw(), clip),
        model,
        evaluation: training.evaluation(),
        training,
        counts: given.counts.cloned(),
        seed: given.seed,
        last_edge: config.last_edge,
        on_host: given.on_cpu,
        shared_out: None,
    }
}

/// The rules of a graph.
fn check(config: &SignalConfig, section: &Section<'_>) {
    let even = config.d_node >= 2 && config.d_node.is_multiple_of(2);
    section.field("d_node", even, "an even number of at least 2");
    let Initial::Uniform { half_range } = config.initial;
    let holds = half_range > 0.0 && half_range <= 10.0;
    section
        .key("initial")
        .require("half_range", holds, "more than 0 and at most 10");
    let flow = section.key("flow");
    flow.field("first_hop", config.flow.first_hop <= 1, "0 or 1");
    if let Encoding::Learnt { max_length } = config.flow.encoding {
        let fits = (1..=MOST as usize).contains(&max_length);
        let encoding = flow.key("encoding");
        encoding.field("max_length", fits, format!("1 to {MOST}"));
    }
    match config.flow.mix {
        Mix::Absolute { max_length } => {
            flow.key("mix").field(
                "max_length",
                (1..=MOST as usize).contains(&max_length),
                format!("1 to {MOST}"),
            );
        }
        Mix::Decay { initial } => {
            flow.key("mix").require(
                "initial",
                initial > 0.0 && initial < 1.0,
                "more than 0 and less than 1",
            );
        }
    }
    let n = match config.candidates {
        Candidates::All => 1,
        Candidates::Frequent { n } | Candidates::Sampled { n } => n,
    };
    section.key("candidates").field(
        "n",
        (1..=MOST as usize).contains(&n),
        format!("1 to {MOST}"),
    );
    let counted = config.counts().is_some();
    section.field(
        "candidates",
        counted || config.candidates == Candidates::All,
        "\"all\": without counts nothing is known to be frequent",
    );
    section.field(
        "prior",
        counted || config.prior == Prior::None,
        "\"none\": there are no counts",
    );
    if let Edges::Counted {
        counts, back_off, ..
    } = &config.edges
    {
        let edges = section.key("edges");
        edges.path_to_something("counts", counts);
        let back_off_key = edges.key("back_off");
        match back_off {
            BackOff::SharedRow => {}
            BackOff::Classes { n_classes } => {
                let fits = (1..=4096).contains(n_classes);
                back_off_key.field("n_classes", fits, "1 to 4096");
            }
            BackOff::Hash { n_rows } => {
                let fits = (1..=1 << 24).contains(n_rows);
                back_off_key.field("n_rows", fits, "1 to 16777216");
            }
        }
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests;

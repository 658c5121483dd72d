//! The rules of the model's table. Its own crate knows what a model can be built from; here are the bounds beyond.

use super::{MOST, Section};
use crate::recipe::{Edges, ModelConfig, SignalConfig};
use brian::ConfigError;
use brian::memory::{Compression, KeyValuePrefixConfig, MemoryConfig};
use brian::route::parallel::Parallel;
use brillm::candidate::Candidates;
use brillm::flow::Mix;
use brillm::graph::BackOff;
use brillm::model::Initial;
use brillm::position::Encoding;
use brillm::prior::Prior;

/// Blocks in a row; a deeper model is a mistake of the recipe.
const MOST_BLOCKS: u64 = 4096;
/// Branches of a beam; each costs a walk.
const MOST_BRANCHES: u64 = 256;
/// Rank of what a head adds to a map; beyond, a wider code is cheaper.
const MOST_RANK: u64 = 1024;
/// The largest bias of the scores of a memory, up or down; beyond, one side of the softmax is gone.
const MOST_BIAS: f64 = 100.0;

/// Reports every rule that the model breaks.
pub(super) fn check(model: &ModelConfig, section: &Section<'_>) {
    let bounds = bounds(model);
    for (field, size, most) in &bounds {
        section.field(field, size <= most, format!("at most {most}"));
    }
    // Products of sizes without a bound would overflow.
    if bounds.iter().all(|(_, size, most)| size <= most) {
        for error in own_rules(model) {
            section.field(error.field, false, error.expected);
        }
    }
    let initial = match model {
        ModelConfig::Baseline(config) => &config.initial,
        ModelConfig::Brian(config) => &config.initial,
        ModelConfig::BriLlm(config) => return graph(config, section),
    };
    if let ModelConfig::Brian(config) = model {
        parallel(config.route.parallel, &section.key("route").key("parallel"));
    }
    if let ModelConfig::Brian(config) = model
        && let MemoryConfig::KeyValuePrefix(memory) = config.memory
    {
        section.key("memory").require(
            "bias",
            memory.bias.abs() <= MOST_BIAS,
            format!("-{MOST_BIAS} to {MOST_BIAS}"),
        );
    }
    if let brian::Initial::Scaled { std } = initial {
        let holds = *std > 0.0 && *std <= 1.0;
        section
            .key("initial")
            .require("std", holds, "more than 0 and at most 1");
    }
}

/// The rules of a beam.
fn parallel(parallel: Parallel, section: &Section<'_>) {
    let (Parallel::Beam {
        branch_cost,
        score_decay,
        ..
    }
    | Parallel::SequenceBeam {
        branch_cost,
        score_decay,
        ..
    }) = parallel
    else {
        return;
    };
    section.require("branch_cost", branch_cost >= 0.0, "at least 0");
    let decays = score_decay > 0.0 && score_decay <= 1.0;
    section.require("score_decay", decays, "more than 0 and at most 1");
}

/// The largest value of each size.
fn bounds(model: &ModelConfig) -> Vec<(&'static str, u64, u64)> {
    let sizes = match model {
        ModelConfig::Baseline(config) => vec![
            ("d_model", config.d_model, MOST),
            ("n_heads", config.n_heads, MOST),
            ("d_ff", config.d_ff, MOST),
            ("n_layers", config.n_layers, MOST_BLOCKS),
            ("context", config.context, MOST),
        ],
        ModelConfig::BriLlm(config) => vec![("d_node", config.d_node, 4096)],
        ModelConfig::Brian(config) => [
            vec![
                ("d_model", config.d_model, MOST),
                ("n_heads", config.n_heads, MOST),
                ("d_ff", config.d_ff, MOST),
                ("n_pre", config.n_pre, MOST_BLOCKS),
                ("n_pool", config.n_pool, MOST_BLOCKS),
                ("d_ff_pool", config.d_ff_pool, MOST),
                ("n_post", config.n_post, MOST_BLOCKS),
                ("context", config.context, MOST),
                ("position.d_position", config.position.d_position, MOST),
                ("route.max_steps", config.route.max_steps, MOST_BLOCKS),
                (
                    "route.top_k_first",
                    config.route.top_k_first,
                    MOST_BLOCKS + 1,
                ),
                ("route.top_k", config.route.top_k, MOST_BLOCKS + 1),
                (
                    "route.parallel.width",
                    config.route.parallel.width(),
                    MOST_BRANCHES,
                ),
            ],
            memory_bounds(&config.memory),
        ]
        .concat(),
    };
    sizes
        .into_iter()
        .map(|(key, size, most)| (key, size as u64, most))
        .collect()
}

/// Slots are steps: no walk has more.
fn memory_bounds(memory: &MemoryConfig) -> Vec<(&'static str, usize, u64)> {
    let (sink, window) = match memory {
        MemoryConfig::None => return Vec::new(),
        MemoryConfig::HiddenCode(config) => (config.sink, config.window),
        MemoryConfig::KeyValuePrefix(config) => (config.sink, config.window),
    };
    let mut bounds = vec![
        ("memory.sink", sink, MOST_BLOCKS),
        ("memory.window", window, MOST_BLOCKS),
    ];
    match memory {
        MemoryConfig::HiddenCode(config) => bounds.extend([
            ("memory.d_code", config.d_code, MOST),
            ("memory.head_rank", config.head_rank, MOST_RANK),
        ]),
        MemoryConfig::KeyValuePrefix(KeyValuePrefixConfig {
            compression: Compression::Code { d_code },
            ..
        }) => bounds.push(("memory.compression.d_code", *d_code, MOST)),
        _ => {}
    }
    bounds
}

fn own_rules(model: &ModelConfig) -> Vec<ConfigError> {
    match model {
        ModelConfig::Baseline(config) => config.check(),
        ModelConfig::Brian(config) => config.check(),
        ModelConfig::BriLlm(_) => Vec::new(),
    }
}

/// The rules of a graph.
fn graph(config: &SignalConfig, section: &Section<'_>) {
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

//! `model.kind = "brian"`: builds the decoder with a routed pool, checks its config, names its metrics, estimates its cost.
//! It also makes it a `LanguageModel`. With the policy `none` it is a plain decoder. The layers are in crate `brian`.

use super::baseline::{BaselineFamily, MOST_BLOCKS, check_initial, check_sizes, groups, in_dtype};
use crate::device::Dtype;
use crate::learner::{PLAIN_GROUPS, ROUTED_GROUPS};
use crate::metric::table::{Better, MetricInfo, When};
use crate::model::memory::MemoryTable;
use crate::model::teacher::TeacherTable;
use crate::model::{
    Account, Given, LanguageModel, Model, ModelFamily, Pass, Ran, Sequence, Shapes, Slots, Start,
    n_numbers,
};
use crate::recipe::section::{MOST, Section};
use crate::recipe::stage::{Policy, Stage, Walk};
use crate::task::{Batch, RoutePlan};
use brian::memory::window::Window;
use brian::memory::{AttendedConfig, Compression, MemoryConfig};
use brian::places::Place;
use brian::route::parallel::Parallel;
use brian::route::path_rule::PoolSize;
use brian::route::policy::{SequenceInfo, Teacher};
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use brian::width_transfer::UpdateScales;
use brian::{Baseline, Brian, BrianConfig, Decoder, Decoding, Recompute, precision};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};

/// Branches of a beam; each costs a walk.
const MOST_BRANCHES: u64 = 256;
/// Rank of what a head adds to a map; beyond, a wider code is cheaper.
const MOST_RANK: u64 = 1024;
/// The largest bias of the scores of a memory, up or down; beyond, one side of the softmax is gone.
const MOST_BIAS: f64 = 100.0;

/// What a walk is measured by, behind `route/`, and what it is. Some depend on the data: a slope needs sequences of different
/// difficulty.
const OF_WALKS: [(&str, &str); 29] = [
    ("steps_mean", "blocks that were really executed, per token"),
    ("steps_easy", "the same in easy sequences"),
    ("steps_medium", "the same in sequences of medium difficulty"),
    ("steps_hard", "the same in hard sequences"),
    (
        "difficulty_slope",
        "least-squares slope of a sequence's mean steps over its difficulty",
    ),
    (
        "difficulty_slope_low",
        "lower end of its 95 % bootstrap interval over sequences",
    ),
    ("difficulty_slope_high", "upper end of it"),
    (
        "difficulty_correlation",
        "Pearson's correlation of the same two",
    ),
    (
        "difficulty_correlation_low",
        "lower end of its 95 % bootstrap interval over sequences",
    ),
    ("difficulty_correlation_high", "upper end of it"),
    (
        "imitation_accuracy",
        "share of decisions in which the router's best action is the teacher's",
    ),
    ("entropy", "entropy of the probabilities, mean per decision"),
    ("out_probability", "probability of OUT, mean per decision"),
    (
        "load_max",
        "largest share of the executed blocks that one block has",
    ),
    ("load_entropy", "entropy of those shares over ln n_pool"),
    ("advance", "share of moves to the next block"),
    ("skip", "share of moves further ahead"),
    ("recur", "share of moves to the same block"),
    ("back", "share of moves back"),
    ("exit_first", "share of tokens that leave at the first step"),
    ("exit_never", "share of tokens that walk to the end"),
    (
        "exit_forced",
        "share of tokens that leave because the step was the last",
    ),
    (
        "path_diversity",
        "effective number of paths: exponential of their entropy",
    ),
    ("path_top_share", "share of the most frequent path"),
    ("router", "share of decisions by the router"),
    ("random", "share of decisions by an override"),
    ("capped", "share of decisions under the cap"),
    ("fused", "share of decisions that mixed blocks"),
    ("self_run_mean", "longest run of one block, mean per token"),
];

/// Those of them on the dashboard.
const ON_DASHBOARD: [&str; 6] = [
    "steps_mean",
    "imitation_accuracy",
    "load_entropy",
    "entropy",
    "out_probability",
    "exit_first",
];

/// `model.kind = "brian"`.
pub struct BrianFamily;

impl BrianFamily {
    fn make<B: AutodiffBackend>(
        config: &BrianConfig,
        given: &Given<'_>,
        start: Start,
        device: &B::Device,
    ) -> Model<B> {
        let Given {
            vocabulary, seed, ..
        } = *given;
        match (given.policy, start) {
            (Policy::None, Start::Fresh) => {
                Model::trainable(config.baseline().init(vocabulary, seed, device))
            }
            (Policy::None, Start::Skeleton) => {
                Model::trainable(config.baseline().skeleton(vocabulary, device))
            }
            (_, Start::Fresh) => Model::trainable(config.init(vocabulary, seed, device)),
            (_, Start::Skeleton) => Model::trainable(config.skeleton(vocabulary, device)),
        }
    }
}

impl ModelFamily for BrianFamily {
    const KIND: &'static str = "brian";
    const DTYPES: &'static [Dtype] = &[Dtype::F32, Dtype::Bf16];
    const ROUTES: bool = true;
    const RECOMPUTES: bool = true;
    const MEMORY: Option<fn(&mut BrianConfig) -> &mut MemoryConfig> =
        Some(|config| &mut config.memory);

    type Config = BrianConfig;

    fn context(config: &BrianConfig) -> usize {
        config.context
    }

    fn skeleton<B: AutodiffBackend>(
        config: &BrianConfig,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B> {
        Self::make(config, given, Start::Skeleton, device)
    }

    fn fresh<B: AutodiffBackend>(
        config: &BrianConfig,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B> {
        Self::make(config, given, Start::Fresh, device)
    }

    /// The blocks of a plain decoder become those around the pool and in it.
    fn adapt<B: AutodiffBackend>(
        config: &BrianConfig,
        given: &Given<'_>,
        carried: Model<B>,
    ) -> Model<B> {
        if *given.policy == Policy::None {
            return carried;
        }
        match carried.downcast::<Baseline<B>>() {
            Ok(baseline) => Model::trainable(config.wrap(baseline, given.seed)),
            Err(routed) => routed,
        }
    }

    fn check(config: &BrianConfig, section: &Section<'_>) {
        let route = &config.route;
        let mut bounds = vec![
            ("d_model", config.d_model, MOST),
            ("n_heads", config.n_heads, MOST),
            ("n_kv_heads", config.n_kv_heads.unwrap_or(1), MOST),
            ("d_head", config.d_head.unwrap_or(2), MOST),
            ("d_ff", config.d_ff, MOST),
            ("n_pre", config.n_pre, MOST_BLOCKS),
            ("n_pool", config.n_pool, MOST_BLOCKS),
            ("d_ff_pool", config.d_ff_pool, MOST),
            ("n_post", config.n_post, MOST_BLOCKS),
            ("context", config.context, MOST),
            ("position.d_position", config.position.d_position, MOST),
            ("route.max_steps", route.max_steps, MOST_BLOCKS),
            ("route.top_k_first", route.top_k_first, MOST_BLOCKS + 1),
            ("route.top_k", route.top_k, MOST_BLOCKS + 1),
            (
                "route.parallel.width",
                route.parallel.width(),
                MOST_BRANCHES,
            ),
        ];
        let memory = memory_bounds(&config.memory);
        let memory = memory.iter();
        bounds.extend(memory.map(|(field, size, most)| (field.as_str(), *size, *most)));
        check_sizes(section, &bounds, || config.check());
        if let Some(own) = MemoryTable::of(&config.memory) {
            own.check(config.d_model, &section.key("memory"));
        }
        check_parallel(route.parallel, &section.key("route").key("parallel"));
        let [_, attended] = config.memory.tables();
        let (field, bias) = match config.memory.attended() {
            Some(AttendedConfig::KeyValuePrefix(memory)) => ("bias", memory.bias),
            Some(AttendedConfig::SharedCode(memory)) => {
                ("codes.bias", memory.codes.bias().unwrap_or(0.0))
            }
            None => ("bias", 0.0),
        };
        section.field(
            &format!("{attended}.{field}"),
            bias.abs() <= MOST_BIAS,
            format!("-{MOST_BIAS} to {MOST_BIAS}"),
        );
        check_initial(section, config.initial);
    }

    fn check_stage(config: &BrianConfig, stage: &Stage, section: &Section<'_>) {
        let same = config.d_ff_pool == config.d_ff;
        section.relate(
            "policy",
            &[],
            same || stage.policy != Policy::None,
            "a policy with a pool: without one, blocks of another width than d_ff have no place",
        );
        if let Some(Teacher::Path { blocks }) = stage.policy.teacher() {
            let holds = blocks.iter().all(|&block| block < config.n_pool);
            let last = config.n_pool.saturating_sub(1);
            let expected = format!("blocks of the pool, 0 to {last}");
            let policy = section.key("policy");
            policy.key("teacher").require("blocks", holds, expected);
        }
        let max_steps = config.route.max_steps;
        if let Some(walk) = &stage.walk {
            let shortest = walk.shortest.unwrap_or(1) as u64;
            section
                .key("walk")
                .whole("shortest", shortest, 1, max_steps as u64);
        }
        if let Some(own) = stage.policy.teacher().and_then(TeacherTable::of) {
            let pool = PoolSize {
                n_pool: config.n_pool,
                max_steps,
            };
            own.check(pool, &section.key("policy").key("teacher"));
        }
    }

    fn check_packed(config: &BrianConfig, root: &Section<'_>) {
        let model = root.key("model");
        for error in config.check_segments() {
            model.field(&error.field, false, error.expected);
        }
    }

    fn describe(config: &BrianConfig, policy: &Policy) -> String {
        let BrianConfig {
            n_pre,
            n_pool,
            n_post,
            d_model,
            ..
        } = config;
        match policy {
            Policy::None => format!(
                "{} blocks in a row, d_model {d_model}",
                config.baseline().n_layers
            ),
            _ => format!(
                "brian of {n_pre} blocks before, {n_pool} in and {n_post} behind the pool, d_model {d_model}"
            ),
        }
    }

    fn groups(config: &BrianConfig, policy: &Policy) -> Option<&'static [&'static str]> {
        let all: &[_] = match policy {
            Policy::None => &PLAIN_GROUPS,
            _ => &ROUTED_GROUPS,
        };
        Some(groups(all, &config.baseline()))
    }

    fn metrics(config: &BrianConfig, stage: &Stage) -> Vec<MetricInfo> {
        if stage.policy == Policy::None {
            return Vec::new();
        }
        let of_walks = |(name, text): (&str, &'static str)| {
            let metric = MetricInfo::new(format!("route/{name}"), text);
            let metric = match name {
                _ if name.ends_with("_low") || name.ends_with("_high") => {
                    metric.at(When::Validation)
                }
                name if name.starts_with("steps_") => metric.unit("blocks per token"),
                "imitation_accuracy" => metric.better(Better::Higher),
                _ => metric,
            };
            match ON_DASHBOARD.contains(&name) && stage.walk.is_some() {
                true => metric.on_dashboard(),
                false => metric,
            }
        };
        let mut metrics = OF_WALKS.map(of_walks).to_vec();
        let load = "share of the executed blocks that this block has";
        let loads = (0..config.n_pool).map(|block| format!("route/load/{block}"));
        metrics.extend(loads.map(|name| MetricInfo::new(name, load)));
        // Behind its blocks a walk that is only taught may have a step at which it leaves.
        let taught = match &stage.policy {
            Policy::Sequential => config.n_pool + 1,
            Policy::Teacher { teacher } => match teacher {
                Teacher::Sequential => config.n_pool + 1,
                Teacher::Path { blocks } => blocks.len() + 1,
                Teacher::MixedSkipRecur => config.route.max_steps + 1,
                _ => 0,
            },
            _ => 0,
        };
        let steps = config.route.max_steps.max(config.n_pool).max(taught);
        let exit = "share of tokens that leave at this step";
        let exits = (1..=steps).map(|step| format!("route/exit/{step}"));
        metrics.extend(exits.map(|name| MetricInfo::new(name, exit)));
        if let Some(walk) = &stage.walk {
            let terms = terms(walk, &stage.policy).into_iter();
            let weighed = terms.filter(|(_, weight)| *weight > 0.0);
            let term = "a term of the loss before its weight; docs/brian.md";
            metrics.extend(weighed.map(|(name, _)| {
                MetricInfo::new(format!("loss/{name}"), term).better(Better::Lower)
            }));
        }
        // Where no router is known, a memory that the model has is on.
        let has = config.memory != MemoryConfig::None;
        if stage.walk.as_ref().map_or(has, |walk| walk.memory) {
            let share = "share of attention that goes to the memory";
            let open = "how far the memory's gate is open";
            let mass = "share of the memory's attention for slots of this age";
            metrics.push(MetricInfo::new("memory/share", share));
            metrics.push(MetricInfo::new("memory/open", open));
            // The exit reads too, one step behind the last.
            let ages = (0..=steps).map(|age| format!("memory/mass/{age}"));
            metrics.extend(ages.map(|name| MetricInfo::new(name, mass)));
            if matches!(config.memory, MemoryConfig::Both(_)) {
                let open = "exp of the bias of what blocks attend to beside their own";
                let mass = "share of the attention of blocks for slots of this age";
                metrics.push(MetricInfo::new("attended/open", open));
                let ages = (0..steps).map(|age| format!("attended/mass/{age}"));
                metrics.extend(ages.map(|name| MetricInfo::new(name, mass)));
            }
        }
        metrics
    }

    fn flops(config: &BrianConfig, vocabulary: usize, ran: &Ran<'_>) -> Option<f64> {
        match ran.walks {
            Some(walks) => config.under(ran.rules).flops(vocabulary, walks),
            None => {
                let tokens = (ran.batch * ran.seq) as f64;
                Some(config.baseline().flops_of(vocabulary, ran.texts) * tokens)
            }
        }
    }

    fn stage_flops(
        config: &BrianConfig,
        vocabulary: usize,
        stage: &Stage,
        window: usize,
    ) -> Option<[f64; 2]> {
        if stage.policy == Policy::None {
            return Some([config.baseline().flops(vocabulary, window); 2]);
        }
        let mut config = *config;
        let walked = stage.rules(0).map(|(rules, _)| rules);
        let mut rules = walked.unwrap_or_else(Rules::sequential);
        let leads = rules.policy != Rules::sequential().policy;
        if !leads {
            // One step per block, and nobody asks.
            config.route.max_steps = config.n_pool;
            (rules.without_memory, rules.without_beam) = (true, true);
        }
        let config = config.under(&rules);
        let per_token = |together: bool| {
            let mut walks = config.longest_walks(window, together);
            if !stage.policy.knows_router() {
                walks
                    .steps
                    .iter_mut()
                    .for_each(|step| step.probabilities.clear());
            }
            Some(config.flops(vocabulary, &walks)? / window as f64)
        };
        let together = per_token(true)?;
        Some([together, if leads { per_token(false)? } else { together }])
    }

    /// Blocks of the pool beyond those that the longest walk runs.
    fn unused(config: &BrianConfig, stage: &Stage, shapes: &Shapes) -> u64 {
        let most = match stage.policy.knows_router() {
            true => config.route.max_steps * config.route.top_k.max(1),
            false => config.n_pool,
        };
        let block = shapes
            .iter()
            .filter(|(path, _)| path.starts_with("pool.0."));
        let of_block = n_numbers(block.map(|(_, shape)| shape));
        config.n_pool.saturating_sub(most) as u64 * of_block
    }

    fn account(
        config: &BrianConfig,
        vocabulary: usize,
        window: usize,
        recompute: Option<Recompute>,
    ) -> Account {
        BaselineFamily::account(&config.baseline(), vocabulary, window, recompute)
    }
}

/// Slots are steps: no walk has more.
fn memory_bounds(memory: &MemoryConfig) -> Vec<(String, usize, u64)> {
    let [codes, attended] = memory.tables();
    let slots = |table: &str, kept: Window| {
        [("sink", kept.sink), ("window", kept.window)]
            .map(|(field, n)| (format!("{table}.{field}"), n, MOST_BLOCKS))
    };
    let mut bounds = Vec::new();
    if let MemoryConfig::Custom(own) = memory {
        bounds.extend(slots("memory", own.rule().retention()));
    }
    if let Some(config) = memory.codes() {
        bounds.extend(slots(codes, config.retention()));
        bounds.push((format!("{codes}.d_code"), config.d_code, MOST));
        bounds.push((format!("{codes}.head_rank"), config.head_rank, MOST_RANK));
    }
    match memory.attended() {
        Some(AttendedConfig::KeyValuePrefix(config)) => {
            bounds.extend(slots(attended, config.retention()));
            if let Compression::Code { d_code } = config.compression {
                bounds.push((format!("{attended}.compression.d_code"), d_code, MOST));
            }
        }
        Some(AttendedConfig::SharedCode(config)) => {
            bounds.push((format!("{attended}.d_code"), config.d_code, MOST));
        }
        None => {}
    }
    bounds
}

/// The rules of a beam.
fn check_parallel(parallel: Parallel, section: &Section<'_>) {
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

/// The terms of the loss with the most that they weigh in a stage.
fn terms(walk: &Walk, policy: &Policy) -> [(&'static str, f64); 10] {
    let loss = &walk.loss;
    let imitation = match policy {
        Policy::Scheduled { schedule, .. } => {
            schedule.iter().map(|row| row.imitation).fold(0.0, f64::max)
        }
        _ => loss.imitation,
    };
    [
        ("imitation", imitation),
        ("balance", loss.balance),
        ("selected_balance", loss.selected_balance),
        ("coverage_floor", loss.coverage_floor),
        ("transition_diversity", loss.transition_diversity),
        ("cost", loss.cost),
        ("location", loss.location),
        ("exit_boundary", loss.exit_boundary),
        ("input_anchor", loss.input_anchor),
        ("halting_prior", loss.halting_prior),
    ]
}

impl<B: Backend> LanguageModel<B> for Brian<B> {
    fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>) {
        let (logits, trace) = Brian::forward(self, tokens, rules, rows);
        (logits, Some(trace))
    }

    fn forward_batch(&self, batch: &Batch, rules: &Rules) -> (Tensor<B, 3>, Option<Trace<B>>) {
        let (tokens, segments) = (batch.inputs(&self.device()), batch.segments());
        let (logits, trace) = self.forward_segments(tokens, &segments, rules, &batch.rows());
        (logits, Some(trace))
    }

    fn pass(&self, batch: &Batch) -> Pass<B> {
        let RoutePlan {
            rules,
            losses,
            products,
            recompute,
            ..
        } = &batch.plan.route;
        let model = in_dtype(self, *products).into_owned();
        let model = model.recomputing(*recompute);
        let (tokens, segments) = (batch.inputs(&self.device()), batch.segments());
        let (logits, trace) = model.forward_segments(tokens, &segments, rules, &batch.rows());
        let terms = losses.terms(&trace, &self.position, rules, &batch.host.valid);
        Pass {
            terms,
            trace: Some(trace),
            ..Pass::of_logits(logits, batch)
        }
    }

    fn update_scales(&self) -> UpdateScales {
        Brian::update_scales(self)
    }

    fn places(&self, batch: &Batch) -> Vec<Place<B>> {
        let rules = &batch.plan.route.rules;
        Brian::places(self, batch.inputs(&self.device()), rules, &batch.rows())
    }

    fn decoding(&self, rules: &Rules) -> Box<dyn Sequence<B> + '_> {
        Box::new(Decoding::brian(self, rules, SequenceInfo::default()))
    }

    fn slots(&self, rules: &Rules) -> Box<dyn Slots + '_> {
        Box::new(Decoder::brian(self, rules))
    }

    fn with_matmul_dtype(self, dtype: Dtype) -> Self {
        precision::with_matmul_dtype(self, dtype.into())
    }

    fn device(&self) -> B::Device {
        self.embedding.weight.device()
    }
}

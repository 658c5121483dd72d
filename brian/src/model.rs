//! `Brian`, the routed model: `tokens → embedding → pre blocks → walk over the pool → exit → post blocks → norm → logits`; and
//! `BrianConfig`, which checks it, builds it or wraps a baseline. The walk is in `route`.

use crate::baseline::{Baseline, BaselineConfig, LogitScale, check_sizes, embedding, head};
use crate::block::causal::{Causal, RopeScaling, Rotary};
use crate::block::exit::{Exit, ExitBlock};
use crate::block::residual::ResidualScale;
use crate::block::routed::RoutedBlock;
use crate::block::transformer::{TransformerBlock, norm};
use crate::block::visits::{Visits, VisitsConfig};
use crate::block::{AttentionBias, BlockSizes};
use crate::described::{Described, Description, Start};
use crate::error::{ConfigError, Problems};
use crate::initial::{Initial, draw};
use crate::memory::pass::MemoryPass;
use crate::memory::record::{Measures, MemoryRead};
use crate::memory::step::MemoryStart;
use crate::memory::{
    AttendedConfig, Both, CustomCodes, HiddenCode, KeyValuePrefix, Lifecycle, Memory, MemoryConfig,
    SharedCode,
};
use crate::ops::embedding::embed;
use crate::ops::recompute::Recompute;
use crate::ops::reuse::{Packed, shared_module};
use crate::route::context::{WalkContext, WalkState};
use crate::route::parallel::{Parallel, Search};
use crate::route::policy::SequenceInfo;
use crate::route::pool::KeptMaps;
use crate::route::position::{Injection, Layout, PositionConfig, Positions, Reach, StartPosition};
use crate::route::router::Router;
use crate::route::rules::{Attends, Execution, RouteConfig, Rules, Sees};
use crate::route::trace::Trace;
use crate::route::walk_cache::WalkCache;
use crate::segments::Segments;
use crate::width_transfer::{Ratios, UpdateScales, WidthTransfer};
use burn::module::Module;
use burn::nn::{Embedding, RmsNorm};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use serde::Deserialize;
use std::borrow::Cow;
use std::cell::RefCell;

/// Sizes of a routed model; the vocabulary comes from the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct BrianConfig {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads, of queries.
    pub n_heads: usize,
    /// Heads of keys and values, a divisor of `n_heads`; as many as `n_heads` if it is left out.
    pub n_kv_heads: Option<usize>,
    /// Width of a head; `d_model / n_heads` if it is left out.
    pub d_head: Option<usize>,
    /// Biases of attention; none if it is left out.
    pub attention_bias: Option<AttentionBias>,
    /// Whether queries and keys are normed, head by head; no if it is left out.
    pub query_key_norm: Option<bool>,
    /// Whether the head has an embedding of its own; no if it is left out.
    pub untied_head: Option<bool>,
    /// Soft cap of the logits, which become `cap * tanh(logits / cap)` (Gemma 2, Riviere et al. 2024); none if it is left out.
    pub logit_cap: Option<f64>,
    /// Hidden width of the feed-forward.
    pub d_ff: usize,
    /// Blocks before the pool, executed once.
    pub n_pre: usize,
    /// Blocks a walk chooses from.
    pub n_pool: usize,
    /// Hidden width of their feed-forward.
    pub d_ff_pool: usize,
    /// Blocks after the pool, executed once.
    pub n_post: usize,
    /// Longest sequence.
    pub context: usize,
    /// Base of the rotary angles.
    pub rope_base: f64,
    /// How these are made smaller for a longer context; not at all if it is left out.
    pub rope_scaling: Option<RopeScaling>,
    /// Added to the mean square in every norm.
    pub norm_epsilon: f64,
    /// Multiplies what blocks add to the residual stream; nothing if it is left out. It comes beside what `initial` does.
    pub residual_scale: Option<ResidualScale>,
    /// The base whose settings hold at this width (Yang et al. 2022); the width is its own if it is left out.
    pub width_transfer: Option<WidthTransfer>,
    /// What blocks of the pool do otherwise when a token executes them again; nothing if it is left out.
    pub visits: Option<VisitsConfig>,
    /// Initial values.
    pub initial: Initial,
    /// The space of operators.
    pub position: PositionConfig,
    /// What a walk may be.
    pub route: RouteConfig,
    /// What leaves the walk.
    pub exit: Exit,
    /// What tokens leave behind on their walk.
    pub memory: MemoryConfig,
}

impl BrianConfig {
    /// A small model for examples and tests: a pool of three blocks, with one block before it and one behind it.
    pub fn small() -> Self {
        let baseline = BaselineConfig::small();
        Self {
            d_model: baseline.d_model,
            n_heads: baseline.n_heads,
            n_kv_heads: None,
            d_head: None,
            attention_bias: None,
            query_key_norm: None,
            untied_head: None,
            logit_cap: None,
            d_ff: baseline.d_ff,
            n_pre: 1,
            n_pool: 3,
            d_ff_pool: baseline.d_ff,
            n_post: 1,
            context: baseline.context,
            rope_base: baseline.rope_base,
            rope_scaling: None,
            norm_epsilon: baseline.norm_epsilon,
            residual_scale: None,
            width_transfer: None,
            visits: None,
            initial: baseline.initial,
            position: PositionConfig {
                d_position: 4,
                layout: Layout::OpenArc,
                start: StartPosition::Learned,
                injection: Injection::Adapter,
                into: Reach::Both,
            },
            route: RouteConfig {
                max_steps: 4,
                top_k_first: 1,
                top_k: 1,
                sees: Sees::Token,
                attends: Attends::All,
                execution: Execution::Grouped,
                parallel: Parallel::None,
            },
            exit: Exit::Residual,
            memory: MemoryConfig::None,
        }
    }

    /// All fields with values that no model can be built from.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut problems = check_sizes(&self.baseline());
        problems.at_least_1("n_pool", self.n_pool);
        let d_position = self.position.d_position;
        problems.at_least_1("position.d_position", d_position);
        let fits = self.position.injection == Injection::Adapter || d_position == self.d_model;
        let expected = format!("d_model, {}, for a direct injection", self.d_model);
        problems.require(fits, "position.d_position", d_position, expected);
        problems.at_least_1("d_ff_pool", self.d_ff_pool);
        let RouteConfig {
            max_steps,
            top_k_first,
            top_k,
            parallel,
            attends,
            ..
        } = self.route;
        problems.at_least_1("route.max_steps", max_steps);
        problems.at_least_1("route.top_k_first", top_k_first);
        problems.at_least_1("route.top_k", top_k);
        let most = self.n_pool + 1;
        if let Some(Search {
            width, children, ..
        }) = parallel.search()
        {
            problems.at_least_1("route.parallel.width", width);
            let has_two = children.unwrap_or(top_k_first.max(top_k)) > 1;
            let expected = "1, or more children: no branch has two";
            problems.require(
                width <= 1 || has_two,
                "route.parallel.width",
                width,
                expected,
            );
            if let Some(children) = children {
                let holds = (1..=most).contains(&children);
                let expected = format!("at least 1 and at most n_pool + 1, {most}");
                problems.require(holds, "route.parallel.children", children, expected);
            }
        }
        for (field, top_k) in [("route.top_k_first", top_k_first), ("route.top_k", top_k)] {
            let expected = format!("at most n_pool + 1, {most}");
            problems.require(top_k <= most, field, top_k, expected);
        }
        if let Some(scale) = self.residual_scale {
            scale.check(&mut problems);
        }
        problems.0.extend(self.memory.check());
        let [of_codes, _] = self.memory.tables();
        let by_heads = self.memory.codes().is_some_and(|codes| codes.head_rank > 0);
        let fits = self.n_heads == 0 || self.d_model.is_multiple_of(self.n_heads);
        let expected = "0, as d_model is no multiple of n_heads";
        let field = format!("{of_codes}.head_rank");
        problems.require(fits || !by_heads, &field, "more", expected);
        let lifecycle = self.memory.codes().map(|codes| codes.lifecycle);
        let (fits, expected) = match (parallel, self.memory.attended()) {
            (Parallel::None, _) => (true, ""),
            (_, Some(AttendedConfig::KeyValuePrefix(_))) => {
                (false, "none with a memory of keys and values")
            }
            (_, Some(AttendedConfig::SharedCode(_))) => {
                (false, "none with codes that blocks share")
            }
            (Parallel::Beam { .. }, None) => (
                lifecycle != Some(Lifecycle::Reference),
                "none, or a memory whose lifecycle is frozen",
            ),
            (Parallel::SequenceBeam { .. }, None) => match self.memory {
                MemoryConfig::Custom(_) => (false, "none, or a beam of every token"),
                _ => (
                    lifecycle != Some(Lifecycle::Frozen),
                    "none, or a memory whose lifecycle is reference",
                ),
            },
        };
        problems.require(fits, "route.parallel", "a beam", expected);
        let holds = self.visits.is_none() || parallel == Parallel::None;
        let expected = "no such table with several paths at once";
        problems.require(holds, "visits", "a table", expected);
        let says = self.width_transfer.is_none() || !matches!(self.memory, MemoryConfig::Custom(_));
        let expected = "no such table: this memory does not say what its maps sum over";
        problems.require(says, "width_transfer", "a table", expected);
        let expected = match self.memory.attended() {
            Some(AttendedConfig::KeyValuePrefix(_)) => "all with a memory of keys and values",
            Some(AttendedConfig::SharedCode(_)) => "all with codes that blocks share",
            None => "",
        };
        let fits = attends == Attends::All || expected.is_empty();
        problems.require(fits, "route.attends", "selected", expected);
        problems.0
    }

    /// All fields by which texts of one window could not be kept apart, see [`Brian::forward_segments`].
    pub fn check_segments(&self) -> Vec<ConfigError> {
        let mut problems = Problems::default();
        let expected =
            "token where windows hold several documents: the mean of a window mixes them";
        let sees_one = self.route.sees == Sees::Token;
        problems.require(sees_one, "route.sees", "sequence_mean", expected);
        let expected = "none or beam where windows hold several documents: all of a window would walk one path";
        let walks_apart = !matches!(self.route.parallel, Parallel::SequenceBeam { .. });
        problems.require(walks_apart, "route.parallel", "sequence_beam", expected);
        let [of_codes, of_attended] = self.memory.tables();
        let codes = self.memory.codes().map(|codes| codes.lifecycle);
        let attended = match self.memory.attended() {
            Some(AttendedConfig::KeyValuePrefix(prefix)) => Some(prefix.lifecycle),
            Some(AttendedConfig::SharedCode(_)) | None => None,
        };
        let expected = "frozen where windows hold several documents: what one sees would depend on how long others walk";
        for (table, lifecycle) in [(of_codes, codes), (of_attended, attended)] {
            let holds = lifecycle != Some(Lifecycle::Reference);
            let field = format!("{table}.lifecycle");
            problems.require(holds, &field, "reference", expected);
        }
        problems.0
    }

    /// The same configuration without the memory or the beam, if these rules leave them out.
    pub fn under(&self, rules: &Rules) -> Self {
        let mut config = *self;
        if rules.without_memory {
            config.memory = MemoryConfig::None;
        }
        if rules.without_beam {
            config.route.parallel = Parallel::None;
        }
        config
    }

    /// The baseline with the same blocks in a row; the blocks of the pool have the same width only if `d_ff_pool` is `d_ff`. They
    /// scale what they add as on the route, however many they are in the row.
    pub fn baseline(&self) -> BaselineConfig {
        let n_passed = self.n_pre + self.route.max_steps + self.n_post;
        let constant = |scale: ResidualScale| ResidualScale::Constant {
            factor: scale.factor(n_passed),
        };
        BaselineConfig {
            d_model: self.d_model,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            d_head: self.d_head,
            attention_bias: self.attention_bias,
            query_key_norm: self.query_key_norm,
            untied_head: self.untied_head,
            logit_cap: self.logit_cap,
            d_ff: self.d_ff,
            n_layers: self.n_pre + self.n_pool + self.n_post,
            context: self.context,
            rope_base: self.rope_base,
            rope_scaling: self.rope_scaling,
            norm_epsilon: self.norm_epsilon,
            residual_scale: self.residual_scale.map(constant),
            width_transfer: self.width_transfer,
            initial: self.initial,
        }
    }

    /// A model with fresh parameters; the same seed gives the same bits on every backend.
    pub fn init<B: Backend>(&self, vocabulary: usize, seed: u64, device: &B::Device) -> Brian<B> {
        let model = self.skeleton(vocabulary, device);
        let baseline = self.baseline();
        draw(
            model,
            self.initial,
            baseline.n_layers,
            baseline.ratios(),
            seed,
        )
    }

    /// A model whose parameters have only shapes so far: for counting, and for loading a checkpoint into it.
    pub fn skeleton<B: Backend>(&self, vocabulary: usize, device: &B::Device) -> Brian<B> {
        let sizes = self.sizes();
        let pool_sizes = BlockSizes {
            d_ff: self.d_ff_pool,
            ..sizes
        };
        let d_position = self.position.d_position;
        let adapted = (self.position.injection == Injection::Adapter).then_some(d_position);
        let n_actions = self.n_pool + 1;
        let plain = |n: usize| {
            (0..n)
                .map(|_| TransformerBlock::new(&sizes, device))
                .collect()
        };
        let gains = [self.route.max_steps, self.d_model];
        let routed = |_| {
            let visits = Visits::new(self.visits, gains, device);
            RoutedBlock::new(&pool_sizes, adapted, visits, device)
        };
        Brian {
            embedding: embedding(vocabulary, self.d_model, device),
            pre: plain(self.n_pre),
            pool: (0..self.n_pool).map(routed).collect(),
            position: Positions::new(&self.position, n_actions, device),
            router: Router::new(self.d_model, d_position, n_actions, device)
                .beside_base(self.baseline().ratios().width, self.position.injection),
            exit: ExitBlock::new(&sizes, adapted, self.exit, device),
            post: plain(self.n_post),
            norm: norm(&sizes, device),
            unembedding: self.baseline().unembedding(vocabulary, device),
            memory: self.memory(n_actions, device),
            rotary: self.baseline().rotary(device),
            logit_cap: self.logit_cap,
            ratios: self.baseline().ratios(),
            route: self.route,
            recompute: None,
        }
    }

    /// A routed model that computes what the baseline computes: its blocks become pre, pool and post blocks in order, and all
    /// parameters of routing start fresh. Exact for a residual exit without a memory; with a memory, up to what its nearly
    /// closed gate lets through.
    ///
    /// # Panics
    /// If the baseline has another number of blocks, another soft cap, another scale of residuals or another base of its width, `d_ff_pool`
    /// is not `d_ff`, or only one of both has a tied head.
    pub fn wrap<B: Backend>(&self, baseline: Baseline<B>, seed: u64) -> Brian<B> {
        let [vocabulary, _] = baseline.embedding.weight.dims();
        let device = baseline.embedding.weight.device();
        let mut model = self.init(vocabulary, seed, &device);
        let n_layers = self.baseline().n_layers;
        assert_eq!(baseline.blocks.len(), n_layers, "blocks of the baseline");
        assert_eq!(self.d_ff_pool, self.d_ff, "width of the pool");
        assert_eq!(baseline.logit_cap, self.logit_cap, "soft cap of the logits");
        assert_eq!(baseline.ratios, model.ratios, "width beside the base's");
        let factors = baseline.blocks.iter().map(|block| block.residual_factor);
        let own = self.sizes().residual_factor;
        assert!(
            factors.clone().all(|factor| factor == own),
            "scale of residuals"
        );
        let mut blocks = baseline.blocks.into_iter();
        model.embedding = baseline.embedding;
        model.pre = blocks.by_ref().take(self.n_pre).collect();
        for (routed, block) in model.pool.iter_mut().zip(blocks.by_ref()) {
            routed.block = block;
        }
        model.post = blocks.collect();
        model.norm = baseline.norm;
        let tied = [&model.unembedding, &baseline.unembedding].map(Option::is_none);
        assert_eq!(tied[0], tied[1], "a tied head");
        model.unembedding = baseline.unembedding;
        // The blocks have other paths now, and ids are hashes of paths.
        crate::parameter::identify(model)
    }

    fn sizes(&self) -> BlockSizes {
        self.baseline().sizes()
    }

    fn memory<B: Backend>(&self, n_actions: usize, device: &B::Device) -> Option<Memory<B>> {
        let sizes = self.sizes();
        let codes = |config| HiddenCode::new(config, &sizes, n_actions, device);
        let prefix = |config| KeyValuePrefix::new(config, &sizes, self.n_pool, device);
        let factor = self.baseline().ratios().queries();
        let shared = |config| {
            let codes = SharedCode::new(config, &sizes, self.n_pool, device);
            codes.with_query_factor(factor)
        };
        Some(match self.memory {
            MemoryConfig::None => return None,
            MemoryConfig::HiddenCode(config) => Memory::HiddenCode(codes(config)),
            MemoryConfig::KeyValuePrefix(config) => Memory::KeyValuePrefix(prefix(config)),
            MemoryConfig::SharedCode(config) => Memory::SharedCode(shared(config)),
            MemoryConfig::Both(both) => Memory::Both(Both {
                codes: codes(both.codes),
                prefix: match both.attended {
                    AttendedConfig::KeyValuePrefix(config) => Some(prefix(config)),
                    AttendedConfig::SharedCode(_) => None,
                },
                shared: match both.attended {
                    AttendedConfig::SharedCode(config) => Some(shared(config)),
                    AttendedConfig::KeyValuePrefix(_) => None,
                },
            }),
            MemoryConfig::Custom(memory) => {
                Memory::Custom(CustomCodes::new(memory, self.d_model, device))
            }
        })
    }
}

/// A Transformer whose middle is a pool of blocks.
#[derive(Module, Debug)]
pub struct Brian<B: Backend> {
    /// Token embedding, `[vocabulary, d_model]`. A head without values of its own is tied to it: one parameter, one gradient.
    pub embedding: Embedding<B>,
    /// Blocks before the walk, in order.
    pub pre: Vec<TransformerBlock<B>>,
    /// Blocks that a walk chooses from.
    pub pool: Vec<RoutedBlock<B>>,
    /// Positions of the actions.
    pub position: Positions<B>,
    /// Scores the actions.
    pub router: Router<B>,
    /// The exit block behind OUT.
    pub exit: ExitBlock<B>,
    /// Blocks after the walk, in order.
    pub post: Vec<TransformerBlock<B>>,
    /// RMS norm before the head.
    pub norm: RmsNorm<B>,
    /// The head's own values, `[vocabulary, d_model]`, if it is not tied.
    pub unembedding: Option<Embedding<B>>,
    /// Parameters of the memory, if there is one.
    pub memory: Option<Memory<B>>,
    pub(crate) rotary: Rotary<B>,
    #[module(skip)]
    logit_cap: Option<f64>,
    #[module(skip)]
    ratios: Ratios,
    #[module(skip)]
    route: RouteConfig,
    #[module(skip)]
    recompute: Option<Recompute>,
}

impl<B: Backend> Brian<B> {
    /// The same model, which computes this again in a backward pass.
    pub fn recomputing(mut self, recompute: Option<Recompute>) -> Self {
        self.recompute = recompute;
        self
    }

    /// Logits of the next token behind every token, and the trace of the walks; `rows` give each sequence's number and
    /// difficulty, for teacher and draws.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, vocabulary]`
    ///
    /// # Panics
    /// If `seq` exceeds the context, or `rows` has not one entry per sequence.
    pub fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Trace<B>) {
        let [batch, seq] = tokens.dims();
        self.forward_segments(tokens, &Segments::whole(batch, seq), rules, rows)
    }

    /// The same of windows that may hold several texts: the logits of each are those of the text alone. `rows` has an entry for every
    /// text; draws are those of places in the window.
    ///
    /// # Shapes
    /// As [`Self::forward`]
    ///
    /// # Panics
    /// As [`Self::forward`], and if texts cannot be kept apart, see [`BrianConfig::check_segments`].
    pub fn forward_segments(
        &self,
        tokens: Tensor<B, 2, Int>,
        segments: &Segments,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Trace<B>) {
        let holds = segments.is_whole() || self.keeps_apart();
        assert!(holds, "texts of one window that cannot be kept apart");
        let causal = self.rotary.causal_of(tokens.dims()[1], segments);
        let (logits, trace, _) =
            self.pass(tokens, &causal, rules, rows, measured::<B>(rules, None));
        (logits, trace)
    }

    /// The same, with every read of the memory in the order of the walk; none if there is no memory, or no reads as with
    /// [`SharedCodes::Current`](crate::memory::SharedCodes). Blocks that attend to a memory run on all tokens, whatever
    /// `route.execution` says: up to the order of sums, the numbers are those of [`Self::forward`].
    ///
    /// # Shapes
    /// As [`Self::forward`]
    ///
    /// # Panics
    /// As [`Self::forward`], and if several paths are walked at once.
    pub fn forward_with_reads(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Trace<B>, Vec<MemoryRead>) {
        let paths = rules.paths(self.route.parallel);
        assert_eq!(
            paths,
            Parallel::None,
            "paths of a walk whose reads are kept"
        );
        let causal = self.rotary.causal(tokens.dims()[1]);
        self.pass(tokens, &causal, rules, rows, Measures::Reads)
    }

    fn pass(
        &self,
        tokens: Tensor<B, 2, Int>,
        causal: &Causal<B>,
        rules: &Rules,
        rows: &[SequenceInfo],
        measures: Measures,
    ) -> (Tensor<B, 3>, Trace<B>, Vec<MemoryRead>) {
        let execute = |hidden, block: &TransformerBlock<B>| {
            let run = |block: &TransformerBlock<B>| block.forward(hidden, causal);
            Recompute::block(self.recompute, || match rules.with_gradients {
                true => run(&shared_module(block.clone())),
                false => run(block),
            })
        };
        let embedded = embed(&self.embedding, tokens);
        let entered = self.pre.iter().fold(embedded, execute);
        let (left, trace, reads) = self.walked(entered, causal, rules, rows, measures);
        let hidden = self.post.iter().fold(left, execute);
        (self.head(hidden), trace, reads)
    }

    /// The states behind the exit, from those that enter the walk.
    pub(crate) fn walked(
        &self,
        entered: Tensor<B, 3>,
        causal: &Causal<B>,
        rules: &Rules,
        rows: &[SequenceInfo],
        measures: Measures,
    ) -> (Tensor<B, 3>, Trace<B>, Vec<MemoryRead>) {
        let ground = self.ground_measuring(measures, &entered, causal, rules, None, None);
        let (state, mut trace) = ground.walk(entered, rules, rows);
        let position = self.told(&state);
        let left = self.exit.forward(state.hidden, position);
        let left = ground.memory.read_last(left);
        let reads = ground.memory.recorded();
        let walks = &mut trace.walks;
        (walks.memory, walks.attended) = ground.memory.usage();
        (left, trace, reads)
    }

    /// Logits from the output of the last block; see [`head`].
    pub(crate) fn head(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let products = self.pool[0].block.products();
        let weights = self.unembedding.as_ref().unwrap_or(&self.embedding);
        let scale = LogitScale {
            factor: self.ratios.logits(),
            cap: self.logit_cap,
        };
        head(&self.norm, weights, hidden, products, scale)
    }

    /// What the settings of AdamW are multiplied by.
    pub fn update_scales(&self) -> UpdateScales {
        UpdateScales::of(self, self.ratios)
    }

    /// The context of a walk from these entering states; in decoding `past` holds the walks of earlier tokens, and `kept` the maps
    /// of all walks.
    pub(crate) fn ground<'a>(
        &'a self,
        entered: &Tensor<B, 3>,
        causal: &'a Causal<B>,
        rules: &Rules,
        past: Option<&'a RefCell<WalkCache<B>>>,
        kept: Option<&'a KeptMaps<B>>,
    ) -> WalkContext<'a, B> {
        self.ground_measuring(measured(rules, past), entered, causal, rules, past, kept)
    }

    fn ground_measuring<'a>(
        &'a self,
        measures: Measures,
        entered: &Tensor<B, 3>,
        causal: &'a Causal<B>,
        rules: &Rules,
        past: Option<&'a RefCell<WalkCache<B>>>,
        kept: Option<&'a KeptMaps<B>>,
    ) -> WalkContext<'a, B> {
        let grouped = self.route.execution == Execution::Grouped && measures != Measures::Reads;
        let memory = self.memory.as_ref().filter(|_| !rules.without_memory);
        let begin = MemoryStart {
            entered,
            causal,
            out: self.pool.len(),
            measures,
            by_rows: past.is_some() || grouped,
        };
        WalkContext {
            memory: MemoryPass::start(memory, begin),
            memory_parameters: memory,
            pool: match rules.with_gradients {
                true => Cow::Owned(self.pool.iter().cloned().map(shared_module).collect()),
                false => Cow::Borrowed(&self.pool),
            },
            positions: &self.position,
            router: match rules.with_gradients {
                true => Cow::Owned(shared_module(self.router.clone())),
                false => Cow::Borrowed(&self.router),
            },
            route: self.route,
            maps: kept.map_or_else(|| Cow::Owned(self.maps(Packed::default())), Cow::Borrowed),
            causal,
            rotary: &self.rotary,
            past,
            recompute: self.recompute,
        }
    }

    /// The maps that walks keep, none made yet; `around` holds those of the blocks before and after the pool, if they are kept too.
    pub(crate) fn maps(&self, around: Packed) -> KeptMaps<B> {
        KeptMaps::new(&self.router, around, self.pool.len())
    }

    /// The positions as the blocks and the exit see them, `[batch, seq, d_position]`.
    pub(crate) fn told(&self, state: &WalkState<B>) -> Tensor<B, 3> {
        let [batch, seq, _] = state.hidden.dims();
        let [_, d_position] = state.position.dims();
        let position = self.position.reach().tell_blocks(state.position.clone());
        position.reshape([batch, seq, d_position])
    }

    /// Whether texts of one window stay apart, see [`BrianConfig::check_segments`].
    fn keeps_apart(&self) -> bool {
        let beam = self.route.parallel;
        self.route.sees == Sees::Token
            && !matches!(beam, Parallel::SequenceBeam { .. })
            && self.memory.as_ref().is_none_or(Memory::is_frozen)
    }

    /// Whether decoding can use caches: whether a token's logits follow from what is cached of earlier tokens.
    pub(crate) fn goes_on(&self, rules: &Rules) -> bool {
        let Self { route, memory, .. } = self;
        let memory = memory.as_ref().filter(|_| !rules.without_memory);
        memory.is_none_or(Memory::is_kept)
            && route.sees == Sees::Token
            && (route.parallel == Parallel::None || rules.without_beam)
    }
}

/// What is kept of reads where nobody asks for more: sums, in whole passes that are not training.
fn measured<B: Backend>(rules: &Rules, past: Option<&RefCell<WalkCache<B>>>) -> Measures {
    match rules.with_gradients || past.is_some() {
        true => Measures::Nothing,
        false => Measures::Sums,
    }
}

impl<B: Backend> Described<B> for Brian<B> {
    fn describe(&self, to: &mut Description) {
        to.starts(&self.embedding.weight, Start::Embedding);
        let around = self.pre.iter().chain(&self.post);
        around.for_each(|block| block.describe(to));
        self.pool.iter().for_each(|block| block.describe(to));
        self.position.describe(to);
        self.router.describe(to);
        self.exit.describe(to);
        to.norm(&self.norm);
        if let Some(head) = &self.unembedding {
            to.starts(&head.weight, Start::Embedding);
        }
        if let Some(memory) = &self.memory {
            memory.describe(to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat;
    use crate::memory::{
        Adapters, Compression, HiddenCodeConfig, KeyValuePrefixConfig, SharedCodeConfig,
        SharedCodes,
    };
    use crate::route::parallel::ParentExit;

    /// A small model in which nothing is left out: positions of their own, an exit that adds, three blocks to choose from.
    fn small() -> BrianConfig {
        let baseline = BaselineConfig {
            initial: Initial::Scaled { std: 0.4 },
            d_ff: 6,
            ..compat::baseline(8, 2, 5, 6)
        };
        let mut config = compat::brian(baseline, 1, 3, 4, 4);
        config.exit = Exit::Residual;
        config
    }

    const CODES: HiddenCodeConfig = HiddenCodeConfig {
        d_code: 3,
        sink: 1,
        window: 2,
        adapters: Adapters::Shared,
        head_rank: 0,
        lifecycle: Lifecycle::Frozen,
    };

    const PREFIX: KeyValuePrefixConfig = KeyValuePrefixConfig {
        sink: 1,
        window: 2,
        bias: -4.0,
        compression: Compression::None,
        lifecycle: Lifecycle::Frozen,
    };

    fn beam(width: usize, children: usize) -> Parallel {
        Parallel::Beam {
            width,
            children,
            branch_cost: 0.0,
            score_decay: 1.0,
        }
    }

    fn sequence_beam(width: usize) -> Parallel {
        Parallel::SequenceBeam {
            width,
            branch_cost: 0.0,
            score_decay: 1.0,
            parent_exit: ParentExit::Branch,
        }
    }

    #[test]
    fn every_wrong_field_is_named_and_what_just_fits_is_not() {
        type Setting = fn(&mut BrianConfig);
        let wrong: [(Setting, &[&str]); 22] = [
            (|c| c.n_pool = 0, &["n_pool", "route.top_k"]),
            (|c| c.position.d_position = 0, &["position.d_position"]),
            (
                |c| c.position.injection = Injection::Direct,
                &["position.d_position"],
            ),
            (|c| c.d_ff_pool = 0, &["d_ff_pool"]),
            (|c| c.route.max_steps = 0, &["route.max_steps"]),
            (|c| c.route.top_k_first = 0, &["route.top_k_first"]),
            (|c| c.route.top_k = 0, &["route.top_k"]),
            (|c| c.route.top_k_first = 5, &["route.top_k_first"]),
            (|c| c.route.top_k = 5, &["route.top_k"]),
            (|c| c.route.parallel = beam(0, 2), &["route.parallel.width"]),
            (|c| c.route.parallel = beam(2, 1), &["route.parallel.width"]),
            (
                |c| c.route.parallel = beam(1, 0),
                &["route.parallel.children"],
            ),
            (
                |c| c.route.parallel = beam(2, 5),
                &["route.parallel.children"],
            ),
            (|c| c.n_heads = 3, &["d_model"]),
            (|c| c.context = 0, &["context"]),
            (|c| c.rope_base = 1.0, &["rope_base"]),
            (|c| c.norm_epsilon = 0.0, &["norm_epsilon"]),
            (|c| c.logit_cap = Some(0.9), &["logit_cap"]),
            (|c| c.logit_cap = Some(1e5), &["logit_cap"]),
            (|c| c.logit_cap = Some(f64::NAN), &["logit_cap"]),
            (
                |c| c.residual_scale = Some(ResidualScale::Constant { factor: 0.0 }),
                &["residual_scale.factor"],
            ),
            (
                |c| c.residual_scale = Some(ResidualScale::Constant { factor: 10.1 }),
                &["residual_scale.factor"],
            ),
        ];
        for (set, fields) in wrong {
            let mut config = small();
            set(&mut config);
            let found = config.check().into_iter().map(|error| error.field);
            let found: Vec<String> = found.collect();
            assert_eq!(found, fields);
        }
        let right: [Setting; 11] = [
            |_| (),
            |c| (c.position.injection, c.position.d_position) = (Injection::Direct, 8),
            |c| (c.route.top_k_first, c.route.top_k) = (4, 4),
            |c| c.route.parallel = beam(2, 4),
            |c| c.route.parallel = beam(1, 1),
            |c| c.route.parallel = sequence_beam(2),
            |c| c.n_pool = 1,
            |c| c.logit_cap = Some(1.0),
            |c| c.logit_cap = Some(10_000.0),
            |c| c.residual_scale = Some(ResidualScale::Depth),
            |c| c.residual_scale = Some(ResidualScale::Constant { factor: 10.0 }),
        ];
        for set in right {
            let mut config = small();
            set(&mut config);
            assert_eq!(config.check(), []);
        }
        // A beam of sequences has as many children as a walk would mix.
        let mut config = small();
        (config.route.parallel, config.route.top_k) = (sequence_beam(2), 1);
        assert_eq!(config.check().len(), 1);
        config.route.top_k_first = 2;
        assert_eq!(config.check(), []);
        assert_eq!(small().baseline().check(), []);
        let none = BaselineConfig {
            n_layers: 0,
            ..small().baseline()
        };
        assert_eq!(none.check()[0].field, "n_layers");
    }

    /// Eight blocks in a row; or one before, four steps and one behind, which is twelve halves, also where five lie in a row.
    #[test]
    fn residuals_are_scaled_by_the_blocks_that_a_token_passes() {
        let factor = |sizes: BlockSizes| sizes.residual_factor;
        let mut config = small();
        assert_eq!(factor(config.sizes()), None);
        let eight = BaselineConfig {
            n_layers: 8,
            residual_scale: Some(ResidualScale::Depth),
            ..small().baseline()
        };
        assert_eq!(factor(eight.sizes()), Some(0.25));
        config.residual_scale = Some(ResidualScale::Depth);
        let expected = 12.0f64.sqrt().recip();
        assert_eq!(factor(config.sizes()), Some(expected));
        assert_eq!(config.baseline().n_layers, 5);
        assert_eq!(factor(config.baseline().sizes()), Some(expected));
        config.residual_scale = Some(ResidualScale::Constant { factor: 0.7 });
        assert_eq!(factor(config.sizes()), Some(0.7));
    }

    #[test]
    fn beams_and_memories_go_together_by_their_lifecycle() {
        let codes = |lifecycle| MemoryConfig::HiddenCode(HiddenCodeConfig { lifecycle, ..CODES });
        let prefix = MemoryConfig::KeyValuePrefix(PREFIX);
        let (frozen, reference) = (codes(Lifecycle::Frozen), codes(Lifecycle::Reference));
        let cases = [
            (
                Parallel::None,
                [frozen, reference, prefix],
                [true, true, true],
            ),
            (
                beam(2, 2),
                [frozen, reference, prefix],
                [true, false, false],
            ),
            (
                sequence_beam(2),
                [frozen, reference, prefix],
                [false, true, false],
            ),
        ];
        for (parallel, memories, fits) in cases {
            for (memory, fits) in memories.into_iter().zip(fits) {
                let mut config = BrianConfig { memory, ..small() };
                config.route.parallel = parallel;
                assert_eq!(config.check().is_empty(), fits, "{parallel:?} {memory:?}");
            }
        }
        let mut config = BrianConfig {
            memory: prefix,
            ..small()
        };
        config.route.attends = Attends::Selected;
        assert_eq!(config.check()[0].field, "route.attends");
        config.memory = frozen;
        assert_eq!(config.check(), []);
    }

    #[test]
    fn rules_leave_out_what_they_say_and_nothing_else() {
        let mut config = BrianConfig {
            memory: MemoryConfig::HiddenCode(CODES),
            ..small()
        };
        config.route.parallel = beam(2, 2);
        let of = |without_memory, without_beam| {
            let under = config.under(&Rules {
                without_memory,
                without_beam,
                ..Rules::sequential()
            });
            (
                under.memory == config.memory,
                under.route.parallel == config.route.parallel,
            )
        };
        assert_eq!(of(false, false), (true, true));
        assert_eq!(of(true, false), (false, true));
        assert_eq!(of(false, true), (true, false));
        assert_eq!(config.under(&Rules::sequential()), config);
        let baseline = small().baseline();
        assert_eq!(
            (baseline.n_layers, baseline.d_ff, baseline.context),
            (5, 6, 6)
        );
    }

    #[cfg(feature = "ndarray")]
    mod on_a_backend {
        use super::*;
        use crate::ops::tests::Learning;
        use crate::route::action::Action;
        use crate::route::policy::{Policy, Select, Teacher};
        use crate::route::position::{StartPosition, layout};
        use crate::route::rules::Execution;
        use crate::{parameter, random};
        use burn::tensor::TensorData;

        const VOCABULARY: usize = 7;

        /// With no value that is zero or one by its initial values.
        fn any<M: Module<Learning>>(model: M) -> M {
            parameter::assign(model, |path, shape| {
                let key = random::key(2, path, 0);
                let value = |place| 0.6 * random::normal(key, place) as f32 + 0.1;
                (0..shape.iter().product::<usize>() as u64)
                    .map(value)
                    .collect()
            })
        }

        fn tokens() -> Tensor<Learning, 2, Int> {
            let data = TensorData::new(vec![3i64, 1, 6, 0, 3, 5, 2, 2], [2, 4]);
            Tensor::from_data(data, &Default::default())
        }

        fn values<const D: usize>(tensor: Tensor<Learning, D>) -> Vec<f32> {
            tensor.into_data().iter().collect()
        }

        /// Up to the order of sums in float32.
        fn close(found: &[f32], expected: &[f32]) {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let bound = 1e-4 * expected.abs().max(1.0);
                assert!(
                    (found - expected).abs() < bound,
                    "{found} and not {expected}"
                );
            }
        }

        /// The rows of the embedding.
        fn looked_up(embedding: &Embedding<Learning>) -> Tensor<Learning, 3> {
            let rows = embedding.weight.val().select(0, tokens().reshape([8]));
            rows.reshape([2, 4, 8])
        }

        /// Every row over its root mean square, times the gain, times every row of the embedding; number by number.
        fn headed(
            hidden: Tensor<Learning, 3>,
            norm: &RmsNorm<Learning>,
            embedding: &Embedding<Learning>,
        ) -> Vec<f32> {
            let (hidden, gain, rows) = (
                values(hidden),
                values(norm.gamma.val()),
                values(embedding.weight.val()),
            );
            let logits = hidden.chunks(8).flat_map(|row| {
                let squares: f32 = row.iter().map(|x| x * x).sum();
                let scale = 1.0 / (squares / 8.0 + 1e-6).sqrt();
                let normed: Vec<f32> = row
                    .iter()
                    .zip(&gain)
                    .map(|(x, gain)| x * scale * gain)
                    .collect();
                let of_id =
                    move |id: &[f32]| id.iter().zip(&normed).map(|(a, b)| a * b).sum::<f32>();
                rows.chunks(8).map(of_id).collect::<Vec<f32>>()
            });
            logits.collect()
        }

        #[test]
        fn a_baseline_is_its_blocks_in_their_order_between_one_embedding() {
            let model = any(small()
                .baseline()
                .skeleton::<Learning>(VOCABULARY, &Default::default()));
            let causal = model.rotary.causal(4);
            let hidden = model
                .blocks
                .iter()
                .fold(looked_up(&model.embedding), |hidden, block| {
                    block.forward(hidden, &causal)
                });
            close(
                &values(model.forward(tokens())),
                &headed(hidden, &model.norm, &model.embedding),
            );
        }

        #[test]
        fn a_walk_in_a_row_is_its_blocks_each_told_where_the_last_one_lies() {
            for start in [StartPosition::Learned, StartPosition::FirstBlock] {
                let mut config = small();
                config.position.start = start;
                let model = any(config.skeleton::<Learning>(VOCABULARY, &Default::default()));
                let causal = model.rotary.causal(4);
                let table = model.position.table();
                let place = |position: Tensor<Learning, 2>| position.reshape([2, 4, 4]);
                let mut hidden = model.pre[0].forward(looked_up(&model.embedding), &causal);
                for (index, block) in model.pool.iter().enumerate() {
                    let position = match index {
                        0 => table.start(8),
                        _ => table.after(index - 1, 8),
                    };
                    hidden = block.forward(hidden, place(position), &causal, None);
                }
                hidden = model.exit.forward(hidden, place(table.after(3, 8)));
                hidden = model.post[0].forward(hidden, &causal);
                let expected = headed(hidden, &model.norm, &model.embedding);
                let rows = [SequenceInfo::default(); 2];
                for learning in [false, true] {
                    let rules = Rules {
                        with_gradients: learning,
                        ..Rules::sequential()
                    };
                    let (logits, trace) = model.forward(tokens(), &rules, &rows);
                    assert_eq!(logits.dims(), [2, 4, VOCABULARY]);
                    close(&values(logits), &expected);
                    let path = [0, 1, 2, 3].map(|index| Action::from_index(index, 3));
                    assert_eq!(trace.walks.path(5), path);
                    assert!(trace.steps.is_empty(), "nobody asked the router");
                }
            }
        }

        #[test]
        fn what_is_added_to_a_baseline_starts_silent_and_lies_where_its_layout_says() {
            let mut config = small();
            config.memory = MemoryConfig::HiddenCode(CODES);
            let model = config.init::<Learning>(VOCABULARY, 3, &Default::default());
            let all = parameter::collect(&model);
            let zero = |path: &str| all[path].iter::<f32>().all(|value| value == 0.0);
            for path in [
                "pool.0.adapter.weight",
                "pool.2.adapter.weight",
                "exit.projection.weight",
            ] {
                assert!(zero(path), "{path}");
            }
            for path in [
                "exit.adapter.weight",
                "pool.1.block.attention.output.weight",
                "router.input.weight",
            ] {
                assert!(!zero(path), "{path}");
            }
            assert!(
                all["memory.read.0.gate"]
                    .iter::<f32>()
                    .all(|gate| gate == -4.0)
            );
            let rows: Vec<f32> = all["position.embeddings"].iter().collect();
            assert_eq!(rows, layout(&config.position, 4, 3));
            // As deep as the baseline: what feeds the stream is smaller by the root of twice five blocks.
            let deviation = |path: &str| {
                let squares: f64 = all[path].iter::<f64>().map(|x| x * x).sum();
                (squares / all[path].num_elements() as f64).sqrt()
            };
            let output = deviation("pool.0.block.feed_forward.down.weight");
            // 48 draws know their deviation to a tenth.
            assert!(
                (output * 10.0f64.sqrt() / 0.4 - 1.0).abs() < 0.3,
                "{output}"
            );
            config.exit = Exit::Projection;
            let model = config.init::<Learning>(VOCABULARY, 3, &Default::default());
            assert!(
                values(model.exit.projection.weight.val())
                    .iter()
                    .any(|&value| value != 0.0)
            );
            let other = config.init::<Learning>(VOCABULARY, 4, &Default::default());
            assert_ne!(
                values(model.embedding.weight.val()),
                values(other.embedding.weight.val())
            );
        }

        #[test]
        fn a_wrapped_baseline_gives_each_block_to_its_place() {
            for scale in [None, Some(ResidualScale::Depth)] {
                assert_wrapped(&BrianConfig {
                    residual_scale: scale,
                    ..small()
                });
            }
        }

        fn assert_wrapped(config: &BrianConfig) {
            let baseline = config.baseline();
            let baseline = any(baseline.skeleton::<Learning>(VOCABULARY, &Default::default()));
            let map =
                |block: &TransformerBlock<Learning>| values(block.attention.output.weight.val());
            let expected: Vec<Vec<f32>> = baseline.blocks.iter().map(map).collect();
            let logits = values(baseline.forward(tokens()));
            let wrapped = config.wrap(baseline, 5);
            let plain = wrapped
                .pre
                .iter()
                .chain(wrapped.pool.iter().map(|routed| &routed.block))
                .chain(&wrapped.post);
            assert_eq!(plain.map(map).collect::<Vec<_>>(), expected);
            let (found, _) = wrapped.forward(
                tokens(),
                &Rules::sequential(),
                &[SequenceInfo::default(); 2],
            );
            close(&values(found), &logits);
        }

        #[test]
        fn only_what_sees_nothing_but_earlier_tokens_can_be_decoded_on() {
            type Setting = fn(&mut BrianConfig);
            let settings: [(Setting, [bool; 3]); 7] = [
                (|_| (), [true; 3]),
                (
                    |c| c.memory = MemoryConfig::HiddenCode(CODES),
                    [false, true, false],
                ),
                (|c| c.route.parallel = beam(2, 2), [false, false, true]),
                (|c| c.route.sees = Sees::SequenceMean, [false; 3]),
                (|c| c.route.attends = Attends::Selected, [true; 3]),
                (
                    |c| c.memory = MemoryConfig::KeyValuePrefix(PREFIX),
                    [true; 3],
                ),
                (
                    |c| {
                        c.memory = MemoryConfig::KeyValuePrefix(KeyValuePrefixConfig {
                            lifecycle: Lifecycle::Reference,
                            ..PREFIX
                        });
                    },
                    [false, true, false],
                ),
            ];
            for (set, expected) in settings {
                let mut config = small();
                set(&mut config);
                let model = config.skeleton::<Learning>(VOCABULARY, &Default::default());
                let goes_on = |without_memory, without_beam| {
                    model.goes_on(&Rules {
                        without_memory,
                        without_beam,
                        ..Rules::sequential()
                    })
                };
                assert_eq!(
                    [
                        goes_on(false, false),
                        goes_on(true, false),
                        goes_on(false, true)
                    ],
                    expected
                );
            }
        }

        /// However blocks are run where nobody asks for reads.
        #[test]
        fn reads_that_are_kept_are_those_that_are_counted_and_change_no_walk() {
            let shared = |codes| MemoryConfig::SharedCode(SharedCodeConfig { d_code: 3, codes });
            let last = SharedCodes::CurrentAndLast { bias: -1.0 };
            let memories = [
                MemoryConfig::None,
                shared(SharedCodes::Current),
                MemoryConfig::HiddenCode(CODES),
                MemoryConfig::KeyValuePrefix(PREFIX),
                shared(last),
            ];
            let executions = [Execution::Dense, Execution::Grouped];
            let cases = memories.map(|memory| executions.map(|execution| (memory, execution)));
            let router = Policy::Router {
                teacher: None,
                select: Select::Argmax,
            };
            for ((memory, execution), top_k) in cases
                .into_iter()
                .flatten()
                .flat_map(|case| [(case, 1), (case, 2)])
            {
                let what = format!("{memory:?} {execution:?} top {top_k}");
                let mut config = BrianConfig { memory, ..small() };
                (config.route.execution, config.route.top_k) = (execution, top_k);
                let model = any(config.skeleton::<Learning>(VOCABULARY, &Default::default()));
                let rules = Rules {
                    policy: router.clone(),
                    ..Rules::sequential()
                };
                let rows = [SequenceInfo::default(); 2];
                let (logits, trace) = model.forward(tokens(), &rules, &rows);
                let (same, again, reads) = model.forward_with_reads(tokens(), &rules, &rows);
                close(&values(same), &values(logits));
                let actions = |trace: &Trace<Learning>| -> Vec<Vec<usize>> {
                    let steps = trace.walks.steps.iter();
                    steps.map(|step| step.actions.clone()).collect()
                };
                assert_eq!(actions(&again), actions(&trace), "{what}");
                let Some(counted) = trace.walks.memory else {
                    assert!(reads.is_empty(), "{what}");
                    continue;
                };
                let near = |a: f64, b: f64| (a - b).abs() < 1e-3 * b.max(1.0);
                let weights = reads.iter().map(|read| f64::from(read.weight));
                assert!(near(weights.sum(), counted.reads), "{what}");
                let mass = reads
                    .iter()
                    .map(|read| f64::from(read.weight * read.mass()));
                assert!(near(mass.sum(), counted.mass.iter().sum()), "{what}");
                for read in &reads {
                    let whole = read.mass() + read.own;
                    assert!((whole - 1.0).abs() < 1e-5, "{what}: {read:?}");
                    let earlier =
                        |writer: usize| writer / 4 == read.reader / 4 && writer <= read.reader;
                    assert!(
                        read.shares.iter().all(|share| earlier(share.writer)),
                        "{what}"
                    );
                }
                let of_others = |read: &MemoryRead| {
                    let mut writers = read.shares.iter().map(|share| share.writer);
                    writers.any(|writer| writer != read.reader)
                };
                assert!(reads.iter().any(of_others), "{what}");
            }
        }

        #[test]
        #[should_panic(expected = "paths of a walk whose reads are kept")]
        fn reads_of_several_paths_are_not_kept() {
            let mut config = small();
            config.memory = MemoryConfig::HiddenCode(CODES);
            config.route.parallel = beam(2, 2);
            let model = config.skeleton::<Learning>(VOCABULARY, &Default::default());
            let policy = Policy::Router {
                teacher: None,
                select: Select::Argmax,
            };
            let rules = Rules {
                policy,
                ..Rules::sequential()
            };
            model.forward_with_reads(tokens(), &rules, &[SequenceInfo::default(); 2]);
        }

        #[test]
        fn a_model_without_its_memory_or_beam_is_the_one_that_has_none() {
            let walk = |config: BrianConfig, rules: Rules| {
                let model = any(config.skeleton::<Learning>(VOCABULARY, &Default::default()));
                let policy = Policy::Router {
                    teacher: Some(Teacher::Sequential),
                    select: Select::Argmax,
                };
                let rules = Rules { policy, ..rules };
                values(
                    model
                        .forward(tokens(), &rules, &[SequenceInfo::default(); 2])
                        .0,
                )
            };
            let mut plain = small();
            (plain.route.top_k, plain.route.execution) = (1, Execution::Grouped);
            let expected = walk(plain, Rules::sequential());
            let without = |without_memory, without_beam| Rules {
                without_memory,
                without_beam,
                ..Rules::sequential()
            };
            for memory in [
                MemoryConfig::HiddenCode(CODES),
                MemoryConfig::KeyValuePrefix(PREFIX),
            ] {
                let config = BrianConfig { memory, ..plain };
                close(&walk(config, without(true, false)), &expected);
                assert_ne!(walk(config, without(false, true)), expected, "{memory:?}");
            }
            let mut config = plain;
            config.route.parallel = beam(2, 3);
            close(&walk(config, without(false, true)), &expected);
            assert_ne!(walk(config, without(true, false)), expected);
        }
    }
}

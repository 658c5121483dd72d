//! The routed model: `tokens → embedding → pre blocks → walk over the pool → exit → post blocks → norm → logits`.

use crate::baseline::{Baseline, BaselineConfig, embed, embedding, head};
use crate::block::BlockSizes;
use crate::block::causal::{Causal, Rotary};
use crate::block::exit::{Exit, ExitBlock};
use crate::block::matrix::shared;
use crate::block::routed::RoutedBlock;
use crate::block::transformer::{TransformerBlock, norm};
use crate::error::{ConfigError, check_sizes};
use crate::initial::{Initial, draw};
use crate::memory::pass::{Pass, Start as Begin};
use crate::memory::{HiddenCode, KeyValuePrefix, Lifecycle, Memory, MemoryConfig};
use crate::route::parallel::Parallel;
use crate::route::past::Past;
use crate::route::policy::Row;
use crate::route::position::{Injection, PositionConfig, Positions, Reach, layout, start};
use crate::route::router::Router;
use crate::route::rules::{Attends, RouteConfig, Rules, Sees};
use crate::route::trace::Trace;
use crate::route::walk::{Ground, State};
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
    /// Attention heads.
    pub n_heads: usize,
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
    /// Added to the mean square in every norm.
    pub norm_epsilon: f64,
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
    /// Every field that no model can be built from.
    pub fn check(&self) -> Vec<ConfigError> {
        let mut errors = check_sizes(&self.sizes(), self.context, self.rope_base);
        if self.n_pool == 0 {
            errors.push(ConfigError::new("n_pool", 0, "at least 1"));
        }
        if self.position.d_position == 0 {
            errors.push(ConfigError::new("position.d_position", 0, "at least 1"));
        }
        let direct = self.position.injection == Injection::Direct;
        if direct && self.position.d_position != self.d_model {
            let expected = format!("d_model, {}, for a direct injection", self.d_model);
            let found = self.position.d_position;
            errors.push(ConfigError::new("position.d_position", found, expected));
        }
        let counts = [
            ("d_ff_pool", self.d_ff_pool),
            ("route.max_steps", self.route.max_steps),
            ("route.top_k_first", self.route.top_k_first),
            ("route.top_k", self.route.top_k),
        ];
        for (field, count) in counts.into_iter().filter(|(_, count)| *count == 0) {
            errors.push(ConfigError::new(field, count, "at least 1"));
        }
        if let Some(search) = self.route.parallel.search() {
            let RouteConfig {
                top_k_first, top_k, ..
            } = self.route;
            let children = search.children.unwrap_or(top_k_first.max(top_k));
            match search.width {
                0 => errors.push(ConfigError::new("route.parallel.width", 0, "at least 1")),
                width if width > 1 && children <= 1 => {
                    let expected = "1, or more children: no branch has two";
                    errors.push(ConfigError::new("route.parallel.width", width, expected));
                }
                _ => {}
            }
            let most = self.n_pool + 1;
            if search.children.is_some() && !(1..=most).contains(&children) {
                let expected = format!("at least 1 and at most n_pool + 1, {most}");
                errors.push(ConfigError::new(
                    "route.parallel.children",
                    children,
                    expected,
                ));
            }
        }
        for (field, top_k) in [
            ("route.top_k_first", self.route.top_k_first),
            ("route.top_k", self.route.top_k),
        ] {
            if top_k > self.n_pool + 1 {
                let expected = format!("at most n_pool + 1, {}", self.n_pool + 1);
                errors.push(ConfigError::new(field, top_k, expected));
            }
        }
        errors.extend(self.memory.check());
        let expected = match (self.route.parallel, self.memory) {
            (Parallel::None, _) | (_, MemoryConfig::None) => None,
            (_, MemoryConfig::KeyValuePrefix(_)) => Some("none with a memory of keys and values"),
            (Parallel::Beam { .. }, MemoryConfig::HiddenCode(memory)) => (memory.lifecycle
                != Lifecycle::Frozen)
                .then_some("none, or a memory whose lifecycle is frozen"),
            (Parallel::SequenceBeam { .. }, MemoryConfig::HiddenCode(memory)) => (memory.lifecycle
                != Lifecycle::Reference)
                .then_some("none, or a memory whose lifecycle is reference"),
        };
        if let Some(expected) = expected {
            errors.push(ConfigError::new("route.parallel", "a beam", expected));
        }
        let selected = self.route.attends == Attends::Selected;
        if selected && matches!(self.memory, MemoryConfig::KeyValuePrefix(_)) {
            let expected = "all with a memory of keys and values";
            errors.push(ConfigError::new("route.attends", "selected", expected));
        }
        errors
    }

    /// The same without what walks under these rules leave out.
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

    /// The plain decoder with the same blocks in a row; those of the pool have its width only if `d_ff_pool` is `d_ff`.
    pub fn baseline(&self) -> BaselineConfig {
        BaselineConfig {
            d_model: self.d_model,
            n_heads: self.n_heads,
            d_ff: self.d_ff,
            n_layers: self.n_pre + self.n_pool + self.n_post,
            context: self.context,
            rope_base: self.rope_base,
            norm_epsilon: self.norm_epsilon,
            initial: self.initial,
        }
    }

    /// A fresh model; the same seed gives the same bits on every backend.
    pub fn init<B: Backend>(&self, vocabulary: usize, seed: u64, device: &B::Device) -> Brian<B> {
        let model = self.skeleton(vocabulary, device);
        let n_layers = self.baseline().n_layers;
        draw(model, self.initial, n_layers, seed, |path, shape| {
            self.fixed(path, shape, seed)
        })
    }

    /// A model whose parameters exist as shapes only: for counting, and for loading into.
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
        let routed = |_| RoutedBlock::new(&pool_sizes, adapted, device);
        Brian {
            embedding: embedding(vocabulary, self.d_model, device),
            pre: plain(self.n_pre),
            pool: (0..self.n_pool).map(routed).collect(),
            position: Positions::new(&self.position, n_actions, device),
            router: Router::new(self.d_model, d_position, n_actions, device),
            exit: ExitBlock::new(&sizes, adapted, self.exit, device),
            post: plain(self.n_post),
            norm: norm(&sizes, device),
            memory: self.memory(n_actions, device),
            rotary: Rotary::new(
                self.context,
                self.d_model / self.n_heads,
                self.rope_base,
                device,
            ),
            route: self.route,
            into: self.position.into,
        }
    }

    /// A routed model that computes what the baseline computes: its blocks become pre, pool and post blocks in order,
    /// everything that only routes starts fresh. Exact for a residual exit and without a memory; with one, to within what
    /// its nearly closed gate lets through.
    ///
    /// # Panics
    /// If the baseline has another number of blocks, or the pool's are of another width.
    pub fn wrap<B: Backend>(&self, baseline: Baseline<B>, seed: u64) -> Brian<B> {
        let [vocabulary, _] = baseline.embedding.weight.dims();
        let device = baseline.embedding.weight.device();
        let mut model = self.init(vocabulary, seed, &device);
        let n_layers = self.baseline().n_layers;
        assert_eq!(baseline.blocks.len(), n_layers, "blocks of the baseline");
        assert_eq!(self.d_ff_pool, self.d_ff, "width of the pool");
        let mut blocks = baseline.blocks.into_iter();
        model.embedding = baseline.embedding;
        model.pre = blocks.by_ref().take(self.n_pre).collect();
        for (routed, block) in model.pool.iter_mut().zip(blocks.by_ref()) {
            routed.block = block;
        }
        model.post = blocks.collect();
        model.norm = baseline.norm;
        // The blocks have other paths now, and ids are hashes of paths.
        crate::parameter::identify(model)
    }

    fn sizes(&self) -> BlockSizes {
        self.baseline().sizes()
    }

    fn memory<B: Backend>(&self, n_actions: usize, device: &B::Device) -> Option<Memory<B>> {
        let sizes = self.sizes();
        match self.memory {
            MemoryConfig::None => None,
            MemoryConfig::HiddenCode(config) => {
                let memory = HiddenCode::new(config, &sizes, n_actions, device);
                Some(Memory::HiddenCode(memory))
            }
            MemoryConfig::KeyValuePrefix(config) => {
                let memory = KeyValuePrefix::new(config, &sizes, self.n_pool, device);
                Some(Memory::KeyValuePrefix(memory))
            }
        }
    }

    fn fixed(&self, path: &str, shape: &[usize], seed: u64) -> Option<Vec<f32>> {
        let silent_adapter = path.starts_with("pool.") && path.ends_with("adapter.weight");
        let silent_exit = path == "exit.projection.weight" && self.exit == Exit::Residual;
        if silent_adapter || silent_exit {
            return Some(vec![0.0; shape.iter().product()]);
        }
        if let Some(path) = path.strip_prefix("memory.") {
            return self.memory.initial(path, shape, seed);
        }
        match path {
            "position.embeddings" => Some(layout(&self.position, self.n_pool + 1, seed)),
            "position.start" => Some(start(&self.position, seed)),
            _ => None,
        }
    }
}

/// A Transformer whose middle is a pool of blocks.
#[derive(Module, Debug)]
pub struct Brian<B: Backend> {
    /// `[vocabulary, d_model]`; the head uses the same values, so there is one owner and one gradient.
    pub embedding: Embedding<B>,
    /// Before the walk, in order.
    pub pre: Vec<TransformerBlock<B>>,
    /// What a walk chooses from.
    pub pool: Vec<RoutedBlock<B>>,
    /// Where the operators lie.
    pub position: Positions<B>,
    /// Scores the operators.
    pub router: Router<B>,
    /// OUT.
    pub exit: ExitBlock<B>,
    /// After the walk, in order.
    pub post: Vec<TransformerBlock<B>>,
    /// Before the head.
    pub norm: RmsNorm<B>,
    /// What tokens leave behind on their walk.
    pub memory: Option<Memory<B>>,
    pub(crate) rotary: Rotary<B>,
    #[module(skip)]
    route: RouteConfig,
    #[module(skip)]
    into: Reach,
}

impl<B: Backend> Brian<B> {
    /// Logits of the next token at every position, and the walks that led there; `rows` says what teacher and chance may
    /// know about each sequence.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, vocabulary]`
    ///
    /// # Panics
    /// If `seq` exceeds the context, or `rows` are not `batch`.
    pub fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[Row],
    ) -> (Tensor<B, 3>, Trace<B>) {
        let [_, seq] = tokens.dims();
        let causal = self.rotary.causal(seq);
        let execute = |hidden, block: &TransformerBlock<B>| match rules.learning {
            true => shared(block.clone()).forward(hidden, &causal),
            false => block.forward(hidden, &causal),
        };
        let embedded = embed(&self.embedding, tokens);
        let entered = self.pre.iter().fold(embedded, execute);
        let ground = self.ground(&entered, &causal, rules, None);
        let (state, mut trace) = ground.walk(entered, rules, rows);
        let position = self.told(&state);
        let left = self.exit.forward(state.hidden, position);
        let left = ground.memory.read_last(left);
        trace.walks.memory = ground.memory.usage();
        let hidden = self.post.iter().fold(left, execute);
        (self.head(hidden), trace)
    }

    /// Logits of what left the last block; see [`head`].
    pub(crate) fn head(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let products = self.pool[0].block.products();
        head(&self.norm, &self.embedding, hidden, products)
    }

    /// What a walk goes through from the state it enters with, after the tokens of a past if there is one.
    pub(crate) fn ground<'a>(
        &'a self,
        entered: &Tensor<B, 3>,
        causal: &'a Causal<B>,
        rules: &Rules,
        past: Option<&'a RefCell<Past<B>>>,
    ) -> Ground<'a, B> {
        let memory = self.memory.as_ref().filter(|_| !rules.without_memory);
        let begin = Begin {
            entered,
            causal,
            out: self.pool.len(),
            measures: !rules.learning,
        };
        Ground {
            memory: Pass::start(memory, begin),
            pool: match rules.learning {
                true => Cow::Owned(self.pool.iter().cloned().map(shared).collect()),
                false => Cow::Borrowed(&self.pool),
            },
            positions: &self.position,
            router: match rules.learning {
                true => Cow::Owned(shared(self.router.clone())),
                false => Cow::Borrowed(&self.router),
            },
            route: self.route,
            into: self.into,
            causal,
            past,
        }
    }

    /// What blocks and exit are told of the positions, `[batch, seq, d_position]`.
    pub(crate) fn told(&self, state: &State<B>) -> Tensor<B, 3> {
        let [batch, seq, _] = state.hidden.dims();
        let [_, d_position] = state.position.dims();
        let position = self.into.tell_blocks(state.position.clone());
        position.reshape([batch, seq, d_position])
    }

    /// Whether a token's logits follow from what decoding keeps of the earlier tokens.
    pub(crate) fn goes_on(&self, rules: &Rules) -> bool {
        let Self { route, memory, .. } = self;
        (memory.is_none() || rules.without_memory)
            && route.sees == Sees::Token
            && route.attends == Attends::All
            && (route.parallel == Parallel::None || rules.without_beam)
    }
}

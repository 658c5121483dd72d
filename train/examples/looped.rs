//! Example of a program with a model (`Looped`) and a hook (`Settling`) of its own and every verb of `nerve`: a Transformer of
//! one block that runs `turns` times, the text added before each (Giannou et al. 2023; Yang et al. 2024):
//!
//! ```text
//! h₀ = 0,   hₜ₊₁ = block(hₜ + x),   logits = norm(h_turns) · Eᵀ
//! ```
//!
//! ```bash
//! looped() { cargo run --release --example looped -- "$@"; }
//! looped config new looped >looped.toml && looped fit looped.toml && looped sample last --prompt "Once "
//! ```

#![recursion_limit = "256"]

use brian::route::policy::SequenceInfo;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use burn::module::Module;
use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::gelu;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use serde::Deserialize;
use serde_json::Value;
use std::process::ExitCode;
use train::error::Error;
use train::hook::custom::CustomHook;
use train::learner::{Hook, StepInfo, Verdict};
use train::metric::table::{Better, MetricInfo, When};
use train::model::{Given, LanguageModel, Model, ModelFamily, Pass};
use train::recipe::bundled::Bundled;
use train::recipe::section::{MOST, Section};
use train::recipe::{Recipe, Stage};
use train::task::Batch;
use train::{Registry, main_with};

fn main() -> ExitCode {
    main_with(
        Registry::built_in()
            .family::<LoopedFamily>()
            .hook::<Settling>(),
    )
}

/// `[model]` with `kind = "looped"`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct LoopedConfig {
    /// Width of the stream.
    d_model: usize,
    /// Heads of the attention; they divide `d_model`.
    n_heads: usize,
    /// Width of the feed-forward.
    d_ff: usize,
    /// How often the block runs.
    turns: usize,
    /// The longest sequence, in tokens.
    context: usize,
}

#[derive(Module, Debug)]
struct Looped<B: Backend> {
    embedding: Embedding<B>,
    places: Embedding<B>,
    attention_norm: RmsNorm<B>,
    attention: MultiHeadAttention<B>,
    feed_forward_norm: RmsNorm<B>,
    up: Linear<B>,
    down: Linear<B>,
    norm: RmsNorm<B>,
    turns: usize,
}

impl LoopedConfig {
    fn skeleton<B: Backend>(&self, vocabulary: usize, device: &B::Device) -> Looped<B> {
        let norm = || RmsNormConfig::new(self.d_model).init(device);
        let attention = MultiHeadAttentionConfig::new(self.d_model, self.n_heads);
        Looped {
            embedding: EmbeddingConfig::new(vocabulary, self.d_model).init(device),
            places: EmbeddingConfig::new(self.context, self.d_model).init(device),
            attention_norm: norm(),
            attention: attention.with_dropout(0.0).init(device),
            feed_forward_norm: norm(),
            up: LinearConfig::new(self.d_model, self.d_ff).init(device),
            down: LinearConfig::new(self.d_ff, self.d_model).init(device),
            norm: norm(),
            turns: self.turns,
        }
    }
}

impl<B: Backend> Looped<B> {
    /// The state after every turn, `[batch, seq, d_model]`.
    fn states(&self, tokens: Tensor<B, 2, Int>) -> Vec<Tensor<B, 3>> {
        let [batch, seq] = tokens.dims();
        let device = tokens.device();
        let places = Tensor::arange(0..seq as i64, &device).reshape([1, seq]);
        let entered = self.embedding.forward(tokens) + self.places.forward(places);
        let mask = generate_autoregressive_mask(batch, seq, &device);
        let mut states = vec![entered.zeros_like()];
        for turn in 0..self.turns {
            let injected = states[turn].clone() + entered.clone();
            let queries = MhaInput::self_attn(self.attention_norm.forward(injected.clone()));
            let attended = self.attention.forward(queries.mask_attn(mask.clone()));
            let hidden = injected + attended.context;
            let inner = gelu(
                self.up
                    .forward(self.feed_forward_norm.forward(hidden.clone())),
            );
            states.push(hidden + self.down.forward(inner));
        }
        states
    }

    /// `[batch, seq, vocabulary]`
    fn head(&self, state: Tensor<B, 3>) -> Tensor<B, 3> {
        let embedding = self.embedding.weight.val().transpose().unsqueeze();
        self.norm.forward(state).matmul(embedding)
    }
}

impl<B: Backend> LanguageModel<B> for Looped<B> {
    fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        _: &Rules,
        _: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>) {
        let mut states = self.states(tokens);
        (self.head(states.remove(self.turns)), None)
    }

    /// Besides the loss: how much the last turn still changes the state, relative to its length.
    fn pass(&self, batch: &Batch) -> Pass<B> {
        let mut states = self.states(batch.inputs(&self.device()));
        let last = states.remove(self.turns);
        let change = (last.clone() - states.remove(self.turns - 1))
            .square()
            .sum();
        let length = last.clone().square().sum();
        Pass::of_logits(self.head(last), batch).mean("turns/last_change", (change / length).sqrt())
    }
}

struct LoopedFamily;

impl ModelFamily for LoopedFamily {
    const KIND: &'static str = "looped";
    type Config = LoopedConfig;

    fn context(config: &LoopedConfig) -> usize {
        config.context
    }

    fn skeleton<B: AutodiffBackend>(
        config: &LoopedConfig,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B> {
        Model::trainable(config.skeleton(given.vocabulary, device))
    }

    fn check(config: &LoopedConfig, section: &Section<'_>) {
        let sizes = [
            ("d_model", config.d_model),
            ("d_ff", config.d_ff),
            ("turns", config.turns),
            ("context", config.context),
        ];
        for (key, size) in sizes {
            section.whole(key, size as u64, 1, MOST);
        }
        let divides = config.n_heads > 0 && config.d_model.is_multiple_of(config.n_heads);
        section.require("n_heads", divides, "a divisor of d_model");
    }

    fn metrics(_: &LoopedConfig, _: &Stage) -> Vec<MetricInfo> {
        let text = "how much the last turn changes the state, relative to its length";
        let change = MetricInfo::new("turns/last_change", text);
        vec![change.better(Better::Lower).on_dashboard()]
    }

    fn recipes() -> Vec<Bundled> {
        vec![Bundled {
            kind: "looped",
            size: "tiny",
            text: include_str!("looped.toml"),
        }]
    }
}

/// `[hook.settling]`: stops a training whose last turn changes hardly anything any more, and shows how fast that shrinks.
struct Settling {
    config: SettlingConfig,
    before: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct SettlingConfig {
    /// The run stops when the last turn changes the state by less than this share of its length.
    least_change: f64,
}

impl CustomHook for Settling {
    const NAME: &'static str = "settling";
    type Config = SettlingConfig;

    fn metrics(_: &SettlingConfig) -> Vec<MetricInfo> {
        let text = "the last turn's change over that of the step before";
        let ratio = MetricInfo::new("turns/ratio", text);
        vec![ratio.at(When::Training).on_dashboard()]
    }

    fn open<B: AutodiffBackend>(
        config: &SettlingConfig,
        _: &Recipe,
        _: &Stage,
        state: Option<&Value>,
    ) -> Result<Box<dyn Hook<B, Model<B>>>, Error> {
        let before = state.and_then(|state| state["before"].as_f64());
        let config = config.clone();
        Ok(Box::new(Self { config, before }))
    }
}

impl<B: AutodiffBackend> Hook<B, Model<B>> for Settling {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn after_step(&mut self, step: &mut StepInfo<Model<B>>) -> Result<Verdict, Error> {
        let named = step.train.as_ref().map(|train| train.named());
        let Some(change) = named.and_then(|named| named.get("turns/last_change").copied()) else {
            return Ok(Verdict::Continue);
        };
        step.add("turns/ratio", change / self.before.unwrap_or(change));
        self.before = Some(change);
        if change < self.config.least_change {
            let turns = step.model.get::<Looped<B>>().map_or(0, |model| model.turns);
            let text = format!("the last of {turns} turns changes the state by {change:e}");
            return Ok(Verdict::Stop(Error::Refused(text)));
        }
        Ok(Verdict::Continue)
    }

    fn state(&mut self) -> Result<Option<Value>, Error> {
        Ok(Some(serde_json::json!({ "before": self.before })))
    }
}

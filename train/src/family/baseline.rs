//! `model.kind = "baseline"`: builds a decoder of fixed depth, checks its config, and estimates its FLOPs and memory.
//! It also makes it a `LanguageModel`; the layers are in crate `brian`. `brian.rs` uses the same checks of sizes.

use crate::device::Dtype;
use crate::learner::PLAIN_GROUPS;
use crate::model::{Account, Given, LanguageModel, Model, ModelFamily, Pass, Ran, Sequence, Slots};
use crate::recipe::section::{MOST, Section};
use crate::recipe::stage::{Policy, Stage};
use crate::task::{Batch, RoutePlan};
use brian::described::Described;
use brian::places::Place;
use brian::route::policy::SequenceInfo;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use brian::width_transfer::UpdateScales;
use brian::{
    Baseline, BaselineConfig, ConfigError, Decoder, Decoding, Initial, Recompute, precision,
};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use std::borrow::Cow;

/// Blocks in a row; a deeper model is a mistake of the recipe.
pub(super) const MOST_BLOCKS: u64 = 4096;

/// `model.kind = "baseline"`.
pub struct BaselineFamily;

impl ModelFamily for BaselineFamily {
    const KIND: &'static str = "baseline";
    const DTYPES: &'static [Dtype] = &[Dtype::F32, Dtype::Bf16];
    const RECOMPUTES: bool = true;

    type Config = BaselineConfig;

    fn context(config: &BaselineConfig) -> usize {
        config.context
    }

    fn skeleton<B: AutodiffBackend>(
        config: &BaselineConfig,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B> {
        Model::trainable(config.skeleton(given.vocabulary, device))
    }

    fn fresh<B: AutodiffBackend>(
        config: &BaselineConfig,
        given: &Given<'_>,
        device: &B::Device,
    ) -> Model<B> {
        Model::trainable(config.init(given.vocabulary, given.seed, device))
    }

    fn check(config: &BaselineConfig, section: &Section<'_>) {
        let bounds = [
            ("d_model", config.d_model, MOST),
            ("n_heads", config.n_heads, MOST),
            ("n_kv_heads", config.n_kv_heads.unwrap_or(1), MOST),
            ("d_head", config.d_head.unwrap_or(2), MOST),
            ("d_ff", config.d_ff, MOST),
            ("n_layers", config.n_layers, MOST_BLOCKS),
            ("context", config.context, MOST),
        ];
        check_sizes(section, &bounds, || config.check());
        check_initial(section, config.initial);
    }

    fn check_packed(_: &BaselineConfig, _: &Section<'_>) {}

    fn describe(config: &BaselineConfig, _: &Policy) -> String {
        let BaselineConfig {
            n_layers, d_model, ..
        } = config;
        format!("{n_layers} blocks in a row, d_model {d_model}")
    }

    fn groups(config: &BaselineConfig, _: &Policy) -> Option<&'static [&'static str]> {
        Some(groups(&PLAIN_GROUPS, config))
    }

    fn flops(config: &BaselineConfig, vocabulary: usize, ran: &Ran<'_>) -> Option<f64> {
        Some(config.flops_of(vocabulary, ran.texts) * (ran.batch * ran.seq) as f64)
    }

    fn stage_flops(
        config: &BaselineConfig,
        vocabulary: usize,
        _: &Stage,
        window: usize,
    ) -> Option<[f64; 2]> {
        Some([config.flops(vocabulary, window); 2])
    }

    fn account(
        config: &BaselineConfig,
        vocabulary: usize,
        window: usize,
        recompute: Option<Recompute>,
    ) -> Account {
        // Logits, before their cap too if they have one, and their softmax; per block the stream, the feed-forward's three inner values
        // and two score matrices. Where blocks run again, that of one at a time and the input of each.
        let heads = config.heads();
        let attention = 2 * (heads.d_queries() + heads.d_keys() + heads.n_heads * window);
        let per_block = 4 * config.d_model + attention + 3 * config.d_ff;
        let per_entry = 3 + usize::from(config.logit_cap.is_some());
        let of_blocks = match recompute {
            None => config.n_layers * per_block,
            Some(Recompute::Blocks) => config.n_layers * config.d_model + per_block,
        };
        let numbers = per_entry * vocabulary + of_blocks;
        Account {
            bytes_per_parameter: 4,
            has_gradients: true,
            activation_bytes_per_token: 4 * numbers as u64,
        }
    }
}

impl<B: Backend> LanguageModel<B> for Baseline<B> {
    fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        _: &Rules,
        _: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>) {
        (Baseline::forward(self, tokens), None)
    }

    fn forward_batch(&self, batch: &Batch, _: &Rules) -> (Tensor<B, 3>, Option<Trace<B>>) {
        let tokens = batch.inputs(&self.device());
        (self.forward_segments(tokens, &batch.segments()), None)
    }

    fn pass(&self, batch: &Batch) -> Pass<B> {
        let RoutePlan {
            products,
            rules,
            recompute,
            ..
        } = &batch.plan.route;
        let model = in_dtype(self, *products).into_owned();
        let model = model.recomputing(*recompute);
        let (logits, _) = model.forward_batch(batch, rules);
        Pass::of_logits(logits, batch)
    }

    fn update_scales(&self) -> UpdateScales {
        Baseline::update_scales(self)
    }

    fn places(&self, batch: &Batch) -> Vec<Place<B>> {
        Baseline::places(self, batch.inputs(&self.device()))
    }

    fn decoding(&self, _: &Rules) -> Box<dyn Sequence<B> + '_> {
        Box::new(Decoding::baseline(self))
    }

    fn slots(&self, _: &Rules) -> Box<dyn Slots + '_> {
        Box::new(Decoder::baseline(self))
    }

    fn with_matmul_dtype(self, dtype: Dtype) -> Self {
        precision::with_matmul_dtype(self, dtype.into())
    }

    fn device(&self) -> B::Device {
        self.embedding.weight.device()
    }
}

/// Groups of parameters, the last of which exists only with a head of its own.
pub(super) fn groups(
    all: &'static [&'static str],
    config: &BaselineConfig,
) -> &'static [&'static str] {
    match config.untied_head {
        Some(true) => all,
        _ => &all[..all.len() - 1],
    }
}

/// The model with its products in a type.
pub(super) fn in_dtype<B: Backend, M: Described<B>>(model: &M, dtype: Dtype) -> Cow<'_, M> {
    match dtype {
        Dtype::F32 => Cow::Borrowed(model),
        dtype => Cow::Owned(precision::with_matmul_dtype(model.clone(), dtype.into())),
    }
}

/// Each size has a bound: products of sizes without one would overflow, so the model's own rules come behind them.
pub(super) fn check_sizes(
    section: &Section<'_>,
    bounds: &[(&str, usize, u64)],
    own_rules: impl FnOnce() -> Vec<ConfigError>,
) {
    for (field, size, most) in bounds {
        section.field(field, *size as u64 <= *most, format!("at most {most}"));
    }
    if bounds.iter().all(|(_, size, most)| *size as u64 <= *most) {
        for error in own_rules() {
            section.field(&error.field, false, error.expected);
        }
    }
}

/// How a model starts.
pub(super) fn check_initial(section: &Section<'_>, initial: Initial) {
    if let Initial::Scaled { std } = initial {
        let holds = std > 0.0 && std <= 1.0;
        section
            .key("initial")
            .require("std", holds, "more than 0 and at most 1");
    }
}

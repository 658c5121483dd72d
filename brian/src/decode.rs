//! `Decoding`: the next token's logits for one sequence, from a baseline or a routed model, with caches of earlier tokens, so
//! that a new token costs the work of one token. Drawing tokens is in `generate`.
//!
//! Blocks before and after the pool cache keys and values; the pool caches the walks of earlier tokens (`route/walk_cache.rs`).
//! The logits equal those of a whole pass up to rounding. All is computed anew where caches do not apply: the window has slid,
//! the router sees the mean of the sequence, `attends` is `selected`, or the model has a memory or a beam.

use crate::baseline::Baseline;
use crate::block::cache::Cache;
use crate::block::causal::{Causal, Rotary};
use crate::block::transformer::TransformerBlock;
use crate::model::Brian;
use crate::route::policy::SequenceInfo;
use crate::route::rules::Rules;
use crate::route::walk_cache::WalkCache;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use std::cell::RefCell;

/// A model while it decodes one sequence.
#[derive(Debug)]
pub struct Decoding<'a, B: Backend> {
    model: Model<'a, B>,
    /// The tokens in the caches.
    tokens: Vec<u32>,
    /// Keys and values of the blocks in a row, those before the pool first.
    blocks: Vec<Cache<B>>,
    past: RefCell<WalkCache<B>>,
}

#[derive(Debug)]
enum Model<'a, B: Backend> {
    Baseline(&'a Baseline<B>),
    Brian {
        model: &'a Brian<B>,
        rules: Box<Rules>,
        row: SequenceInfo,
    },
}

impl<'a, B: Backend> Decoding<'a, B> {
    /// Starts decoding with a baseline.
    pub fn baseline(model: &'a Baseline<B>) -> Self {
        Self::new(Model::Baseline(model), &model.rotary)
    }

    /// Starts decoding with a routed model, which walks as in evaluation.
    pub fn brian(model: &'a Brian<B>, rules: &Rules, row: SequenceInfo) -> Self {
        let rules = Box::new(rules.evaluation());
        Self::new(Model::Brian { model, rules, row }, &model.rotary)
    }

    fn new(model: Model<'a, B>, rotary: &Rotary<B>) -> Self {
        Self {
            model,
            tokens: Vec::new(),
            blocks: Vec::new(),
            past: RefCell::new(WalkCache::new(rotary)),
        }
    }

    /// Logits of the token after `seen`. The caches are used if `seen` continues the tokens that were read before.
    ///
    /// # Shapes
    /// Returns `[vocabulary]`
    ///
    /// # Panics
    /// If `seen` is empty or longer than the context.
    pub fn follow(&mut self, seen: &[u32]) -> Tensor<B, 1> {
        let goes_on = seen.len() > self.tokens.len() && seen.starts_with(&self.tokens);
        let (rotary, embedding, keeps) = match &self.model {
            Model::Baseline(model) => (&model.rotary, &model.embedding, true),
            Model::Brian { model, rules, .. } => {
                (&model.rotary, &model.embedding, model.goes_on(rules))
            }
        };
        if !goes_on || !keeps {
            self.tokens.clear();
            self.blocks.clear();
            self.past = RefCell::new(WalkCache::new(rotary));
        }
        let new = &seen[self.tokens.len()..];
        assert!(!new.is_empty(), "a text needs a token to start from");
        let ids: Vec<i32> = new.iter().map(|&token| token as i32).collect();
        let ids = TensorData::new(ids, [1, new.len()]);
        let ids = Tensor::from_data(ids, &embedding.weight.device());
        let causal = rotary.causal_after(self.tokens.len(), new.len());
        self.tokens.extend_from_slice(new);
        last(self.pass(ids, &causal)).squeeze_dims(&[0, 1])
    }

    /// Executes the model on tokens `[1, n_new]` that follow those kept; logits `[1, n, vocabulary]`, at least after the last
    /// of them.
    fn pass(&mut self, tokens: Tensor<B, 2, Int>, causal: &Causal<B>) -> Tensor<B, 3> {
        let (model, rules, row) = match &self.model {
            Model::Baseline(model) => {
                let embedded = model.embedding.forward(tokens);
                let hidden = execute(&model.blocks, &mut self.blocks, 0, embedded, causal);
                return model.head(last(hidden));
            }
            Model::Brian { model, rules, row } => (*model, &**rules, *row),
        };
        if !model.goes_on(rules) {
            let (logits, _) = model.forward(tokens, rules, &[row]);
            return logits;
        }
        let embedded = model.embedding.forward(tokens);
        let entered = execute(&model.pre, &mut self.blocks, 0, embedded, causal);
        let ground = model.ground(&entered, causal, rules, Some(&self.past));
        let (state, trace) = ground.walk(entered, rules, &[row]);
        let position = model.told(&state);
        let n_steps = trace.walks.max_steps;
        let mut past = self.past.borrow_mut();
        past.end(n_steps, state.hidden.clone(), position.clone());
        let left = model.exit.forward(state.hidden, position);
        let n_before = model.pre.len();
        let hidden = execute(&model.post, &mut self.blocks, n_before, left, causal);
        model.head(last(hidden))
    }
}

/// Blocks in a row, each on the tokens that follow those it keeps: `[1, n_new, d_model]` to the same. Their caches are those
/// behind `n_before` others.
fn execute<B: Backend>(
    blocks: &[TransformerBlock<B>],
    caches: &mut Vec<Cache<B>>,
    n_before: usize,
    entered: Tensor<B, 3>,
    causal: &Causal<B>,
) -> Tensor<B, 3> {
    let [_, n_new, _] = entered.dims();
    caches.resize(caches.len().max(n_before + blocks.len()), Cache::default());
    let pairs = blocks.iter().zip(&mut caches[n_before..]);
    pairs.fold(entered, |hidden, (block, cache)| {
        cache.execute(block, hidden, causal, n_new)
    })
}

/// `[1, n_new, d_model]` to `[1, 1, d_model]`.
fn last<B: Backend>(hidden: Tensor<B, 3>) -> Tensor<B, 3> {
    let [_, n_new, _] = hidden.dims();
    hidden.slice_dim(1, n_new - 1..n_new)
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::block::tests::{Host, SINGLE, assert_near, found, loud};
    use crate::memory::{Adapters, HiddenCodeConfig, Lifecycle, MemoryConfig};
    use crate::route::parallel::Parallel;
    use crate::route::policy::{Policy, Select};
    use crate::route::position::{Injection, Layout, PositionConfig, Reach, StartPosition};
    use crate::route::rules::{Attends, Execution, ExitObjective, RouteConfig, Sees};
    use crate::{BaselineConfig, BrianConfig, Exit, Initial};

    const CONTEXT: usize = 6;
    const TEXT: [u32; 10] = [3, 1, 4, 1, 5, 6, 2, 6, 5, 3];

    fn baseline() -> BaselineConfig {
        BaselineConfig {
            d_model: 8,
            n_heads: 2,
            d_ff: 6,
            n_layers: 2,
            context: CONTEXT,
            rope_base: 50.0,
            norm_epsilon: 0.1,
            initial: Initial::Scaled { std: 0.3 },
            ..BaselineConfig::small()
        }
    }

    fn brian(memory: MemoryConfig, sees: Sees) -> BrianConfig {
        let baseline = baseline();
        BrianConfig {
            d_model: baseline.d_model,
            n_heads: baseline.n_heads,
            d_ff: baseline.d_ff,
            n_pre: 1,
            n_pool: 3,
            d_ff_pool: baseline.d_ff,
            n_post: 1,
            context: CONTEXT,
            rope_base: baseline.rope_base,
            norm_epsilon: baseline.norm_epsilon,
            initial: baseline.initial,
            position: PositionConfig {
                d_position: 3,
                layout: Layout::OpenArc,
                start: StartPosition::Learned,
                injection: Injection::Adapter,
                into: Reach::Both,
            },
            route: RouteConfig {
                max_steps: 3,
                top_k_first: 1,
                top_k: 1,
                sees,
                attends: Attends::All,
                execution: Execution::Grouped,
                parallel: Parallel::None,
            },
            exit: Exit::Residual,
            memory,
            ..BrianConfig::small()
        }
    }

    fn codes() -> MemoryConfig {
        MemoryConfig::HiddenCode(HiddenCodeConfig {
            d_code: 3,
            sink: 1,
            window: 1,
            adapters: Adapters::Shared,
            head_rank: 0,
            lifecycle: Lifecycle::Frozen,
        })
    }

    /// One text to its end and beyond what is seen, the same again, and another that begins as it does.
    fn assert_decodes(
        what: &str,
        mut decoding: Decoding<'_, Host>,
        whole: impl Fn(Tensor<Host, 2, Int>) -> Tensor<Host, 3>,
    ) {
        let whole = |text: &[u32]| {
            let seen = &text[text.len().saturating_sub(CONTEXT)..];
            let ids: Vec<i32> = seen.iter().map(|&token| token as i32).collect();
            let logits = whole(Tensor::from_data(
                TensorData::new(ids, [1, seen.len()]),
                &Default::default(),
            ));
            found(&last(logits).squeeze_dims::<1>(&[0, 1]).unsqueeze::<2>())
        };
        let near = |logits: Tensor<Host, 1>, text: &[u32]| {
            let name = format!("{what} behind {text:?}");
            assert_near(
                &name,
                &found(&logits.unsqueeze::<2>()),
                &whole(text),
                SINGLE,
            );
        };
        let seen = |end: usize| &TEXT[end.saturating_sub(CONTEXT)..end];
        for end in 2..=TEXT.len() {
            near(decoding.follow(seen(end)), &TEXT[..end]);
        }
        near(decoding.follow(seen(9)), &TEXT[..9]);
        near(decoding.follow(&TEXT[..3]), &TEXT[..3]);
        near(decoding.follow(&TEXT[..3]), &TEXT[..3]);
        near(decoding.follow(&TEXT[..5]), &TEXT[..5]);
        near(decoding.follow(&[3, 2, 4, 1, 5, 6]), &[3, 2, 4, 1, 5, 6]);
    }

    #[test]
    fn what_decoding_keeps_gives_the_logits_of_a_whole_pass() {
        let device = Default::default();
        let model = loud(baseline().init::<Host>(7, 1, &device), |_| 0.4);
        assert_decodes("baseline", Decoding::baseline(&model), |tokens| {
            model.forward(tokens)
        });
        let rules = Rules {
            policy: Policy::Router {
                teacher: None,
                select: Select::Argmax,
            },
            ask_router: true,
            exit_objective: ExitObjective::Legacy { hard: true },
            ..Rules::sequential()
        };
        for (memory, sees) in [
            (MemoryConfig::None, Sees::Token),
            (MemoryConfig::None, Sees::SequenceMean),
            (codes(), Sees::Token),
        ] {
            let model = brian(memory, sees).init::<Host>(7, 1, &device);
            let model = loud(
                model,
                |path| if path.starts_with("router") { 1.0 } else { 0.4 },
            );
            let decoding = Decoding::brian(&model, &rules, SequenceInfo::default());
            assert_decodes(&format!("{memory:?} {sees:?}"), decoding, |tokens| {
                model
                    .forward(tokens, &rules.evaluation(), &[SequenceInfo::default()])
                    .0
            });
        }
    }

    #[test]
    #[should_panic(expected = "a text needs a token to start from")]
    fn nothing_follows_no_text() {
        let model = baseline().init::<Host>(7, 1, &Default::default());
        drop(Decoding::baseline(&model).follow(&[]));
    }
}

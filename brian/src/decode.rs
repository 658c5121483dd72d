//! Token-by-token decoding with caches: a new token costs the work of one token, not of a whole sequence.
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
}

#[derive(Debug)]
enum Model<'a, B: Backend> {
    Baseline {
        model: &'a Baseline<B>,
        blocks: Vec<Cache<B>>,
    },
    Brian {
        model: &'a Brian<B>,
        rules: Box<Rules>,
        row: SequenceInfo,
        pre: Vec<Cache<B>>,
        past: RefCell<WalkCache<B>>,
        post: Vec<Cache<B>>,
    },
}

impl<'a, B: Backend> Decoding<'a, B> {
    /// Starts decoding with a baseline.
    pub fn baseline(model: &'a Baseline<B>) -> Self {
        let blocks = fresh(&model.blocks);
        Self {
            model: Model::Baseline { model, blocks },
            tokens: Vec::new(),
        }
    }

    /// Starts decoding with a routed model, which walks as in evaluation.
    pub fn brian(model: &'a Brian<B>, rules: &Rules, row: SequenceInfo) -> Self {
        let model = Model::Brian {
            model,
            rules: Box::new(rules.evaluation()),
            row,
            pre: fresh(&model.pre),
            past: RefCell::new(WalkCache::new(&model.rotary, model.pool.len())),
            post: fresh(&model.post),
        };
        Self {
            model,
            tokens: Vec::new(),
        }
    }

    /// Clears the caches and reads a text, of which the last `context` tokens are seen. Returns the logits of the token after
    /// it.
    ///
    /// # Shapes
    /// Returns `[vocabulary]`
    ///
    /// # Panics
    /// If there is no token.
    pub fn prefill(&mut self, tokens: &[u32]) -> Tensor<B, 1> {
        self.forget();
        let context = self.model.rotary().context();
        self.follow(&tokens[tokens.len().saturating_sub(context)..])
    }

    /// Reads one more token; beyond the context the first one is no longer seen. Returns the logits of the token after it.
    ///
    /// # Shapes
    /// Returns `[vocabulary]`
    pub fn advance(&mut self, token: u32) -> Tensor<B, 1> {
        let from = usize::from(self.tokens.len() == self.model.rotary().context());
        let mut seen = self.tokens[from..].to_vec();
        seen.push(token);
        self.follow(&seen)
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
        if !goes_on || !self.model.goes_on() {
            self.forget();
        }
        let new = &seen[self.tokens.len()..];
        assert!(!new.is_empty(), "a text needs a token to start from");
        let ids: Vec<i32> = new.iter().map(|&token| token as i32).collect();
        let data = TensorData::new(ids, [1, new.len()]);
        let causal = self
            .model
            .rotary()
            .causal_after(self.tokens.len(), new.len());
        let logits = self.model.pass(data, &causal);
        self.tokens.extend_from_slice(new);
        logits
    }

    fn forget(&mut self) {
        self.tokens.clear();
        match &mut self.model {
            Model::Baseline { model, blocks } => *blocks = fresh(&model.blocks),
            Model::Brian {
                model,
                pre,
                past,
                post,
                ..
            } => {
                *pre = fresh(&model.pre);
                *past = RefCell::new(WalkCache::new(&model.rotary, model.pool.len()));
                *post = fresh(&model.post);
            }
        }
    }
}

impl<'a, B: Backend> Model<'a, B> {
    fn rotary(&self) -> &'a Rotary<B> {
        match self {
            Self::Baseline { model, .. } => &model.rotary,
            Self::Brian { model, .. } => &model.rotary,
        }
    }

    fn goes_on(&self) -> bool {
        match self {
            Self::Baseline { .. } => true,
            Self::Brian { model, rules, .. } => model.goes_on(rules),
        }
    }

    /// Executes the model on tokens `[1, n_new]` that follow those kept; logits after the last of them, `[vocabulary]`.
    fn pass(&mut self, tokens: TensorData, causal: &Causal<B>) -> Tensor<B, 1> {
        match self {
            Self::Baseline { model, blocks } => {
                let tokens =
                    Tensor::<B, 2, Int>::from_data(tokens, &model.embedding.weight.device());
                let embedded = model.embedding.forward(tokens);
                let hidden = execute(&model.blocks, blocks, embedded, causal);
                model.head(last(hidden)).squeeze_dims(&[0, 1])
            }
            Self::Brian {
                model,
                rules,
                row,
                pre,
                past,
                post,
            } => {
                let tokens =
                    Tensor::<B, 2, Int>::from_data(tokens, &model.embedding.weight.device());
                if !model.goes_on(rules) {
                    let (logits, _) = model.forward(tokens, rules, &[*row]);
                    return last(logits).squeeze_dims(&[0, 1]);
                }
                let embedded = model.embedding.forward(tokens);
                let entered = execute(&model.pre, pre, embedded, causal);
                let ground = model.ground(&entered, causal, rules, Some(past));
                let (state, trace) = ground.walk(entered, rules, &[*row]);
                let position = model.told(&state);
                let n_steps = trace.walks.max_steps;
                past.borrow_mut()
                    .end(n_steps, state.hidden.clone(), position.clone());
                let left = model.exit.forward(state.hidden, position);
                let hidden = execute(&model.post, post, left, causal);
                model.head(last(hidden)).squeeze_dims(&[0, 1])
            }
        }
    }
}

fn fresh<B: Backend>(blocks: &[TransformerBlock<B>]) -> Vec<Cache<B>> {
    vec![Cache::default(); blocks.len()]
}

/// Blocks in a row, each on the tokens that follow those it keeps: `[1, n_new, d_model]` to the same.
fn execute<B: Backend>(
    blocks: &[TransformerBlock<B>],
    caches: &mut [Cache<B>],
    entered: Tensor<B, 3>,
    causal: &Causal<B>,
) -> Tensor<B, 3> {
    let [_, n_new, _] = entered.dims();
    let pairs = blocks.iter().zip(caches);
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
        near(decoding.prefill(&TEXT[..2]), &TEXT[..2]);
        for end in 3..=TEXT.len() {
            near(decoding.advance(TEXT[end - 1]), &TEXT[..end]);
        }
        near(decoding.prefill(&TEXT[..9]), &TEXT[..9]);
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
        drop(Decoding::baseline(&model).prefill(&[]));
    }
}

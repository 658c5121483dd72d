//! `Decoder`: several texts that a baseline or a routed model reads token by token, each in a slot with caches of its earlier
//! tokens, so that a new token costs the work of one; `Decoding`, a single text. Drawing tokens is in `generate`.
//!
//! Blocks before and after the pool cache keys and values; the pool caches the walks of earlier tokens (`route/walk_cache.rs`).
//! The logits equal those of a whole pass up to rounding. All is computed anew where caches do not apply: the router sees the
//! mean of the sequence, or the model has a memory of hidden states, one whose lifecycle is the reference's, or a beam.
//!
//! A token of a slot is begun and then taken further by rounds: one pass of a baseline, or blocks of the pool (after the idea of
//! batching by depth of arXiv 2608.09444). On the host the bits of a slot do not depend on what other slots do.

use crate::baseline::Baseline;
use crate::block::cache::{Cache, execute};
use crate::block::causal::Rotary;
use crate::block::transformer::TransformerBlock;
use crate::model::Brian;
use crate::ops::cat::cat;
use crate::ops::embedding::embed;
use crate::ops::gather::some;
use crate::ops::reshape::{per_row, reshape};
use crate::ops::reuse::Packed;
use crate::ops::rotary::Angles;
use crate::route::policy::SequenceInfo;
use crate::route::pool::KeptMaps;
use crate::route::rounds::Rounds;
use crate::route::rules::Rules;
use crate::route::trace::{Origin, Trace};
use crate::route::walk_cache::WalkCache;
use burn::nn::Embedding;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use std::cell::RefCell;

/// Several texts that one model reads.
#[derive(Debug)]
pub struct Decoder<'a, B: Backend> {
    model: Model<'a, B>,
    slots: Vec<Option<Slot<B>>>,
    /// Slots with a token that has not entered the model yet.
    begun: Vec<usize>,
    /// Tokens in the pool.
    rounds: Rounds<B>,
}

#[derive(Debug)]
enum Model<'a, B: Backend> {
    Baseline(&'a Baseline<B>),
    Brian {
        model: &'a Brian<B>,
        rules: Box<Rules>,
        maps: Box<KeptMaps<B>>,
    },
}

/// A text.
#[derive(Debug, Default)]
struct Slot<B: Backend> {
    info: SequenceInfo,
    tokens: Vec<u32>,
    /// How many of them are kept below, all but where a text was cut back.
    n_kept: usize,
    /// What the blocks in a row keep, those before the pool first.
    blocks: Vec<Cache<B>>,
    walks: RefCell<WalkCache<B>>,
}

/// What a model says behind some tokens.
#[derive(Debug)]
pub struct Said<B: Backend> {
    /// Logits of the token behind each, `[n_tokens, vocabulary]`.
    pub logits: Tensor<B, 2>,
    /// The blocks that each has run in the pool; none for a model without one.
    pub paths: Vec<Vec<usize>>,
}

impl<'a, B: Backend> Decoder<'a, B> {
    /// Reads with a baseline.
    pub fn baseline(model: &'a Baseline<B>) -> Self {
        Self::new(Model::Baseline(model))
    }

    /// Reads with a routed model, which walks as in evaluation.
    pub fn brian(model: &'a Brian<B>, rules: &Rules) -> Self {
        Self::new(Model::Brian {
            model,
            rules: Box::new(rules.evaluation()),
            maps: Box::new(model.maps(around(model))),
        })
    }

    fn new(model: Model<'a, B>) -> Self {
        Self {
            model,
            slots: Vec::new(),
            begun: Vec::new(),
            rounds: Rounds::new(),
        }
    }

    /// Whether caches apply: without them every token reads its whole text again, and a text is best read at once.
    pub fn keeps(&self) -> bool {
        self.model.keeps()
    }

    /// A slot without a token, the lowest that is free; a teacher and draws ask for `info`.
    pub fn open(&mut self, info: SequenceInfo) -> usize {
        let slot = Some(Slot {
            info,
            ..Slot::default()
        });
        match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                self.slots[free] = slot;
                free
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    /// Frees a slot and what it keeps, also in the middle of a token.
    pub fn close(&mut self, slot: usize) {
        if self.slots.get_mut(slot).and_then(Option::take).is_some() {
            self.begun.retain(|&begun| begun != slot);
            self.rounds.drop_slot(slot);
        }
    }

    /// The tokens that a slot has read.
    ///
    /// # Panics
    /// If it is not open.
    pub fn tokens(&self, slot: usize) -> &[u32] {
        &self.slots[slot].as_ref().expect(OPEN).tokens
    }

    /// Reads tokens behind those of a slot in one pass, and says what is behind the last `n_wanted` of its tokens, which have to
    /// be among the new ones if the model [keeps](Self::keeps) what it has read.
    ///
    /// # Panics
    /// If the slot is not open or has a token underway, there is no new token, `n_wanted` is 0 or too large, or the text gets
    /// longer than the context.
    pub fn read(&mut self, slot: usize, tokens: &[u32], n_wanted: usize) -> Said<B> {
        self.require_idle(slot);
        let slot = self.slots[slot].as_mut().expect(OPEN);
        assert!(!tokens.is_empty(), "a text needs a token to start from");
        slot.tokens.extend_from_slice(tokens);
        let keeps = self.model.keeps();
        let n_kept = if keeps { slot.n_kept } else { 0 };
        let n_new = slot.tokens.len() - n_kept;
        slot.n_kept = slot.tokens.len();
        assert!(
            (1..=n_new).contains(&n_wanted),
            "{n_wanted} of {n_new} tokens"
        );
        match &self.model {
            Model::Baseline(model) => {
                let (x, angles) = enter(&model.embedding, &model.rotary, slot, n_new);
                let x = in_row(
                    &model.blocks,
                    0,
                    x,
                    &angles,
                    &[n_new],
                    &mut [slot],
                    &Packed::default(),
                );
                Said {
                    logits: one_by_one(last(x, n_wanted), |x| model.head(x)),
                    paths: vec![Vec::new(); n_wanted],
                }
            }
            Model::Brian { model, rules, .. } if !keeps => read_anew(model, rules, slot, n_wanted),
            Model::Brian { model, rules, maps } => walk(model, rules, maps, slot, n_new, n_wanted),
        }
    }

    fn require_idle(&self, slot: usize) {
        let busy = self.begun.contains(&slot) || self.rounds.has(slot);
        assert!(!busy, "a token of slot {slot} is underway");
    }

    /// Begins a token behind those of a slot; [`Self::round`] takes it further.
    ///
    /// # Panics
    /// If the slot is not open, has a token underway or was not read since it was opened or cut back, or the text gets longer
    /// than the context.
    pub fn begin(&mut self, slot: usize, token: u32) {
        self.require_idle(slot);
        let of = self.slots[slot].as_mut().expect(OPEN);
        assert!(of.n_kept > 0, "a text is read before it goes on");
        of.tokens.push(token);
        of.n_kept += 1;
        self.begun.push(slot);
    }

    /// Forgets all but the first `length` tokens of a slot, which are read again with the next that come.
    ///
    /// # Panics
    /// If the slot is not open or has a token underway.
    pub fn truncate(&mut self, slot: usize, length: usize) {
        self.require_idle(slot);
        let slot = self.slots[slot].as_mut().expect(OPEN);
        slot.tokens.truncate(length);
        *slot = Slot {
            info: slot.info,
            tokens: std::mem::take(&mut slot.tokens),
            ..Slot::default()
        };
    }

    /// Takes tokens that are underway further: of a baseline all to their ends, of a routed model those that wait for the blocks for
    /// which most wait, or to leave. Gives the slots of those that are through with what is said behind them.
    pub fn round(&mut self) -> Option<(Vec<usize>, Said<B>)> {
        let begun = std::mem::take(&mut self.begun);
        match &self.model {
            Model::Baseline(model) => {
                if begun.is_empty() {
                    return None;
                }
                let mut slots = several(&mut self.slots, &begun);
                let (x, angles) = enter_each(&model.embedding, &model.rotary, &slots);
                let n_new = vec![1; slots.len()];
                let x = in_row(
                    &model.blocks,
                    0,
                    x,
                    &angles,
                    &n_new,
                    &mut slots,
                    &Packed::default(),
                );
                let logits = one_by_one(x, |x| model.head(x));
                let paths = vec![Vec::new(); begun.len()];
                Some((begun, Said { logits, paths }))
            }
            Model::Brian { model, rules, .. } if !model.goes_on(rules) => {
                if begun.is_empty() {
                    return None;
                }
                let slots = several(&mut self.slots, &begun).into_iter();
                let said = slots.map(|slot| read_anew(model, rules, slot, 1));
                let (logits, paths): (Vec<_>, Vec<_>) =
                    said.map(|said| (said.logits, said.paths)).unzip();
                let said = Said {
                    logits: cat(logits, 0),
                    paths: paths.concat(),
                };
                Some((begun, said))
            }
            Model::Brian { model, rules, maps } => {
                let device = model.embedding.weight.device();
                let causal = model.rotary.causal(1);
                let nothing = Tensor::zeros([1, 1, 1], &device);
                let context = model.ground(&nothing, &causal, rules, None, Some(maps));
                if !begun.is_empty() {
                    let mut slots = several(&mut self.slots, &begun);
                    let (x, angles) = enter_each(&model.embedding, &model.rotary, &slots);
                    let n_new = vec![1; slots.len()];
                    let entered =
                        in_row(&model.pre, 0, x, &angles, &n_new, &mut slots, &maps.around);
                    let new = begun.iter().zip(&slots);
                    let new = new.map(|(&slot, of)| (slot, of.info, of.tokens.len() - 1));
                    let new: Vec<_> = new.collect();
                    let mut walks = walks(&mut self.slots);
                    self.rounds
                        .enter(&context, rules, &new, entered, &mut walks);
                }
                let mut walks = walks(&mut self.slots);
                let through = self.rounds.round(&context, rules, &mut walks)?;
                let left = leave(model, through.hidden, through.position);
                let mut slots = several(&mut self.slots, &through.slots);
                let places = slots.iter().map(|of| of.tokens.len() - 1).collect();
                let angles = model.rotary.angles(places);
                let n_new = vec![1; slots.len()];
                let n_before = model.pre.len();
                let x = in_row(
                    &model.post,
                    n_before,
                    left,
                    &angles,
                    &n_new,
                    &mut slots,
                    &maps.around,
                );
                let said = Said {
                    logits: one_by_one(x, |x| model.head(x)),
                    paths: through.paths,
                };
                Some((through.slots, said))
            }
        }
    }
}

const OPEN: &str = "the slot is open";

impl<B: Backend> Model<'_, B> {
    fn keeps(&self) -> bool {
        match self {
            Self::Baseline(_) => true,
            Self::Brian { model, rules, .. } => model.goes_on(rules),
        }
    }
}

/// Reads the whole text of a slot, and says what is behind its last tokens.
fn read_anew<B: Backend>(
    model: &Brian<B>,
    rules: &Rules,
    slot: &Slot<B>,
    n_wanted: usize,
) -> Said<B> {
    let tokens = ids(&slot.tokens, &model.embedding);
    let (logits, trace) = model.forward(tokens, rules, &[slot.info]);
    Said {
        logits: last(per_row(logits), n_wanted),
        paths: paths(&trace, n_wanted),
    }
}

/// Walks the new tokens of a slot together.
fn walk<B: Backend>(
    model: &Brian<B>,
    rules: &Rules,
    maps: &KeptMaps<B>,
    slot: &mut Slot<B>,
    n_new: usize,
    n_wanted: usize,
) -> Said<B> {
    let causal = model.rotary.causal_after(slot.tokens.len() - n_new, n_new);
    let (x, angles) = enter(&model.embedding, &model.rotary, slot, n_new);
    let entered = in_row(
        &model.pre,
        0,
        x,
        &angles,
        &[n_new],
        &mut [slot],
        &maps.around,
    );
    let [_, d_model] = entered.dims();
    let entered = reshape(entered, [1, n_new, d_model]);
    let (state, trace) = {
        let context = model.ground(&entered, &causal, rules, Some(&slot.walks), Some(maps));
        context.walk(entered, rules, &[slot.info])
    };
    let hidden = per_row(state.hidden);
    let position = model.position.reach().tell_blocks(state.position);
    let n_steps = |token: usize| {
        let steps = trace.walks.steps.iter();
        steps
            .take_while(|step| step.origins[token] != Origin::Left)
            .count()
    };
    let n_steps: Vec<usize> = (0..n_new).map(n_steps).collect();
    let walks = slot.walks.get_mut();
    walks.end(&n_steps, hidden.clone(), position.clone());
    let left = leave(model, hidden, position);
    let n_before = model.pre.len();
    let x = in_row(
        &model.post,
        n_before,
        left,
        &angles,
        &[n_new],
        &mut [slot],
        &maps.around,
    );
    Said {
        logits: one_by_one(last(x, n_wanted), |x| model.head(x)),
        paths: paths(&trace, n_wanted),
    }
}

/// Passes tokens through the exit, `[n, d_model]` and `[n, d_position]` to `[n, d_model]`.
fn leave<B: Backend>(
    model: &Brian<B>,
    hidden: Tensor<B, 2>,
    position: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let [n, d_model] = hidden.dims();
    let [_, d_position] = position.dims();
    let hidden = reshape(hidden, [1, n, d_model]);
    let position = position.reshape([1, n, d_position]);
    per_row(model.exit.forward(hidden, position))
}

/// The embeddings of a slot's last tokens, `[n_new, d_model]`, and their angles.
fn enter<B: Backend>(
    embedding: &Embedding<B>,
    rotary: &Rotary<B>,
    slot: &Slot<B>,
    n_new: usize,
) -> (Tensor<B, 2>, Angles<B>) {
    let n_tokens = slot.tokens.len();
    let (first, context) = (n_tokens - n_new, rotary.context());
    assert!(
        n_tokens <= context,
        "{n_tokens} tokens in a context of {context}"
    );
    let x = embed(embedding, ids(&slot.tokens[first..], embedding));
    (per_row(x), rotary.angles((first..n_tokens).collect()))
}

/// The same for the last token of several slots.
fn enter_each<B: Backend>(
    embedding: &Embedding<B>,
    rotary: &Rotary<B>,
    slots: &[&mut Slot<B>],
) -> (Tensor<B, 2>, Angles<B>) {
    let places: Vec<usize> = slots.iter().map(|slot| slot.tokens.len() - 1).collect();
    let (last, context) = (places.iter().max().expect("a slot"), rotary.context());
    assert!(
        *last < context,
        "{} tokens in a context of {context}",
        last + 1
    );
    let tokens: Vec<u32> = slots
        .iter()
        .map(|slot| *slot.tokens.last().expect("its token"))
        .collect();
    let x = embed(embedding, ids(&tokens, embedding));
    (per_row(x), rotary.angles(places))
}

/// The maps of the blocks before and after the pool.
fn around<B: Backend>(model: &Brian<B>) -> Packed {
    let blocks = model.pre.iter().chain(&model.post);
    blocks.map(Packed::of).collect::<Vec<_>>().iter().collect()
}

/// Blocks in a row, each on so many new tokens of each slot: `[n_new, d_model]` of all to the same. What they keep lies behind that of
/// `n_before` others.
fn in_row<B: Backend>(
    blocks: &[TransformerBlock<B>],
    n_before: usize,
    entered: Tensor<B, 2>,
    angles: &Angles<B>,
    n_new: &[usize],
    slots: &mut [&mut Slot<B>],
    packed: &Packed,
) -> Tensor<B, 2> {
    let n_blocks = n_before + blocks.len();
    for slot in slots.iter_mut() {
        let n_blocks = slot.blocks.len().max(n_blocks);
        slot.blocks.resize(n_blocks, Cache::default());
    }
    let numbered = blocks.iter().zip(n_before..);
    numbered.fold(entered, |x, (block, index)| {
        let caches = slots
            .iter_mut()
            .map(|slot| std::mem::take(&mut slot.blocks[index]));
        let mut caches: Vec<_> = caches.collect();
        let x = execute(block, x, angles, n_new, &mut caches, packed);
        for (slot, cache) in slots.iter_mut().zip(caches) {
            slot.blocks[index] = cache;
        }
        x
    })
}

/// The walks of all open slots, by their numbers.
fn walks<B: Backend>(slots: &mut [Option<Slot<B>>]) -> Vec<Option<&mut WalkCache<B>>> {
    let slots = slots.iter_mut().map(Option::as_mut);
    slots.map(|of| Some(of?.walks.get_mut())).collect()
}

/// Slots by number, in this order.
fn several<'s, B: Backend>(
    slots: &'s mut [Option<Slot<B>>],
    which: &[usize],
) -> Vec<&'s mut Slot<B>> {
    let mut all: Vec<_> = slots.iter_mut().map(Option::as_mut).collect();
    let one = |&slot: &usize| all[slot].take().expect(OPEN);
    which.iter().map(one).collect()
}

/// Token ids on the device, `[1, n]`.
fn ids<B: Backend>(tokens: &[u32], embedding: &Embedding<B>) -> Tensor<B, 2, Int> {
    let ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let data = TensorData::new(ids, [1, tokens.len()]);
    Tensor::from_data(data, &embedding.weight.device())
}

/// The blocks that the last tokens of a single sequence have run.
fn paths<B: Backend>(trace: &Trace<B>, n: usize) -> Vec<Vec<usize>> {
    let walks = &trace.walks;
    let path = |token: usize| {
        let actions = walks.steps.iter().map(|step| step.actions[token]);
        actions.filter(|&action| action < walks.n_pool).collect()
    };
    (walks.seq - n..walks.seq).map(path).collect()
}

/// The last rows.
fn last<B: Backend>(x: Tensor<B, 2>, n: usize) -> Tensor<B, 2> {
    let [n_rows, _] = x.dims();
    some(x, &(n_rows - n..n_rows).collect::<Vec<_>>())
}

/// A function of `[batch, seq, …]`, applied to rows.
fn one_by_one<B: Backend>(
    x: Tensor<B, 2>,
    of: impl FnOnce(Tensor<B, 3>) -> Tensor<B, 3>,
) -> Tensor<B, 2> {
    let [n, width] = x.dims();
    per_row(of(reshape(x, [n, 1, width])))
}

/// A model while it reads one text, which may also begin anew.
#[derive(Debug)]
pub struct Decoding<'a, B: Backend> {
    decoder: Decoder<'a, B>,
    info: SequenceInfo,
    slot: usize,
}

impl<'a, B: Backend> Decoding<'a, B> {
    /// Starts decoding with a baseline.
    pub fn baseline(model: &'a Baseline<B>) -> Self {
        Self::new(Decoder::baseline(model), SequenceInfo::default())
    }

    /// Starts decoding with a routed model, which walks as in evaluation.
    pub fn brian(model: &'a Brian<B>, rules: &Rules, info: SequenceInfo) -> Self {
        Self::new(Decoder::brian(model, rules), info)
    }

    fn new(mut decoder: Decoder<'a, B>, info: SequenceInfo) -> Self {
        let slot = decoder.open(info);
        Self {
            decoder,
            info,
            slot,
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
        let before = self.decoder.tokens(self.slot);
        let goes_on = seen.len() > before.len() && seen.starts_with(before);
        let n_before = if goes_on { before.len() } else { 0 };
        if !goes_on {
            self.decoder.close(self.slot);
            self.slot = self.decoder.open(self.info);
        }
        let said = self.decoder.read(self.slot, &seen[n_before..], 1);
        said.logits.squeeze_dim(0)
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::block::residual::ResidualScale;
    use crate::block::tests::{Host, SINGLE, assert_near, found, loud};
    use crate::block::visits::{VisitScale, VisitsConfig};
    use crate::memory::{
        Adapters, Compression, HiddenCodeConfig, KeyValuePrefixConfig, Lifecycle, MemoryConfig,
        SharedCodeConfig, SharedCodes,
    };
    use crate::route::constraint::Constraint;
    use crate::route::parallel::Parallel;
    use crate::route::policy::{Policy, Select};
    use crate::route::position::{Injection, Layout, PositionConfig, Reach, StartPosition};
    use crate::route::rules::{
        Attends, ChoiceGradient, Execution, ExitObjective, RouteConfig, Sees,
    };
    use crate::{BaselineConfig, BrianConfig, Exit, Initial, WidthTransfer};
    use ndarray::Array2;
    use std::collections::{BTreeMap, BTreeSet};

    const CONTEXT: usize = 6;
    /// A token that comes back to a block finds another one there.
    const VISITS: VisitsConfig = VisitsConfig {
        scale: Some(VisitScale::InverseSqrt),
        gains: Some(true),
    };
    /// Queries are multiplied by 0.87 and logits by 0.67.
    const BASE: WidthTransfer = WidthTransfer {
        base_d_model: 5,
        base_d_head: 3,
    };
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

    /// Memories to which blocks attend: with a window, with codes, and codes that blocks share.
    fn attended() -> [MemoryConfig; 4] {
        let prefix = |sink, compression| {
            MemoryConfig::KeyValuePrefix(KeyValuePrefixConfig {
                sink,
                window: 1,
                bias: -0.7,
                compression,
                lifecycle: Lifecycle::Frozen,
            })
        };
        let shared = |codes| MemoryConfig::SharedCode(SharedCodeConfig { d_code: 3, codes });
        [
            prefix(1, Compression::None),
            prefix(0, Compression::Code { d_code: 2 }),
            shared(SharedCodes::Current),
            shared(SharedCodes::CurrentAndLast { bias: -0.7 }),
        ]
    }

    /// Every way of keeping something: a memory, whom the router sees, and to whom blocks attend.
    fn settings() -> Vec<(MemoryConfig, Sees, Attends)> {
        let mut settings = vec![
            (MemoryConfig::None, Sees::Token, Attends::All),
            (MemoryConfig::None, Sees::SequenceMean, Attends::All),
            (MemoryConfig::None, Sees::Token, Attends::Selected),
            (codes(), Sees::Token, Attends::All),
        ];
        settings.extend(attended().map(|memory| (memory, Sees::Token, Attends::All)));
        settings
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
            found(&last(per_row(logits), 1))
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
        for logit_cap in [None, Some(2.0)] {
            let config = BaselineConfig {
                logit_cap,
                residual_scale: logit_cap.map(|_| ResidualScale::Depth),
                width_transfer: logit_cap.map(|_| BASE),
                ..baseline()
            };
            let model = loud(config.init::<Host>(7, 1, &device), |_| 0.4);
            let name = format!("baseline, cap {logit_cap:?}, scaled too");
            assert_decodes(&name, Decoding::baseline(&model), |tokens| {
                model.forward(tokens)
            });
        }
        let rules = Rules {
            policy: Policy::Router {
                teacher: None,
                select: Select::Argmax,
            },
            ask_router: true,
            exit_objective: ExitObjective::Legacy { hard: true },
            ..Rules::sequential()
        };
        for (memory, sees, attends) in settings() {
            for (top_k, logit_cap) in [(1, None), (2, Some(2.0))] {
                let mut config = brian(memory, sees);
                config.logit_cap = logit_cap;
                config.residual_scale = logit_cap.map(|_| ResidualScale::Depth);
                config.width_transfer = logit_cap.map(|_| BASE);
                (config.route.attends, config.route.top_k) = (attends, top_k);
                config.visits = (top_k > 1).then_some(VISITS);
                let [model, dense] = [Execution::Grouped, Execution::Dense].map(|execution| {
                    config.route.execution = execution;
                    let model = config.init::<Host>(7, 1, &device);
                    loud(
                        model,
                        |path| if path.starts_with("router") { 1.0 } else { 0.4 },
                    )
                });
                let decoding = Decoding::brian(&model, &rules, SequenceInfo::default());
                let name = format!("{memory:?} {sees:?} {attends:?} top {top_k}");
                assert_decodes(&name, decoding, |tokens| {
                    dense
                        .forward(tokens, &rules.evaluation(), &[SequenceInfo::default()])
                        .0
                });
            }
        }
    }

    /// What is said behind each of some tokens of a slot, alone in its decoder: those of the first are read at once.
    fn alone(mut decoder: Decoder<'_, Host>, text: &[u32], n_first: usize) -> Vec<Vec<f32>> {
        let slot = decoder.open(SequenceInfo::default());
        let said = decoder.read(slot, &text[..n_first], 1);
        let mut all = vec![bits(&said.logits)];
        for &token in &text[n_first..] {
            decoder.begin(slot, token);
            let (slots, said) = std::iter::repeat_with(|| decoder.round())
                .flatten()
                .next()
                .unwrap();
            assert_eq!(slots, [slot]);
            all.push(bits(&said.logits));
        }
        all
    }

    fn bits(logits: &Tensor<Host, 2>) -> Vec<f32> {
        logits.clone().into_data().to_vec().unwrap()
    }

    /// Texts that come and go at different times say to the bit what each says alone, which is what it says if it is read at once.
    fn assert_apart<'a>(what: &str, of: impl Fn() -> Decoder<'a, Host>) {
        // Each with the tokens that it reads at once, and the round in which it begins.
        let texts: [(&[u32], usize, usize); 4] = [
            (&TEXT[..6], 1, 0),
            (&TEXT[3..8], 3, 0),
            (&TEXT[1..7], 2, 2),
            (&TEXT[4..10], 1, 5),
        ];
        let expected = texts.map(|(text, n_first, _)| alone(of(), text, n_first));
        for ((text, n_first, _), alone) in texts.iter().zip(&expected) {
            let mut whole = of();
            let slot = whole.open(SequenceInfo::default());
            let at_once = whole.read(slot, text, text.len() + 1 - n_first).logits;
            let rows = alone.iter().flatten().map(|&logit| f64::from(logit));
            let rows = Array2::from_shape_vec(at_once.dims(), rows.collect()).unwrap();
            let name = format!("{what}: {text:?} in rounds, and at once");
            assert_near(&name, &rows, &found(&at_once), SINGLE);
        }
        let mut decoder = of();
        let mut found = vec![Vec::new(); texts.len()];
        // One that leaves in the middle of a token.
        let guest = decoder.open(SequenceInfo::default());
        decoder.read(guest, &TEXT[..2], 1);
        decoder.begin(guest, TEXT[2]);
        let mut open: BTreeMap<usize, usize> = BTreeMap::new();
        for round in 0..1000 {
            for (index, (text, n_first, begins)) in texts.into_iter().enumerate() {
                if begins == round {
                    let slot = decoder.open(SequenceInfo::default());
                    let said = decoder.read(slot, &text[..n_first], 1);
                    found[index].push(bits(&said.logits));
                    decoder.begin(slot, text[n_first]);
                    open.insert(slot, index);
                }
            }
            if round == 1 {
                decoder.close(guest);
            }
            let (slots, said) = decoder.round().unwrap_or_else(|| {
                let logits = Tensor::zeros([0, 7], &Default::default());
                (
                    Vec::new(),
                    Said {
                        logits,
                        paths: Vec::new(),
                    },
                )
            });
            for (row, slot) in slots.into_iter().enumerate() {
                // The guest's slot is somebody else's once it has left.
                let Some(&index) = open.get(&slot) else {
                    continue;
                };
                let (text, n_first, _) = texts[index];
                found[index].push(bits(&said.logits.clone().slice_dim(0, row..row + 1)));
                match text.get(n_first + found[index].len() - 1) {
                    Some(&next) => decoder.begin(slot, next),
                    None => {
                        open.remove(&slot);
                        decoder.close(slot);
                    }
                }
            }
            if round > 5 && open.is_empty() {
                break;
            }
        }
        assert!(open.is_empty(), "{what}: texts that do not end");
        for (index, expected) in expected.iter().enumerate() {
            assert_eq!(&found[index], expected, "{what}, text {index}");
        }
    }

    #[test]
    fn what_a_slot_says_does_not_depend_on_others_to_the_bit() {
        let device = Default::default();
        let model = loud(baseline().init::<Host>(7, 1, &device), |_| 0.4);
        assert_apart("baseline", || Decoder::baseline(&model));
        let routed = |objective, choice_gradient| Rules {
            policy: Policy::Router {
                teacher: None,
                select: Select::Argmax,
            },
            location_bias: 0.3,
            constraint: Constraint {
                self_recurrence_cap: 2,
                ..Constraint::NONE
            },
            exit_objective: objective,
            choice_gradient,
            ..Rules::sequential()
        };
        let taught = Rules {
            ask_router: true,
            ..Rules::sequential()
        };
        let rules = [
            routed(ExitObjective::Legacy { hard: true }, ChoiceGradient::Legacy),
            routed(ExitObjective::Legacy { hard: false }, ChoiceGradient::Gated),
            routed(ExitObjective::SoftMixture, ChoiceGradient::Gated),
            taught,
        ];
        let mut lengths = BTreeSet::new();
        let settings = settings().into_iter();
        let of_tokens = settings.filter(|(_, sees, _)| *sees == Sees::Token);
        for (memory, sees, attends) in of_tokens {
            let mut config = brian(memory, sees);
            config.visits = Some(VISITS);
            config.route.attends = attends;
            config.route.top_k = if memory == codes() { 1 } else { 2 };
            let model = config.init::<Host>(7, 1, &device);
            let model = loud(
                model,
                |path| if path.starts_with("router") { 1.0 } else { 0.4 },
            );
            for rules in &rules {
                assert_apart(&format!("{memory:?} {attends:?} {rules:?}"), || {
                    Decoder::brian(&model, rules)
                });
                let mut decoder = Decoder::brian(&model, rules);
                let slot = decoder.open(SequenceInfo::default());
                let paths = decoder.read(slot, &TEXT[..5], 5).paths;
                lengths.extend(paths.iter().map(Vec::len));
            }
        }
        assert!(lengths.len() > 2, "walks of one length: {lengths:?}");
    }

    #[test]
    #[should_panic(expected = "a text needs a token to start from")]
    fn nothing_follows_no_text() {
        let model = baseline().init::<Host>(7, 1, &Default::default());
        drop(Decoding::baseline(&model).follow(&[]));
    }
}

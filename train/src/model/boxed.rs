//! `Model`: a language model in a box, its type known at run time only; runs, measures and continues texts, can be trained.
//! To Burn it is a module like any other: its parameters are visited and mapped under the paths of the model itself.

use super::language::{LanguageModel, OwnOptimizer};
use super::pass::Pass;
use super::sequence::{Sequence, Slots};
use crate::device::Dtype;
use crate::task::{Batch, Continuation, Drawn, Measured, StopReason};
use brian::generate::{Next, NotFinite, generate};
use brian::parameter;
use brian::places::Place;
use brian::route::policy::SequenceInfo;
use brian::route::rules::Rules;
use brian::route::trace::Trace;
use brian::width_transfer::UpdateScales;
use burn::module::{AutodiffModule, Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Makes a model of the inner backend of one that can be trained.
type Valid = fn(&dyn Any) -> Box<dyn Any>;

/// A language model of any family.
pub struct Model<B: Backend> {
    content: Box<dyn Content<B>>,
    /// The same [`Model`] on the inner backend; only a model that can be trained knows how.
    valid: Option<Valid>,
}

impl<B: Backend> Model<B> {
    /// A model that is used and not trained.
    pub fn new<M: LanguageModel<B> + 'static>(model: M) -> Self {
        Self {
            content: Box::new(Held(model)),
            valid: None,
        }
    }

    /// A model that can be trained too.
    pub fn trainable<M>(model: M) -> Self
    where
        B: AutodiffBackend,
        M: LanguageModel<B> + AutodiffModule<B> + 'static,
        M::InnerModule: LanguageModel<B::InnerBackend> + 'static,
    {
        let valid = |model: &dyn Any| -> Box<dyn Any> {
            let model: &M = model.downcast_ref().expect("the model it was made from");
            Box::new(Model::new(model.valid()))
        };
        Self {
            valid: Some(valid),
            ..Self::new(model)
        }
    }

    /// The model itself, if it is of this type.
    pub fn get<M: 'static>(&self) -> Option<&M> {
        self.content.as_any().downcast_ref()
    }

    /// The model itself, or this if it is of another type.
    ///
    /// # Errors
    /// What was given.
    pub fn downcast<M: 'static>(self) -> Result<M, Self> {
        if self.get::<M>().is_none() {
            return Err(self);
        }
        let model = self.content.into_any().downcast::<M>();
        Ok(*model.expect("its type was asked for"))
    }

    /// Logits of the next token at every place, and the walks that led there if there is a route.
    ///
    /// # Shapes
    /// `[batch, seq]` to `[batch, seq, vocabulary]`
    ///
    /// # Panics
    /// If the model has its own optimizer, and with it no logits for all places.
    pub fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>) {
        self.content.forward(tokens, rules, rows)
    }

    /// The same for a batch, whose rows may hold several documents.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn forward_batch(&self, batch: &Batch, rules: &Rules) -> (Tensor<B, 3>, Option<Trace<B>>) {
        self.content.forward_batch(batch, rules)
    }

    /// The model before the first token of a text, walking as in evaluation.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn decoding(&self, rules: &Rules) -> Box<dyn Sequence<B> + '_> {
        self.content.decoding(rules)
    }

    /// The model before the first token of several texts, walking as in evaluation.
    pub fn slots(&self, rules: &Rules) -> Box<dyn Slots + '_> {
        self.content.slots(rules)
    }

    /// Continues a prompt of at least one token, walking as in evaluation.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn continue_tokens(
        &self,
        prompt: &[u32],
        rules: &Rules,
        how: &Continuation,
    ) -> Result<Drawn, NotFinite> {
        let mut tokens = Vec::new();
        let stop = self.stream(prompt.iter().copied(), rules, how, |token| {
            tokens.push(token);
            true
        })?;
        Ok(Drawn { tokens, stop })
    }

    /// Reads a prompt of at least one token and hands over each token that is drawn, until `each` says no. Memory does not
    /// grow with the prompt: a Transformer keeps what it sees of it, a graph its state.
    ///
    /// # Errors
    /// If a logit is not finite.
    pub fn stream(
        &self,
        mut prompt: impl Iterator<Item = u32> + Send,
        rules: &Rules,
        how: &Continuation,
        mut each: impl FnMut(u32) -> bool + Send,
    ) -> Result<StopReason, NotFinite> {
        if let Some(own) = self.own_optimizer() {
            return own.stream(&mut prompt, how, &mut each);
        }
        let mut seen = VecDeque::new();
        for token in prompt {
            if seen.len() == how.context {
                seen.pop_front();
            }
            seen.push_back(token);
        }
        let mut decoding = self.decoding(rules);
        let mut stop = StopReason::Length;
        let next = |token| {
            let next = how.behind(token);
            if next == Next::Stop {
                stop = StopReason::End;
            }
            if !each(token) {
                stop = StopReason::Refused;
                return Next::Stop;
            }
            next
        };
        generate(
            |seen| {
                let logits = decoding.follow(seen);
                let [rows] = logits.dims();
                match rows > how.vocabulary {
                    true => logits.slice_dim(0, 0..how.vocabulary),
                    false => logits,
                }
            },
            seen.make_contiguous(),
            how.n_tokens,
            how.context,
            how.sampling,
            &how.never,
            next,
        )?;
        Ok(stop)
    }

    /// Where the parameters are.
    pub fn device(&self) -> B::Device {
        self.content.device()
    }

    /// The number of parameters, without creating any of them.
    pub fn n_parameters(&self) -> u64 {
        let own = self.own_optimizer();
        own.map_or_else(|| parameter::count(self), |own| own.n_parameters())
    }

    /// Shapes of the parameters, by path.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let own = self.own_optimizer();
        own.map_or_else(|| parameter::shapes(self), |own| own.shapes())
    }

    /// Losses of a pass, and those of every place of the batch, `[batch * seq]` in row order: 0 where nothing counts.
    pub fn measure(&self, batch: &Batch) -> (Measured, Vec<f64>) {
        match self.own_optimizer() {
            Some(own) => own.measure(batch),
            None => self.content.pass(batch).measure(batch),
        }
    }

    /// The model with products in a type; see [`brian::precision`].
    pub fn with_matmul_dtype(&self, dtype: Dtype) -> Cow<'_, Self> {
        match dtype {
            Dtype::F32 => Cow::Borrowed(self),
            dtype => {
                let content = self.content.clone_content().with_matmul_dtype(dtype);
                Cow::Owned(Self { content, ..*self })
            }
        }
    }

    /// What the settings of AdamW are multiplied by.
    pub fn update_scales(&self) -> UpdateScales {
        self.content.update_scales()
    }

    /// What a pass gives at named places, if the model names any.
    pub fn places(&self, batch: &Batch) -> Vec<Place<B>> {
        self.content.places(batch)
    }

    /// What a model with an optimizer of its own can do besides; nothing for one that leaves it to the learner.
    pub fn own_optimizer(&self) -> Option<&dyn OwnOptimizer<B>> {
        self.content.own_optimizer()
    }
}

/// A [`LanguageModel`], whatever its type.
trait Content<B: Backend>: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn clone_content(&self) -> Box<dyn Content<B>>;
    fn collect_devices(&self, devices: Devices<B>) -> Devices<B>;
    fn fork(self: Box<Self>, device: &B::Device) -> Box<dyn Content<B>>;
    fn to_device(self: Box<Self>, device: &B::Device) -> Box<dyn Content<B>>;
    fn visit(&self, visitor: &mut dyn AnyVisitor);
    fn map(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Box<dyn Content<B>>;
    fn device(&self) -> B::Device;
    fn own_optimizer(&self) -> Option<&dyn OwnOptimizer<B>>;
    fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>);
    fn forward_batch(&self, batch: &Batch, rules: &Rules) -> (Tensor<B, 3>, Option<Trace<B>>);
    fn update_scales(&self) -> UpdateScales;
    fn places(&self, batch: &Batch) -> Vec<Place<B>>;
    fn pass(&self, batch: &Batch) -> Pass<B>;
    fn decoding(&self, rules: &Rules) -> Box<dyn Sequence<B> + '_>;
    fn slots(&self, rules: &Rules) -> Box<dyn Slots + '_>;
    fn with_matmul_dtype(self: Box<Self>, dtype: Dtype) -> Box<dyn Content<B>>;
}

struct Held<M>(M);

impl<B: Backend, M: LanguageModel<B> + 'static> Content<B> for Held<M> {
    fn as_any(&self) -> &dyn Any {
        &self.0
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.0)
    }

    fn clone_content(&self) -> Box<dyn Content<B>> {
        Box::new(Self(self.0.clone()))
    }

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.0.collect_devices(devices)
    }

    fn fork(self: Box<Self>, device: &B::Device) -> Box<dyn Content<B>> {
        Box::new(Self(self.0.fork(device)))
    }

    fn to_device(self: Box<Self>, device: &B::Device) -> Box<dyn Content<B>> {
        Box::new(Self(self.0.to_device(device)))
    }

    fn visit(&self, visitor: &mut dyn AnyVisitor) {
        self.0.visit(&mut ToAny(visitor));
    }

    fn map(self: Box<Self>, mapper: &mut dyn AnyMapper) -> Box<dyn Content<B>> {
        Box::new(Self(self.0.map(&mut ToAny(mapper))))
    }

    fn device(&self) -> B::Device {
        self.0.device()
    }

    fn own_optimizer(&self) -> Option<&dyn OwnOptimizer<B>> {
        self.0.own_optimizer()
    }

    fn forward(
        &self,
        tokens: Tensor<B, 2, Int>,
        rules: &Rules,
        rows: &[SequenceInfo],
    ) -> (Tensor<B, 3>, Option<Trace<B>>) {
        self.0.forward(tokens, rules, rows)
    }

    fn forward_batch(&self, batch: &Batch, rules: &Rules) -> (Tensor<B, 3>, Option<Trace<B>>) {
        self.0.forward_batch(batch, rules)
    }

    fn update_scales(&self) -> UpdateScales {
        self.0.update_scales()
    }

    fn places(&self, batch: &Batch) -> Vec<Place<B>> {
        self.0.places(batch)
    }

    fn pass(&self, batch: &Batch) -> Pass<B> {
        self.0.pass(batch).with_added(batch)
    }

    fn decoding(&self, rules: &Rules) -> Box<dyn Sequence<B> + '_> {
        self.0.decoding(rules)
    }

    fn slots(&self, rules: &Rules) -> Box<dyn Slots + '_> {
        self.0.slots(rules)
    }

    fn with_matmul_dtype(self: Box<Self>, dtype: Dtype) -> Box<dyn Content<B>> {
        Box::new(Self(self.0.with_matmul_dtype(dtype)))
    }
}

/// A visitor of float parameters of any rank; each is a `Param<Tensor<B, D>>`.
trait AnyVisitor {
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
    fn float(&mut self, rank: usize, param: &dyn Any);
}

/// A mapper of the same.
trait AnyMapper {
    fn enter(&mut self, name: &str, container: &str);
    fn exit(&mut self, name: &str, container: &str);
    fn float(&mut self, rank: usize, param: Box<dyn Any>) -> Box<dyn Any>;
}

macro_rules! passes_names {
    ($($from:ident to $to:ident),*) => {
        $(fn $from(&mut self, name: &str, container: &str) {
            self.0.$to(name, container);
        })*
    };
}

/// Burn's visitor and mapper in front of one of any rank.
struct ToAny<'a, A: ?Sized>(&'a mut A);

impl<B: Backend> ModuleVisitor<B> for ToAny<'_, dyn AnyVisitor + '_> {
    passes_names!(enter_module to enter, exit_module to exit);

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.float(D, param);
    }
}

impl<B: Backend> ModuleMapper<B> for ToAny<'_, dyn AnyMapper + '_> {
    passes_names!(enter_module to enter, exit_module to exit);

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let mapped = self.0.float(D, Box::new(param)).downcast();
        *mapped.expect("a mapper keeps the rank")
    }
}

/// One of any rank in front of Burn's.
struct FromAny<'a, V, B>(&'a mut V, std::marker::PhantomData<B>);

/// Runs an expression for the rank that is known at run time; `$d` is it as a constant.
macro_rules! by_rank {
    ($rank:expr, $d:ident => $does:expr) => {
        match $rank {
            1 => by_rank!(@ 1, $d, $does),
            2 => by_rank!(@ 2, $d, $does),
            3 => by_rank!(@ 3, $d, $does),
            4 => by_rank!(@ 4, $d, $does),
            rank => unreachable!("a parameter of {rank} dimensions; models have up to 4"),
        }
    };
    (@ $value:literal, $d:ident, $does:expr) => {{
        const $d: usize = $value;
        $does
    }};
}

const RANK: &str = "the rank that was given";

impl<B: Backend, V: ModuleVisitor<B>> AnyVisitor for FromAny<'_, V, B> {
    passes_names!(enter to enter_module, exit to exit_module);

    fn float(&mut self, rank: usize, param: &dyn Any) {
        by_rank!(rank, D => {
            let param: &Param<Tensor<B, D>> = param.downcast_ref().expect(RANK);
            self.0.visit_float(param);
        });
    }
}

impl<B: Backend, V: ModuleMapper<B>> AnyMapper for FromAny<'_, V, B> {
    passes_names!(enter to enter_module, exit to exit_module);

    fn float(&mut self, rank: usize, param: Box<dyn Any>) -> Box<dyn Any> {
        by_rank!(rank, D => {
            let param: Box<Param<Tensor<B, D>>> = param.downcast().expect(RANK);
            Box::new(self.0.map_float(*param))
        })
    }
}

impl<B: Backend> Clone for Model<B> {
    fn clone(&self) -> Self {
        Self {
            content: self.content.clone_content(),
            valid: self.valid,
        }
    }
}

impl<B: Backend> fmt::Debug for Model<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// burn-train wants one to print.
impl<B: Backend> fmt::Display for Model<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parameters", self.n_parameters())
    }
}

impl<B: Backend> Module<B> for Model<B> {
    // Weights are saved by path: `learner::store_model`.
    type Record = ();

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.content.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        let content = self.content.fork(device);
        Self { content, ..self }
    }

    fn to_device(self, device: &B::Device) -> Self {
        let content = self.content.to_device(device);
        Self { content, ..self }
    }

    fn visit<V: ModuleVisitor<B>>(&self, visitor: &mut V) {
        self.content
            .visit(&mut FromAny(visitor, Default::default()));
    }

    fn map<V: ModuleMapper<B>>(self, mapper: &mut V) -> Self {
        let content = self.content.map(&mut FromAny(mapper, Default::default()));
        Self { content, ..self }
    }

    fn load_record(self, (): ()) -> Self {
        self
    }

    fn into_record(self) {}
}

impl<B: AutodiffBackend> AutodiffModule<B> for Model<B> {
    type InnerModule = Model<B::InnerBackend>;

    fn valid(&self) -> Model<B::InnerBackend> {
        let valid = self.valid.expect("a model that can be trained");
        let inner = valid(self.content.as_any()).downcast();
        *inner.expect("the model of the inner backend")
    }

    fn from_inner(_: Model<B::InnerBackend>) -> Self {
        unreachable!("the learner trains the model that it was given")
    }
}

impl<B: AutodiffBackend> TrainStep for Model<B> {
    type Input = Batch;
    type Output = Measured;

    fn step(&self, batch: Batch) -> TrainOutput<Measured> {
        let pass = self.content.pass(&batch);
        let measured = pass.measure_in_training(&batch);
        let gradients = pass.loss(&batch).backward();
        TrainOutput::new(self, gradients, measured)
    }
}

impl<B: Backend> InferenceStep for Model<B> {
    type Input = Batch;
    type Output = Measured;

    fn step(&self, batch: Batch) -> Measured {
        self.measure(&batch).0
    }
}

//! A memory of codes whose mathematics a program adds: `CodeRule`, with what it is asked (`Asked`) and what reading gives (`Found`);
//! `CustomMemory`, one of them as a value; `CustomCodes`, its parameters. Slots, windows, branches and who has left are in `codes`.

use super::window::Window;
use crate::described::{Described, Description, Start};
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::any::{Any, TypeId};
use std::fmt::Debug;

/// A map of a memory. A single number is a map from one number to one.
pub struct CodeMap {
    /// Its rows: the width of what it is applied to.
    pub d_in: usize,
    /// Its columns: the width of what it gives.
    pub d_out: usize,
    /// How it starts.
    pub start: Start,
}

/// FLOPs of a memory of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeFlops {
    /// Of writing, per token.
    pub write: usize,
    /// Of reading, per token, without what depends on the number of codes.
    pub read: usize,
    /// Of reading, per token and code.
    pub per_code: usize,
}

/// What a rule is asked.
pub enum Asked<B: Backend> {
    /// The codes of hidden states; the answer is a `Tensor<B, 3>`.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, seq, d_code]`
    Write {
        /// The maps, in the order of [`CodeRule::maps`].
        maps: Vec<Tensor<B, 2>>,
        /// After a step.
        hidden: Tensor<B, 3>,
    },
    /// What tokens find in codes; the answer is a [`Found`].
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, d_model]`
    /// - `codes`: `[batch, n_codes, d_code]`
    /// - `mask`: `[batch or 1, seq, n_codes]`
    Read {
        /// The maps, in the order of [`CodeRule::maps`].
        maps: Vec<Tensor<B, 2>>,
        /// Before a step.
        hidden: Tensor<B, 3>,
        /// Slot by slot those of all tokens.
        codes: Tensor<B, 3>,
        /// Added to scores: 0, and far below it where a token must not see a code. Every token sees one.
        mask: Tensor<B, 3>,
    },
}

/// The result of a read.
pub struct Found<B: Backend> {
    /// To be added to the hidden states, `[batch, seq, d_model]`.
    pub change: Tensor<B, 3>,
    /// Attention weights over the codes, `[batch, seq, n_codes]`.
    pub attention: Tensor<B, 3>,
    /// How open the memory is, `[1]`.
    pub open: Tensor<B, 1>,
}

/// The mathematics of a memory of codes.
pub trait CodeRule: Any + Debug + Send + Sync {
    /// What recipes call it.
    fn kind(&self) -> &'static str;

    /// Which slots are kept.
    fn retention(&self) -> Window;

    /// Its maps, none without rows or columns. What reads should start nearly silent, so that a model begins as it would without
    /// a memory.
    fn maps(&self, d_model: usize) -> Vec<CodeMap>;

    /// Answers an [`Asked`] of the backend whose type has this id. The code of a token depends on the state of that token alone;
    /// what a token finds depends on its state and on codes that the mask leaves to it.
    fn answer(&self, asked: Box<dyn Any>, backend: TypeId) -> Box<dyn Any>;

    /// What it costs: two for every product of two numbers.
    fn flops(&self, d_model: usize) -> CodeFlops;

    /// Whether it is the same rule with the same settings.
    fn equals(&self, other: &dyn CodeRule) -> bool;
}

/// A [`CodeRule`] as a value. It lives as long as the process, so that configurations are copied like numbers; each rule that is
/// made stays, with some bytes of settings.
#[derive(Clone, Copy, Debug)]
pub struct CustomMemory(&'static dyn CodeRule);

impl CustomMemory {
    /// A memory that follows a rule.
    pub fn new(rule: impl CodeRule) -> Self {
        Self(Box::leak(Box::new(rule)))
    }

    /// Its rule.
    pub fn rule(self) -> &'static dyn CodeRule {
        self.0
    }

    /// Its rule, if it is of this type.
    pub fn downcast<R: CodeRule>(self) -> Option<&'static R> {
        let rule: &dyn Any = self.0;
        rule.downcast_ref()
    }
}

impl PartialEq for CustomMemory {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(other.0)
    }
}

/// The parameters of a memory of a program.
#[derive(Module, Debug)]
pub struct CustomCodes<B: Backend> {
    /// The maps `[d_in, d_out]` that the rule asks for.
    pub maps: Vec<Param<Tensor<B, 2>>>,
    #[module(skip)]
    pub(super) memory: CustomMemory,
    #[module(skip)]
    d_model: usize,
}

impl<B: Backend> CustomCodes<B> {
    /// # Panics
    /// If a map has no rows or no columns.
    pub(crate) fn new(memory: CustomMemory, d_model: usize, device: &B::Device) -> Self {
        let map = |CodeMap { d_in, d_out, .. }| {
            let kind = memory.0.kind();
            assert!(
                d_in > 0 && d_out > 0,
                "the memory {kind} asks for a map {d_in} x {d_out}"
            );
            Initializer::Zeros.init([d_in, d_out], device)
        };
        Self {
            maps: memory.0.maps(d_model).into_iter().map(map).collect(),
            memory,
            d_model,
        }
    }

    /// Codes of hidden states.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to `[batch, seq, d_code]`
    ///
    /// # Panics
    /// If the rule gives something else.
    pub(super) fn written(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, seq, _] = hidden.dims();
        let maps = self.values();
        let codes: Tensor<B, 3> = self.ask(Asked::Write { maps, hidden });
        let [_, _, d_code] = codes.dims();
        self.expect("codes", codes.dims(), [batch, seq, d_code]);
        codes
    }

    /// What tokens find in codes.
    ///
    /// # Shapes
    /// As [`Asked::Read`]
    ///
    /// # Panics
    /// If the rule gives something else.
    pub(super) fn found(
        &self,
        hidden: Tensor<B, 3>,
        codes: Tensor<B, 3>,
        mask: Tensor<B, 3>,
    ) -> Found<B> {
        let dims @ [batch, seq, _] = hidden.dims();
        let [_, n_codes, _] = codes.dims();
        let found: Found<B> = self.ask(Asked::Read {
            maps: self.values(),
            hidden,
            codes,
            mask,
        });
        self.expect("a change", found.change.dims(), dims);
        self.expect("attention", found.attention.dims(), [batch, seq, n_codes]);
        self.expect("openness", found.open.dims(), [1]);
        found
    }

    fn values(&self) -> Vec<Tensor<B, 2>> {
        self.maps.iter().map(Param::val).collect()
    }

    fn ask<T: 'static>(&self, asked: Asked<B>) -> T {
        let answer = self.memory.0.answer(Box::new(asked), TypeId::of::<B>());
        let kind = self.memory.0.kind();
        let answer = answer.downcast::<T>();
        *answer.unwrap_or_else(|_| panic!("the memory {kind} answers what it was not asked"))
    }

    fn expect<const D: usize>(&self, what: &str, found: [usize; D], expected: [usize; D]) {
        let kind = self.memory.0.kind();
        assert_eq!(found, expected, "the shape of {what} of the memory {kind}");
    }
}

impl<B: Backend> Described<B> for CustomCodes<B> {
    fn describe(&self, to: &mut Description) {
        let maps = self.memory.0.maps(self.d_model);
        for (param, map) in self.maps.iter().zip(maps) {
            to.starts(param, map.start);
        }
    }
}

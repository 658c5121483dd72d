//! `MemoryPass`, by which a walk reads and writes a memory of any kind, or two, or none, during one pass, and runs blocks beside it;
//! `Memory`, the parameters of any kind.

use super::code_maps::CodeMaps;
use super::codes::Codes;
use super::config::Lifecycle;
use super::custom::CustomCodes;
use super::hidden_code::HiddenCode;
use super::key_value_prefix::KeyValuePrefix;
use super::prefix::Prefix;
use super::record::MemoryRead;
use super::shared::Shared;
use super::shared_code::SharedCode;
use super::step::{MemoryStart, Written};
use super::usage::{MemoryUse, Read, Reads};
use crate::block::causal::Causal;
use crate::block::routed::RoutedBlock;
use crate::described::{Described, Description};
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::cell::RefCell;

/// The parameters of a memory.
// A model has one, and Burn knows no module behind a pointer.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Memory<B: Backend> {
    /// A memory of codes.
    HiddenCode(HiddenCode<B>),
    /// A memory of keys and values.
    KeyValuePrefix(KeyValuePrefix<B>),
    /// Codes that all blocks share.
    SharedCode(SharedCode<B>),
    /// A memory of codes and one to which blocks attend.
    Both(Both<B>),
    /// A memory of codes of a program.
    Custom(CustomCodes<B>),
}

/// The parameters of two memories; blocks attend to one of the last two.
#[derive(Module, Debug)]
pub struct Both<B: Backend> {
    /// A memory of codes.
    pub codes: HiddenCode<B>,
    /// A memory of keys and values.
    pub prefix: Option<KeyValuePrefix<B>>,
    /// Codes that all blocks share.
    pub shared: Option<SharedCode<B>>,
}

/// The parameters of a memory to which blocks attend.
#[derive(Debug)]
pub(crate) enum Attended<'a, B: Backend> {
    /// Keys and values.
    Prefix(&'a KeyValuePrefix<B>),
    /// Codes that all blocks share.
    Shared(&'a SharedCode<B>),
}

impl<B: Backend> Memory<B> {
    /// What is read before every decision.
    fn codes(&self) -> Option<&dyn CodeMaps<B>> {
        match self {
            Self::HiddenCode(codes) | Self::Both(Both { codes, .. }) => Some(codes),
            Self::Custom(codes) => Some(codes),
            Self::KeyValuePrefix(_) | Self::SharedCode(_) => None,
        }
    }

    /// What blocks attend to.
    pub(crate) fn attended(&self) -> Option<Attended<'_, B>> {
        match self {
            Self::KeyValuePrefix(memory) => Some(Attended::Prefix(memory)),
            Self::SharedCode(memory) => Some(Attended::Shared(memory)),
            Self::Both(Both { prefix, shared, .. }) => {
                let prefix = prefix.as_ref().map(Attended::Prefix);
                prefix.or(shared.as_ref().map(Attended::Shared))
            }
            Self::HiddenCode(_) | Self::Custom(_) => None,
        }
    }

    /// Whether what a token sees follows from its own walk and those of earlier tokens.
    pub(crate) fn is_frozen(&self) -> bool {
        let codes = self.codes();
        codes.is_none_or(|codes| codes.lifecycle() == Lifecycle::Frozen)
            && self.attended().is_none_or(|attended| attended.is_frozen())
    }

    /// Whether decoding can keep it: whether it is read by blocks alone, and what a token sees follows from its own walk and those of
    /// earlier tokens.
    pub(crate) fn is_kept(&self) -> bool {
        self.codes().is_none() && self.is_frozen()
    }
}

impl<B: Backend> Attended<'_, B> {
    /// Whether what a token sees follows from its own walk and those of earlier tokens, so that blocks can run on some tokens alone.
    fn is_frozen(&self) -> bool {
        match self {
            Self::Prefix(memory) => memory.lifecycle() == Lifecycle::Frozen,
            Self::Shared(_) => true,
        }
    }
}

impl<B: Backend> Described<B> for Memory<B> {
    fn describe(&self, to: &mut Description) {
        match self {
            Self::HiddenCode(memory) => memory.describe(to),
            Self::KeyValuePrefix(memory) => memory.describe(to),
            Self::SharedCode(memory) => memory.describe(to),
            Self::Both(both) => {
                both.codes.describe(to);
                both.prefix.iter().for_each(|memory| memory.describe(to));
                both.shared.iter().for_each(|memory| memory.describe(to));
            }
            Self::Custom(memory) => memory.describe(to),
        }
    }
}

/// A memory during one pass. The walk holds it by reference while it grows.
pub(crate) struct MemoryPass<'a, B: Backend> {
    codes: RefCell<Option<Codes<'a, B>>>,
    attended: RefCell<AttendedPass<'a, B>>,
}

/// What blocks attend to beside states.
enum AttendedPass<'a, B: Backend> {
    Nothing,
    Prefix(Prefix<'a, B>),
    Shared(Shared<'a, B>),
    /// Who runs blocks keeps what they attend to; here are the statistics, if they are asked for.
    ByRows(Option<Reads<B>>),
}

impl<'a, B: Backend> MemoryPass<'a, B> {
    pub fn start(memory: Option<&'a Memory<B>>, start: MemoryStart<'_, B>) -> Self {
        let attended = match memory.and_then(Memory::attended) {
            None => AttendedPass::Nothing,
            Some(attended) if start.by_rows && attended.is_frozen() => {
                AttendedPass::ByRows(Reads::asked(start.measures))
            }
            Some(Attended::Prefix(memory)) => AttendedPass::Prefix(Prefix::new(memory, start)),
            Some(Attended::Shared(memory)) => AttendedPass::Shared(Shared::new(memory, start)),
        };
        let codes = memory.and_then(Memory::codes);
        Self {
            codes: RefCell::new(codes.map(|codes| Codes::new(codes, start))),
            attended: RefCell::new(attended),
        }
    }

    /// Whether the state of a token that has left no longer changes, and blocks can run on some tokens alone.
    pub fn rests(&self) -> bool {
        let by_rows = match &*self.attended.borrow() {
            AttendedPass::Nothing | AttendedPass::ByRows(_) => true,
            AttendedPass::Prefix(_) | AttendedPass::Shared(_) => false,
        };
        by_rows && self.codes.borrow().as_ref().is_none_or(Codes::rests)
    }

    /// Whether reads are counted that whoever runs blocks makes.
    pub fn counts(&self) -> bool {
        matches!(&*self.attended.borrow(), AttendedPass::ByRows(Some(_)))
    }

    /// Counts a read by tokens that run a block: the attention of each to slots of some ages, its share of the block's output,
    /// and the block's bias.
    ///
    /// # Shapes
    /// `mass`: `[tokens, ages]`, `readers`: `[tokens, 1]`, `bias`: `[1, 1]`
    pub fn count(
        &self,
        mass: Tensor<B, 2>,
        ages: &[usize],
        readers: Tensor<B, 2>,
        bias: Tensor<B, 2>,
    ) {
        if let AttendedPass::ByRows(Some(reads)) = &mut *self.attended.borrow_mut() {
            reads.add(Read {
                mass: mass.unsqueeze(),
                ages: ages.to_vec(),
                share: None,
                open: bias.exp().reshape([1]),
                readers: readers.unsqueeze(),
            });
        }
    }

    /// Reads the memory before the router scores a step.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to the same
    pub fn read(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        match &mut *self.codes.borrow_mut() {
            Some(codes) => codes.read(hidden),
            None => hidden,
        }
    }

    /// Runs a block of the pool on every token.
    ///
    /// # Shapes
    /// As [`RoutedBlock::forward`]
    pub fn execute(
        &self,
        block: usize,
        routed: &RoutedBlock<B>,
        hidden: Tensor<B, 3>,
        position: Tensor<B, 3>,
        causal: &Causal<B>,
        factors: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 3> {
        match &mut *self.attended.borrow_mut() {
            AttendedPass::Prefix(prefix) => {
                let told = routed.add_position(hidden, position);
                prefix.execute(block, routed, told, causal, factors)
            }
            AttendedPass::Shared(shared) => {
                let told = routed.add_position(hidden.clone(), position);
                shared.execute(block, routed, [hidden, told], causal, factors)
            }
            AttendedPass::Nothing | AttendedPass::ByRows(_) => {
                routed.forward(hidden, position, causal, factors)
            }
        }
    }

    /// Writes the slot of a step.
    pub fn write(&self, step: &Written<'_, B>) {
        if let Some(codes) = &mut *self.codes.borrow_mut() {
            codes.write(step);
        }
        match &mut *self.attended.borrow_mut() {
            AttendedPass::Nothing | AttendedPass::ByRows(_) => {}
            AttendedPass::Prefix(prefix) => prefix.write(step),
            AttendedPass::Shared(shared) => shared.write(step),
        }
    }

    /// Continues with other branches of a beam: `parents` are their rows before.
    pub fn follow(&self, parents: &[usize]) {
        if let Some(codes) = &mut *self.codes.borrow_mut() {
            codes.follow(parents);
        }
    }

    /// Ends a beam: keeps the best branch of every token.
    pub fn settle(&self) {
        if let Some(codes) = &mut *self.codes.borrow_mut() {
            codes.settle();
        }
    }

    /// For a beam of sequences: replaces a memory of codes, if there is one, by one of whole sequences. The old one ends.
    ///
    /// # Shapes
    /// `entered`: `[batch, d_model]`
    pub fn of_sequences(&self, entered: Tensor<B, 2>, out: usize) -> Option<Codes<'a, B>> {
        let codes = self.codes.take();
        codes.map(|codes| codes.instead_of_tokens(entered, out))
    }

    /// Reads the memory once more behind the exit; `left` are the states there.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to the same
    pub fn read_last(&self, left: Tensor<B, 3>) -> Tensor<B, 3> {
        match &mut *self.codes.borrow_mut() {
            Some(codes) => codes.read_last(left),
            None => left,
        }
    }

    /// All reads in the order of the walk, if they were asked for: those of codes, then those of blocks. Whoever runs blocks on some of
    /// their tokens keeps none.
    pub fn recorded(&self) -> Vec<MemoryRead> {
        let codes = self.codes.borrow_mut().as_mut().map(Codes::recorded);
        let mut reads = codes.unwrap_or_default();
        reads.extend(match &mut *self.attended.borrow_mut() {
            AttendedPass::Nothing | AttendedPass::ByRows(_) => Vec::new(),
            AttendedPass::Prefix(prefix) => prefix.recorded(),
            AttendedPass::Shared(shared) => shared.recorded(),
        });
        reads
    }

    /// Statistics of all reads of the memory, if they were measured; of two memories those of codes, and those of blocks.
    pub fn usage(&self) -> (Option<MemoryUse>, Option<MemoryUse>) {
        let codes = self.codes.borrow_mut().as_mut().and_then(Codes::usage);
        let reads = match &mut *self.attended.borrow_mut() {
            AttendedPass::Nothing => None,
            AttendedPass::Prefix(prefix) => prefix.usage(),
            AttendedPass::Shared(shared) => shared.usage(),
            AttendedPass::ByRows(reads) => reads.take(),
        };
        match [codes, reads].map(|reads| reads.and_then(Reads::finish)) {
            [None, of_blocks] => (of_blocks, None),
            [codes, of_blocks] => (codes, of_blocks),
        }
    }
}

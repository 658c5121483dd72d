//! `MemoryPass`, by which a walk reads and writes a memory of either kind, or none, during one pass, and runs blocks beside it;
//! `Memory`, the parameters of either kind.

use super::codes::Codes;
use super::config::Lifecycle;
use super::custom::CustomCodes;
use super::hidden_code::HiddenCode;
use super::key_value_prefix::KeyValuePrefix;
use super::prefix::Prefix;
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
    /// A memory of codes of a program.
    Custom(CustomCodes<B>),
}

impl<B: Backend> Memory<B> {
    /// Whether blocks that attend to it can run on some of their tokens alone: whether what a token sees of it follows from its own
    /// walk and those of earlier tokens.
    pub(crate) fn is_kept_by_rows(&self) -> bool {
        match self {
            Self::KeyValuePrefix(memory) => memory.lifecycle() == Lifecycle::Frozen,
            Self::SharedCode(_) => true,
            Self::HiddenCode(_) | Self::Custom(_) => false,
        }
    }
}

impl<B: Backend> Described<B> for Memory<B> {
    fn describe(&self, to: &mut Description) {
        match self {
            Self::HiddenCode(memory) => memory.describe(to),
            Self::KeyValuePrefix(memory) => memory.describe(to),
            Self::SharedCode(memory) => memory.describe(to),
            Self::Custom(memory) => memory.describe(to),
        }
    }
}

/// A memory during one pass. The walk holds it by reference while it grows.
pub(crate) struct MemoryPass<'a, B: Backend>(RefCell<Kind<'a, B>>);

enum Kind<'a, B: Backend> {
    Nothing,
    Codes(Codes<'a, B>),
    Prefix(Prefix<'a, B>),
    Shared(Shared<'a, B>),
    /// Who runs blocks keeps what they attend to; here are the statistics, if they are asked for.
    Elsewhere(Option<Reads<B>>),
}

impl<'a, B: Backend> MemoryPass<'a, B> {
    pub fn start(memory: Option<&'a Memory<B>>, start: MemoryStart<'_, B>) -> Self {
        Self(RefCell::new(match memory {
            None => Kind::Nothing,
            Some(Memory::HiddenCode(memory)) => Kind::Codes(Codes::new(memory, start)),
            Some(Memory::Custom(memory)) => Kind::Codes(Codes::new(memory, start)),
            Some(memory) if start.by_rows && memory.is_kept_by_rows() => {
                Kind::Elsewhere(start.measures.then(Reads::default))
            }
            Some(Memory::KeyValuePrefix(memory)) => Kind::Prefix(Prefix::new(memory, start)),
            Some(Memory::SharedCode(memory)) => Kind::Shared(Shared::new(memory, start)),
        }))
    }

    /// Whether the state of a token that has left no longer changes, and blocks can run on some tokens alone.
    pub fn rests(&self) -> bool {
        match &*self.0.borrow() {
            Kind::Nothing | Kind::Elsewhere(_) => true,
            Kind::Codes(codes) => codes.rests(),
            Kind::Prefix(_) | Kind::Shared(_) => false,
        }
    }

    /// Whether reads are counted that whoever runs blocks makes.
    pub fn counts(&self) -> bool {
        matches!(&*self.0.borrow(), Kind::Elsewhere(Some(_)))
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
        if let Kind::Elsewhere(Some(reads)) = &mut *self.0.borrow_mut() {
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
        match &mut *self.0.borrow_mut() {
            Kind::Codes(codes) => codes.read(hidden),
            _ => hidden,
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
    ) -> Tensor<B, 3> {
        match &mut *self.0.borrow_mut() {
            Kind::Prefix(prefix) => {
                prefix.execute(block, routed, routed.add_position(hidden, position), causal)
            }
            Kind::Shared(shared) => {
                let told = routed.add_position(hidden.clone(), position);
                shared.execute(block, routed, hidden, told, causal)
            }
            _ => routed.forward(hidden, position, causal),
        }
    }

    /// Writes the slot of a step.
    pub fn write(&self, step: &Written<'_, B>) {
        match &mut *self.0.borrow_mut() {
            Kind::Nothing | Kind::Elsewhere(_) => {}
            Kind::Codes(codes) => codes.write(step),
            Kind::Prefix(prefix) => prefix.write(step),
            Kind::Shared(shared) => shared.write(step),
        }
    }

    /// Continues with other branches of a beam: `parents` are their rows before.
    pub fn follow(&self, parents: &[usize]) {
        if let Kind::Codes(codes) = &mut *self.0.borrow_mut() {
            codes.follow(parents);
        }
    }

    /// Ends a beam: keeps the best branch of every token.
    pub fn settle(&self) {
        if let Kind::Codes(codes) = &mut *self.0.borrow_mut() {
            codes.settle();
        }
    }

    /// For a beam of sequences: replaces a memory of codes, if there is one, by one of whole sequences. The old one ends.
    ///
    /// # Shapes
    /// `entered`: `[batch, d_model]`
    pub fn of_sequences(&self, entered: Tensor<B, 2>, out: usize) -> Option<Codes<'a, B>> {
        match self.0.replace(Kind::Nothing) {
            Kind::Codes(codes) => Some(codes.instead_of_tokens(entered, out)),
            _ => None,
        }
    }

    /// Reads the memory once more behind the exit; `left` are the states there.
    ///
    /// # Shapes
    /// `[batch, seq, d_model]` to the same
    pub fn read_last(&self, left: Tensor<B, 3>) -> Tensor<B, 3> {
        match &mut *self.0.borrow_mut() {
            Kind::Codes(codes) => codes.read_last(left),
            _ => left,
        }
    }

    /// Statistics of all reads, if they were measured.
    pub fn usage(&self) -> Option<MemoryUse> {
        let reads = match &mut *self.0.borrow_mut() {
            Kind::Nothing => None,
            Kind::Codes(codes) => codes.usage(),
            Kind::Prefix(prefix) => prefix.usage(),
            Kind::Shared(shared) => shared.usage(),
            Kind::Elsewhere(reads) => reads.take(),
        };
        reads.and_then(Reads::finish)
    }
}

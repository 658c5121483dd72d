//! `Sequence`: the trait of a model in the middle of one text: tokens so far in, logits of the next one out;
//! `Slots`: several such texts, opened, read on, truncated and closed, as a server needs.

use brian::Decoding;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// A model in the middle of one text.
pub trait Sequence<B: Backend> {
    /// Logits of the token after `seen`, `[vocabulary]`. What was read before is used again if `seen` goes on from there.
    ///
    /// # Panics
    /// If `seen` is empty or longer than the context.
    fn follow(&mut self, seen: &[u32]) -> Tensor<B, 1>;
}

impl<B: Backend> Sequence<B> for Decoding<'_, B> {
    fn follow(&mut self, seen: &[u32]) -> Tensor<B, 1> {
        Decoding::follow(self, seen)
    }
}

/// Several texts that one model reads, each with what it keeps: what a server needs.
pub struct Slots<'a, B: Backend> {
    open: Box<dyn Fn() -> Box<dyn Sequence<B> + 'a> + 'a>,
    context: usize,
    slots: Vec<Option<Slot<'a, B>>>,
}

struct Slot<'a, B: Backend> {
    tokens: Vec<u32>,
    sequence: Box<dyn Sequence<B> + 'a>,
}

impl<'a, B: Backend> Slots<'a, B> {
    /// No slot is in use yet. `open` begins a sequence, of which the last `context` tokens are seen.
    pub fn new(open: impl Fn() -> Box<dyn Sequence<B> + 'a> + 'a, context: usize) -> Self {
        Self {
            open: Box::new(open),
            context,
            slots: Vec::new(),
        }
    }

    /// A slot without a token; the lowest that is free.
    pub fn open(&mut self) -> usize {
        let slot = Some(Slot {
            tokens: Vec::new(),
            sequence: (self.open)(),
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

    /// Adds tokens to several slots, at least one to each, and gives the logits of the next token of each, `[vocabulary]`.
    ///
    /// # Panics
    /// If a slot is not open, or nothing is added to one that is empty.
    pub fn read(&mut self, added: &[(usize, &[u32])]) -> Vec<Tensor<B, 1>> {
        let context = self.context;
        let read = |(slot, tokens): &(usize, &[u32])| {
            let slot = self.slot(*slot);
            slot.tokens.extend_from_slice(tokens);
            let seen = &slot.tokens[slot.tokens.len().saturating_sub(context)..];
            slot.sequence.follow(seen)
        };
        added.iter().map(read).collect()
    }

    /// Forgets all but the first `length` tokens of a slot.
    ///
    /// # Panics
    /// If it is not open.
    pub fn truncate(&mut self, slot: usize, length: usize) {
        self.slot(slot).tokens.truncate(length);
    }

    /// The tokens of a slot.
    ///
    /// # Panics
    /// If it is not open.
    pub fn tokens(&mut self, slot: usize) -> &[u32] {
        &self.slot(slot).tokens
    }

    /// Frees a slot and what it keeps.
    pub fn close(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = None;
        }
    }

    fn slot(&mut self, slot: usize) -> &mut Slot<'a, B> {
        let found = self.slots.get_mut(slot).and_then(Option::as_mut);
        found.unwrap_or_else(|| panic!("slot {slot} is not open"))
    }
}

//! `Sequence`: the trait of a model in the middle of one text: tokens so far in, logits of the next one out;
//! `Slots`: that of a model in the middle of several, which are opened, read on, cut back and closed as a server needs it.

use super::probabilities::largest;
use brian::decode::{self, Decoder, Decoding};
use brian::generate::{Sampling, draw};
use brian::route::policy::SequenceInfo;
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

/// What a model says behind a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// Logits of the next token, `[vocabulary]`; `-inf` for one that cannot follow.
    pub logits: Vec<f32>,
    /// The blocks that the token has run in a pool.
    pub path: Vec<usize>,
    /// The energies of the next tokens, `[vocabulary]`, of a model that has energies.
    pub energies: Vec<f32>,
}

impl Said {
    /// Draws token number `step` of a continuation among the ids below `vocabulary`, but none of `never`; `None` if no id is left.
    ///
    /// # Errors
    /// The first id whose logit is not finite.
    pub fn draw(
        &self,
        vocabulary: usize,
        sampling: Sampling,
        never: &[u32],
        step: usize,
    ) -> Result<Option<u32>, usize> {
        largest(&self.logits)?;
        let of_tokens = &self.logits[..self.logits.len().min(vocabulary)];
        Ok(draw(of_tokens, sampling, never, step))
    }
}

/// Tokens of a prompt that are read at once, from its beginning on.
pub const CHUNK: usize = 256;

/// A model in the middle of several texts, each in a slot with what it keeps of it. What is said of a text depends on that text
/// and on how it was read; on the host, to the bit.
///
/// All methods but `open` panic if a slot is not open.
pub trait Slots {
    /// Whether earlier tokens need not be read again: without it a text is best read at once.
    fn keeps(&self) -> bool;

    /// The most tokens of a prompt that are best read at once, from its beginning on.
    fn chunk(&self) -> usize {
        match self.keeps() {
            true => CHUNK,
            false => usize::MAX,
        }
    }

    /// A slot without a token, the lowest that is free.
    fn open(&mut self) -> usize;

    /// The tokens of a slot.
    fn tokens(&self, slot: usize) -> &[u32];

    /// Reads tokens behind those of a slot and says what is behind the last `n_wanted` of all its tokens; where earlier ones
    /// [are kept](Self::keeps), of the new ones.
    ///
    /// # Panics
    /// If a token of the slot is underway, no token is new, `n_wanted` is 0 or too large, or the text gets longer than the
    /// context.
    fn read(&mut self, slot: usize, tokens: &[u32], n_wanted: usize) -> Vec<Said>;

    /// Begins a token behind those of a slot, which [`Self::round`] takes further.
    ///
    /// # Panics
    /// If a token of the slot is underway or none was read before, or the text gets longer than the context.
    fn begin(&mut self, slot: usize, token: u32);

    /// Takes every token that is underway further, and gives the slots of those that are through with what is said behind them.
    fn round(&mut self) -> Vec<(usize, Said)>;

    /// Forgets all but the first `length` tokens of a slot.
    ///
    /// # Panics
    /// If a token of the slot is underway.
    fn truncate(&mut self, slot: usize, length: usize);

    /// Frees a slot and what it keeps, also in the middle of a token.
    fn close(&mut self, slot: usize);
}

impl<B: Backend> Slots for Decoder<'_, B> {
    fn keeps(&self) -> bool {
        Decoder::keeps(self)
    }

    fn open(&mut self) -> usize {
        Decoder::open(self, SequenceInfo::default())
    }

    fn tokens(&self, slot: usize) -> &[u32] {
        Decoder::tokens(self, slot)
    }

    fn read(&mut self, slot: usize, tokens: &[u32], n_wanted: usize) -> Vec<Said> {
        one_by_one(Decoder::read(self, slot, tokens, n_wanted))
    }

    fn begin(&mut self, slot: usize, token: u32) {
        Decoder::begin(self, slot, token);
    }

    fn round(&mut self) -> Vec<(usize, Said)> {
        let through = Decoder::round(self);
        through.map_or(Vec::new(), |(slots, said)| {
            slots.into_iter().zip(one_by_one(said)).collect()
        })
    }

    fn truncate(&mut self, slot: usize, length: usize) {
        Decoder::truncate(self, slot, length);
    }

    fn close(&mut self, slot: usize) {
        Decoder::close(self, slot);
    }
}

fn one_by_one<B: Backend>(said: decode::Said<B>) -> Vec<Said> {
    let paths = said.paths.into_iter();
    paths
        .zip(rows_of(said.logits))
        .map(|(path, logits)| Said {
            logits,
            path,
            ..Said::default()
        })
        .collect()
}

/// The rows of `[n, width]`.
pub(super) fn rows_of<B: Backend>(tensor: Tensor<B, 2>) -> Vec<Vec<f32>> {
    let [_, width] = tensor.dims();
    let all: Vec<f32> = tensor.into_data().iter().collect();
    all.chunks(width).map(<[f32]>::to_vec).collect()
}

/// Slots by number; the lowest that is free is opened.
#[derive(Debug)]
pub(crate) struct Numbered<T>(Vec<Option<T>>);

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Numbered<T> {
    pub fn open(&mut self, content: T) -> usize {
        let free = self.0.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.0.len());
        self.0.resize_with(self.0.len().max(slot + 1), || None);
        self.0[slot] = Some(content);
        slot
    }

    pub fn get(&self, slot: usize) -> &T {
        self.0[slot].as_ref().expect("the slot is open")
    }

    pub fn get_mut(&mut self, slot: usize) -> &mut T {
        self.0[slot].as_mut().expect("the slot is open")
    }

    pub fn close(&mut self, slot: usize) {
        if let Some(slot) = self.0.get_mut(slot) {
            *slot = None;
        }
    }
}

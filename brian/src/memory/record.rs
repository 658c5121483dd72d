//! `MemoryRead`, what one token read from the memory at one place of its walk, share by share, on the host; `Measures`, how much of its
//! reads a pass keeps; `MemoryColumns`, what of the memory an attention goes over.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// How much of its reads a pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measures {
    /// Nothing.
    Nothing,
    /// Sums over all of them: [`MemoryUse`](super::MemoryUse).
    Sums,
    /// The sums, and every read of every token.
    Reads,
}

/// Where in its walk a token read. Steps count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadAt {
    /// Before it decided what to do at this step: codes.
    Decision {
        /// The step.
        step: usize,
    },
    /// In the attention of a block that it ran: keys and values, and codes that blocks share.
    Block {
        /// The step.
        step: usize,
        /// The block of the pool.
        block: usize,
    },
    /// Behind the exit: codes.
    Exit,
}

/// What one token read from the memory at one place of its walk.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryRead {
    /// The token that read, in the order `[batch * seq]`.
    pub reader: usize,
    /// Where in its walk.
    pub at: ReadAt,
    /// What the read counts for: 1, or less where the token mixed the outputs of several blocks.
    pub weight: f32,
    /// The attention that went to the memory, the mean over heads, slot by slot. What got none is not among it.
    pub shares: Vec<ReadShare>,
    /// The attention that went to what the block made of the tokens at this step; 0 for codes, which are read apart.
    pub own: f32,
}

impl MemoryRead {
    /// All attention that went to the memory.
    pub fn mass(&self) -> f32 {
        total(self.shares.iter().map(|share| share.share))
    }
}

/// The attention that went to what one token had written at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadShare {
    /// The token that wrote, in the order `[batch * seq]`.
    pub writer: usize,
    /// The step behind which it wrote, from 1; 0 is before the walk.
    pub step: usize,
    /// Its share of the attention.
    pub share: f32,
}

/// The sum of shares. That of none is 0, which `sum` would call −0.
fn total(shares: impl Iterator<Item = f32>) -> f32 {
    shares.fold(0.0, |sum, share| sum + share)
}

/// The columns of the memory in an attention. Those of what a block makes itself, `seq` more, may follow.
#[derive(Clone, Copy, Debug)]
pub(super) enum MemoryColumns<'s> {
    /// Slot by slot, one for every token; with the steps at which slots were written.
    Slots(&'s [usize]),
    /// One for every token: what it wrote last, with the step, if it wrote; `[batch * seq]`.
    Last(&'s [Option<usize>]),
}

impl MemoryColumns<'_> {
    fn n_columns(self, seq: usize) -> usize {
        match self {
            Self::Slots(steps) => steps.len() * seq,
            Self::Last(_) => seq,
        }
    }

    /// The token that wrote a column of a sequence, which has `seq` tokens, and the step.
    fn written(self, sequence: usize, column: usize, seq: usize) -> Option<(usize, usize)> {
        let writer = sequence * seq + column % seq;
        match self {
            Self::Slots(steps) => Some((writer, steps[column / seq])),
            Self::Last(steps) => steps[writer].map(|step| (writer, step)),
        }
    }
}

/// The reads of all tokens at one place of their walks, of those that read there.
///
/// # Shapes
/// - `attention`, the mean over heads: `[batch, seq, n_columns]`
/// - `readers`, what the read of each token counts for: `[batch, seq, 1]`
///
/// # Panics
/// If the attention has other columns.
pub(super) fn reads<B: Backend>(
    at: ReadAt,
    attention: &Tensor<B, 3>,
    readers: &Tensor<B, 3>,
    columns: MemoryColumns<'_>,
) -> Vec<MemoryRead> {
    let [_, seq, n_columns] = attention.dims();
    let n_kept = columns.n_columns(seq);
    assert!(
        [n_kept, n_kept + seq].contains(&n_columns),
        "{n_columns} columns of attention, {n_kept} of them the memory's, for {seq} tokens"
    );
    let on_host = |x: &Tensor<B, 3>| x.clone().into_data().iter().collect::<Vec<f32>>();
    let (attention, weights) = (on_host(attention), on_host(readers));
    let rows = attention.chunks(n_columns).zip(weights).enumerate();
    rows.filter(|(_, (_, weight))| *weight > 0.0)
        .map(|(reader, (row, weight))| {
            let (kept, own) = row.split_at(n_kept);
            let got_some = kept.iter().enumerate().filter(|(_, share)| **share > 0.0);
            let share = |(column, &share): (usize, &f32)| {
                let (writer, step) = columns.written(reader / seq, column, seq)?;
                Some(ReadShare {
                    writer,
                    step,
                    share,
                })
            };
            MemoryRead {
                reader,
                at,
                weight,
                shares: got_some.filter_map(share).collect(),
                own: total(own.iter().copied()),
            }
        })
        .collect()
}

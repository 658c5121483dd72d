//! `Attending`: how blocks of the pool attend for some of their tokens, as rows, for grouped execution and decoding. What they make of
//! tokens to attend to (columns: keys and values, or codes that blocks share), what they ask, and what a memory adds.
//!
//! Columns of a sequence lie token by token: of each first those that it wrote at earlier steps and blocks still see, then its own. So what
//! a token sees are the first ones.

use super::pool::Pool;
use super::rules::Attends;
use crate::block::attention::{Maps, NormedMaps, packed};
use crate::block::transformer::TransformerBlock;
use crate::memory::config::SharedCodes;
use crate::memory::pass::Attended;
use crate::memory::slots::Seen;
use crate::memory::{Memory, SharedCode};
use crate::ops::attention::{Among, Heads, attention_over_spans};
use crate::ops::attention_spans::AttentionSpans;
use crate::ops::cat::cat;
use crate::ops::gather::{Parts, RowPlace, rows};
use crate::ops::groups::{Group, by_group, each};
use crate::ops::reuse::Packed;
use crate::ops::rms_norm::rms_norm;
use crate::ops::rotary::Angles;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::sync::Arc;

/// The blocks of the pool, and the memory to which they attend.
pub(crate) struct Attending<'a, B: Backend> {
    pub pool: Pool<'a, B>,
    /// To which tokens.
    pub attends: Attends,
    /// What they attend to beside states, or in their place.
    memory: Option<Attended<'a, B>>,
}

impl<'a, B: Backend> Attending<'a, B> {
    pub fn new(pool: Pool<'a, B>, attends: Attends, memory: Option<&'a Memory<B>>) -> Self {
        Self {
            pool,
            attends,
            memory: memory.and_then(Memory::attended),
        }
    }

    /// Whether blocks attend to the states of tokens alone, with keys and values of their own.
    pub fn is_plain(&self) -> bool {
        self.memory.is_none()
    }

    /// Which slots of a token blocks see; `None` if tokens write nothing.
    pub fn seen(&self) -> Option<Seen> {
        match self.memory {
            None => None,
            Some(Attended::Prefix(memory)) => Some(Seen::Window(memory.retention())),
            Some(Attended::Shared(memory)) => match memory.codes() {
                SharedCodes::Current => None,
                SharedCodes::CurrentAndLast { .. } => Some(Seen::Last),
            },
        }
    }

    /// Whether all blocks attend to the same columns, made from states.
    pub fn has_columns_of_states(&self) -> bool {
        self.of_states().is_some()
    }

    fn of_states(&self) -> Option<&'a SharedCode<B>> {
        match self.memory {
            Some(Attended::Shared(memory)) if memory.codes() == SharedCodes::Current => {
                Some(memory)
            }
            _ => None,
        }
    }

    /// The block whose columns a block attends to: the first, if they are those of all.
    pub fn owner(&self, block: usize) -> usize {
        match self.has_columns_of_states() {
            true => 0,
            false => block,
        }
    }

    /// The columns of states, `[n, d_model]` to `[n, width]`.
    ///
    /// # Panics
    /// If blocks have columns of their own.
    pub fn columns_of_states(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let memory = self.of_states().expect("columns of states");
        memory.codes_of(hidden)
    }

    /// The columns that blocks make of tokens, from their inputs before the norm.
    ///
    /// # Shapes
    /// `[n, d_model]` to `[n, width]`
    pub fn columns(
        &self,
        groups: &[Group<usize>],
        told: &Tensor<B, 2>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        let maps = self.normed_maps(groups);
        match self.memory {
            None | Some(Attended::Prefix(_)) => Maps::keys_values(&maps, told, angles),
            Some(Attended::Shared(memory)) => {
                memory.codes_of(by_group([told.clone()], groups, |[told], &block, _| {
                    let (routed, _) = self.pool.block(block);
                    rms_norm(&told, &routed.block.attention_norm, told.dtype())
                }))
            }
        }
    }

    /// What the tokens ask, scaled.
    ///
    /// # Shapes
    /// `[n, d_model]` to `[n, n_heads * d_head of a column]`
    pub fn queries(
        &self,
        groups: &[Group<usize>],
        told: &Tensor<B, 2>,
        angles: &Angles<B>,
    ) -> Tensor<B, 2> {
        let maps = self.normed_maps(groups);
        let Some(Attended::Shared(memory)) = self.memory else {
            return Maps::queries(&maps, told, angles);
        };
        // At the first place nothing is rotated.
        let [n_tokens, _] = told.dims();
        let first = self.pool.rotary.angles(vec![0; n_tokens]);
        let queries = Maps::queries(&maps, told, &first);
        by_group([queries], groups, |[queries], &block, _| {
            memory.asked_rows(block, queries)
        })
    }

    /// The outputs of blocks, from their inputs and what they found.
    ///
    /// # Shapes
    /// `[n, d_model]` and `[n, n_heads * d_head of a column]` to `[n, d_model]`
    fn end(
        &self,
        groups: &[Group<usize>],
        told: Tensor<B, 2>,
        found: Tensor<B, 2>,
        factors: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 2> {
        let found = match self.memory {
            None | Some(Attended::Prefix(_)) => found,
            Some(Attended::Shared(memory)) => by_group([found], groups, |[found], &block, _| {
                memory.found_rows(block, found)
            }),
        };
        let blocks = each(groups, |&block| &self.pool.block(block).0.block);
        TransformerBlock::end_each(&blocks, told, found, factors, &self.packed(groups))
    }

    /// The factors of what blocks add to tokens, from the numbers of their visits; `None` where all visits are alike.
    ///
    /// # Shapes
    /// Returns `[visits, d_model or 1]`
    pub fn factors(&self, groups: &[Group<usize>], visits: &[usize]) -> Option<Tensor<B, 2>> {
        let (mut first, mut factors) = (0, Vec::new());
        for &Group { of, n_rows } in groups {
            let own = &visits[first..first + n_rows];
            first += n_rows;
            let (routed, _) = self.pool.block(of);
            let device = routed.block.attention_norm.gamma.device();
            factors.push(routed.visits.factors(own, &device)?);
        }
        Some(cat(factors, 0))
    }

    /// The packed maps of all blocks.
    pub fn packed(&self, groups: &[Group<usize>]) -> Packed {
        packed(&self.normed_maps(groups))
    }

    /// What the blocks make of tokens behind their queries.
    ///
    /// # Shapes
    /// As [`Self::end`]
    pub fn attend(
        &self,
        groups: &[Group<usize>],
        told: Tensor<B, 2>,
        queries: Tensor<B, 2>,
        among: &Among<B>,
        factors: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 2> {
        let products = self.pool.block(groups[0].of).0.block.products();
        let found = attention_over_spans(queries, among, self.heads(), products);
        self.end(groups, told, found, factors)
    }

    /// The heads of queries and columns.
    pub fn heads(&self) -> Heads {
        let heads = self.pool.block(0).0.block.attention.shape();
        match self.memory {
            None | Some(Attended::Prefix(_)) => heads,
            Some(Attended::Shared(memory)) => Heads {
                n_kv_heads: 1,
                d_head: memory.d_code(),
                ..heads
            },
        }
    }

    /// What tokens write, from their columns.
    ///
    /// # Shapes
    /// `[n, width]` to `[n, width of what is kept]`
    pub fn written(&self, groups: &[Group<usize>], columns: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.memory {
            Some(Attended::Prefix(memory)) if memory.is_compressed() => {
                by_group([columns], groups, |[columns], &block, _| {
                    memory.blocks[block].written_rows(columns)
                })
            }
            _ => columns,
        }
    }

    /// Whether every block makes columns of its own of what was written.
    pub fn is_compressed(&self) -> bool {
        matches!(self.memory, Some(Attended::Prefix(memory)) if memory.is_compressed())
    }

    /// The columns that a block makes of what was written; the inverse shapes of [`Self::written`].
    pub fn read(&self, block: usize, written: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.memory {
            Some(Attended::Prefix(memory)) => memory.blocks[block].read_rows(written),
            _ => written,
        }
    }

    /// What a block adds to the scores of columns of earlier steps, `[1, 1]`.
    ///
    /// # Panics
    /// If it sees none.
    pub fn bias(&self, block: usize) -> Tensor<B, 2> {
        let bias = match self.memory {
            Some(Attended::Prefix(memory)) => Some(&memory.blocks[block].bias),
            Some(Attended::Shared(memory)) => memory.blocks[block].bias.as_ref(),
            None => None,
        };
        let bias = bias.expect("blocks that see earlier steps have one");
        bias.val().reshape([1, 1])
    }

    fn normed_maps(&self, groups: &[Group<usize>]) -> Vec<Group<NormedMaps<'_, B>>> {
        each(groups, |&block| {
            let (routed, maps) = self.pool.block(block);
            (&routed.block.attention_norm, maps)
        })
    }
}

/// Columns as they are laid out, token by token.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub places: Vec<RowPlace>,
    /// Of every column whose bias it has; 0 for a token's own.
    biases: Vec<usize>,
    n_queries: Vec<usize>,
    n_keys: Vec<usize>,
    visible: Vec<usize>,
}

impl Layout {
    /// Adds a token: `earlier` columns, with a bias counted from 1, and its own. Returns how many columns there are with these.
    pub fn token(
        &mut self,
        earlier: impl Iterator<Item = RowPlace>,
        bias: usize,
        own: RowPlace,
    ) -> usize {
        self.places.extend(earlier);
        self.biases.resize(self.places.len(), bias);
        self.places.push(own);
        self.biases.push(0);
        self.places.len()
    }

    /// Adds tokens that show nothing but their own columns.
    pub fn tokens(&mut self, own: impl Iterator<Item = RowPlace>) {
        self.places.extend(own);
        self.biases.resize(self.places.len(), 0);
    }

    /// Ends a sequence, of whose columns, counted from its first, each query sees so many.
    pub fn sequence(&mut self, visible: impl IntoIterator<Item = usize>) {
        let before: usize = self.n_keys.iter().sum();
        let n_visible = self.visible.len();
        self.visible.extend(visible);
        self.n_queries.push(self.visible.len() - n_visible);
        self.n_keys.push(self.places.len() - before);
    }

    /// What queries attend to, where the columns lie in `parts`.
    ///
    /// # Shapes
    /// `biases`: `[1, 1]` each
    pub fn among<B: Backend>(
        self,
        parts: Vec<Tensor<B, 2>>,
        biases: impl Iterator<Item = Tensor<B, 2>>,
    ) -> Among<B> {
        let bias = self.biases.iter().any(|&bias| bias > 0).then(|| {
            let nothing = Tensor::zeros([1, 1], &parts[0].device());
            let all = [nothing].into_iter().chain(biases);
            rows(cat(all.collect(), 0), &self.biases)
        });
        Among {
            keys_values: Parts {
                parts,
                places: self.places,
            },
            bias,
            spans: Arc::new(AttentionSpans {
                n_queries: self.n_queries,
                n_keys: self.n_keys,
                visible: self.visible,
            }),
        }
    }
}

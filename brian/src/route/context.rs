//! The state of a walk, and its context: pool, router, positions, memory and caches.

use super::position::Positions;
use super::router::Router;
use super::rules::RouteConfig;
use super::walk_cache::WalkCache;
use crate::block::attention::Maps;
use crate::block::causal::{Causal, Rotary};
use crate::block::routed::RoutedBlock;
use crate::memory::pass::MemoryPass;
use crate::ops::reuse::Packed;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::OnceLock;

/// The state of a walk.
#[derive(Clone, Debug)]
pub struct WalkState<B: Backend> {
    /// Hidden states, `[batch, seq, d_model]`.
    pub hidden: Tensor<B, 3>,
    /// Positions, `[batch * seq, d_position]`.
    pub position: Tensor<B, 2>,
}

/// Maps that a walk, or all walks of a decoder, use again and again.
#[derive(Clone, Debug)]
pub(crate) struct KeptMaps<B: Backend> {
    /// Those of the router.
    pub router: Packed,
    /// Those of the blocks before and after the pool.
    pub around: Packed,
    /// Those of every block of the pool, made when it is first run.
    blocks: Vec<OnceLock<Maps<B>>>,
}

impl<B: Backend> KeptMaps<B> {
    /// Those of a router, of blocks around the pool, and of so many of the pool.
    pub fn new(router: &Router<B>, around: Packed, n_pool: usize) -> Self {
        Self {
            router: Packed::of(router),
            around,
            blocks: vec![OnceLock::new(); n_pool],
        }
    }
}

/// The context of a walk: everything it uses besides its state and its rules.
pub(crate) struct WalkContext<'a, B: Backend> {
    pub pool: Cow<'a, [RoutedBlock<B>]>,
    pub positions: &'a Positions<B>,
    pub router: Cow<'a, Router<B>>,
    pub maps: Cow<'a, KeptMaps<B>>,
    pub route: RouteConfig,
    pub causal: &'a Causal<B>,
    pub rotary: &'a Rotary<B>,
    pub memory: MemoryPass<'a, B>,
    /// The walks of earlier tokens, in decoding.
    pub past: Option<&'a RefCell<WalkCache<B>>>,
}

/// The blocks of the pool and what they need to run, for several threads.
pub(crate) struct Pool<'a, B: Backend> {
    blocks: &'a [RoutedBlock<B>],
    maps: &'a KeptMaps<B>,
    pub rotary: &'a Rotary<B>,
}

impl<'a, B: Backend> Pool<'a, B> {
    /// A block and its maps, those of its attention cut apart, all of them kept packed.
    pub fn block(&self, index: usize) -> (&'a RoutedBlock<B>, &'a Maps<B>) {
        let block = &self.blocks[index];
        let maps = self.maps.blocks[index].get_or_init(|| {
            let mut maps = block.block.attention.maps();
            maps.packed = [&maps.packed, &Packed::of(block)].into_iter().collect();
            maps
        });
        (block, maps)
    }
}

impl<B: Backend> WalkContext<'_, B> {
    /// The blocks of the pool.
    pub fn blocks(&self) -> Pool<'_, B> {
        Pool {
            blocks: &self.pool,
            maps: &self.maps,
            rotary: self.rotary,
        }
    }
}

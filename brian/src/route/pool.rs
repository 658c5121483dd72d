//! `KeptMaps`, weight matrices that a walk or a decoder uses again and again; `Pool`, the blocks with theirs.

use super::router::Router;
use crate::block::attention::Maps;
use crate::block::causal::Rotary;
use crate::block::routed::RoutedBlock;
use crate::ops::reuse::Packed;
use burn::tensor::backend::Backend;
use std::sync::OnceLock;

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

/// The blocks of the pool and what they need to run, for several threads.
pub(crate) struct Pool<'a, B: Backend> {
    blocks: &'a [RoutedBlock<B>],
    maps: &'a KeptMaps<B>,
    pub rotary: &'a Rotary<B>,
}

impl<'a, B: Backend> Pool<'a, B> {
    pub fn new(blocks: &'a [RoutedBlock<B>], maps: &'a KeptMaps<B>, rotary: &'a Rotary<B>) -> Self {
        Self {
            blocks,
            maps,
            rotary,
        }
    }

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

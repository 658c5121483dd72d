//! The state of a walk, and its context: pool, router, positions, memory and caches.

use super::attending::Attending;
use super::pool::{KeptMaps, Pool};
use super::position::Positions;
use super::router::Router;
use super::rules::RouteConfig;
use super::walk_cache::WalkCache;
use crate::block::causal::{Causal, Rotary};
use crate::block::routed::RoutedBlock;
use crate::memory::Memory;
use crate::memory::pass::MemoryPass;
use crate::ops::recompute::Recompute;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::borrow::Cow;
use std::cell::RefCell;

/// The state of a walk.
#[derive(Clone, Debug)]
pub struct WalkState<B: Backend> {
    /// Hidden states, `[batch, seq, d_model]`.
    pub hidden: Tensor<B, 3>,
    /// Positions, `[batch * seq, d_position]`.
    pub position: Tensor<B, 2>,
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
    /// The parameters of the memory, if there is one.
    pub memory_parameters: Option<&'a Memory<B>>,
    /// The walks of earlier tokens, in decoding.
    pub past: Option<&'a RefCell<WalkCache<B>>>,
    /// What is computed again in the backward pass.
    pub recompute: Option<Recompute>,
}

impl<B: Backend> WalkContext<'_, B> {
    /// The blocks of the pool, and the memory to which they attend.
    pub fn attending(&self) -> Attending<'_, B> {
        let pool = Pool::new(&self.pool, &self.maps, self.rotary);
        Attending::new(pool, self.route.attends, self.memory_parameters)
    }
}

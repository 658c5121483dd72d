//! Where a walk stands, and what it goes through.

use super::position::{Positions, Reach};
use super::router::Router;
use super::rules::RouteConfig;
use super::walk_cache::WalkCache;
use crate::block::causal::Causal;
use crate::block::routed::RoutedBlock;
use crate::memory::pass::MemoryPass;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::borrow::Cow;
use std::cell::RefCell;

/// Where a walk stands.
#[derive(Clone, Debug)]
pub struct WalkState<B: Backend> {
    /// `[batch, seq, d_model]`.
    pub hidden: Tensor<B, 3>,
    /// `[batch * seq, d_position]`.
    pub position: Tensor<B, 2>,
}

/// What a walk goes through.
pub(crate) struct WalkContext<'a, B: Backend> {
    pub pool: Cow<'a, [RoutedBlock<B>]>,
    pub positions: &'a Positions<B>,
    pub router: Cow<'a, Router<B>>,
    pub route: RouteConfig,
    pub into: Reach,
    pub causal: &'a Causal<B>,
    pub memory: MemoryPass<'a, B>,
    /// The tokens before those that walk, where there are any.
    pub past: Option<&'a RefCell<WalkCache<B>>>,
}

//! Names parameter groups (the first part of a path), and freezes those of a module that are listed; all others learn.
//!
//! A frozen parameter needs no gradient, so autodiff does not track what depends on frozen parameters and data alone:
//! that part of the backward pass is not computed at all.

use brian::parameter::{Change, change};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::collections::BTreeSet;

/// The groups of a plain decoder: the first names of its parameters' paths. The last one exists only with a head of its own.
pub const PLAIN_GROUPS: [&str; 4] = ["embedding", "blocks", "norm", "unembedding"];

/// The groups of a routed decoder; the last two exist only with a memory and with a head of its own.
pub const ROUTED_GROUPS: [&str; 10] = [
    "embedding",
    "pre",
    "pool",
    "post",
    "norm",
    "position",
    "exit",
    "router",
    "memory",
    "unembedding",
];

/// The group of the parameter at a path.
pub fn group_of(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// Freezes exactly the groups in `frozen`; all others learn.
pub fn freeze<B: Backend, M: Module<B>>(model: M, frozen: &BTreeSet<String>) -> M {
    change(model, Freeze(frozen))
}

struct Freeze<'a>(&'a BTreeSet<String>);

impl<B: Backend> Change<B> for Freeze<'_> {
    fn change<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>> {
        param.set_require_grad(!self.0.contains(group_of(path)))
    }
}

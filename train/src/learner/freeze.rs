//! Parameter groups, and which of them learn.
//!
//! A frozen parameter needs no gradient, so autodiff does not track what depends on frozen parameters and data alone:
//! the work of its backward pass is not done, not only thrown away.

use brian::parameter::Path;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::collections::BTreeSet;

/// The groups of a plain decoder: the first names of its parameters' paths.
pub const PLAIN_GROUPS: [&str; 3] = ["embedding", "blocks", "norm"];

/// The groups of a routed decoder; the last only of one with a memory.
pub const ROUTED_GROUPS: [&str; 9] = [
    "embedding",
    "pre",
    "pool",
    "post",
    "norm",
    "position",
    "exit",
    "router",
    "memory",
];

/// The group of the parameter at a path.
pub fn group_of(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// Lets exactly the groups learn that are not in `frozen`.
pub fn freeze<B: Backend, M: Module<B>>(model: M, frozen: &BTreeSet<String>) -> M {
    model.map(&mut Freeze {
        path: Path::default(),
        frozen,
    })
}

struct Freeze<'a> {
    path: Path,
    frozen: &'a BTreeSet<String>,
}

impl<B: Backend> ModuleMapper<B> for Freeze<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let path = self.path.join();
        param.set_require_grad(!self.frozen.contains(group_of(&path)))
    }
}

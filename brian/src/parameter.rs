//! Float parameters by path: assigns, changes, collects and counts them, lists their shapes, and makes each one's id from its
//! path. All values enter and leave a model through these functions.
//!
//! A path is the chain of field names from the model to the parameter, `blocks.0.attention.output.weight`; the names of
//! enum variants are left out, so that a model has the same paths whatever it is wrapped in. A parameter's id is a hash
//! of its path: Burn's own ids are random, and an optimizer's state would not find its parameter after a resume.

pub use crate::ops::reshape::numbers;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeMap;

/// Replaces every float parameter by what `value` gives for its path and shape.
///
/// The parameter's id becomes [`id`] of its path; its device stays, and it takes part in training.
///
/// # Panics
/// If `value` gives data of another shape.
pub fn assign<B, M, F>(module: M, value: F) -> M
where
    B: Backend,
    M: Module<B>,
    F: FnMut(&str, &[usize]) -> Vec<f32>,
{
    change(module, Assign(value))
}

/// Gives every float parameter the id of its path again, after modules were moved from one model into another.
pub fn identify<B: Backend, M: Module<B>>(module: M) -> M {
    change(module, Identify)
}

/// A change of float parameters.
pub trait Change<B: Backend> {
    /// The new parameter in place of the one at `path`.
    fn change<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>>;
}

/// Changes every float parameter by its path.
pub fn change<B: Backend, M: Module<B>>(module: M, change: impl Change<B>) -> M {
    let path = Path::default();
    module.map(&mut ByPath { path, change })
}

/// All float parameters on the host, by path.
pub fn collect<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, TensorData> {
    by_path(module, |_, value| value())
}

/// The shapes of all float parameters, by path, without creating any of them.
pub fn shapes<B: Backend, M: Module<B>>(module: &M) -> BTreeMap<String, Vec<usize>> {
    by_path(module, |shape, _| shape)
}

/// What `of` gives for the shape and the value of every float parameter.
fn by_path<B: Backend, M: Module<B>, T>(
    module: &M,
    of: fn(Vec<usize>, &dyn Fn() -> TensorData) -> T,
) -> BTreeMap<String, T> {
    let (path, found) = Default::default();
    let mut visitor = Visit { path, of, found };
    module.visit(&mut visitor);
    visitor.found
}

/// The number of float parameters, without creating any of them.
pub fn count<B: Backend, M: Module<B>>(module: &M) -> u64 {
    let product = |shape: &Vec<usize>| shape.iter().map(|&size| size as u64).product::<u64>();
    shapes(module).values().map(product).sum()
}

/// The id of the parameter at a path.
pub fn id(path: &str) -> ParamId {
    ParamId::from(crate::random::key(0, path, 0))
}

/// The path of the current parameter, as a stack of names.
///
/// Every visitor and mapper over paths keeps one and forwards `enter_module` and `exit_module` to it.
#[derive(Clone, Debug, Default)]
pub struct Path(Vec<String>);

impl Path {
    /// Goes down to a member of a container.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !is_variant(container) {
            self.0.push(name.to_string());
        }
    }

    /// Comes back up.
    pub fn exit(&mut self, container: &str) {
        if !is_variant(container) {
            self.0.pop();
        }
    }

    /// The dotted path.
    pub fn join(&self) -> String {
        self.0.join(".")
    }
}

fn is_variant(container: &str) -> bool {
    container.starts_with("Enum:")
}

struct ByPath<C> {
    path: Path,
    change: C,
}

impl<B: Backend, C: Change<B>> ModuleMapper<B> for ByPath<C> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        self.change.change(&self.path.join(), param)
    }
}

struct Assign<F>(F);

impl<B: Backend, F: FnMut(&str, &[usize]) -> Vec<f32>> Change<B> for Assign<F> {
    fn change<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>> {
        let values = (self.0)(path, param.lazy_shape().as_slice());
        with_values(path, &param, values)
    }
}

/// The parameter at a path with new values.
pub(crate) fn with_values<B: Backend, const D: usize>(
    path: &str,
    param: &Param<Tensor<B, D>>,
    values: Vec<f32>,
) -> Param<Tensor<B, D>> {
    let shape = param.lazy_shape();
    assert_eq!(
        values.len(),
        shape.num_elements(),
        "{path} has shape {shape:?}"
    );
    let data = TensorData::new(values, shape);
    let tensor = Tensor::from_data(data, &param.lazy_device());
    Param::initialized(id(path), tensor.require_grad())
}

struct Identify;

impl<B: Backend> Change<B> for Identify {
    fn change<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>> {
        let (_, value, mapper) = param.consume();
        Param::from_mapped_value(id(path), value, mapper)
    }
}

struct Visit<T> {
    path: Path,
    of: fn(Vec<usize>, &dyn Fn() -> TensorData) -> T,
    found: BTreeMap<String, T>,
}

impl<B: Backend, T> ModuleVisitor<B> for Visit<T> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let shape = param.lazy_shape().as_slice().to_vec();
        let found = (self.of)(shape, &|| numbers(param.val()));
        self.found.insert(self.path.join(), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_names_on_the_way_and_no_variant() {
        let mut path = Path::default();
        for (name, container) in [
            ("memory", "Struct:Brian"),
            ("Codes", "Enum:Memory"),
            ("gate", "Struct:Codes"),
        ] {
            path.enter(name, container);
        }
        assert_eq!(path.join(), "memory.gate");
        path.exit("Struct:Codes");
        path.exit("Enum:Memory");
        assert_eq!(path.join(), "memory");
        path.exit("Struct:Brian");
        assert_eq!(path.join(), "");
    }

    #[test]
    fn an_id_is_that_of_the_path_alone() {
        assert_eq!(id("a.weight"), id("a.weight"));
        assert_ne!(id("a.weight"), id("a.bias"));
        assert_eq!(id("a.weight").val(), crate::random::key(0, "a.weight", 0));
    }
}

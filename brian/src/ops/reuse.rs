//! Tensors that several operations of a pass share: their gradient is summed in one place, and weight matrices stay packed.

use super::{composed, host};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::sync::Arc;

/// Weight matrices that stay packed for as long as this value lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed(
    #[expect(dead_code, reason = "is held")] Vec<Arc<host::packed::PackedMap>>,
);

impl Packed {
    /// Packs the weight matrices of a module.
    pub fn of<B: Backend, M: Module<B>>(module: &M) -> Self {
        struct Maps(Vec<Arc<host::packed::PackedMap>>);

        impl<B: Backend> ModuleVisitor<B> for Maps {
            fn visit_float<const D: usize>(&mut self, map: &Param<Tensor<B, D>>) {
                self.0.extend(host::custom_op::packed(&map.val()));
            }
        }

        let mut maps = Maps(Vec::new());
        module.visit(&mut maps);
        Self(maps.0)
    }

    /// Packs the given matrices.
    ///
    /// # Shapes
    /// `[d_in, d_out]` each
    pub fn maps<B: Backend, const N: usize>(maps: [&Tensor<B, 2>; N]) -> Self {
        Self(
            maps.into_iter()
                .filter_map(host::custom_op::packed)
                .collect(),
        )
    }
}

/// A tensor for several operations: the parts of its gradient are summed in one place.
pub(crate) fn shared<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    match composed::only() {
        true => tensor,
        false => host::custom_op::shared(tensor),
    }
}

/// A module with the same values, whose weight matrices are [`shared`] by several operations.
pub(crate) fn shared_module<B: Backend, M: Module<B>>(module: M) -> M {
    struct Share;

    impl<B: Backend> ModuleMapper<B> for Share {
        fn map_float<const D: usize>(&mut self, map: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let (id, value, mapper) = map.consume();
            let value = match D {
                2 => shared(value),
                _ => value,
            };
            Param::from_mapped_value(id, value, mapper)
        }
    }

    module.map(&mut Share)
}

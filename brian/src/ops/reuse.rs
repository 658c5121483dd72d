//! Tensors that several operations of a pass share: `shared` and `shared_module` sum a tensor's gradient in one place, and
//! `Packed::of` and `Packed::maps` collect weight matrices on the host that are packed once.

use super::{composed, host};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub(crate) use host::packed::Packed;

impl Packed {
    /// Keeps the weight matrices of a module packed, those in host memory in single precision.
    pub fn of<B: Backend, M: Module<B>>(module: &M) -> Self {
        struct Maps<B: Backend>(Vec<Tensor<B, 2>>);

        impl<B: Backend> ModuleVisitor<B> for Maps<B> {
            fn visit_float<const D: usize>(&mut self, map: &Param<Tensor<B, D>>) {
                if D == 2 {
                    let map = map.val().into_primitive();
                    self.0.push(Tensor::from_primitive(map));
                }
            }
        }

        let mut maps = Maps(Vec::new());
        module.visit(&mut maps);
        Self::maps(&maps.0)
    }

    /// The same for the given matrices.
    ///
    /// # Shapes
    /// `[d_in, d_out]` each
    pub fn maps<'a, B: Backend>(maps: impl IntoIterator<Item = &'a Tensor<B, 2>>) -> Self {
        let maps = maps.into_iter().map(host::custom_op::input);
        maps.filter_map(host::custom_op::rows_of::<B>).collect()
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

//! Products in half precision: blocks whose maps are bf16, of a model whose parameters are f32.
//!
//! The maps of blocks are cast anew for every pass, so that gradients reach, and AdamW steps, the numbers they were cast from.
//! What is multiplied with such a map, queries with keys, weights with values and the head go along; sums of the stream,
//! norms, softmax, losses, router and memory stay f32, as under autocast in PyTorch (Micikevicius et al. 2018).

use crate::parameter::Path;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// The model with products in a type. Its parameters have the ids and the gradients of those given.
pub fn multiplying_in<B: Backend, M: Module<B>>(model: M, dtype: DType) -> M {
    let path = Path::default();
    model.map(&mut CastMaps { path, dtype })
}

struct CastMaps {
    path: Path,
    dtype: DType,
}

impl<B: Backend> ModuleMapper<B> for CastMaps {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let path = self.path.join();
        let of_block = ["attention", "feed_forward"];
        match of_block
            .iter()
            .any(|half| path.split('.').any(|name| name == *half))
        {
            true => {
                let (id, value, mapper) = param.consume();
                Param::from_mapped_value(id, value.cast(self.dtype), mapper)
            }
            false => param,
        }
    }
}

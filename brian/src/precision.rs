//! Products in half precision: blocks whose maps are bf16, of a model whose parameters are f32.
//!
//! The maps of blocks are cast anew for every pass, so that gradients reach, and AdamW steps, the numbers they were cast from.
//! What is multiplied with such a map, queries with keys, weights with values and the head go along; sums of the stream,
//! norms, softmax, losses, router and memory stay f32, as under autocast in PyTorch (Micikevicius et al. 2018).

use crate::parameter::{Change, change};
use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// The model with products in a type. Its parameters have the ids and the gradients of those given.
pub fn multiplying_in<B: Backend, M: Module<B>>(model: M, dtype: DType) -> M {
    change(model, CastMaps(dtype))
}

struct CastMaps(DType);

impl<B: Backend> Change<B> for CastMaps {
    fn change<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>> {
        let of_block = |name: &str| ["attention", "feed_forward"].contains(&name);
        if !path.split('.').any(of_block) {
            return param;
        }
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, value.cast(self.0), mapper)
    }
}

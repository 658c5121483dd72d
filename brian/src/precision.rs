//! Mixed precision: `with_matmul_dtype` casts the weight matrices of a model's blocks to bf16, or another type, and leaves all
//! other parameters as they are; ids and gradients are those of the originals.
//!
//! The weight matrices of blocks are cast anew for every pass, so gradients and AdamW act on the f32 originals. Products with
//! these matrices, of queries with keys, of attention weights with values, and the head run in bf16; the residual stream,
//! norms, softmax, losses, router and memory stay f32, as under autocast in PyTorch (Micikevicius et al. 2018).

use crate::described::{Described, Description};
use crate::parameter::{Change, change};
use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// The model with those maps cast to `dtype` of which its modules say that they multiply in it. Ids and gradients are those of
/// the given parameters.
pub fn with_matmul_dtype<B: Backend, M: Described<B>>(model: M, dtype: DType) -> M {
    let description = Description::of(&model);
    change(model, CastMaps { description, dtype })
}

struct CastMaps {
    description: Description,
    dtype: DType,
}

impl<B: Backend> Change<B> for CastMaps {
    fn change<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<B, D>>,
    ) -> Param<Tensor<B, D>> {
        if !self.description.is_multiplied(param.id) {
            return param;
        }
        let (id, value, mapper) = param.consume();
        Param::from_mapped_value(id, value.cast(self.dtype), mapper)
    }
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use crate::baseline::BaselineConfig;
    use crate::ops::tests::Learning;
    use crate::{Exit, Initial, Rules, compat, parameter};
    use burn::module::{Module, ModuleVisitor};
    use burn::tensor::Int;
    use std::collections::BTreeMap;

    /// The id, the type and the gradient of every parameter, by path.
    struct Seen<'a> {
        path: parameter::Path,
        gradients: Option<&'a <Learning as burn::tensor::backend::AutodiffBackend>::Gradients>,
        all: BTreeMap<String, (u64, DType, Vec<f32>)>,
    }

    impl ModuleVisitor<Learning> for Seen<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, container: &str) {
            self.path.exit(container);
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Learning, D>>) {
            let gradient = self
                .gradients
                .and_then(|gradients| param.val().grad(gradients));
            let gradient =
                gradient.map_or(vec![], |gradient| gradient.into_data().iter().collect());
            let seen = (param.id.val(), param.val().dtype(), gradient);
            self.all.insert(self.path.join(), seen);
        }
    }

    type Gradients = <Learning as burn::tensor::backend::AutodiffBackend>::Gradients;

    fn seen<M: Module<Learning>>(
        model: &M,
        gradients: Option<&Gradients>,
    ) -> BTreeMap<String, (u64, DType, Vec<f32>)> {
        let (path, all) = Default::default();
        let mut seen = Seen {
            path,
            gradients,
            all,
        };
        model.visit(&mut seen);
        seen.all
    }

    /// In float64, a type that this backend has besides its own: which maps are cast is the same for all types.
    #[test]
    fn only_the_maps_of_blocks_are_cast_and_gradients_reach_what_they_were_cast_from() {
        let baseline = BaselineConfig {
            initial: Initial::Scaled { std: 0.3 },
            d_ff: 6,
            ..compat::baseline(8, 2, 3, 6)
        };
        let mut config = compat::brian(baseline, 1, 1, 4, 2);
        config.exit = Exit::Projection;
        let model = config.init::<Learning>(7, 1, &Default::default());
        let cast = with_matmul_dtype(model.clone(), DType::F64);
        let rules = Rules {
            with_gradients: true,
            ..Rules::sequential()
        };
        let tokens =
            || Tensor::<Learning, 2, Int>::from_data([[3i64, 1, 6, 0]], &Default::default());
        let task = |model: &crate::Brian<Learning>| {
            let (logits, _) = model.forward(tokens(), &rules, &[Default::default()]);
            let nats = crate::loss::language::token_losses(logits, tokens());
            (
                nats.clone().into_data().iter::<f32>().collect::<Vec<_>>(),
                nats.sum().backward(),
            )
        };
        let (nats, gradients) = task(&model);
        let (nats_of_cast, gradients_of_cast) = task(&cast);
        let (before, after) = (seen(&model, Some(&gradients)), seen(&cast, None));
        let reached = seen(&model, Some(&gradients_of_cast));
        for (path, (id, dtype, gradient)) in &before {
            let map = [".attention.", ".feed_forward."]
                .iter()
                .any(|of_block| path.contains(of_block));
            let expected = if map { DType::F64 } else { DType::F32 };
            assert_eq!(
                (after[path].0, after[path].1, *dtype),
                (*id, expected, DType::F32),
                "{path}"
            );
            // Rounded otherwise here and there; what is not reached has no gradient in either.
            assert_eq!(reached[path].2.len(), gradient.len(), "{path}");
            for (found, expected) in reached[path].2.iter().zip(gradient) {
                assert!(
                    (found - expected).abs() < 1e-4 * expected.abs().max(1.0),
                    "{path}: {found} {expected}"
                );
            }
        }
        let maps = after
            .values()
            .filter(|(_, dtype, _)| *dtype == DType::F64)
            .count();
        // Of three blocks each: queries, keys and values in one, output, gate and up, down.
        assert_eq!(
            maps,
            3 * before
                .keys()
                .filter(|path| path.starts_with("post.0.") && path.ends_with("weight"))
                .count()
        );
        for (found, expected) in nats_of_cast.iter().zip(&nats) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    /// `10⁸ + 1 − 10⁸` is 0 in single precision and 1 in double.
    #[test]
    fn the_head_multiplies_in_the_type_of_the_blocks() {
        let baseline = compat::baseline(8, 2, 3, 6);
        let mut model =
            compat::brian(baseline, 1, 1, 4, 2).init::<Learning>(7, 1, &Default::default());
        let mut table = vec![0.0f32; 7 * 8];
        (table[0], table[1], table[2]) = (1e8, 1.0, -1e8);
        let table = burn::tensor::TensorData::new(table, [7, 8]);
        model.embedding.weight = Param::from_data(table, &Default::default());
        let ones = Tensor::<Learning, 3>::ones([1, 1, 8], &Default::default());
        let cast = with_matmul_dtype(model, DType::F64);
        let logits: Vec<f32> = cast.head(ones).into_data().iter().collect();
        assert!((logits[0] - 1.0).abs() < 1e-6, "{logits:?}");
    }
}

//! Linear maps without a bias, `x W`, `x Wᵀ` and `y + x W`, the last also with a `W` per group of rows; and in which type a
//! product is computed.

use super::gather::some;
use super::groups::{Group, by_group};
use super::residual_add::residual_add;
use super::reuse::Packed;
use super::{fused, host};
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};

/// `a b` in the type of `b`, given back in that of `a`; see [`crate::precision`].
pub(crate) fn multiply<B: Backend, const D: usize>(
    a: Tensor<B, D>,
    b: Tensor<B, D>,
) -> Tensor<B, D> {
    let dtype = a.dtype();
    a.cast(b.dtype()).matmul(b).cast(dtype)
}

/// The type in which what is no product is computed, beside products in a type.
pub(crate) fn exact(products: DType) -> DType {
    match products {
        DType::BF16 => DType::F32,
        other => other,
    }
}

/// `x W`, multiplied in the type of `W`.
///
/// # Shapes
/// `[n, d_in]` to `[n, d_out]`
pub(crate) fn linear<B: Backend>(x: Tensor<B, 2>, map: &Linear<B>) -> Tensor<B, 2> {
    let map = map.weight.val();
    fused(&[&|| host::linear::linear(&x, &map)]).unwrap_or_else(|| multiply(x, map))
}

/// `x Wᵀ`, multiplied in the type of `x`.
///
/// # Shapes
/// `[n, d_in]` and `[d_out, d_in]` to `[n, d_out]`
pub(crate) fn linear_transposed<B: Backend>(x: Tensor<B, 2>, map: Tensor<B, 2>) -> Tensor<B, 2> {
    fused(&[&|| host::linear::linear_transposed(&x, &map)]).unwrap_or_else(|| {
        let map = map.cast(x.dtype());
        multiply(x, map.transpose())
    })
}

/// `y + x W`.
///
/// # Shapes
/// `[n, d_out]` and `[n, d_in]` to `[n, d_out]`
pub(crate) fn add_linear<B: Backend>(
    y: Tensor<B, 2>,
    x: Tensor<B, 2>,
    map: &Linear<B>,
) -> Tensor<B, 2> {
    let groups = Group::only(map, &y);
    add_linear_each(y, None, x, &groups, &Packed::default())
}

/// `y + x W`, where each group of rows has its own `W`; `which` says which rows of `y` are meant, if not all. Those `W` that
/// are `packed` need not be packed again.
///
/// # Shapes
/// `[n, d_out]`, or `[…, d_out]` with `which`, and `[n, d_in]` to `[n, d_out]`
pub(crate) fn add_linear_each<B: Backend>(
    y: Tensor<B, 2>,
    which: Option<&[usize]>,
    x: Tensor<B, 2>,
    groups: &[Group<&Linear<B>>],
    packed: &Packed,
) -> Tensor<B, 2> {
    fused(&[&|| host::linear::add_linear(&y, which, &x, groups, packed)]).unwrap_or_else(|| {
        let y = match which {
            Some(which) => some(y, which),
            None => y,
        };
        by_group([y, x], groups, |[y, x], map, _| {
            let map = map.weight.val();
            residual_add(y, x.cast(map.dtype()).matmul(map))
        })
    })
}

/// How many groups go through one operation: several on the host, else one. `map` is a weight matrix of one of them.
pub(crate) fn groups_at_once<B: Backend>(map: &Linear<B>) -> usize {
    match host::custom_op::applies(&map.weight.val()) {
        true => host::groups::MOST,
        false => 1,
    }
}

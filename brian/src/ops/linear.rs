//! Linear maps without a bias: `x W`, `x Wᵀ`, and `y + x W`.

use super::gather::some;
use super::groups::{Group, by_group};
use super::residual_add::residual_add;
use super::{Operation, host, run};
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

/// `x W`.
///
/// # Shapes
/// `[n, d_in]` to `[n, d_out]`
pub(crate) fn linear<B: Backend>(x: Tensor<B, 2>, map: &Linear<B>) -> Tensor<B, 2> {
    let map = map.weight.val();
    run(Times { x, map })
}

struct Times<B: Backend> {
    x: Tensor<B, 2>,
    map: Tensor<B, 2>,
}

impl<B: Backend> Operation for Times<B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        multiply(self.x, self.map)
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::linear::linear(&self.x, &self.map)
    }
}

/// `x Wᵀ`, multiplied in the type of `x`.
///
/// # Shapes
/// `[n, d_in]` and `[d_out, d_in]` to `[n, d_out]`
pub(crate) fn linear_transposed<B: Backend>(x: Tensor<B, 2>, map: Tensor<B, 2>) -> Tensor<B, 2> {
    run(TimesTransposed { x, map })
}

struct TimesTransposed<B: Backend> {
    x: Tensor<B, 2>,
    map: Tensor<B, 2>,
}

impl<B: Backend> Operation for TimesTransposed<B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        let map = self.map.cast(self.x.dtype());
        multiply(self.x, map.transpose())
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::linear::linear_transposed(&self.x, &self.map)
    }
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
    add_linear_each(y, None, x, &groups)
}

/// The same, the rows of each group with a map of its own; `which` says which rows of `y` are meant, if not all.
///
/// # Shapes
/// `[n, d_out]`, or `[…, d_out]` with `which`, and `[n, d_in]` to `[n, d_out]`
pub(crate) fn add_linear_each<B: Backend>(
    y: Tensor<B, 2>,
    which: Option<&[usize]>,
    x: Tensor<B, 2>,
    groups: &[Group<&Linear<B>>],
) -> Tensor<B, 2> {
    run(AddTimes {
        y,
        which,
        x,
        groups,
    })
}

struct AddTimes<'a, B: Backend> {
    y: Tensor<B, 2>,
    which: Option<&'a [usize]>,
    x: Tensor<B, 2>,
    groups: &'a [Group<&'a Linear<B>>],
}

impl<B: Backend> Operation for AddTimes<'_, B> {
    type Output = Tensor<B, 2>;

    fn define(self) -> Tensor<B, 2> {
        let y = match self.which {
            Some(which) => some(self.y, which),
            None => self.y,
        };
        by_group([y, self.x], self.groups, |[y, x], map, _| {
            let map = map.weight.val();
            residual_add(y, x.cast(map.dtype()).matmul(map))
        })
    }

    fn on_host(&self) -> Option<Tensor<B, 2>> {
        host::linear::add_linear(&self.y, self.which, &self.x, self.groups)
    }
}

/// How many groups go through an operation together, by one of their maps: several only in the memory of the host.
pub(crate) fn groups_at_once<B: Backend>(map: &Linear<B>) -> usize {
    match host::custom_op::applies(&map.weight.val()) {
        true => host::groups::MOST,
        false => 1,
    }
}
